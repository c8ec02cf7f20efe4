"""A detector's average precision by copy of its images, with intervals over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from passband.core.results import Axis, Cell, Column, Curve, Series, Table
from passband.data.objects import Objects
from passband.models.found import Found
from passband.tasks.average_precision import Precision, average_precision
from passband.tasks.box_matching import match_boxes
from passband.tasks.precision_interval import interval, precisions, redraw

LFC, HFC, CENTERED = "LFC", "HFC", "HFC centered"
Copy = tuple[str, float]
"""Which copy of an image a detector saw: its kind and the radius of the cut."""
ORIGINAL: Copy = ("original", 0.0)


@dataclass(frozen=True, eq=False)
class Measured:
    """Hold what was found on each copy and what it is worth.

    Attributes:
        found: By copy, image by image.
        precision: COCO's numbers.
        redrawn: Average precision on each bootstrap sample of the images, the same ones for all copies, float64
            [draw]; empty where none was drawn.
    """

    found: dict[Copy, list[Found]]
    precision: dict[Copy, Precision]
    redrawn: dict[Copy, np.ndarray]

    @classmethod
    def of(
        cls, found: dict[Copy, list[Found]], objects: Sequence[Objects], class_names: Sequence[str], draws: int
    ) -> Measured:
        """Measure what was found on each copy."""
        counts = redraw(len(objects), draws) if draws else np.zeros((0, len(objects)), np.int32)
        return cls(
            found,
            {copy: average_precision(said, objects, class_names) for copy, said in found.items()},
            {
                copy: precisions(match_boxes(said, objects), counts).mean(1) if draws else np.zeros(0)
                for copy, said in found.items()
            },
        )

    @property
    def images(self) -> int:
        """Number of photographs."""
        return len(self.found[ORIGINAL])


def packed(found: Sequence[Found], prefix: str) -> dict[str, np.ndarray]:
    """Return what was found as arrays, one image after the other, and how much in each."""
    return {
        f"{prefix}boxes": torch.cat([one.boxes for one in found]).numpy(),
        f"{prefix}scores": torch.cat([one.scores for one in found]).numpy(),
        f"{prefix}labels": torch.cat([one.labels for one in found]).numpy(),
        f"{prefix}counts": np.array([len(one) for one in found], dtype=np.int64),
    }


def unpacked(arrays: dict[str, np.ndarray], prefix: str) -> list[Found]:
    """Return what :func:`packed` packed."""
    boxes, scores, labels, counts = (
        torch.from_numpy(arrays[f"{prefix}{name}"]) for name in ("boxes", "scores", "labels", "counts")
    )
    parts = (torch.split(part, counts.tolist()) for part in (boxes, scores, labels))
    return [Found(*one) for one in zip(*parts, strict=True)]


def table(measured: Measured, how: dict[str, Any], notes: tuple[str, ...]) -> Table:
    """Return COCO's numbers by copy."""
    arrays: dict[str, np.ndarray] = {}
    for copy, said in measured.found.items():
        arrays |= packed(said, f"{_key(copy)}.") | {f"{_key(copy)}.redrawn": measured.redrawn[copy]}
    drawn = len(measured.redrawn[ORIGINAL])
    if drawn:
        changes = [_change(measured, copy) for copy in measured.found if copy != ORIGINAL]
        notes += (
            f"AP from, AP to: 95% interval over {drawn} bootstrap samples of the {measured.images} images, seed 0. "
            f"Change from the original, on the same samples: {'; '.join(filter(None, changes))}.",
        )
    names = ("AP", "AP from", "AP to", "AP50", "AP75", "small", "medium", "large")
    return Table(
        name="detection.precision",
        title="Average precision on the original, its low (LFC) and its high frequencies (HFC)",
        how=how,
        notes=notes,
        arrays=arrays,
        columns=(
            Column(name="images"), Column(name="radius", unit="bins"),
            *(Column(name=name, unit="fraction") for name in names),
        ),
        rows=tuple(_row(measured, copy) for copy in measured.found),
    )  # fmt: skip


def by_radius(measured: Measured, how: dict[str, Any]) -> Curve:
    """Return average precision by radius; the original is level."""
    radii = tuple(dict.fromkeys(radius for kind, radius in measured.found if (kind, radius) != ORIGINAL))
    kinds = dict.fromkeys(kind for kind, radius in measured.found if (kind, radius) != ORIGINAL)
    lines = {kind: [(kind, radius) for radius in radii] for kind in kinds} | {ORIGINAL[0]: [ORIGINAL] * len(radii)}
    return Curve(
        name="detection.radius",
        title="Average precision on low (LFC) and high frequencies (HFC), by radius",
        how=how,
        x=Axis(name="radius of the cut", unit="bins", values=radii),
        y=Axis(name="average precision", unit="fraction"),
        series=tuple(_line(measured, kind, copies) for kind, copies in lines.items()),
    )


def _key(copy: Copy) -> str:
    return copy[0] if copy == ORIGINAL else f"{copy[0]}.{copy[1]:g}"


def _row(measured: Measured, copy: Copy) -> tuple[Cell, ...]:
    one = measured.precision[copy]
    radius = None if copy == ORIGINAL else copy[1]
    ends = interval(measured.redrawn[copy])
    return copy[0], radius, one.ap, *ends, one.ap50, one.ap75, one.small, one.medium, one.large


def _change(measured: Measured, copy: Copy) -> str:
    """Say by how much a copy's average precision lies above the original's, with the paired interval."""
    before, after = measured.precision[ORIGINAL].ap, measured.precision[copy].ap
    low, high = interval(measured.redrawn[copy] - measured.redrawn[ORIGINAL])
    if before is None or after is None or low is None or high is None:
        return ""
    return f"{copy[0]} at radius {copy[1]:g} {after - before:+.3f} ({low:+.3f} to {high:+.3f})"


def _line(measured: Measured, name: str, copies: Sequence[Copy]) -> Series:
    low, high = zip(*(interval(measured.redrawn[copy]) for copy in copies), strict=True)
    values = tuple(measured.precision[copy].ap for copy in copies)
    return Series(name=name, values=values, low=low, high=high, n=measured.images)
