"""LeNet, AlexNet, VGG and ResNet: accuracy, the generalization gap and the tendency to capture HFC.

All are trained as the vanilla network is. The paper says ResNet-18, its code builds a ResNet without norms (32 layers
at full scale, 8 below): both are here, and ResNet-18, which has batch norms, is read by its running statistics and by
those of each batch, as the code reads batch norm. LeNet, AlexNet and VGG-11 have none, like the originals; AlexNet and
VGG are the forms that are usual for images of 28 and 32 pixels. Below full scale all are narrow (``settings``).

The paper shows neither curves nor numbers and says of no other set than its first: CIFAR-10 at full scale. A ResNet is
compared with the best of the three earlier networks.

**Source**: high-frequency, section 5.1, "other tests", model architecture.
**Differs**: training accuracy is measured after the last epoch (``tracking``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.scale import Scale
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
    return measured(ended(recipe, lab, **reading), case, drawn=False)


def error(rows: Rows, case: str) -> float | None:
    """Return a case's test error in percent."""
    accuracy = value(rows, case, "test")
    return None if accuracy is None else 100 - accuracy


def below(rows: Rows, resnet: str, number: Callable[[Rows, str], float | None]) -> float | None:
    """Return by how much a ResNet's number lies below the lowest of the three earlier networks'.

    Args:
        rows: The rows.
        resnet: A key of :data:`RESNETS`.
        number: Rows and a case to a number.
    """
    ours, others = number(rows, resnet), [number(rows, network) for network in EARLIER]
    known = [theirs for theirs in others if theirs is not None]
    return None if ours is None or len(known) < len(EARLIER) else min(known) - ours


_PLACE = "high-frequency, section 5.1, other tests"
_SAID = "The ResNet architecture seems advantageous toward previous inventions: it reports"


def _weaker(resnet: str, column: str, how: str) -> Claim:
    def tendency(rows: Rows, case: str) -> float | None:
        return value(rows, case, column)

    return Claim(
        f"weaker tendency, {how}, {resnet}", f"{_SAID} a weaker tendency in capturing HFC ({how}; {resnet}).", _PLACE,
        lambda rows: below(rows, resnet, tendency), smallest=1.0,
    )  # fmt: skip


def _of(resnet: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"better accuracy, {resnet}", f"{_SAID} better vanilla test accuracy ({resnet}).", _PLACE,
            lambda rows: below(rows, resnet, error), smallest=1.0,
        ),
        Claim(
            f"smaller gap, {resnet}", f"{_SAID} a smaller generalization gap ({resnet}).", _PLACE,
            lambda rows: below(rows, resnet, gap), smallest=1.0, drawn=BOTH,
        ),
        *(_weaker(resnet, column, how) for column, how in TENDENCIES.items()),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Architectures: accuracy, gap and tendency to capture HFC",
    source="high-frequency, section 5.1, other tests",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=tuple(claim for resnet in RESNETS for claim in _of(resnet)),
    limit=LIMIT,
)
