"""A detector with its normalization and its resizing inside: images in [0, 1] in, boxes in their pixels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.found import Found, Images
from passband.models.wrap import per_channel

BACKGROUND = "__background__"
"""What torchvision calls the class 0 of its detectors, which is none."""


@runtime_checkable
class Annotated(Protocol):
    """Say what is in an image, as :class:`passband.data.objects.Objects` does.

    Attributes:
        boxes: Left, top, right, bottom in pixels, float32 [T, 4].
        labels: The detector's classes, int64 [T].
        crowd: Whether a box is around many objects, bool [T]; those are not learned.
    """

    @property
    def boxes(self) -> Float[Tensor, "objects 4"]: ...
    @property
    def labels(self) -> Int[Tensor, " objects"]: ...
    @property
    def crowd(self) -> Bool[Tensor, " objects"]: ...


class Marked(NamedTuple):
    """Hold what a detector learns of one image, as :class:`Annotated` says.

    A tuple, because Fabric looks for numbers to convert in what a model is called with, and refuses frozen dataclasses.
    """

    boxes: Float[Tensor, "objects 4"]
    labels: Int[Tensor, " objects"]
    crowd: Bool[Tensor, " objects"]

    @classmethod
    def single(cls, objects: Annotated) -> Marked:
        """Return the objects that are none of a crowd."""
        alone = ~objects.crowd
        return cls(objects.boxes[alone], objects.labels[alone], objects.crowd[alone])


Losses = dict[str, Tensor]
"""Parts of a loss by name, scalars, each the batch's mean as the library has it."""


@dataclass(frozen=True)
class Host:
    """Say how a library's detector is asked and taught.

    Attributes:
        find: Detector and images to what it finds in each.
        lose: Detector, images and their objects to its losses.
    """

    find: Callable[[Detector, Images], list[Found]]
    lose: Callable[[Detector, Images, Sequence[Annotated]], Losses]


class Detector(nn.Module):
    """Find objects in images in [0, 1].

    Neither input nor boxes are checked, so that attacks and band copies may pass whatever they mean to.

    Args:
        inner: The library's module, whose state dict is what a weights file holds.
        spec: The images it takes (``size`` is what it resizes to) and its classes. Mean and std become buffers that
            stay out of the state dict; they are None where the library normalizes inside.
        host: How it is asked.

    Raises:
        PassbandError: when mean and std do not fit.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, inner: nn.Module, spec: ImageSpec, host: Host) -> None:
        super().__init__()
        self.inner, self.spec, self.host = inner, spec, host
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, per_channel(name, values, spec.channels), persistent=False)

    def forward(self, images: Images, targets: Sequence[Annotated] | None = None) -> list[Found] | Losses:
        """Return what is found in each image, or, where the objects are given, the losses.

        Losses come in evaluation mode too, with batch norms and dropouts in the mode that they are in.

        Args:
            images: In [0, 1]: a batch [B, 3, H, W], or images [3, H, W] of different sizes.
            targets: The objects of each image, boxes in its pixels; crowds are left out.

        Raises:
            PassbandError: when there are not as many targets as images, or the detector gives NaN.
        """
        if targets is None:
            return [_checked(one) for one in self.host.find(self, images)]
        if len(targets) != len(images):
            raise PassbandError(f"a detector learns one set of objects an image; got {len(targets)} for {len(images)}")
        return self.host.lose(self, images, [Marked.single(one) for one in targets])

    def normalized(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Return pixels in [0, 1] as ``inner`` takes them."""
        if self.mean is None or self.std is None:
            return pixels
        return (pixels - self.mean) / self.std

    def extra_repr(self) -> str:
        """Say what the images look like."""
        height, width = self.spec.size
        return f"{height}×{width}, {self.spec.classes} classes, mean={self.spec.mean}, std={self.spec.std}"


def _checked(found: Found) -> Found:
    if bool(torch.isnan(found.scores).any() | torch.isnan(found.boxes).any()):
        raise PassbandError(
            "the detector gives NaN: its weights hold NaN or overflow; load other weights, or train with a lower lr"
        )
    return found
