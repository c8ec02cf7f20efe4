"""Detectors by torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchvision.models
from torch import nn

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.detector import BACKGROUND, Annotated, Detector, Host, Losses
from passband.models.downloads import explain_download
from passband.models.found import Found, Images
from passband.models.losing import losing
from passband.models.origin import LIBRARY_REFUSALS, Arguments, call_factory
from passband.models.torchvision_source import PREFIX

NOT_AVAILABLE = "N/A"
"""What torchvision calls a category of COCO that has no objects."""


def names() -> list[str]:
    """Return torchvision's names of detectors."""
    return [f"{PREFIX}{name}" for name in torchvision.models.list_models(module=torchvision.models.detection)]


def coco_names() -> tuple[str, ...]:
    """Return COCO's 80 classes, in the order of their category ids."""
    weights = torchvision.models.get_model_weights("retinanet_resnet50_fpn").DEFAULT
    return tuple(name for name in weights.meta["categories"] if name not in (BACKGROUND, NOT_AVAILABLE))


def from_torchvision(
    name: str,
    class_names: tuple[str, ...] | None,
    size: int | None,
    pretrained: bool,
    arguments: Arguments,
) -> Detector:
    """Make a detector by torchvision's name.

    Args:
        name: Such as ``"torchvision:retinanet_resnet50_fpn"``.
        class_names: Of the objects, to which the background is added as class 0; None for the classes of
            torchvision's weights, COCO's category ids.
        size: To which an image's shorter side is resized; the detector's own when None.
        pretrained: Whether to load torchvision's weights; otherwise nothing is, the backbone's neither.
        arguments: Of torchvision's factory.

    Raises:
        PassbandError: for arguments that do not fit, weights that cannot be had, or classes that are not theirs.
    """
    short = name.removeprefix(PREFIX)
    weights = torchvision.models.get_model_weights(short).DEFAULT
    known = tuple(weights.meta["categories"])
    outputs = known if class_names is None else (BACKGROUND, *class_names)
    if pretrained and class_names is not None:
        raise PassbandError(
            f"torchvision's weights of '{short}' have classes of their own; take it without (--no-pretrained)"
        )
    asked: dict[str, Any] = {"num_classes": len(outputs)} | arguments
    asked |= {"weights": weights if pretrained else None}
    # Without weights of its own a factory would fetch its backbone's.
    asked |= {"weights_backbone": None}
    if size is not None:
        if short.startswith("ssd"):
            raise PassbandError(f"'{name}' resizes to one size of its own; leave the size out")
        asked |= {"min_size": size, "max_size": round(size * 5 / 3)}
    with explain_download(name):
        inner = call_factory(name, torchvision.models.get_model_builder(short), asked, LIBRARY_REFUSALS)
    spec = ImageSpec(
        _size(inner), None, None, "inside, torchvision's transform", len(outputs), class_names=outputs,
    )  # fmt: skip
    return Detector(inner, spec, TORCHVISION)


def _size(inner: nn.Module) -> tuple[int, int]:
    transform: Any = inner.transform
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return int(height), int(width)
    side = int(transform.min_size[0])
    return side, side


def _find(detector: Detector, images: Images) -> list[Found]:
    return [Found(one["boxes"], one["scores"], one["labels"]) for one in detector.inner(list(images))]


def _lose(detector: Detector, images: Images, targets: Sequence[Annotated]) -> Losses:
    for kind in ("mask", "keypoint"):
        if getattr(getattr(detector.inner, "roi_heads", None), f"{kind}_predictor", None) is not None:
            raise PassbandError(
                f"this detector learns {kind}s, which boxes do not give; take one that finds boxes alone"
            )
    given = [{"boxes": one.boxes, "labels": one.labels} for one in targets]
    with losing(detector.inner):
        losses: Losses = detector.inner(list(images), given)
    return losses


TORCHVISION = Host(_find, _lose)
"""torchvision's detectors resize and normalize inside, and give losses in training mode alone."""
