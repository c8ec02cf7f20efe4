"""The spatial filters that a model holds: its filter banks, and its first convolution's kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.models.layers import SeparableConv2d
from passband.weights.first import first_convolution, is_spatial, no_convolution


@dataclass(frozen=True)
class Bank:
    """Hold the two-dimensional filters of one layer.

    Attributes:
        name: The layer, as ``model.named_modules()`` has it.
        filters: float32 [n, height, width] on the CPU.
    """

    name: str
    filters: Float[Tensor, "filters height width"]


def filter_banks(model: nn.Module) -> tuple[tuple[Bank, ...], str]:
    """Return a model's filter banks in the order of its modules, and what they are, for people.

    The banks are the depthwise convolutions larger than 1×1; in a model without any, every convolution larger
    than 1×1, with one filter for each pair of output and input channel.

    Raises:
        PassbandError: when the model has no convolution larger than 1×1.
    """
    found = [(name, module) for name, module in model.named_modules() if is_spatial(module)]
    separable = {id(module.depthwise) for module in model.modules() if isinstance(module, SeparableConv2d)}
    depthwise = [
        (name, module)
        for name, module in found
        if module.groups == module.in_channels and (module.groups > 1 or id(module) in separable)
    ]
    if not found:
        raise no_convolution(model)
    what = "depthwise filters" if depthwise else "slices (output × input channel) of dense convolutions"
    return tuple(Bank(name, slices(module.weight)) for name, module in depthwise or found), what


def first_kernels(model: nn.Module, layer: str | None) -> tuple[str, str, Float[Tensor, "out in height width"]]:
    """Return the name, the kind and the kernels of a layer, or of the first convolution larger than 1×1.

    The kernels of a separable convolution are those of the dense one that it is.

    Args:
        model: Any module.
        layer: Name of a convolution in ``model.named_modules()``; None for the first spatial one.

    Raises:
        PassbandError: when no such layer is there, or the model has no spatial convolution.
    """
    name, chosen = first_convolution(model, layer)
    with torch.no_grad():
        if isinstance(chosen, SeparableConv2d):
            return name, "composed kernels of a separable convolution", chosen.kernel().float().cpu()
        kind = "depthwise kernels" if chosen.groups == chosen.in_channels > 1 else "kernels"
        return name, kind, chosen.weight.detach().float().cpu()


def slices(weight: Float[Tensor, "out in height width"]) -> Float[Tensor, "slice height width"]:
    """Return a weight's two-dimensional slices, detached, float32, on the CPU."""
    return weight.detach().float().cpu().flatten(0, 1)
