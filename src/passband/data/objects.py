"""What is annotated in the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Objects:
    """Hold the objects of one image.

    Attributes:
        boxes: Left, top, right and bottom in pixels of the image as it is served, float32 [T, 4].
        labels: Classes, int64 [T], in the order of the set's names.
        crowd: Whether a box is around many objects of the class, which are neither learned nor asked for, bool [T].
        areas: Area of each object in pixels of its photograph, float32 [T]; by it, COCO tells small, medium and large.
    """

    boxes: Float[Tensor, "objects 4"]
    labels: Int[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]
    areas: Float[Tensor, " objects"]

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, which: Tensor) -> Objects:
        """Return some of the objects, by a mask or by places."""
        return Objects(*(getattr(self, one.name)[which] for one in fields(self)))

    def to(self, device: torch.device | str) -> Objects:
        """Return the objects on another device."""
        return Objects(*(getattr(self, one.name).to(device) for one in fields(self)))

    @property
    def single(self) -> Objects:
        """The objects that are none of a crowd."""
        return self.take(~self.crowd)


@dataclass(frozen=True, eq=False)
class Targets(Sequence[Objects]):
    """Hold the objects of each image of a batch; what the training loop hands on in place of labels."""

    images: tuple[Objects, ...]

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Objects: ...
    @overload
    def __getitem__(self, index: slice) -> Targets: ...
    def __getitem__(self, index: int | slice) -> Objects | Targets:
        return Targets(self.images[index]) if isinstance(index, slice) else self.images[index]

    def to(self, device: torch.device | str) -> Targets:
        """Return the targets on another device."""
        return Targets(tuple(one.to(device) for one in self.images))

    def tensor_split(self, count: int) -> tuple[Targets, ...]:
        """Cut into as many parts, of as equal a size as can be, as torch's function of that name does."""
        places = torch.arange(len(self)).tensor_split(count)
        return tuple(Targets(tuple(self.images[int(at)] for at in part)) for part in places)
