"""Augmentations that move boxes with their images, of torchvision, by the names that a recipe gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.registry import Registry
from passband.data.objects import Objects

SCENE_AUGMENTATIONS: Registry[Callable[..., nn.Module]] = Registry("augmentation of scenes")
"""Functions of options by keyword that make one of torchvision's transforms of an image and its boxes."""

MULTI_SCALE = "multi-scale"
"""The one that changes whole batches, and comes last."""

SIZES = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
"""Sides of RT-DETR's batches, drawn with equal chances."""


@SCENE_AUGMENTATIONS.register("photometric")
def photometric(*, chance: float = 0.5) -> nn.Module:
    """Make torchvision's RandomPhotometricDistort: brightness, contrast, saturation, hue, order of channels.

    Args:
        chance: Of each of them.
    """
    made: nn.Module = v2.RandomPhotometricDistort(p=_checked("photometric", chance))
    return made


@SCENE_AUGMENTATIONS.register("zoom-out")
def zoom_out(*, chance: float = 0.5, fill: float = 0.0, largest: float = 4.0) -> nn.Module:
    """Make torchvision's RandomZoomOut: the image somewhere on a larger canvas.

    Args:
        chance: How probable it is for an image.
        fill: The canvas, in [0, 1].
        largest: Side of the largest canvas, in sides of the image, 1 or more.

    Raises:
        PassbandError: when an option is out of range.
    """
    if not 0 <= fill <= 1 or not largest >= 1:
        raise PassbandError(
            f"augmentation zoom-out takes a fill within 0 and 1, and a largest of 1 or more; got {fill} and {largest}"
        )
    made: nn.Module = v2.RandomZoomOut(
        fill=round(255 * fill), side_range=(1.0, largest), p=_checked("zoom-out", chance)
    )
    return made


@SCENE_AUGMENTATIONS.register("iou-crop")
def iou_crop(*, chance: float = 0.8) -> nn.Module:
    """Make torchvision's RandomIoUCrop, which keeps objects whose centers stay in the part cut out.

    Args:
        chance: How probable it is for an image; one of its ways is to cut nothing.
    """
    made: nn.Module = v2.RandomApply([v2.RandomIoUCrop()], p=_checked("iou-crop", chance))
    return made


@SCENE_AUGMENTATIONS.register("flip")
def flip(*, chance: float = 0.5) -> nn.Module:
    """Make torchvision's RandomHorizontalFlip.

    Args:
        chance: How probable it is for an image.
    """
    made: nn.Module = v2.RandomHorizontalFlip(p=_checked("flip", chance))
    return made


def multi_scale(*, sizes: tuple[int, ...] = SIZES) -> tuple[int, ...]:
    """Return the sides, in pixels, one of which is drawn for each batch, to which it is resized (nearest).

    Raises:
        PassbandError: when there is none, or one is no multiple of 32.
    """
    if not sizes or any(side < 32 or side % 32 for side in sizes):
        raise PassbandError(f"augmentation multi-scale takes multiples of 32; got {list(sizes)}")
    return sizes


@dataclass(frozen=True, eq=False)
class SceneAugment:
    """Change images with their objects, and bring them to one size.

    Attributes:
        transforms: In order.
        size: Side of the square that images come to, their aspect not kept.
        sizes: Sides of batches; empty leaves all at ``size``.
    """

    transforms: tuple[nn.Module, ...]
    size: int
    sizes: tuple[int, ...] = ()

    def __call__(self, image: Tensor, objects: Objects) -> tuple[Tensor, Objects]:
        """Return an image, uint8 [3, size, size], and its objects, crowds left out, drawing from torch's generator.

        Boxes are cut at the image's edges; what is left without a pixel is left out.
        """
        single = objects.single
        sample: Any = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(single.boxes, format="XYXY", canvas_size=tuple(image.shape[-2:])),
            "labels": single.labels,
            "areas": single.areas,
        }
        for transform in self.transforms:
            sample = _kept(transform(sample))
        sample = _kept(v2.Resize([self.size, self.size], antialias=True)(sample))
        boxes = sample["boxes"].as_subclass(Tensor)
        crowd = torch.zeros(len(boxes), dtype=torch.bool)
        return sample["image"].as_subclass(Tensor), Objects(boxes, sample["labels"], crowd, sample["areas"])


def _kept(sample: Any) -> Any:
    """Leave out objects that a transform has cut away."""
    return v2.SanitizeBoundingBoxes(min_size=1, labels_getter=lambda found: (found["labels"], found["areas"]))(
        v2.ClampBoundingBoxes()(sample)
    )


def scene_augment(entries: Sequence[Mapping[str, Any]], size: int) -> SceneAugment:
    """Make the augmentations of a recipe that learns detection: ``[{"name": "iou-crop"}, {"name": "flip"}]``.

    Args:
        entries: Names and options.
        size: Side of the square that images come to.

    Raises:
        PassbandError: for an unknown name or option, an entry without a name, or ``multi-scale`` not at the end.
    """
    transforms: list[nn.Module] = []
    sizes: tuple[int, ...] = ()
    for place, entry in enumerate(entries):
        options = dict(entry)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise PassbandError(f"an augmentation is written {{name: flip, chance: 0.5}}; got {dict(entry)}")
        if name == MULTI_SCALE:
            if place < len(entries) - 1:
                raise PassbandError("augmentation multi-scale changes finished batches; put it last")
            sizes = multi_scale(**parse_options(multi_scale, options, owner=f"augmentation {name}"))
            continue
        make = SCENE_AUGMENTATIONS[name]
        transforms.append(make(**parse_options(make, options, owner=f"augmentation {name}")))
    return SceneAugment(tuple(transforms), size, sizes)


def _checked(name: str, chance: float) -> float:
    if not 0 <= chance <= 1:
        raise PassbandError(f"augmentation {name} takes a chance between 0 and 1; got {chance}")
    return chance
