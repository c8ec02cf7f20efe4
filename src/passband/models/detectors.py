"""Any detector by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from passband.core.errors import PassbandError, unknown
from passband.core.options import parse_options
from passband.models import rtdetr, torchvision_detectors
from passband.models.detector import BACKGROUND, Detector
from passband.models.rtdetr_backbones import OWN
from passband.models.torchvision_source import PREFIX as TORCHVISION
from passband.models.weights_file import load_weights, read_weights


def is_detector(name: str) -> bool:
    """Tell whether a name is a detector's: ``rtdetr:BACKBONE``, or one of torchvision's."""
    return name.startswith(rtdetr.PREFIX) or name in torchvision_detectors.names()


def names() -> list[str]:
    """Return the names of detectors; RT-DETR takes any backbone of timm's with strides 8, 16 and 32 beside its own."""
    own = [f"{rtdetr.PREFIX}{name}" for name in (*OWN, "spartan_xt", "spartan_t", "BACKBONE", "FOLDER")]
    return [*torchvision_detectors.names(), *own]


def create_detector(
    name: str,
    *,
    class_names: tuple[str, ...] | None = None,
    size: int | None = None,
    pretrained: bool = False,
    weights: Path | str | None = None,
    **arguments: Any,
) -> Detector:
    """Make a detector by name.

    Args:
        name: ``"torchvision:retinanet_resnet50_fpn"`` or another of torchvision's; ``"rtdetr:spartan_xt"``, with any
            timm backbone that has feature maps of strides 8, 16 and 32; ``"rtdetr:r18vd"``, ``r34vd``, ``r50vd``, on
            RT-DETR's own; ``"rtdetr:FOLDER"``, as transformers saved it.
        class_names: Of the objects, in the order of their labels; COCO's when None. A file of weights may bring them.
        size: What images are resized to: the side of a square (rtdetr), the shorter side (torchvision).
        pretrained: Whether to load torchvision's trained weights.
        weights: A file to load weights from instead, such as a run's ``weights.safetensors``.
        **arguments: Of torchvision's factory, or of :func:`passband.models.rtdetr.build`.

    Raises:
        PassbandError: for an unknown name, arguments that do not fit, or weights that cannot be had or do not fit.

    >>> detector = create_detector("rtdetr:spartan_xt", class_names=("cat",), size=64, width=32, queries=5)
    >>> detector.spec.size, detector.spec.classes
    ((64, 64), 1)
    """
    if not is_detector(name):
        raise unknown("detector", name, names(), hint="rtdetr takes any timm backbone: rtdetr:resnet18")
    if weights is not None and pretrained:
        raise PassbandError("pretrained weights and a weights file exclude each other; give one of them")
    if class_names is not None and (not class_names or len(set(class_names)) < len(class_names)):
        raise PassbandError(f"a detector needs one or more classes of different names; got {list(class_names)}")
    if size is not None and size < 1:
        raise PassbandError(f"a detector resizes to 1 pixel or more; got {size}")
    file = read_weights(Path(weights)) if weights is not None else None
    if file is not None and class_names is None and file.class_names:
        given = file.class_names
        class_names = given[1:] if given[0] == BACKGROUND else given
    if name.startswith(TORCHVISION):
        detector = torchvision_detectors.from_torchvision(name, class_names, size, pretrained, arguments)
    else:
        backbone = name.removeprefix(rtdetr.PREFIX)
        detector = rtdetr.from_transformers(
            backbone, class_names=class_names, size=size, pretrained=pretrained,
            arguments=parse_options(rtdetr.build, arguments, owner=f"model {name}"),
        )  # fmt: skip
    if file is not None:
        load_weights(detector.inner, file)
        if name.startswith(TORCHVISION):
            torchvision_detectors.settle(name, detector.inner, file.path.name)
    return detector
