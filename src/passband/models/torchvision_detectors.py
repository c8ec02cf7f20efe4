"""Detectors by torchvision's names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.misc import FrozenBatchNorm2d

from passband.core.errors import PassbandError, unknown
from passband.core.spec import ImageSpec
from passband.models.detector import BACKGROUND, Annotated, Detector, Host, Losses
from passband.models.downloads import explain_download
from passband.models.found import Found, Images
from passband.models.losing import losing
from passband.models.origin import LIBRARY_REFUSALS, Arguments, call_factory
from passband.models.torchvision_source import PREFIX

_NO_EPSILON = tuple(f"{kind}_resnet50_fpn" for kind in ("retinanet", "fasterrcnn", "maskrcnn", "keypointrcnn"))

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
    if "num_classes" in arguments:
        raise PassbandError(f"the classes of '{name}' come with their names; leave num_classes out")
    # Without weights of its own a factory would fetch its backbone's.
    asked = arguments | {
        "num_classes": len(outputs), "weights": weights if pretrained else None, "weights_backbone": None,
    }  # fmt: skip
    fixed = short.startswith("ssd")
    if size is not None and not fixed:
        asked |= {"min_size": size, "max_size": round(size * 5 / 3)}
    factory = torchvision.models.get_model_builder(short)
    with explain_download(name):
        inner = call_factory(name, factory, asked, LIBRARY_REFUSALS)
    _check_known(name, factory, inner, arguments)
    own = _size(inner)
    if fixed and size not in (None, own[0]):
        raise PassbandError(f"'{name}' resizes to {own[0]}×{own[1]} alone; got {size}: give {own[0]}, or leave it out")
    spec = ImageSpec(
        own, None, None, "inside, torchvision's transform", len(outputs), class_names=outputs,
    )  # fmt: skip
    return Detector(inner, spec, TORCHVISION)


def settle(name: str, inner: nn.Module, file: str) -> None:
    """Set what torchvision sets beside its own weights, where a file of them, named as it was published, is loaded.

    Its first detectors on ResNet-50 were trained with batch norms whose ε is 0.
    """
    short = name.removeprefix(PREFIX)
    published = {Path(one.url).name for one in torchvision.models.get_model_weights(short)}
    if short not in _NO_EPSILON or file not in published:
        return
    for module in inner.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.eps = 0.0


def _check_known(name: str, factory: Any, inner: nn.Module, arguments: Arguments) -> None:
    """Refuse arguments that nobody takes; torchvision hands them down, and the last one drops them silently."""
    takers = (factory, type(inner).__init__, GeneralizedRCNNTransform.__init__)
    known = [one for taker in takers for one in inspect.signature(taker).parameters]
    for given in arguments:
        if given not in known:
            raise unknown(f"option of model {name}", given, known)


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
