"""Checkpoints of SpaRTAN's released code: their names in ours, and the network's sizes from the tensors' shapes.

**Source**: the released code of spartan, whose checkpoints have these names. Of them ``henry-pay/SpaRTAN-S`` alone is
public (on the Hugging Face hub), without the sizes that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from passband.core.errors import PassbandError

STEM_AND_HEAD = {"conv.0": "stem.0", "conv.1": "stem.1", "linear": "head.fc"}

BLOCK = {
    "scale_1": "spatial_scale",
    "scale_2": "channel_scale",
    "norm_1": "spatial_norm",
    "norm_2": "channel_norm",
    "smixer.proj_in": "spatial.reduce",
    "smixer.gamma": "spatial.gamma",
    "smixer.h_conv": "spatial.high",
    "smixer.h_attn.squeeze": "spatial.high_attention.fc1",
    "smixer.h_attn.expand": "spatial.high_attention.fc2",
    "smixer.l_attn.squeeze": "spatial.low_attention.fc1",
    "smixer.l_attn.expand": "spatial.low_attention.fc2",
    "smixer.proj_out": "spatial.project",
    "cmixer.theta": "channel.phase",
    "cmixer.proj": "channel.amplitude",
    "cmixer.complex": "channel.rotation",
    "cmixer.conv": "channel.refine",
    "cmixer.attn.squeeze": "channel.attention.fc1",
    "cmixer.attn.expand": "channel.attention.fc2",
    "cmixer.proj_out": "channel.project",
}
"""Parts of a block, below ``layers.N`` there and ``stages.S.P`` here; a patch embedding is a layer as it stands."""

LOW = {
    2: {"smixer.l_conv.0.conv": "spatial.low.0", "smixer.l_conv.1": "spatial.low.1"},
    1: {"smixer.l_conv.0": "spatial.low.0"},
}
"""The low branch, by the number of its convolutions. Of one, with a kernel of 5, no checkpoint is public: a guess."""

AXES = {"scale_1": (1,), "scale_2": (1,), "smixer.gamma": (1,), "cmixer.complex": (1, 1, 1)}
"""Axes of length 1 that stand in front there and not here."""

PREFIXES = ("_orig_mod.", "module.", "model.")


def is_released(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors have the names of the released code, whatever stands before all of them."""
    return "layers.0.smixer.gamma" in _bare(tensors)


def to_ours(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return a released checkpoint's tensors as our network names and shapes them.

    What has no place in the network keeps its name, so that whoever loads it can say so.

    Args:
        tensors: By the released code's names.
        source: Where they came from, for the error.

    Raises:
        PassbandError: when the layers are not those of four stages.
    """
    tensors = _bare(tensors)
    table = _table(_depths(tensors, source), 2 if "layers.0.smixer.l_conv.1.conv.weight" in tensors else 1)
    found = {}
    for name, tensor in tensors.items():
        front = _front(name)
        if front and tensor.shape[: len(front)] == front:
            tensor = tensor.reshape(tensor.shape[len(front) :])
        found[_renamed(name, table)] = tensor
    return found


def to_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a :class:`passband.models.spartan.Spartan` as the released code names and shapes them.

    Args:
        tensors: By our names.

    Raises:
        PassbandError: for a network of other mixers.
    """
    blocks = [name.split(".")[1] for name in tensors if name.endswith(".spatial_scale")]
    low = 2 if "stages.0.0.spatial.low.1.conv.weight" in tensors else 1
    table = {ours: theirs for theirs, ours in _table([blocks.count(str(stage)) for stage in range(4)], low).items()}
    renamed = {_renamed(name, table): tensor for name, tensor in tensors.items()}
    if left := next((name for name in tensors if name in renamed), ""):
        raise PassbandError(f"the released code has no place for '{left}': its mixers are smixer and cmixer alone")
    return {name: tensor.reshape((*_front(name), *tensor.shape)) for name, tensor in renamed.items()}


def sizes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Return the arguments of :class:`passband.models.spartan.Spartan` that a released checkpoint's shapes tell.

    Activations and strides are not among them: no tensor shows those.

    Args:
        tensors: By the released code's names.
        source: Where they came from, for the error.

    Raises:
        PassbandError: when the layers are not those of four stages, or one of the tensors is missing.
    """
    tensors = _bare(tensors)
    depths = _depths(tensors, source)
    first = [sum(depths[:stage]) + stage for stage in range(4)]

    def shapes(part: str) -> list[tuple[int, ...]]:
        names = [f"layers.{layer}.{part}.weight" for layer in first]
        for name in names:
            if name not in tensors or tensors[name].ndim != 4:
                came = list(tensors[name].shape) if name in tensors else "nothing"
                raise PassbandError(f"{source}: a convolution '{name}' was needed to tell SpaRTAN's sizes; got {came}")
        return [tuple(tensors[name].shape) for name in names]

    widths = [shape[0] for shape in shapes("smixer.proj_out")]
    ratios = [max(1, shape[0] // width) for shape, width in zip(shapes("cmixer.theta"), widths, strict=True)]
    depthwise = [shape[1] == 1 for shape in shapes("smixer.h_conv.conv")]
    # In the paper's words a channel mixer is depthwise where the spatial one is; in its code it has pairs there.
    paper = [shape[1] == 1 for shape in shapes("cmixer.conv.conv")] == depthwise
    return {
        "widths": tuple(widths),
        "depths": tuple(depths),
        "ratios": tuple(ratios),
        "convolution": "".join("D" if one else "F" for one in depthwise),
        "groups": "paper" if paper else "code",
        "kernel": shapes("smixer.l_conv.0.conv")[0][-1],
        "conv_norm": "batch" if "conv.0.norm.running_mean" in tensors else "layer",
        "mixer_norm": "batch" if "layers.0.norm_1.running_mean" in tensors else "layer",
    }


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without what wrappers put before every name."""
    found = dict(tensors)
    while prefix := next((one for one in PREFIXES if found and all(name.startswith(one) for name in found)), ""):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _depths(tensors: Mapping[str, Tensor], source: str) -> list[int]:
    """Return the blocks of each stage: the layers between the patch embeddings."""
    numbers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    layers = sorted(int(number) for number in numbers if number.isdigit())
    embeddings = [layer for layer in layers if f"layers.{layer}.conv.weight" in tensors]
    depths = [after - before - 1 for before, after in pairwise([-1, *embeddings, len(layers)])]
    if layers != list(range(len(layers))) or len(depths) != 4 or min(depths) < 1:
        raise PassbandError(
            f"{source}: SpaRTAN has four stages of blocks with three patch embeddings between them; got "
            f"{len(layers)} layers, of which {embeddings} are patch embeddings"
        )
    return depths


def _table(depths: list[int], low: int) -> dict[str, str]:
    """Return what begins a name there and what begins it here, longer beginnings for what is in a block."""
    table, layer = dict(STEM_AND_HEAD), 0
    for stage, depth in enumerate(depths):
        if stage:
            table[f"layers.{layer}"] = f"stages.{stage}.0"
            layer += 1
        for place in range(bool(stage), depth + bool(stage)):
            for theirs, ours in (BLOCK | LOW[low]).items():
                table[f"layers.{layer}.{theirs}"] = f"stages.{stage}.{place}.{ours}"
            layer += 1
    return table


def _renamed(name: str, table: Mapping[str, str]) -> str:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (begin := ".".join(parts[:end])) in table:
            return ".".join((table[begin], *parts[end:]))
    return name


def _front(name: str) -> tuple[int, ...]:
    """Return the axes that a tensor has in front in the released code."""
    return AXES.get(".".join(name.split(".")[2:]), ())
