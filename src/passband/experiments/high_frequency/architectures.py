"""LeNet, AlexNet, VGG and ResNet: accuracy, the generalization gap and the tendency to capture HFC.

All are trained as the vanilla network is. The paper says ResNet-18, its code builds a ResNet without norms (32 layers
at full scale, 8 below): both are here, and ResNet-18, which has batch norms, is read by its running statistics and by
those of each batch, as the code reads batch norm. LeNet, AlexNet and VGG-11 have none, like the originals; AlexNet and
VGG are the forms that are usual for images of 28 and 32 pixels. Below full scale all are narrow (``settings``).

The paper shows neither curves nor numbers and says of no other set than its first: CIFAR-10 at full scale. A ResNet is
compared with the best of the three earlier networks.

A network that stayed at chance (``at chance``: the 95% interval of its test accuracy reaches down to it) has no gap and
nothing to lose. It is compared by its accuracy alone: as a rival it is left out of the gap and of the tendencies, as a
ResNet it has no margin there.

**Source**: high-frequency, section 5.1, "other tests", model architecture.
**Differs**: training accuracy is measured after the last epoch (``tracking``). The paper draws all weights by Xavier's
rule; ResNet-18 is timm's, drawn by Kaiming's, with the last batch norm of each block at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.results import Column
from passband.core.scale import Scale
from passband.core.statistics import wilson
from passband.experiments.high_frequency.settings import SETS, training
from passband.experiments.high_frequency.tracking import (
    BOTH,
    COLUMNS,
    LIMIT,
    SEEDS,
    SHORT,
    TENDENCIES,
    ended,
    gap,
    measured,
)
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

ALL: dict[Scale, tuple[str, ...]] = SETS | {Scale.FULL: ("cifar10",)}
EARLIER = {"LeNet": "small_lenet", "AlexNet": "small_alexnet", "VGG": "small_vgg"}
RESNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet of the code": ("hfc_resnet32", {}),
    "ResNet-18, running statistics": ("small_resnet18", {}),
    "ResNet-18, batch statistics": ("small_resnet18", {"statistics": "batch"}),
}
"""A case to its network and to how it is read."""
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {name: (network, {}) for name, network in EARLIER.items()} | RESNETS


def cases(scale: Scale) -> list[Case]:
    """List the networks."""
    return [
        {"case": network, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in ALL[scale]
        for network in NETWORKS
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure it."""
    network, reading = NETWORKS[case["case"]]
    short = SHORT.get(lab.scale, {})
    recipe = training(lab.scale, data=case["data"], seed=case["seed"], network=network, **short)
    course = ended(recipe, lab, **reading)
    found = measured(course, case, drawn=False)
    right = course.last["test"]
    low, _ = wilson(int(right.sum()), len(right))
    found.row["at chance"] = low <= 1 / course.classes
    return found


def error(rows: Rows, case: str) -> float | None:
    """Return a case's test error in percent."""
    accuracy = value(rows, case, "test")
    return None if accuracy is None else 100 - accuracy


def below(
    rows: Rows, resnet: str, number: Callable[[Rows, str], float | None], *, learned: bool = False
) -> float | None:
    """Return by how much a ResNet's number lies below the lowest of the three earlier networks'.

    Args:
        rows: The rows.
        resnet: A key of :data:`RESNETS`.
        number: Rows and a case to a number.
        learned: Whether networks that stayed at chance are left out; None when the ResNet did, or all others.
    """
    found = {network: number(rows, network) for network in (resnet, *EARLIER)}
    if learned:
        at_chance = {row["case"] for row in rows if row.get("at chance")}
        found = {network: theirs for network, theirs in found.items() if network not in at_chance}
    ours, others = found.pop(resnet, None), list(found.values())
    known = [theirs for theirs in others if theirs is not None]
    return None if ours is None or not known or len(known) < len(others) else min(known) - ours


_PLACE = "high-frequency, section 5.1, other tests"
_SAID = "The ResNet architecture seems advantageous toward previous inventions: it reports"
_LEFT_OUT = "networks that stayed at chance left out"


def _weaker(resnet: str, column: str, how: str) -> Claim:
    def tendency(rows: Rows, case: str) -> float | None:
        return value(rows, case, column)

    return Claim(
        f"weaker tendency, {how}, {resnet}",
        f"{_SAID} a weaker tendency in capturing HFC ({how}; {resnet}; {_LEFT_OUT}).", _PLACE,
        lambda rows: below(rows, resnet, tendency, learned=True), smallest=1.0,
    )  # fmt: skip


def _of(resnet: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"better accuracy, {resnet}", f"{_SAID} better vanilla test accuracy ({resnet}).", _PLACE,
            lambda rows: below(rows, resnet, error), smallest=1.0,
        ),
        Claim(
            f"smaller gap, {resnet}", f"{_SAID} a smaller generalization gap ({resnet}; {_LEFT_OUT}).", _PLACE,
            lambda rows: below(rows, resnet, gap, learned=True), smallest=1.0, drawn=BOTH,
        ),
        *(_weaker(resnet, column, how) for column, how in TENDENCIES.items()),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Architectures: accuracy, gap and tendency to capture HFC",
    source="high-frequency, section 5.1, other tests",
    columns=(*COLUMNS[:-1], Column(name="at chance"), COLUMNS[-1]),
    cases=cases,
    measure=measure,
    claims=tuple(claim for resnet in RESNETS for claim in _of(resnet)),
    limit=LIMIT,
)
