"""Which objects a detector finds better, equally and worse without the high frequencies of their image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from passband.core.results import Cell, Column, Scalar, Table
from passband.core.statistics import wilson

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's sizes by annotated area in pixels, from and below; here each object has one."""
_ROUNDING = 1e-9
"""Two scores are means of ten fractions of counts: they are equal, or some 1e-5 apart, but for rounding."""


@dataclass(frozen=True, eq=False)
class FoundBetter:
    """Compare each object's score on an image and on its low frequencies.

    Attributes:
        radius: Of the cut.
        original: Score of each object on the image, float64 [O], 0 to 1.
        low: On the image's low frequencies, float64 [O].
        image: Place of each object's image, int64 [O].
        area: Annotated area in pixels, float32 [O].
        images: Number of images, those without objects too.
        margin: Scores that differ by no more than this are equal.
    """

    radius: float
    original: Float[np.ndarray, " objects"]
    low: Float[np.ndarray, " objects"]
    image: Int[np.ndarray, " objects"]
    area: Float[np.ndarray, " objects"]
    images: int
    margin: float = 0.0

    @property
    def gain(self) -> Float[np.ndarray, " objects"]:
        """How much better each object is found on the low frequencies."""
        return np.asarray(self.low - self.original)

    @property
    def better(self) -> Bool[np.ndarray, " objects"]:
        """Which are found better on the low frequencies."""
        return np.asarray(self.gain > self.margin + _ROUNDING)

    @property
    def worse(self) -> Bool[np.ndarray, " objects"]:
        """Which are found worse there."""
        return np.asarray(self.gain < -self.margin - _ROUNDING)

    def images_with(self, objects: np.ndarray) -> Bool[np.ndarray, " images"]:
        """Return which images hold one of these objects at least, which are given as a mask."""
        hold = np.zeros(self.images, dtype=bool)
        hold[self.image[objects]] = True
        return hold


def images_better(compared: FoundBetter, how: dict[str, Any]) -> Scalar:
    """Return how many images hold an object that is found better on the low frequencies."""
    better, worse = (compared.images_with(objects) for objects in (compared.better, compared.worse))
    count, n = int(better.sum()), compared.images
    low, high = wilson(count, n)
    return Scalar(
        name="detection.images_better",
        title=f"Images with an object found better on their low frequencies (LFC, radius {compared.radius:g})",
        how=how,
        notes=(
            f"{count} of {n} images, {count / n:.1%}, those without objects too; the interval is Wilson's, of the "
            f"share times {n}. An object found worse is in {int(worse.sum())} images, {worse.mean():.1%}.",
        ),
        arrays={"better": better, "worse": worse},
        value=count,
        low=low * n,
        high=high * n,
        n=n,
        unit="images",
    )


def table(
    compared: tuple[FoundBetter, ...], arrays: dict[str, np.ndarray], how: dict[str, Any], notes: tuple[str, ...]
) -> Table:
    """Return how many objects are found better, equally and worse, by radius and size.

    Args:
        compared: One for each radius.
        arrays: What is to be kept of the objects.
        how: How it was made.
        notes: What the reader must know beside.
    """
    rows = [_row(one, size, reach) for one in compared for size, reach in {"all": (0.0, float("inf")), **SIZES}.items()]
    return Table(
        name="detection.objects",
        title="Objects found better, equally and worse on the low frequencies of their image (LFC)",
        how=how,
        notes=notes,
        arrays=arrays,
        columns=(
            Column(name="radius", unit="bins"), Column(name="size"), Column(name="objects"), Column(name="better"),
            Column(name="equal"), Column(name="worse"), Column(name="found in neither"),
            Column(name="score on the original", unit="fraction"), Column(name="score on LFC", unit="fraction"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _row(compared: FoundBetter, size: str, reach: tuple[float, float]) -> tuple[Cell, ...]:
    chosen = (compared.area >= reach[0]) & (compared.area < reach[1])
    count, better, worse = (int((chosen & kind).sum()) for kind in (chosen, compared.better, compared.worse))
    neither = chosen & (compared.original == 0) & (compared.low == 0)
    scores = (compared.original[chosen], compared.low[chosen])
    return (
        compared.radius, size, count, better, count - better - worse, worse, int(neither.sum()),
        *(float(one.mean()) if count else None for one in scores),
    )  # fmt: skip
