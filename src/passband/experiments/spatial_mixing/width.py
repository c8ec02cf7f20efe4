"""Whether channels-only networks catch up with everything learned as they widen.

The choices where the paper is silent are those of all its separable ResNets (``settings.separable``). At full scale
widths 16 · {1, 2, 4, 8, 16} at depth 3; at small scale 4, 8 and 16 at depth 1 (ResNet-8), for three epochs on
Fashion-MNIST, one seed: nothing there is extra-wide, so what is judged is whether the gap closes on the way up.

**Source**: spatial-mixing, figure 4 and section 4.1.4 of the workshop paper. The figure has no numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim, Rows
from passband.core.results import Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import separable
from passband.sweeps.lab import Lab

MODES = ("everything", "channels")
DATA = {Scale.SMOKE: "photos", Scale.SMALL: "fashion-mnist", Scale.FULL: "cifar10"}
WIDTHS = {Scale.SMOKE: (4, 8), Scale.SMALL: (4, 8, 16), Scale.FULL: (16, 32, 64, 128, 256)}
SEEDS = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
DEPTH = {Scale.SMOKE: 1, Scale.SMALL: 1, Scale.FULL: 3}


def cases(scale: Scale) -> list[Case]:
    """List both modes at each width, seed by seed, so that one whole seed is there first."""
    return [
        {"case": f"{learn}, width {width}", "learn": learn, "width": width, "data": DATA[scale], "seed": seed}
        for seed in SEEDS[scale]
        for width in WIDTHS[scale]
        for learn in MODES
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure its accuracy on the untouched test images."""
    recipe = separable(
        lab.scale, case["learn"], data=case["data"], seed=case["seed"], depth=DEPTH[lab.scale], width=case["width"]
    )
    run = lab.train(recipe)
    # The cuts are those of ``resnet-depth``, whose answers about the same runs are then taken.
    found = lab.probe(run, "bands", {"radii": (8,), "degrees": (32,), "examples": 0})
    correct = found["bands.clean"].arrays["correct"].astype(float)
    about = {"learned": run.metrics["learned_parameters"], "seconds": run.metrics["seconds"], "run": run.digest}
    row = {"learns": case["learn"], "width": case["width"], "accuracy": 100 * float(correct.mean())}
    return Measured(row | about, verdicts={"accuracy": correct})


def gap(rows: Rows, width: int) -> float | None:
    """Return by how much everything learned lies above channels-only at a width, in points."""
    found = {row["learns"]: row["accuracy"] for row in rows if row.get("width") == width}
    everything, channels = (found.get(learn) for learn in MODES)
    if not isinstance(everything, float) or not isinstance(channels, float):
        return None
    return everything - channels


def closing(rows: Rows) -> float | None:
    """Return by how much the gap at the widest lies below the gap at the narrowest, in points."""
    widths = sorted(width for row in rows if isinstance(width := row.get("width"), int))
    if len(set(widths)) < 2:
        return None
    narrow, wide = gap(rows, widths[0]), gap(rows, widths[-1])
    return None if narrow is None or wide is None else narrow - wide


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracy over width by what learns."""
    width, accuracy = Column(name="width", unit="channels"), Column(name="accuracy", unit="%")
    return over(rows, width, accuracy, by="learns", name="accuracy", title="Accuracy over width")


EXPERIMENT = Experiment(
    title="Extra-wide separable ResNets",
    source="spatial-mixing, figure 4",
    columns=(
        Column(name="learns"), Column(name="width", unit="channels"), Column(name="accuracy", unit="%"),
        Column(name="learned", unit="parameters"), Column(name="seconds", unit="s"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        Claim(
            "the gap closes",
            "The performance of the channels-only models converges to that of the fully-learned models as the width "
            "increases.",
            "spatial-mixing, section 4.1.4, figure 4", closing,
        ),
    ),
)  # fmt: skip
