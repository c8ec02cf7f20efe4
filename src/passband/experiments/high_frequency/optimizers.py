"""SGD, Adam, AdaGrad, AdaDelta and RMSprop: the tendency to capture HFC.

All else is as in the vanilla training. The paper states one rate, Adam's 1e-4; its code comments name SGD's 1e-2 and
AdaDelta's 1e-1. The rates that are tried:

- full scale: SGD 1e-2, Adam 1e-4, AdaGrad 1e-2 and 1e-4, AdaDelta 1e-1, RMSprop 1e-2 and 1e-4.
- small scale: SGD 1e-1 and 1e-2, Adam 3e-3 (the vanilla rate there), AdaGrad 1e-2 and 1e-3, AdaDelta 1 and 1e-1,
  RMSprop 1e-3 and 1e-4.

Claims take each optimizer at its rate of higher test accuracy. That rate is chosen by the same test images that are
then judged, and Adam has one rate to choose from, where at small scale all others have two. All rates have their rows.
SGD is plain: no momentum, no weight decay.

The paper shows neither curves nor numbers and says of no other set than its first: CIFAR-10 at full scale.

**Source**: high-frequency, section 5.1, "other tests", optimizer.
**Differs**: training accuracy is measured after the last epoch (``tracking``).
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import SETS, training
from passband.experiments.high_frequency.tracking import (
    COLUMNS,
    LIMIT,
    SEEDS,
    SHORT,
    TENDENCIES,
    ended,
    measured,
)
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

ALL: dict[Scale, tuple[str, ...]] = SETS | {Scale.FULL: ("cifar10",)}
NAMES = {"SGD": "sgd", "Adam": "adam", "AdaGrad": "adagrad", "AdaDelta": "adadelta", "RMSprop": "rmsprop"}
"""What a recipe calls them."""
PLAIN: dict[str, Any] = {"momentum": 0, "weight_decay": 0}
"""SGD has neither."""

RATES: dict[Scale, dict[str, tuple[float, ...]]] = {
    Scale.SMOKE: {"SGD": (0.1,), "Adam": (3e-3,), "AdaGrad": (1e-2,), "AdaDelta": (1.0,), "RMSprop": (1e-3,)},
    Scale.SMALL: {
        "SGD": (0.1, 0.01),
        "Adam": (3e-3,),
        "AdaGrad": (0.01, 0.001),
        "AdaDelta": (1.0, 0.1),
        "RMSprop": (0.001, 0.0001),
    },
    Scale.FULL: {
        "SGD": (1e-2,),
        "Adam": (1e-4,),
        "AdaGrad": (1e-2, 1e-4),
        "AdaDelta": (1e-1,),
        "RMSprop": (1e-2, 1e-4),
    },
}


def cases(scale: Scale) -> list[Case]:
    """List the optimizers and their rates."""
    return [
        {"case": f"{optimizer}, rate {rate:g}", "optimizer": optimizer, "rate": rate, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in ALL[scale]
        for optimizer, rates in RATES[scale].items()
        for rate in rates
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train with one optimizer at one rate and measure the network."""
    optimizer = {"name": NAMES[case["optimizer"]], "lr": case["rate"]}
    if case["optimizer"] == "SGD":
        optimizer |= PLAIN
    short = SHORT.get(lab.scale, {})
    recipe = training(lab.scale, data=case["data"], seed=case["seed"], optimizer=optimizer, **short)
    found = measured(ended(recipe, lab), case, drawn=False)
    found.row.update({"optimizer": case["optimizer"], "rate": case["rate"]})
    return found


def best(rows: Rows) -> dict[str, dict[str, Cell]]:
    """Return of each optimizer the row of its better rate, by test accuracy."""
    chosen: dict[str, dict[str, Cell]] = {}
    for row in rows:
        if isinstance(accuracy := row.get("test"), float):
            name = str(row["optimizer"])
            held = chosen.get(name, {}).get("test")
            if not isinstance(held, float) or accuracy > held:
                chosen[name] = row
    return chosen


def _tendencies(rows: Rows, column: str) -> tuple[float, list[float]] | None:
    """Return SGD's number and the others', each at its better rate; None where an optimizer is missing."""
    found: dict[str, Any] = {name: row[column] for name, row in best(rows).items()}
    if found.keys() != NAMES.keys():
        return None
    return found["SGD"], [number for name, number in found.items() if name != "SGD"]


def sgd_most(rows: Rows, column: str) -> float | None:
    """Return by how much SGD's number lies above the highest of the others, in points."""
    found = _tendencies(rows, column)
    return None if found is None else found[0] - max(found[1])


def sgd_alone(rows: Rows, column: str) -> float | None:
    """Return by how much SGD's lead over the mean of the others exceeds their spread, in points."""
    found = _tendencies(rows, column)
    if found is None:
        return None
    sgd, others = found
    return (sgd - fmean(others)) - (max(others) - min(others))


_PLACE = "high-frequency, section 5.1, other tests"


def _of(column: str, how: str) -> tuple[Claim, Claim]:
    return (
        Claim(
            f"SGD captures most HFC, {how}",
            "SGD seems to be the only one suffering from the tendency towards significantly capturing HFC (here it "
            f"lies above all others, {how}; each optimizer at its rate of higher test accuracy).",
            _PLACE, lambda rows: sgd_most(rows, column), smallest=1.0,
        ),
        Claim(
            f"the rest on par, {how}",
            "The rest are on par (here they lie less far apart than SGD lies above their mean, "
            f"{how}; each optimizer at its rate of higher test accuracy).",
            _PLACE, lambda rows: sgd_alone(rows, column),
        ),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Optimizers: the tendency to capture HFC",
    source="high-frequency, section 5.1, other tests",
    columns=(Column(name="rate"), *COLUMNS),
    cases=cases,
    measure=measure,
    claims=tuple(claim for column, how in TENDENCIES.items() for claim in _of(column, how)),
    limit=LIMIT,
)
