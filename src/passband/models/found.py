"""What a detector finds in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from jaxtyping import Float, Int
from torch import Tensor

Images = Tensor | Sequence[Tensor]
"""Images in [0, 1]: a batch [B, 3, H, W], or images [3, H, W] of different sizes."""


@dataclass(frozen=True, eq=False)
class Found:
    """Hold what a detector finds in one image, most certain first.

    Attributes:
        boxes: Left, top, right and bottom in pixels of the image as it was given, float32 [D, 4].
        scores: How certain it is, in [0, 1], float32 [D].
        labels: Classes, int64 [D], in the order of the detector's names.
    """

    boxes: Float[Tensor, "found 4"]
    scores: Float[Tensor, " found"]
    labels: Int[Tensor, " found"]

    def __len__(self) -> int:
        return len(self.boxes)

    def float(self) -> Found:
        """Return boxes and scores as float32."""
        return Found(self.boxes.float(), self.scores.float(), self.labels)

    def cpu(self) -> Found:
        """Return what was found on the CPU, without a graph."""
        return Found(*(getattr(self, one.name).detach().cpu() for one in fields(self)))
