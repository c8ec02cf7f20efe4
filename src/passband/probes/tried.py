"""What an edit of a model came to under attack, and the judgment on it beside the unedited model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from passband.attacks.doubts import Doubt

UNEDITED = "unedited"
HIDES = "only hides gradients"


@dataclass(frozen=True)
class Tried:
    """Hold what one edit at one strength came to, image by image.

    Attributes:
        edit: Its name; `UNEDITED` for the model as it is.
        strength: In the edit's unit; None for the model as it is.
        clean: bool [all images], right when untouched.
        pgd: bool [attacked images], still right under PGD, which climbs the cross-entropy.
        climbed: bool [attacked images], still right under that and under APGD, which climbs the DLR.
        worst: bool [queried images, the first of the attacked], still right under these and then Square.
        silent: bool [attacked images], right when untouched, and the cross-entropy has no gradient at all.
        doubts: Signs that the numbers say less than they seem.
    """

    edit: str
    strength: float | None
    clean: np.ndarray
    pgd: np.ndarray
    climbed: np.ndarray
    worst: np.ndarray
    silent: np.ndarray
    doubts: tuple[Doubt, ...] = ()

    @property
    def name(self) -> str:
        """The edit as a user writes it."""
        return self.edit if self.strength is None else f"{self.edit}={self.strength:g}"

    @property
    def left(self) -> int:
        """How many of the queried images Square was asked about."""
        return int(self.climbed[: len(self.worst)].sum())

    @property
    def spared(self) -> float:
        """Share that Square leaves of the images that it was asked about; 1 where it was asked about none."""
        return float(self.worst.sum() / self.left) if self.left else 1.0

    @property
    def robust(self) -> float:
        """Share that stands under all attacks: of all attacked images under two, times what Square leaves of it."""
        return float(self.climbed.mean()) * self.spared


def judged(row: Tried, base: Tried, edits: int) -> str:
    """Say what an edit came to, beside the model as it is, on the same images.

    An image that stands without any gradient speaks for nothing but arithmetic, and does not count as robust here.

    Args:
        row: The edit.
        base: The model as it is.
        edits: How many edits were tried on these images: an interval holds for all of them at once (Bonferroni).

    Returns:
        ``"only hides gradients"`` where the edit gains under PGD, beyond the interval, and half of the gain or more
        is gone once images without a gradient, APGD and Square have taken their part; ``"more robust"`` where it gains
        under PGD and APGD, beyond the interval, and Square leaves more than half; else ``"undecided"`` where the
        interval holds a gain, or ``"not more robust"``. Empty for the model as it is.
    """
    if row.edit == UNEDITED:
        return ""
    level = 1 - 0.05 / edits
    heard = row.climbed & ~row.silent
    seen = float(row.pgd.mean() - base.pgd.mean())
    remains = float(heard.mean()) * row.spared - base.robust > seen / 2
    if paired(row.pgd, base.pgd, level)[0] > 0 and not remains:
        return HIDES
    low, high = paired(heard, base.climbed, level)
    if low > 0 and remains:
        return "more robust"
    return "undecided" if high > 0 else "not more robust"


def paired(ours: np.ndarray, theirs: np.ndarray, level: float) -> tuple[float, float]:
    """Return the ends of the interval of a difference of two shares of the same images.

    **Source**: Agresti and Min, *Simple improved confidence intervals for comparing matched proportions*: half a count
    is added to each cell of the two by two table, so that shares of few images, and differences all alike, have one.

    Args:
        ours: bool [N].
        theirs: bool [N].
        level: Share of intervals that hold the truth.
    """
    gained, lost = float((ours & ~theirs).sum()) + 0.5, float((theirs & ~ours).sum()) + 0.5
    count = len(ours) + 2
    middle = (gained - lost) / count
    deviation = math.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    half = NormalDist().inv_cdf((1 + level) / 2) * deviation
    return middle - half, middle + half


def frontier(rows: Sequence[Tried]) -> list[bool]:
    """Tell of each row whether no other is at least as good in both accuracies and better in one.

    Rows that only hide gradients are no part of it.
    """
    base = rows[0]
    able = [judged(row, base, max(1, len(rows) - 1)) != HIDES for row in rows]
    points = [(float(row.clean.mean()), row.robust) for row in rows]
    rivals = [point for point, fits in zip(points, able, strict=True) if fits]
    return [
        fits and not any(clean >= at[0] and robust >= at[1] and (clean, robust) != at for clean, robust in rivals)
        for at, fits in zip(points, able, strict=True)
    ]
