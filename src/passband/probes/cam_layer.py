"""Where a class activation map is read: the last layer of a network that still says where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.models.state import untouched
from passband.models.watch import watched
from passband.weights.roles import bare

Kind = Literal["map", "tokens"]
Size = tuple[int, int]
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""What hands on its input in evaluation mode: it is no layer of its own."""
_PREFIX = 8
"""Class, distillation and register tokens of a network that does not say how many it has, at most."""


def layer_named(model: nn.Module, name: str | None, images: Float[Tensor, "batch channel height width"]) -> str:
    """Return the layer that a map is read from: the one that is named, else the last one that says where.

    Where none is named, the last stage of timm's ``feature_info`` whose output has more than one place is taken, else
    the last layer that is called and has such an output. A stage of several blocks stands for its last block. Of a
    network of tokens it is the first norm of the last block, or the block before where that does not begin with one:
    behind the last attention, the class token alone decides, and all gradients of other tokens are zero.

    **Source**: Selvaraju et al., *Grad-CAM*, 2017 (the last convolutional layer); for tokens as the documentation of
    pytorch-grad-cam advises. **Differs**: of Swin, whose head pools all places, the last stage.

    Args:
        model: Any module.
        name: In ``named_modules()`` of the network or of the model around it; None looks for it.
        images: A few images that it takes.

    Raises:
        NotApplicable: when none is named and no layer's output says where.
        PassbandError: for a name that is not there, is not called, or whose output does not say where.
    """
    network = bare(model)
    modules = dict(network.named_modules()) | dict(model.named_modules())
    if name is not None and name not in modules:
        raise unknown("layer", name, modules)
    if name is None:
        parts = {one: module for one, module in network.named_modules() if one}
        return _chosen(network, _called(model, parts, images))
    called = _called(model, {name: modules[name]}, images)
    if name not in called:
        raise PassbandError(
            f"layer {name} gives no map [batch, channels, height, width] and no tokens [batch, tokens, channels] of "
            "more than one place when the model runs: name another one"
        )
    return name


def spatial(
    output: Any, size: Size, network: nn.Module | None = None
) -> Float[Tensor, "batch channel height width"] | None:
    """Return a layer's output as maps, a view of it, or None where it does not say where.

    Channels are last where the first two axes fit the images' shape better than the last two do. Tokens are a grid of
    the images' shape behind as many prefix tokens as the network has, or where it does not say, the fewest that leave
    one.

    Args:
        output: Of a layer.
        size: Height and width of the images.
        network: Asked for its number of prefix tokens.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    maps: Tensor | None = None
    if output.ndim == 4:
        last = _misfit(output.shape[1:3], size) < _misfit(output.shape[2:4], size)
        maps = output.permute(0, 3, 1, 2) if last else output
    elif output.ndim == 3:
        prefix, grid = _grid(int(output.shape[1]), size, getattr(network, "num_prefix_tokens", None))
        if grid is not None:
            maps = output[:, prefix:].transpose(1, 2).reshape(len(output), -1, *grid)
    return maps if maps is not None and maps.shape[2] * maps.shape[3] > 1 else None


def _misfit(shape: tuple[int, ...], size: Size) -> float:
    return abs(math.log(shape[0] / shape[1]) - math.log(size[0] / size[1])) if min(shape) else math.inf


def _grid(tokens: int, size: Size, known: int | None) -> tuple[int, Size | None]:
    """Return the number of prefix tokens, and the height and width of the grid that the others make."""
    for prefix in range(min(_PREFIX, tokens)) if known is None else (known,):
        height = round(math.sqrt((tokens - prefix) * size[0] / size[1]))
        width = (tokens - prefix) // max(height, 1)
        if height * width == tokens - prefix and height * size[1] == width * size[0]:
            return prefix, (height, width)
    return 0, None


def _called(model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, Kind]:
    """Return the layers whose outputs say where, in the order in which they end, the last time that they do."""
    network, size = bare(model), (int(images.shape[-2]), int(images.shape[-1]))
    called: dict[str, Kind] = {}

    def see(name: str, _inputs: Any, output: Any) -> None:
        called.pop(name, None)
        maps = spatial(output, size, network)
        if maps is not None:
            called[name] = "map" if output.ndim == 4 else "tokens"

    with watched(layers, see), untouched(model), torch.no_grad():
        model(images)
    return called


def _chosen(network: nn.Module, called: dict[str, Kind]) -> str:
    modules = dict(network.named_modules())
    known = [name for name in called if name in modules and name and not isinstance(modules[name], _PASSES)]
    stages = getattr(network, "feature_info", ())
    named = [one["module"] for one in stages if isinstance(one, dict) and one.get("module") in known]
    if not known:
        raise NotApplicable(
            f"saliency reads a map with more than one place, and no layer of {type(network).__name__} gives one"
        )
    stage = named[-1] if named else known[-1]
    if called[stage] == "tokens":
        return _before_attention(modules, [name for name in known if called[name] == "tokens"])
    return _last_block(modules, stage)


def _last_block(modules: dict[str, nn.Module], stage: str) -> str:
    """Go down from a sequence to its last member, as far as that is one."""
    while isinstance(modules[stage], nn.Sequential):
        members = [name for name, one in modules[stage].named_children() if not isinstance(one, _PASSES)]
        if not members:
            break
        stage = f"{stage}.{members[-1]}"
    return stage


def _before_attention(modules: dict[str, nn.Module], known: list[str]) -> str:
    """Return the last block's first norm, or the block before where it begins with something else."""
    blocks = [name for name in known if _is_block(modules, name)]
    if not blocks:
        return known[-1]
    parts = [name for name in known if name.rpartition(".")[0] == blocks[-1]]
    if parts and "norm" in type(modules[parts[0]]).__name__.lower():
        return parts[0]
    siblings = [name for name in blocks if name.rpartition(".")[0] == blocks[-1].rpartition(".")[0]]
    return siblings[-2] if len(siblings) > 1 else blocks[-1]


def _is_block(modules: dict[str, nn.Module], name: str) -> bool:
    """Tell whether a module with parts of its own is a member of a sequence or a list."""
    home = modules.get(name.rpartition(".")[0])
    return isinstance(home, nn.Sequential | nn.ModuleList) and any(True for _ in modules[name].children())
