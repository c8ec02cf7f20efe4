"""Gram matrices of a model's layers, made while it runs, so that no layer's features are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.models.layers import SeparableConv2d
from passband.models.state import exact
from passband.models.watch import watched
from passband.probes.cka import Estimator, centered, gram
from passband.weights.roles import bare

Layers = Mapping[str, nn.Module]


def layers_of(
    model: nn.Module, names: Sequence[str] | None, images: Float[Tensor, "image channel height width"]
) -> tuple[dict[str, nn.Module], tuple[str, ...]]:
    """Return a model's layers in the order in which it first calls them, and the names of those left out.

    Left out is, where none is named, what is not called, or does not give a row for each image.

    Args:
        model: Any module, in evaluation mode.
        names: In ``named_modules()`` of the network or of the model around it; None is every convolution (a separable
            one is one) and every linear layer.
        images: A few images that it takes.

    Raises:
        NotApplicable: when none is named and none is left.
        PassbandError: for a name that is not there, or whose layer would be left out.
    """
    modules = dict(bare(model).named_modules()) | dict(model.named_modules())
    for name in names or ():
        if name not in modules:
            raise unknown("layer", name, modules)
    wanted = {name: modules[name] for name in (_usual(bare(model)) if names is None else dict.fromkeys(names))}
    outputs: dict[str, list[Any]] = {}
    with watched(wanted, lambda name, _, output: outputs.setdefault(name, []).append(output)), torch.no_grad():
        model(images)
    good = {name: wanted[name] for name, given in outputs.items() if all(_rows(one, len(images)) for one in given)}
    missing = tuple(name for name in wanted if name not in good)
    if names is not None and missing:
        why = "gives no tensor with a row for each image" if missing[0] in outputs else "is not called"
        raise PassbandError(f"layer {missing[0]} {why} when the model runs: leave it out, or name another one")
    if not good:
        raise NotApplicable(
            f"similarity compares convolutions and linear layers, and {type(bare(model)).__name__} calls none: name "
            "others with layers="
        )
    return good, missing


def _usual(network: nn.Module) -> list[str]:
    found: list[str] = []
    whole: list[str] = []
    for name, module in network.named_modules():
        if any(name.startswith(f"{outer}.") for outer in whole):
            continue
        if isinstance(module, SeparableConv2d):
            whole.append(name)
        if isinstance(module, _ConvNd | nn.Linear | SeparableConv2d):
            found.append(name)
    return found


def _rows(output: Any, count: int) -> bool:
    return isinstance(output, Tensor) and output.is_floating_point() and output.ndim > 1 and len(output) == count


def centered_grams(
    model: nn.Module, layers: Layers, images: Float[Tensor, "image channel height width"], estimator: Estimator
) -> Float64[Tensor, "layer image image"]:
    """Run a model and return its layers' centered Gram matrices.

    Each is made as soon as its layer has run, before a later one writes into the same memory. That of a layer that is
    called several times is that of all its outputs side by side.

    Args:
        model: Images in, in evaluation mode; called without a graph.
        layers: As :func:`layers_of` gives them.
        images: A batch.
        estimator: Of HSIC.

    Raises:
        PassbandError: when a layer gives NaN or infinity.
    """
    found: dict[str, Tensor] = {}

    def see(name: str, _inputs: Any, output: Tensor) -> None:
        made = gram(output.detach())
        found[name] = found[name] + made if name in found else made

    with exact(), watched(layers, see), torch.no_grad():
        model(images)
    stack = torch.empty(len(layers), len(images), len(images), dtype=torch.float64)
    for place, name in enumerate(layers):
        stack[place] = centered(found.pop(name), estimator)
        if not bool(stack[place].isfinite().all()):
            raise PassbandError(
                f"layer {name} gives NaN or infinity: its weights hold NaN or overflow; load other weights"
            )
    return stack
