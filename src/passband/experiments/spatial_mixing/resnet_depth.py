"""Separable ResNets that learn everything, only their channel mixers, or only their spatial mixers.

The choices where the paper is silent: SGD 0.9, learning rate 0.1, weight decay 5e-4, batch 128, cosine, crop and flip,
the same for all cases; parameter-free shortcuts; the stem is separable too; norms and classifier always learn.

At small scale depth 1 (ResNet-8) for three epochs, on Fashion-MNIST (lossless) and on cifar10-jpeg, which is not
CIFAR-10: every image of it went through JPEG, which alters high frequencies.

**Source**: spatial-mixing, section 4.1.2 and figure 2 of both versions. The figure has no numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim
from passband.core.recipe import Recipe
from passband.core.results import Column
from passband.core.scale import Scale
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

LEARN = {"everything": "all", "channels": "channels", "spatial": "spatial"}

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist", "cifar10-jpeg"),
    Scale.FULL: ("cifar10", "cifar100"),
}
DEPTHS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (1,), Scale.SMALL: (1,), Scale.FULL: (1, 2, 3, 5, 7, 9)}
EPOCHS = {Scale.SMOKE: 2, Scale.SMALL: 3, Scale.FULL: 200}
WIDTH = {Scale.SMOKE: 8, Scale.SMALL: 16, Scale.FULL: 16}


def cases(scale: Scale) -> list[Case]:
    """List what learns by depth and data, seed by seed, so that one whole seed is there first."""
    seeds = (0,) if scale is Scale.SMOKE else (0, 1, 2)
    return [
        {"case": _name(learn, depth), "learn": learn, "depth": depth, "data": data, "seed": seed}
        for seed in seeds
        for data in SETS[scale]
        for depth in DEPTHS[scale]
        for learn in LEARN
    ]


def _name(learn: str, depth: int) -> str:
    return f"{learn}, n = {depth}"


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure it on all untouched test images, whole and cut at radius 8."""
    recipe = Recipe.of(
        {
            "model": {"name": "separable_resnet", "depth": case["depth"], "width": WIDTH[lab.scale], "multiplier": 9},
            "learn": LEARN[case["learn"]],
            "data": {"name": case["data"], "part": 2048 if lab.scale is Scale.SMOKE else None},
            "epochs": EPOCHS[lab.scale],
            "batch": 32 if lab.scale is Scale.SMOKE else 128,
            "seed": case["seed"],
        }
    )
    run = lab.train(recipe)
    found = lab.probe(run, "bands", {"radii": (8,), "degrees": (32,), "examples": 0})
    cuts = found["bands.accuracy"].arrays
    verdicts = {
        "accuracy": found["bands.clean"].arrays["correct"].astype(float),
        "LFC 8": cuts["LFC.correct"][0].astype(float),
        "HFC 8": cuts["HFC.correct"][0].astype(float),
    }
    row = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    about = {"learned": run.metrics["learned_parameters"], "seconds": run.metrics["seconds"], "run": run.digest}
    return Measured(row | {"epochs": recipe.epochs} | about, verdicts=verdicts)


def _claims(depth: int) -> list[Claim]:
    place = f"spatial-mixing, section 4.1.2, figure 2, n = {depth}"
    channels, everything, spatial = (_name(learn, depth) for learn in ("channels", "everything", "spatial"))
    return [
        Claim(
            f"channels near everything, n = {depth}",
            "The gap between networks that learn everything and those that learn only channel mixing is quite small.",
            place, lambda rows: nearer(rows, channels, to=everything, than=spatial, column="accuracy"),
        ),
        Claim(
            f"spatial far below, n = {depth}",
            "Networks only learning spatial mixing perform far worse than those learning only channel mixing.",
            place, lambda rows: difference(rows, channels, spatial, "accuracy"), smallest=1.0,
        ),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    title="What learns in a separable ResNet, over depth",
    source="spatial-mixing, figure 2",
    columns=(
        Column(name="accuracy", unit="%"), Column(name="LFC 8", unit="%"), Column(name="HFC 8", unit="%"),
        Column(name="learned", unit="parameters"), Column(name="epochs"), Column(name="seconds", unit="s"),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=[claim for depth in DEPTHS[Scale.FULL] for claim in _claims(depth)],
)  # fmt: skip
