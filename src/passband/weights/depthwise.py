"""The depthwise convolutions of a model: what filter banks are."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError
from passband.weights.roles import bare


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether a module convolves each channel by itself, with a kernel larger than one pixel."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels and max(module.kernel_size) > 1


def depthwise_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Return name and module of every depthwise convolution.

    Raises:
        PassbandError: when there is none, or its kernel is computed from other weights.
    """
    inner = bare(model)
    found = [(name, m) for name, m in inner.named_modules() if isinstance(m, nn.Conv2d) and is_depthwise(m)]
    if not found:
        raise PassbandError(
            f"{type(inner).__name__} has no depthwise convolution with filters to take; choose a model that has "
            "some (separable_resnet, ConvMixer, ConvNeXt); a recipe draws filters before it makes a model separable"
        )
    for name, module in found:
        if parametrize.is_parametrized(module, "weight"):
            raise PassbandError(f"the filters of '{name}' are computed from other weights; edit them before that")
    return found
