"""How far separable ResNets can be attacked, by what they learned, without defense and after adversarial training.

Accuracy under FGSM and PGD-2 at ε of 1, 2, 4 and 8/255 (the figure's unit is 1/255). PGD-2 takes steps of ε/2 from the
image itself, and beside it steps of ε, since the paper states neither. The paper's attacks end with their last image,
so that is what is judged. A wrong answer to the untouched image counts as wrong under attack.

The defense is FGSM on the training images, as the paper has it, at ε = 4/255 (it states none), which lies within the
figure's range; from the image itself, crafted in evaluation mode. The networks are those of ``resnet-depth``.

A control that the paper lacks: ``kept``, the share of the images answered rightly untouched that FGSM leaves so. A
network that is less accurate can seem less robust, or more, for that alone.

At small scale ResNet-8 for three epochs on all of Fashion-MNIST with three seeds, and of cifar10-jpeg (which is not
CIFAR-10: every image went through JPEG) with one; the defense on Fashion-MNIST with one, on 2,000 test images.

**Source**: spatial-mixing, section 4.3 and figure 6 of the workshop paper, figure 8 of the arXiv one. No numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import across
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import LEARN, separable
from passband.sweeps.lab import Lab
from passband.train.run import Run

EPS = (1, 2, 4, 8)
"""In 1/255."""

ATTACKS = ("FGSM", "PGD-2", "PGD-2, step ε")
DEFENSE = {"name": "fgsm", "eps": "4/255"}
TRAININGS: dict[str, dict[str, Any] | None] = {"natural": None, "FGSM-trained": DEFENSE}
SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist", "cifar10-jpeg"),
    Scale.FULL: ("cifar10",),
}
SEEDS: dict[Scale, dict[str, tuple[int, ...]]] = {Scale.SMALL: {"fashion-mnist": (0, 1, 2), "cifar10-jpeg": (0,)}}
"""Seeds by set; where nothing stands, one at smoke and three at full scale."""
DEPTH = {Scale.SMOKE: 1, Scale.SMALL: 1, Scale.FULL: 3}
DEFENDED = ("everything", "channels")
"""What the claim about the defense compares; the defense costs twice a training, so that below full scale no more."""


def cases(scale: Scale) -> list[Case]:
    """List what learns under both trainings, seed by seed."""
    usual = (0,) if scale is Scale.SMOKE else (0, 1, 2)
    return [
        {"case": f"{learn}, {training}", "learn": learn, "training": training, "data": data, "seed": seed}
        for seed in usual
        for data in SETS[scale]
        if seed in SEEDS.get(scale, {}).get(data, usual)
        for training in TRAININGS
        for learn in LEARN
        if training == "natural" or _defended(scale, data, learn, seed)
    ]


def _defended(scale: Scale, data: str, learn: str, seed: int) -> bool:
    return scale is Scale.FULL or (data != "cifar10-jpeg" and learn in DEFENDED and seed == 0)


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and attack it."""
    attack = TRAININGS[case["training"]]
    recipe = separable(
        lab.scale, case["learn"], data=case["data"], seed=case["seed"], depth=DEPTH[lab.scale], attack=attack
    )
    run = lab.train(recipe)
    verdicts = _verdicts(run, lab)
    row = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    kept = 100 * row["FGSM mean"] / row["clean"] if row["clean"] else None
    return Measured(row | {"learns": case["learn"], "kept": kept, "run": run.digest}, verdicts=verdicts)


def _verdicts(run: Run, lab: Lab) -> dict[str, np.ndarray]:
    """Return per image, by column, whether the answer is right, 0 or 1; means over ε lie between."""
    options = {"preset": "spatial-mixing", "verdict": "last", "examples": 0}
    radii = tuple(eps / 255 for eps in EPS)
    found = lab.probe(run, "robustness", options | {"eps": radii, "attacks": ("fgsm", "pgd")})["robustness.accuracy"]
    verdicts = {"clean": found.arrays["fgsm"][0].astype(float)}
    for name, key in (("FGSM", "fgsm"), ("PGD-2", "pgd")):
        verdicts |= {f"{name} {eps}": found.arrays[key][place].astype(float) for place, eps in enumerate(EPS, 1)}
    for eps, radius in zip(EPS, radii, strict=True):
        alone = lab.probe(run, "robustness", options | {"eps": (radius,), "attacks": ("pgd",), "alpha": radius})
        verdicts[f"PGD-2, step ε {eps}"] = alone["robustness.accuracy"].arrays["pgd"][1].astype(float)
    for name in ATTACKS:
        verdicts[f"{name} mean"] = np.mean([verdicts[f"{name} {eps}"] for eps in EPS], axis=0)
    return verdicts


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracy over ε by what learns, for each training and attack."""
    return tuple(
        curve
        for training in TRAININGS
        for attack in ATTACKS
        for curve in across(
            [row for row in rows if str(row["case"]).endswith(training)],
            {0: "clean"} | {eps: f"{attack} {eps}" for eps in EPS},
            Column(name="ε", unit="1/255"),
            Column(name="accuracy", unit="%"),
            by="learns",
            name=f"{training}.{attack}",
            title=f"{training} networks under {attack}",
        )
    )


def gap_goes(rows: Rows, attack: str) -> float | None:
    """Return how much nearer the lead of channels-only lies to none, after the defense, than to what it was, in points.

    Without a lead to lose it is negative.
    """
    leads = [difference(rows, f"channels, {kind}", f"everything, {kind}", f"{attack} mean") for kind in TRAININGS]
    before, after = leads
    return None if before is None or after is None else before - 2 * abs(after)


def keeps_more(rows: Rows, rival: str) -> float | None:
    """Return by how much more of its right answers channels-only keeps under FGSM than a rival does, in points."""
    ours, theirs = (_kept(rows, f"{learn}, natural") for learn in ("channels", rival))
    return None if ours is None or theirs is None else ours - theirs


def _kept(rows: Rows, case: str) -> float | None:
    clean, left = value(rows, case, "clean"), value(rows, case, "FGSM mean")
    return 100 * left / clean if clean and left is not None else None


_PLACE = "spatial-mixing, section 4.3.2, figure 6"


def _more_robust(attack: str, rival: str) -> Claim:
    return Claim(
        f"channels above {rival} under {attack}",
        f"Channels-only models are more naturally robust than {rival}-learned ones ({attack}, mean over ε).",
        _PLACE,
        lambda rows: difference(rows, "channels, natural", f"{rival}, natural", f"{attack} mean"),
        smallest=1.0,
    )


def _keeps(rival: str) -> Claim:
    return Claim(
        f"channels keeps more than {rival}",
        f"Control, not in the paper: FGSM leaves channels-only more of its right answers than {rival} learned.",
        _PLACE,
        lambda rows: keeps_more(rows, rival),
        smallest=1.0,
    )


def _goes(attack: str) -> Claim:
    return Claim(
        f"the gap goes under {attack}",
        f"This gap disappears when adversarial training techniques are used ({attack}; the gap after is less than half "
        "of the gap before; without a lead before, it fails).",
        _PLACE,
        lambda rows: gap_goes(rows, attack),
        smallest=1.0,
    )


EXPERIMENT = Experiment(
    title="Accuracy over ε, by what learned, without defense and after FGSM training",
    source="spatial-mixing, figure 6",
    columns=(
        Column(name="learns"), Column(name="clean", unit="%"),
        *(Column(name=f"{attack} {at}", unit="%") for attack in ATTACKS for at in (*EPS, "mean")),
        Column(name="kept", unit="%"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        *(_more_robust(attack, rival) for attack in ATTACKS for rival in ("everything", "spatial")),
        *(_keeps(rival) for rival in ("everything", "spatial")),
        *(_goes(attack) for attack in ("FGSM", "PGD-2")),
    ),
    limit={Scale.SMOKE: 200, Scale.SMALL: 2000},
)  # fmt: skip
