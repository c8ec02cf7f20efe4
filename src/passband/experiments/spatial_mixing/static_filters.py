"""Which filters can stay as they are: random, the same for all channels, a box, or none at all.

Everything learned stands beside channels-only networks whose depthwise filters are fixed: ``different`` random
kernels, the ``same`` nine for every channel, a ``box``, the ``identity``.

The choices where the paper is silent: SGD 0.9, learning rate 0.1, weight decay 5e-4, batch 128, cosine, crop and flip,
the same for all cases; box kernels are the constant 1/9, identity a center delta.

**Source**: spatial-mixing, figure 3 of the workshop paper, figure 5 of the arXiv one. The figure has no numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim
from passband.core.recipe import Recipe
from passband.core.results import Column
from passband.core.scale import Scale
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

FILTERS = ("learned", "different", "same", "box", "identity")

SETTINGS = {
    Scale.SMOKE: {
        "data": {"name": "photos", "part": 2048},
        "epochs": 3,
        "batch": 32,
        "model": {"depth": 1, "width": 8},
    },
    Scale.SMALL: {
        "data": {"name": "fashion-mnist", "part": 20000},
        "epochs": 5,
        "model": {"depth": 1, "width": 16},
    },
    Scale.FULL: {"data": {"name": "cifar10"}, "epochs": 200, "model": {"depth": 3, "width": 16}},
}


def cases(scale: Scale) -> list[Case]:
    """List the five filter banks, for one seed at smoke scale and three above."""
    seeds = (0,) if scale is Scale.SMOKE else (0, 1, 2)
    data = SETTINGS[scale]["data"]["name"]  # type: ignore[index]
    return [{"case": filters, "data": data, "seed": seed} for seed in seeds for filters in FILTERS]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one bank and measure its accuracy on the untouched test images."""
    settings = SETTINGS[lab.scale]
    learned = case["case"] == "learned"
    recipe = Recipe.of(
        {
            "model": {"name": "separable_resnet", "multiplier": 9, **settings["model"]},  # type: ignore[dict-item]
            "filters": None if learned else case["case"],
            "learn": "all" if learned else "channels",
            "data": {**settings["data"], "name": case["data"]},  # type: ignore[dict-item]
            "epochs": settings["epochs"],
            "batch": settings.get("batch", 128),
            "seed": case["seed"],
        }
    )
    run = lab.train(recipe)
    correct = lab.probe(run, "bands", {"examples": 0})["bands.clean"].arrays["correct"].astype(float)
    row = {"accuracy": 100 * float(correct.mean()), "run": run.digest, "seconds": run.metrics["seconds"]}
    return Measured(row, verdicts={"accuracy": correct})


_PLACE = "spatial-mixing, section 4.1.3, figure 3"

CLAIMS = (
    Claim(
        "different near learned", "Random filters perform only slightly worse than the fully-learned version.", _PLACE,
        lambda rows: nearer(rows, "different", to="learned", than="identity", column="accuracy"),
    ),
    Claim(
        "different above same", "The same random kernels for every input channel: a large performance drop.", _PLACE,
        lambda rows: difference(rows, "different", "same", "accuracy"), smallest=1.0,
    ),
    Claim(
        "same above box", "The next drop-off is to the box filter.", _PLACE,
        lambda rows: difference(rows, "same", "box", "accuracy"), smallest=1.0,
    ),
    Claim(
        "box above identity", "Catastrophic failure of the identity filter: spatial mixing is integral.", _PLACE,
        lambda rows: difference(rows, "box", "identity", "accuracy"), smallest=1.0,
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Static filters: which fixed spatial mixing is enough",
    source="spatial-mixing, figure 3",
    columns=(
        Column(name="accuracy", unit="%"), Column(name="run"), Column(name="seconds", unit="s"),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
)  # fmt: skip
