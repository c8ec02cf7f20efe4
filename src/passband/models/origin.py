"""What a source of networks found: the network, and what its metadata says of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from passband.core.errors import PassbandError
from passband.core.spec import Fit

Size = tuple[int, int]
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Hold a network with what is known of its images; None and empty where nothing is.

    Attributes:
        inner: The network.
        size: Height and width of its input in pixels.
        mean: Per channel, of pixels in [0, 1].
        std: As ``mean``.
        source: Where mean and std came from, for people.
        plain: Whether the network is known to take pixels in [0, 1] as they are.
        crop_pct: As timm's.
        interpolation: As timm's.
        crop_mode: As timm's.
        class_names: One per output, in order.
        fit: How images come to its size, as ``ImageSpec.fit``.
    """

    inner: nn.Module
    size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    source: str = ""
    plain: bool = False
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    class_names: tuple[str, ...] = ()
    fit: Fit = "timm"


def from_cfg(inner: nn.Module, cfg: Mapping[str, Any], source: str) -> Origin:
    """Read what timm's metadata of a network says (``pretrained_cfg``, ``default_cfg``)."""
    shape = cfg.get("input_size")
    origin = Origin(inner, source=source, size=(shape[1], shape[2]) if shape else None)
    if cfg.get("mean") is not None and cfg.get("std") is not None:
        origin = replace(origin, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))
    crop_pct, interpolation = cfg.get("crop_pct") or 1.0, cfg.get("interpolation") or "bicubic"
    crop_mode = cfg.get("crop_mode") or "center"
    return replace(origin, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode)


def imagenet_names() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k's classes, in the order of every pretrained network's outputs."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


def class_names(inner: nn.Module, cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what timm's metadata calls the outputs, where the network still has as many."""
    classes = getattr(inner, "num_classes", None)
    if classes != cfg.get("num_classes"):
        return ()
    if cfg.get("label_names") and len(cfg["label_names"]) == classes:
        return tuple(cfg["label_names"])
    return imagenet_names() if infer_imagenet_subset(dict(cfg)) == "imagenet-1k" else ()


REFUSALS = (TypeError, ValueError, AssertionError)
"""How a function says that arguments do not fit."""

LIBRARY_REFUSALS = (*REFUSALS, LookupError, AttributeError, ArithmeticError, NotImplementedError)
"""How a library's constructors do, deep inside."""


def call_factory(
    name: str, factory: Any, arguments: Mapping[str, Any], expected: tuple[type[Exception], ...] = REFUSALS
) -> nn.Module:
    """Call a factory of networks.

    Args:
        name: For the error.
        factory: What makes the network.
        arguments: By name.
        expected: Errors by which it refuses arguments; others pass.

    Raises:
        PassbandError: when it refuses the arguments, or gives no module.
    """
    try:
        module = factory(**arguments)
    except expected as error:
        line = (str(error).splitlines() or [""])[0]
        shown = {key: value for key, value in arguments.items() if value is not None}
        given = ", ".join(f"{key}={value!r}" for key, value in shown.items()) or "no arguments"
        reason = f"{type(error).__name__}: {line}"
        raise PassbandError(f"model '{name}' cannot be made with {given} ({reason}); change its arguments") from error
    if not isinstance(module, nn.Module):
        came = type(module).__name__
        raise PassbandError(f"model '{name}' gave a {came}; its factory must return a torch.nn.Module")
    return module
