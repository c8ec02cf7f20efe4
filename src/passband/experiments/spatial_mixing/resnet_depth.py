"""Separable ResNets that learn everything, only their channel mixers, or only their spatial mixers, over depth.

The choices where the paper is silent are those of all its separable ResNets (``settings.separable``). At small scale
depth 1 (ResNet-8) for three epochs, on Fashion-MNIST (lossless) and on cifar10-jpeg, which is not CIFAR-10: every image
of it went through JPEG, which alters high frequencies.

Full scale has CIFAR-10, CIFAR-100 and ImageNet, whose networks have 8n + 2 layers: a separable stem of 7×7 and stride 2
with max pooling behind it, four stages of widths 64, 128, 256 and 512. Their training is our choice: SGD 0.9, learning
rate 0.1, weight decay 1e-4, batch 256, 90 epochs, cosine, 224 pixels, crop and flip as on CIFAR (He et al. crop at
random scales), one seed. Where ImageNet is not there, its rows say so.

LFC 8 and HFC 8 are the test images of 32 pixels cut at radius 8; ImageNet's have none.

**Source**: spatial-mixing, sections 4.1.1 and 4.1.2 (workshop paper), 4.1 (arXiv), figure 2 of both. The figure has no
numbers.
"""

from __future__ import annotations

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import LEARN, separable
from passband.sweeps.lab import Lab

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist", "cifar10-jpeg"),
    Scale.FULL: ("cifar10", "cifar100", "imagenet"),
}
DEPTHS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (1,), Scale.SMALL: (1,), Scale.FULL: (1, 2, 3, 5, 7, 9)}
IMAGENET_DEPTHS = (1, 2, 3, 4)
"""10, 18, 26 and 34 layers."""


def cases(scale: Scale) -> list[Case]:
    """List what learns by depth and data, seed by seed, so that one whole seed is there first."""
    seeds = (0,) if scale is Scale.SMOKE else (0, 1, 2)
    return [
        {"case": _name(learn, depth), "learn": learn, "depth": depth, "data": data, "seed": seed}
        for seed in seeds
        for data in SETS[scale]
        if seed == 0 or data != "imagenet"
        for depth in (IMAGENET_DEPTHS if data == "imagenet" else DEPTHS[scale])
        for learn in LEARN
    ]


def _name(learn: str, depth: int) -> str:
    return f"{learn}, n = {depth}"


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure it on all untouched test images; those of 32 pixels also cut at radius 8."""
    recipe = training(case, lab.scale)
    run = lab.train(recipe)
    found = lab.probe(run, "bands", {"radii": (8,), "degrees": (32,), "examples": 0})
    verdicts = {"accuracy": found["bands.clean"].arrays["correct"].astype(float)}
    if recipe.data.size == 32:
        cuts = found["bands.accuracy"].arrays
        verdicts |= {f"{side} 8": cuts[f"{side}.correct"][0].astype(float) for side in ("LFC", "HFC")}
    row = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    about = {"learned": run.metrics["learned_parameters"], "seconds": run.metrics["seconds"], "run": run.digest}
    settings = {"line": case["learn"], "depth": case["depth"], "epochs": recipe.epochs}
    return Measured(row | settings | about, verdicts=verdicts)


def training(case: Case, scale: Scale) -> Recipe:
    """Return a case's recipe."""
    if case["data"] == "imagenet" and scale is Scale.FULL:
        return imagenet(case["learn"], seed=case["seed"], depth=case["depth"])
    return separable(scale, case["learn"], data=case["data"], seed=case["seed"], depth=case["depth"])


def imagenet(learn: str, *, seed: int, depth: int) -> Recipe:
    """Return the training of a separable ResNet of ImageNet's size, 8 · depth + 2 layers.

    Args:
        learn: A key of ``settings.LEARN``.
        seed: Of all that is random.
        depth: Blocks per stage.
    """
    return Recipe.of(
        {
            "model": {
                "name": "separable_resnet", "depth": depth, "width": 64, "multiplier": 9, "stages": 4,
                "stem": "imagenet",
            },
            "learn": LEARN[learn],
            "data": {"name": "imagenet", "size": 224},
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            "epochs": 90,
            "batch": 256,
            "seed": seed,
        }
    )  # fmt: skip


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracy over depth by what learns."""
    depth, accuracy = Column(name="depth", unit="blocks a stage"), Column(name="accuracy", unit="%")
    return over(rows, depth, accuracy, by="line", name="accuracy", title="Accuracy over depth")


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
            f"everything above channels, n = {depth}", "The fully learned ResNets outperform all others.", place,
            lambda rows: difference(rows, everything, channels, "accuracy"),
        ),
        Claim(
            f"spatial far below, n = {depth}",
            "Networks only learning spatial mixing perform far worse than those learning only channel mixing: here "
            "worse at all, the first claim says how far.",
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
    claims=[claim for depth in sorted({*DEPTHS[Scale.FULL], *IMAGENET_DEPTHS}) for claim in _claims(depth)],
    figures=figures,
)  # fmt: skip
