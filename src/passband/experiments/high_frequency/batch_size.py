"""Batch sizes: accuracy, the generalization gap and the tendency to capture HFC, along the epochs.

The paper states no sizes: 50, 100 (the vanilla one), 200 and 500, all for the same epochs and at the same rate, as all
else "is fixed". So a batch twice as big takes half the steps, and may end with a lower training accuracy for that
alone. A control that the paper lacks compares gaps at the same training accuracy: the highest that both the smallest
and the biggest batch reach.

**Source**: high-frequency, section 5.1, figures 4, 11, 17 and 18. The figures have no numbers.
**Differs**: training accuracy is measured after an epoch (``tracking``).
"""

from __future__ import annotations

import statistics

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
    TRAINING_IMAGES,
    between,
    followed,
    gap,
    measured,
    reaches,
    trajectory,
)
from passband.experiments.margins import difference, value
from passband.experiments.protocol import TEST_IMAGES, Case, Experiment, Measured
from passband.sweeps.lab import Lab

BATCHES: dict[Scale, tuple[int, ...]] = {
    Scale.SMOKE: (32, 64, 128),
    Scale.SMALL: (50, 100, 200, 500),
    Scale.FULL: (50, 100, 200, 500),
}


def cases(scale: Scale) -> list[Case]:
    """List the batch sizes of each set."""
    return [
        {"case": f"batch {batch}", "batch": batch, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for batch in BATCHES[scale]
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train with one batch size and follow it."""
    short = SHORT.get(lab.scale, {})
    recipe = training(lab.scale, data=case["data"], seed=case["seed"], batch=case["batch"], **short)
    course = followed(recipe, lab)
    found = measured(course, case, more=course.by_epoch("train", "test"))
    found.row["batch"] = case["batch"]
    return found


def ends(rows: Rows) -> tuple[str, str] | None:
    """Return the cases of the smallest and of the biggest batch that were measured."""
    found = sorted((batch, str(row["case"])) for row in rows if isinstance(batch := row.get("batch"), int))
    return (found[0][1], found[-1][1]) if len(found) > 1 else None


def falls(rows: Rows, column: str) -> float | None:
    """Return by how much the smallest batch's number lies above the biggest's."""
    found = ends(rows)
    return None if found is None else difference(rows, *found, column)


def closes(rows: Rows) -> float | None:
    """Return by how much the smallest batch's generalization gap exceeds the biggest's, in points."""
    found = ends(rows)
    if found is None:
        return None
    small, big = (gap(rows, case) for case in found)
    return None if small is None or big is None else small - big


def closes_at_equal_training(rows: Rows) -> float | None:
    """Return by how much the smallest batch's gap exceeds the biggest's, in points, where both first fit alike.

    That is where each reaches the highest training accuracy that both reach.
    """
    found = ends(rows)
    if found is None:
        return None
    learned = [trajectory(rows, case, "train") for case in found]
    if not all(learned):
        return None
    common = min(max(number for _, number in points) for points in learned)
    tested = []
    for case, points in zip(found, learned, strict=True):
        at = reaches(points, common)
        assert at is not None, "a number that both reach is reached by each"
        tested.append(between(trajectory(rows, case, "test"), at))
    return tested[1] - tested[0]


def related(rows: Rows, column: str) -> float | None:
    """Return the correlation of the generalization gap with a column over three batch sizes or more."""
    pairs = [(gap(rows, str(row["case"])), value(rows, str(row["case"]), column)) for row in rows]
    known = [(left, right) for left, right in pairs if left is not None and right is not None]
    gaps, numbers = [left for left, _ in known], [right for _, right in known]
    if len(known) < 3 or len(set(gaps)) == 1 or len(set(numbers)) == 1:
        return None
    return statistics.correlation(gaps, numbers)


_PLACE = "high-frequency, section 5.1, figure 4"


def _excels(column: str, images: str) -> Claim:
    return Claim(
        f"smaller batch, higher {column}",
        f"Smaller batch size appears to excel in improving {column}ing accuracy.", _PLACE,
        lambda rows: falls(rows, column), smallest=1.0, drawn=images,
    )  # fmt: skip


def _invariant(column: str, how: str) -> Claim:
    return Claim(
        f"bigger batch, less HFC, {how}",
        f"Models trained with bigger batches are more invariant to HFC ({how}).", _PLACE,
        lambda rows: falls(rows, column), smallest=1.0,
    )  # fmt: skip


def _related(column: str, how: str) -> Claim:
    return Claim(
        f"gap and HFC, {how}",
        "The generalization gap is closely related to the model's tendency in capturing HFC (here the correlation over "
        f"batch sizes, {how}).",
        _PLACE, lambda rows: related(rows, column), unit="of correlation", smallest=0.5, drawn=BOTH,
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Batch sizes, on whole images, their LFC and their HFC",
    source="high-frequency, figures 4, 11, 17 and 18",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=(
        _excels("train", TRAINING_IMAGES),
        _excels("test", TEST_IMAGES),
        Claim(
            "bigger batch, smaller gap",
            "Bigger batch size seems to stand out in closing the generalization gap.", _PLACE, closes,
            smallest=1.0, drawn=BOTH,
        ),
        Claim(
            "bigger batch, smaller gap at equal training",
            "Control, not in the paper: it does so where both have the same training accuracy.", _PLACE,
            closes_at_equal_training, smallest=1.0, drawn=BOTH,
        ),
        *(_invariant(column, how) for column, how in TENDENCIES.items()),
        *(_related(column, how) for column, how in TENDENCIES.items()),
    ),
    limit=LIMIT,
)  # fmt: skip
