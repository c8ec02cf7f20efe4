"""Linear CKA between all layers on PGD-20 images: natural against robust, and four robust architectures.

Layers are the convolutions and linear layers, each model sees PGD-20 images of its own (ε 8/255), CKA is linear with
the unbiased HSIC summed over 4 batches of 256 images: the paper says which layers and which images, not how CKA is
estimated. It reads its pictures by eye; the number here is the shallow-deep similarity, the mean CKA of the first third
of a network's layers with the last third (the probe `similarity`). Its interval with one seed draws test images anew,
to first order.

"Models with high similarity have high accuracy" compares the two more accurate of the four robust networks with the two
less accurate ones, as the paper's sentence does; which these are is measured here, not taken from its table.

A control that the paper lacks: the same number on untouched images, which tells what the networks differ in from what
their attacks do.

At small scale the networks are those of `architectures` and of the tables' natural and robust ResNet-8, and
cifar10-jpeg (which is not CIFAR-10: every image went through JPEG) has these two alone. A network's depth and its
squeeze-and-excite convolutions move a mean over thirds, so that networks of different depth compare less well than two
of the same.

**Source**: adversarial-focus, sections 3.1.3 and 3.3.1, figures 6 and 7. No numbers of CKA; the clean accuracies stand
in table 4.
"""

from __future__ import annotations

from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Column, Map, Result, Scalar
from passband.core.scale import Scale
from passband.experiments.adversarial_focus.settings import (
    COLOR,
    LIMIT,
    SEEDS,
    SETS,
    architectures,
    trained_run,
    training,
)
from passband.experiments.curves import over
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

IMAGES = {Scale.SMOKE: 64, Scale.SMALL: 1024, Scale.FULL: 1024}
"""Images whose features are compared; at small and full scale 4 batches of 256."""

NATURAL, ROBUST = "ResNet, natural", "ResNet, robust"
SIMILARITY, CLEAN_SIMILARITY = "shallow-deep", "shallow-deep, untouched"


def cases(scale: Scale) -> list[Case]:
    """List the natural and the robust ResNet of each set, and at small and full scale the robust architectures."""
    families = {} if scale is Scale.SMOKE else architectures(scale)
    return [
        {"case": case, "family": family, "robust": robust, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in COLOR[scale]
        for case, family, robust in (
            (NATURAL, None, False),
            (ROBUST, None, True),
            *((f"{name}, of the four", name, True) for name in families if data in SETS[scale]),
        )
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and compare its layers, on attacked and on untouched images."""
    run = trained_run(lab, _recipe(case, lab.scale))
    asked, limit = lab.subject(run), IMAGES[lab.scale]
    attacked = lab.ask(asked, run, "similarity", {"attack": "pgd"}, limit=limit)
    untouched = lab.ask(asked, run, "similarity", limit=limit)
    # At ε = 0 nothing is attacked: what is left is which answers are right.
    right = lab.ask(asked, run, "robustness", {"attacks": ("fgsm",), "eps": (0.0,), "examples": 0})
    clean = right["robustness.accuracy"].arrays["fgsm"][0].astype(float)
    row: dict[str, Any] = {"family": case["family"], "clean": 100 * float(clean.mean()), "run": run.digest}
    samples = {}
    for column, found in ((SIMILARITY, attacked), (CLEAN_SIMILARITY, untouched)):
        scalar = found["similarity.shallow_deep"]
        assert isinstance(scalar, Scalar)
        row[column] = scalar.value
        if scalar.value is not None:
            samples[column] = scalar.arrays["influence"]
    plane = attacked["similarity.cka"]
    assert isinstance(plane, Map)
    row["layers"] = len(plane.values)
    return Measured(row, results=(_drawn(plane),), verdicts={"clean": clean}, samples=samples)


def _drawn(plane: Map) -> Map:
    """Cut CKA at 0, so that all maps have the same colors: a map of both signs is drawn in others."""
    if not bool((plane.values < 0).any()):
        return plane
    note = "CKA that the unbiased estimate puts below 0 is drawn as 0; the array cka has it as it is."
    return plane.model_copy(
        update={
            "values": plane.values.clip(min=0),
            "arrays": plane.arrays | {"cka": plane.values},
            "notes": (*plane.notes, note),
        }
    )


def _recipe(case: Case, scale: Scale) -> Recipe:
    known: dict[str, Any] = {} if case["family"] is None else architectures(scale)[case["family"]]
    return training(scale, data=case["data"], seed=case["seed"], robust=case["robust"], **known)


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw the similarity of the four robust networks over their clean accuracy."""
    return over(
        _four(rows),
        Column(name="clean", unit="%"),
        Column(name=SIMILARITY, unit="CKA"),
        by="data",
        name="similarity.over_accuracy",
        title="Shallow-deep similarity over clean accuracy, robust architectures",
    )


def _four(rows: Rows) -> Rows:
    return [row for row in rows if row.get("family") is not None]


def rises(rows: Rows, column: str) -> float | None:
    """Return by how much the similarity of the more accurate half of the robust networks exceeds the other half's."""
    known = [
        (float(clean), float(similar))
        for row in _four(rows)
        if isinstance(clean := row.get("clean"), int | float) and isinstance(similar := row.get(column), int | float)
    ]
    if len(known) < 2 or len(known) < len(_four(rows)):
        return None
    half = len(known) // 2
    # Equally accurate networks have no order: the mean of both that they could have.
    orders = sorted(known), sorted(known, key=lambda pair: (pair[0], -pair[1]))
    return sum(similar for one in orders for _, similar in one[-half:]) / (2 * half) - sum(
        similar for one in orders for _, similar in one[:half]
    ) / (2 * half)


def _lower(column: str, control: str) -> Claim:
    return Claim(
        f"robust is less alike{control and ', untouched images'}",
        f"{control}The natural model has a high similarity between shallow and deep layers, while the robust model has "
        "a low similarity.",
        "adversarial-focus, section 3.1.3, figure 6",
        lambda rows: difference(rows, NATURAL, ROBUST, column),
        unit="CKA",
        smallest=0.05,
    )


def _rising(column: str, control: str) -> Claim:
    return Claim(
        f"similarity goes with accuracy{control and ', untouched images'}",
        f"{control}Robust models with higher accuracy of the clean data have a high similarity between the shallow and "
        "deep layers, those with lower accuracy a low one (the two more accurate of four against the two others).",
        "adversarial-focus, section 3.3.1, figure 7",
        lambda rows: rises(rows, column),
        unit="CKA",
        smallest=0.05,
    )


_CONTROL = "Control, not in the paper, on untouched images: "

EXPERIMENT = Experiment(
    title="Linear CKA between layers on PGD-20 images",
    source="adversarial-focus, figures 6 and 7",
    columns=(
        Column(name="family"), Column(name="layers"), Column(name="clean", unit="%"),
        Column(name=SIMILARITY, unit="CKA"), Column(name=CLEAN_SIMILARITY, unit="CKA"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        _lower(SIMILARITY, ""), _rising(SIMILARITY, ""),
        _lower(CLEAN_SIMILARITY, _CONTROL), _rising(CLEAN_SIMILARITY, _CONTROL),
    ),
    reported={
        "ResNet, of the four, cifar10": {"clean": 76.67},
        "MobileNetV2, of the four, cifar10": {"clean": 82.97},
        "EfficientNet, of the four, cifar10": {"clean": 76.10},
        "Wide ResNet, of the four, cifar10": {"clean": 85.85},
    },
    limit=LIMIT,
)  # fmt: skip
