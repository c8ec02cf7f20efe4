"""Make a model's dense convolutions separable."""

from __future__ import annotations

from torch import nn

from passband.core.errors import PassbandError
from passband.models.layers import SeparableConv2d
from passband.weights.depthwise import is_depthwise
from passband.weights.roles import bare


def separate(model: nn.Module, multiplier: int = 9) -> tuple[str, ...]:
    """Replace every dense k×k convolution by a separable one of the same geometry, freshly initialized.

    **Source**: spatial-mixing, section 3 (a ResNet whose convolutions all become separable, depth multiplier
    9).

    Args:
        model: Changed in place.
        multiplier: Depthwise filters per input channel.

    Returns:
        Names of the convolutions replaced.

    Raises:
        PassbandError: when nothing matches, and for a convolution that has no separable form here (grouped,
            dilated, oblong, padded otherwise than with zeros, or of a class with a forward of its own); the
            model is then unchanged.
    """
    inner = bare(model)
    dense = [
        (name, module)
        for name, module in inner.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and not is_depthwise(module)
    ]
    if not dense:
        raise PassbandError(f"{type(inner).__name__} has no dense k×k convolution to make separable")
    new = [(name, _separable(name, module, multiplier)) for name, module in dense]
    for name, module in new:
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, module)
    return tuple(name for name, _ in new)


def _separable(name: str, convolution: nn.Conv2d, multiplier: int) -> SeparableConv2d:
    reasons = {
        f"has {convolution.groups} groups": convolution.groups != 1,
        f"is dilated by {convolution.dilation}": set(convolution.dilation) != {1},
        f"pads with {convolution.padding_mode}": convolution.padding_mode != "zeros",
        f"pads by '{convolution.padding}'": isinstance(convolution.padding, str),
        f"is of class {type(convolution).__name__}, not Conv2d": type(convolution) is not nn.Conv2d,
        "is not square in kernel, stride or padding": any(
            len(set(pair)) > 1 for pair in (convolution.kernel_size, convolution.stride, convolution.padding)
        ),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason:
        raise PassbandError(f"the convolution '{name}' {reason}: it has no separable form; choose another model")
    new = SeparableConv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size[0],
        convolution.stride[0],
        int(convolution.padding[0]),
        multiplier,
        bias=convolution.bias is not None,
    )
    return new.to(convolution.weight).train(convolution.training)
