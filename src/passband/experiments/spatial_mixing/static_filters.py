"""Which filters can stay as they are: random, the same for all channels, a box, or none at all.

Everything learned stands beside channels-only networks whose depthwise filters are fixed: ``different`` random
kernels, the ``same`` nine for every channel, a ``box``, the ``identity``.

The choices where the paper is silent are those of all its separable ResNets (``settings.separable``); box kernels are
the constant 1/9, identity a center delta. At small scale depth 1 (ResNet-8) for three epochs on Fashion-MNIST,
one seed.

**Source**: spatial-mixing, figure 3 of the workshop paper, figure 5 of the arXiv one. The figure has no numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim
from passband.core.results import Column
from passband.core.scale import Scale
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import separable
from passband.sweeps.lab import Lab

BANKS = {"learned": None, "different": None, "same": "same", "box": "box", "identity": "identity"}
"""What a recipe calls each bank; a network draws every kernel by itself, which is ``different``."""

DATA = {Scale.SMOKE: "photos", Scale.SMALL: "fashion-mnist", Scale.FULL: "cifar10"}
SEEDS = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
DEPTH = {Scale.SMOKE: 1, Scale.SMALL: 1, Scale.FULL: 3}


def cases(scale: Scale) -> list[Case]:
    """List the five filter banks, seed by seed, so that one whole seed is there first."""
    return [{"case": bank, "data": DATA[scale], "seed": seed} for seed in SEEDS[scale] for bank in BANKS]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one bank and measure its accuracy on the untouched test images."""
    learn = "everything" if case["case"] == "learned" else "channels"
    run = lab.train(
        separable(
            lab.scale, learn, data=case["data"], seed=case["seed"], depth=DEPTH[lab.scale], filters=BANKS[case["case"]]
        )
    )
    # The cuts are those of ``resnet-depth``, whose answers about the same runs are then taken.
    found = lab.probe(run, "bands", {"radii": (8,), "degrees": (32,), "examples": 0})
    correct = found["bands.clean"].arrays["correct"].astype(float)
    row = {"accuracy": 100 * float(correct.mean()), "run": run.digest, "seconds": run.metrics["seconds"]}
    return Measured(row, verdicts={"accuracy": correct})


_PLACE = "spatial-mixing, section 4.1.3, figure 3"

CLAIMS = (
    Claim(
        "different near learned", "Random filters perform only slightly worse than the fully-learned version: here "
        "nearer to it than to the same kernels for every channel.", _PLACE,
        lambda rows: nearer(rows, "different", to="learned", than="same", column="accuracy"),
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
        "box above identity", "Catastrophic failure of the identity filter, spatial mixing is integral: here the box "
        "filter is nearer to everything learned.", _PLACE,
        lambda rows: nearer(rows, "box", to="learned", than="identity", column="accuracy"),
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
