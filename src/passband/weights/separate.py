"""Make a model's dense convolutions separable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.models.layers import SeparableConv2d
from passband.weights.depthwise import is_depthwise
from passband.weights.factorize import best_filters, fit_weights, relative_error
from passband.weights.roles import bare

Filters = Literal["random", "least-squares", "svd"]


@dataclass(frozen=True)
class SeparateReport:
    """Say which convolutions became separable and how near each is to what it was.

    Args:
        filters: Where the filters came from.
        errors: Name of each convolution to the norm of its change over the norm of its kernel; None where it was
            drawn anew.
    """

    filters: Filters
    errors: Mapping[str, float | None]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the convolutions replaced."""
        return tuple(self.errors)

    def __str__(self) -> str:
        """Say it in one line, with the layer that changed most."""
        said = f"{len(self.errors)} convolutions made separable, filters {self.filters}"
        known = {name: error for name, error in self.errors.items() if error is not None}
        if not known:
            return said
        worst = max(known, key=lambda name: known[name])
        return f"{said}: relative error at most {known[worst]:.2g} ({worst})"


def separate(model: nn.Module, multiplier: int | None = 9, filters: Filters = "random") -> SeparateReport:
    """Replace every dense k×k convolution by a separable one of the same geometry.

    ``random`` draws both of its layers anew, as for training from the start. The others keep what was trained as
    well as ``multiplier`` filters an input channel can: ``least-squares`` draws the filters and fits the pointwise
    weights to the kernels, ``svd`` takes the best filters there are (each input channel's truncated singular value
    decomposition) and is never worse. From k² filters on ``svd`` is exact to rounding, ``least-squares`` to rounding
    times the condition of the filters that were drawn; ``svd`` also from as many as the
    layer has outputs, and its filters beyond are drawn and weigh nothing. A convolution of a single input channel is
    depthwise as it is, and stays.

    **Source**: spatial-mixing, section 3 (a ResNet whose convolutions all become separable, depth multiplier
    9). **Differs**: the fits are ours.

    Args:
        model: Changed in place.
        multiplier: Depthwise filters per input channel; None for k², layer by layer.
        filters: Where filters and weights come from.

    Returns:
        The convolutions replaced, each with its error.

    Raises:
        PassbandError: when nothing matches, and for a convolution that has no separable form here (grouped,
            dilated, oblong, padded otherwise than with zeros, or of a class with a forward of its own), or whose
            kernel to be fitted is not finite; the model is then unchanged.
    """
    if filters not in get_args(Filters):
        raise unknown("source of filters", filters, get_args(Filters))
    inner = bare(model)
    places = [(name, m) for name, m in inner.named_modules(remove_duplicate=False) if _is_dense(m)]
    if not places:
        raise PassbandError(f"{type(inner).__name__} has no dense k×k convolution to make separable")
    new: dict[nn.Module, SeparableConv2d] = {}
    errors: dict[str, float | None] = {}
    for name, module in places:
        assert isinstance(module, nn.Conv2d)
        if module not in new:  # a convolution that stands in two places stays one
            new[module] = _separable(name, module, multiplier)
            errors[name] = _fit(name, new[module], module, filters)
    for name, module in places:
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, new[module])
    return SeparateReport(filters, errors)


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and not is_depthwise(module)


def _fit(name: str, new: SeparableConv2d, old: nn.Conv2d, filters: Filters) -> float | None:
    """Give a separable convolution the kernels of a dense one, as near as it comes, and return how near that is."""
    if filters == "random":
        return None
    if not bool(old.weight.isfinite().all()):
        raise PassbandError(f"the kernel of '{name}' holds NaN or infinity: load other weights, or filters='random'")
    drawn = new.depthwise.weight.detach().view(new.in_channels, new.multiplier, *new.depthwise.kernel_size)
    if filters == "svd":
        best, weights = best_filters(old.weight, new.multiplier)
        drawn[:, : best.shape[1]] = best
        mixing = weights.new_zeros(new.out_channels, new.in_channels, new.multiplier)
        mixing[:, :, : best.shape[1]] = weights
    else:
        mixing = fit_weights(old.weight, drawn)
    with torch.no_grad():
        new.pointwise.weight.copy_(mixing.flatten(1)[:, :, None, None])
        if new.pointwise.bias is not None and old.bias is not None:
            new.pointwise.bias.copy_(old.bias)
        return relative_error(old.weight, new.kernel())


def _separable(name: str, convolution: nn.Conv2d, multiplier: int | None) -> SeparableConv2d:
    reasons = {
        "is the whole model (put it into nn.Sequential)": not name,
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
    side = convolution.kernel_size[0]
    new = SeparableConv2d(
        convolution.in_channels,
        convolution.out_channels,
        side,
        convolution.stride[0],
        int(convolution.padding[0]),
        side * side if multiplier is None else multiplier,
        bias=convolution.bias is not None,
    )
    return new.to(convolution.weight).train(convolution.training)
