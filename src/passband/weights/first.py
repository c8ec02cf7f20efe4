"""A model's first spatial convolution: the one whose kernels meet the image."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

from passband.core.errors import NotApplicable, unknown
from passband.models.layers import SeparableConv2d
from passband.weights.roles import bare

Convolution = nn.Conv2d | SeparableConv2d


def first_convolution(model: nn.Module, layer: str | None = None) -> tuple[str, Convolution]:
    """Return the name and the module of a model's first convolution larger than 1×1, or of the one that is named.

    First is meant in the order of the modules, which is that of the forward pass in timm's and torchvision's models. A
    separable convolution counts as one.

    Args:
        model: Any module; names are those of ``model.named_modules()``.
        layer: Name of a convolution larger than 1×1; None for the first one.

    Raises:
        NotApplicable: when the model has no convolution larger than 1×1.
        PassbandError: when none of them has that name.
    """
    found: dict[str, Convolution] = {}
    for name, module in model.named_modules():
        inside = any(isinstance(found.get(parent), SeparableConv2d) for parent in _parents(name))
        if isinstance(module, SeparableConv2d) or (is_spatial(module) and not inside):
            found[name] = module
    if not found:
        raise no_convolution(model)
    if layer is None:
        layer = next(iter(found))
    if layer not in found:
        raise unknown("convolution larger than 1×1", layer, found)
    return layer, found[layer]


def is_spatial(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Tell whether a module is a convolution with a kernel larger than one pixel."""
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def no_convolution(model: nn.Module) -> NotApplicable:
    """Return the error for a model that convolves nowhere, or pixel by pixel alone."""
    return NotApplicable(
        f"this needs a convolution larger than 1×1, and {type(bare(model)).__name__} has none: choose another model, "
        "or probes that need none with --only bands,robustness"
    )


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]
