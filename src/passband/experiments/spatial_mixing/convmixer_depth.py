"""ConvMixers that learn everything, only their channel mixers, or only their spatial mixers, over depth.

The choices where the paper is silent are those of all its ConvMixers (``settings.mixer``): the authors' recipe. In
channels-only networks the patch stem stays as it was drawn, as the workshop paper says, and in spatial-only ones too,
since it mixes channels. The depths of the figure are not said: 1, 2, 4 and 8 at full scale.

A control that the paper lacks: equal training seconds instead of equal epochs. Channels-only steps are shorter, so the
network gets as many more epochs as fill the seconds that everything learned takes: epochs · seconds(everything) /
seconds(channels), rounded, the seconds of a step measured in turns (``timing.step_seconds``) and kept, so that the
same command goes on with the same epochs. They are seconds of steps alone, without reading and augmenting, which
favors channels-only; epochs are whole; the ``seconds`` of the table are whole trainings, on a machine that may have
done other work. Depth 4 alone at small scale; every depth of CIFAR at full scale.

LFC and HFC are the test images cut at radius 8 of 32 pixels (a quarter of the side).

At small scale width 64, kernel 7 and patch 2, depths 2 and 4, five epochs on 20,000 images of Fashion-MNIST, one seed;
on ImageNet one seed at full scale.

**Source**: spatial-mixing, section 4.2.1 and figure 5 of the workshop paper, figure 4 of the arXiv one. The figure has
no numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import LEARN, mixer
from passband.experiments.timing import step_seconds
from passband.sweeps.lab import Lab

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist",),
    Scale.FULL: ("cifar10", "cifar100", "imagenet"),
}
DEPTHS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (1,), Scale.SMALL: (2, 4), Scale.FULL: (1, 2, 4, 8)}
TIMED: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (1,), Scale.SMALL: (4,), Scale.FULL: (1, 2, 4, 8)}
"""Depths of the control."""

EQUAL_SECONDS = "channels, equal seconds"


def cases(scale: Scale) -> list[Case]:
    """List what learns by depth and data, seed by seed, so that one whole seed is there first."""
    return [
        {"case": _name(line, depth), "line": line, "depth": depth, "data": data, "seed": seed}
        for seed in ((0, 1, 2) if scale is Scale.FULL else (0,))
        for data in SETS[scale]
        for depth in DEPTHS[scale]
        for line in (*LEARN, EQUAL_SECONDS)
        if line != EQUAL_SECONDS or (depth in TIMED[scale] and data != "imagenet")
        if seed == 0 or data != "imagenet"
    ]


def _name(line: str, depth: int) -> str:
    return f"{line}, depth {depth}"


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure it on all untouched test images, whole and cut at a quarter of their side."""
    recipe = training(case, lab)
    run = lab.train(recipe)
    side = recipe.data.size
    found = lab.probe(run, "bands", {"radii": (side // 4,), "degrees": (side,), "examples": 0})
    cuts = found["bands.accuracy"].arrays
    verdicts = {
        "accuracy": found["bands.clean"].arrays["correct"].astype(float),
        "LFC": cuts["LFC.correct"][0].astype(float),
        "HFC": cuts["HFC.correct"][0].astype(float),
    }
    row = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    about = {"learned": run.metrics["learned_parameters"], "seconds": run.metrics["seconds"], "run": run.digest}
    settings = {"line": case["line"], "depth": case["depth"], "epochs": recipe.epochs}
    return Measured(row | settings | about, verdicts=verdicts)


def training(case: Case, lab: Lab) -> Recipe:
    """Return a case's recipe; the control's epochs fill the seconds that everything learned takes."""
    asked = {"data": case["data"], "seed": case["seed"], "depth": case["depth"]}
    if case["line"] != EQUAL_SECONDS:
        return mixer(lab.scale, case["line"], **asked)
    recipes = {learn: mixer(lab.scale, learn, **asked) for learn in ("everything", "channels")}
    # Done before, as a case of its own; where the data is missing, this says so before anything is timed.
    lab.train(recipes["channels"])
    seconds = step_seconds(recipes, lab)
    ratio = seconds["everything"] / seconds["channels"]
    return mixer(lab.scale, "channels", **asked, epochs=round(recipes["everything"].epochs * ratio))


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracy over depth by what learns."""
    depth, accuracy = Column(name="depth", unit="blocks"), Column(name="accuracy", unit="%")
    return over(rows, depth, accuracy, by="line", name="accuracy", title="Accuracy over depth")


def _claims(depth: int) -> list[Claim]:
    place = f"spatial-mixing, section 4.2.1, figure 5, depth {depth}"
    channels, everything, spatial = (_name(learn, depth) for learn in ("channels", "everything", "spatial"))
    longer = _name(EQUAL_SECONDS, depth)
    return [
        Claim(
            f"channels near everything, depth {depth}",
            "Networks that only learn channel mixing remain competitive with their fully-learned counterparts.",
            place, lambda rows: nearer(rows, channels, to=everything, than=spatial, column="accuracy"),
        ),
        Claim(
            f"spatial far below, depth {depth}",
            "They completely out-class those that only learn spatial mixing: here are above them at all, the claim "
            "before says how far.",
            place, lambda rows: difference(rows, channels, spatial, "accuracy"), smallest=1.0,
        ),
        Claim(
            f"more epochs help channels, depth {depth}",
            "Control, not in the paper: channels-only gains from the epochs that equal seconds give it.",
            place, lambda rows: difference(rows, longer, channels, "accuracy"), smallest=1.0,
        ),
        Claim(
            f"channels above everything at equal seconds, depth {depth}",
            "Control, not in the paper: in the seconds of everything learned, channels-only gets further.",
            place, lambda rows: difference(rows, longer, everything, "accuracy"), smallest=1.0,
        ),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    title="What learns in a ConvMixer, over depth",
    source="spatial-mixing, figure 5",
    columns=(
        Column(name="depth", unit="blocks"),
        Column(name="accuracy", unit="%"), Column(name="LFC", unit="%"), Column(name="HFC", unit="%"),
        Column(name="learned", unit="parameters"), Column(name="epochs"), Column(name="seconds", unit="s"),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    timed=True,
    figures=figures,
    claims=[claim for depth in DEPTHS[Scale.FULL] for claim in _claims(depth)],
)  # fmt: skip
