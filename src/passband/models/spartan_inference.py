"""SpaRTAN's mixers for evaluation: fewer passes over the wide activations, and the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Sigmoid, SqueezeExcite
from torch import Tensor, nn

from passband.models.fold import absorbed, exact, takes_over
from passband.models.spatial_mixers import GELU, ConvolutionMixer, Features, SpatialMixer
from passband.models.wave_mixer import Perceptron, WaveMixer, modulated, modulated_kernel

PIECE = 1 << 20
"""Numbers of the widest activation that a processor works on at a time: 4 MB stay in its cache, and memory of this
size is used again, where pieces of more than 32 MB come from the system, page by page, in every layer anew."""


PLAIN = {
    nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.Sequential, nn.Identity, nn.ReLU, nn.SiLU, GELU, DropPath,
    SqueezeExcite, Sigmoid, SpatialMixer, ConvolutionMixer, WaveMixer, Perceptron,
}  # fmt: skip
"""What a block is made of, by exact types: another part (a quantizer, say) would be lost in folding."""


def folded_block(block: Any) -> tuple[nn.Module, Mapping[str, int]] | None:
    """Return the form of a frozen ``SpartanBlock`` and what was folded into it; None for one with other parts."""
    kinds = {type(part) for child in block.children() for part in child.modules()}
    if kinds - PLAIN:
        return None
    spatial, width = _folded_mixer(block.spatial, block.spatial_scale)
    channel, wide = _folded_mixer(block.channel, block.channel_scale)
    counts = {"layer scales": 2, "gamma": int(isinstance(spatial, FoldedSpatialMixer))}
    if isinstance(channel, FoldedWaveMixer):
        counts["complex weights"] = int(channel.rotation is None)
    return FoldedBlock(block, spatial, channel, max(width, wide)), {name: one for name, one in counts.items() if one}


def _folded_mixer(mixer: Any, scale: Tensor) -> tuple[nn.Module, int]:
    """Return a mixer's form, its layer scale in it, and the channels of its widest activation."""
    width = max(mixer.project.weight.shape[:2])
    if type(mixer) is SpatialMixer:
        return FoldedSpatialMixer(mixer, scale), width
    if type(mixer) is WaveMixer:
        return FoldedWaveMixer(mixer, scale), width
    mixer.project = scaled(mixer.project, scale)
    if type(mixer) is ConvolutionMixer:
        mixer.spatial = folded_norm(mixer.spatial)
    return mixer, width


class FoldedBlock(nn.Module):
    """Compute what a block does, of which each mixer holds its layer scale.

    On a processor the images pass through in pieces (:data:`PIECE`); each image's answer depends on it alone.

    Args:
        block: A frozen ``SpartanBlock`` of plain layers, which gives its parts.
        spatial: The spatial mixer's form.
        channel: The channel mixer's form.
        width: Channels of the widest activation.
    """

    def __init__(self, block: Any, spatial: nn.Module, channel: nn.Module, width: int) -> None:
        super().__init__()
        self.spatial_norm, self.spatial = block.spatial_norm, spatial
        self.channel_norm, self.channel = block.channel_norm, channel
        self.width = width

    def forward(self, features: Features) -> Features:
        """Return the block's features."""
        if features.device.type != "cpu" or torch.compiler.is_compiling():
            return self._block(features)
        images = max(1, PIECE // (self.width * features.shape[2] * features.shape[3]))
        if images >= len(features):
            return self._block(features)
        return torch.cat([self._block(part) for part in torch.split(features, images)])

    def _block(self, features: Tensor) -> Tensor:
        features = features + self.spatial(self.spatial_norm(features))
        output: Tensor = features + self.channel(self.channel_norm(features))
        return output


class FoldedSpatialMixer(nn.Module):
    """Compute what a spatial mixer and its layer scale do.

    (1 + γ) is part of the first convolution; the mean over positions, which that convolution is exchanged with, is
    taken of its input. The gates of squeeze and excitation are multiplied into the projection's weights, which are
    then those of one image, and the branches' projections are added: neither gated nor joined copies are made.

    Args:
        mixer: A frozen ``SpatialMixer`` of plain layers, which gives its parts.
        scale: The layer scale [C, 1, 1].
    """

    def __init__(self, mixer: Any, scale: Tensor) -> None:
        super().__init__()
        weight, bias, gamma = exact(mixer.reduce.weight), exact(mixer.reduce.bias), exact(mixer.gamma).flatten()
        self.reduce = convolution(mixer.reduce, (1 + gamma)[:, None, None, None] * weight, (1 + gamma) * bias)
        self.offset = nn.Linear(weight.shape[1], len(gamma), device="meta")
        self.offset.weight = frozen(-gamma[:, None] * weight.flatten(1), mixer.gamma)
        self.offset.bias = frozen(-gamma * bias, mixer.gamma)
        self.high, self.low = folded_norm(mixer.high), folded_norm(mixer.low)
        self.high_attention, self.low_attention = mixer.high_attention, mixer.low_attention
        self.weight, self.bias = projection(mixer.project, scale)

    def forward(self, features: Features) -> Features:
        """Return the mixed features, scaled."""
        reduced = self.reduce(features) + self.offset(features.mean((2, 3)))[:, :, None, None]
        first, second = self.weight.chunk(2, 1)
        high, low = self.high(reduced), self.low(reduced)
        mixed = gated(self.bias, high, first, self.high_attention)
        return positions(gated(mixed, low, second, self.low_attention), features)


class FoldedWaveMixer(nn.Module):
    """Compute what a wave mixer and its layer scale do.

    The complex weights are part of the 3×3 convolution where it sees both channels of a pair. A depthwise one is not
    made one of two channels a group for that, which is ten times slower on a processor: there they are applied.

    Args:
        mixer: A frozen ``WaveMixer`` of plain layers, which gives its parts.
        scale: The layer scale [C, 1, 1].
    """

    def __init__(self, mixer: Any, scale: Tensor) -> None:
        super().__init__()
        conv = mixer.refine.conv
        self.phase, self.phase_act, self.amplitude = mixer.phase, mixer.phase_act, mixer.amplitude
        self.rotation = mixer.rotation if conv.weight.shape[1] % 2 else None
        weight = exact(conv.weight)
        if self.rotation is None:
            weight = modulated_kernel(weight, exact(mixer.rotation), conv.groups)
        self.refine = folded_norm(mixer.refine, weight)
        self.attention = mixer.attention
        self.weight, self.bias = projection(mixer.project, scale)

    def forward(self, features: Features) -> Features:
        """Return the mixed features, scaled."""
        strongest = features.argmax(1, keepdim=True)
        amplitude, phase = self.amplitude(features), self.phase_act(self.phase(features))
        strongest_waves = amplitude.gather(1, strongest) * phase.gather(1, strongest)
        waves = torch.addcmul(strongest_waves, amplitude, phase)
        if self.rotation is not None:
            waves = modulated(waves, self.rotation)
        return positions(gated(self.bias, self.refine(waves), self.weight, self.attention), features)


def gated(start: Tensor, features: Tensor, weight: Tensor, attention: Any) -> Tensor:
    """Add to a start what a pointwise convolution makes of the features after squeeze and excitation.

    Args:
        start: Of shape [batch, positions, out], or a bias [out].
        features: Of shape [batch, channels, height, width].
        weight: Of shape [out, channels].
        attention: timm's ``SqueezeExcite``.

    Returns:
        Of shape [batch, positions, out].
    """
    first, second = attention.fc1, attention.fc2  # of one pixel an image: linear layers, which cost less there
    hidden = attention.act(F.linear(features.mean((2, 3)), first.weight.flatten(1), first.bias))
    gate = attention.gate(F.linear(hidden, second.weight.flatten(1), second.bias))
    weights = weight * gate[:, None]
    return torch.baddbmm(start, features.flatten(2).transpose(1, 2), weights.transpose(1, 2))


def positions(mixed: Tensor, like: Tensor) -> Tensor:
    """Return [batch, positions, channels] as [batch, channels, height, width]; in memory channels come last."""
    return mixed.transpose(1, 2).reshape(like.shape[0], -1, *like.shape[2:])


def projection(conv: nn.Conv2d, scale: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    """Return weight [out, in] and bias of a pointwise convolution, scaled."""
    factor = exact(scale).flatten()
    weight = factor[:, None] * exact(conv.weight).flatten(1)
    return frozen(weight, conv.weight), frozen(factor * exact(conv.bias), conv.weight)


def scaled(conv: nn.Conv2d, scale: Tensor) -> nn.Conv2d:
    """Return a pointwise convolution whose output is scaled."""
    factor = exact(scale).flatten()
    return convolution(conv, factor[:, None, None, None] * exact(conv.weight), factor * exact(conv.bias))


def folded_norm(layers: nn.Sequential, weight: Tensor | None = None) -> nn.Sequential:
    """Return layers that end in a convolution, its normalization and its activation with a batch norm folded.

    Args:
        layers: What ``normed`` returns, or a sequence that ends in it.
        weight: Of the convolution, in its place.
    """
    *before, last = list(layers) if isinstance(layers[-1], nn.Sequential) else [layers]
    parts: Any = last
    conv, norm, act = parts
    weight, bias = exact(conv.weight) if weight is None else weight, exact(conv.bias)
    rest = [norm, act]
    if takes_over(conv, norm):
        weight, bias = absorbed(weight, bias, norm)
        rest = [act]
    return nn.Sequential(*before, convolution(conv, weight, bias), *rest)


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution as another is, with its own weight and bias."""
    kind: Any = nn.Conv2d  # whose annotations ask for exactly two numbers
    conv: nn.Conv2d = kind(
        like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding, like.dilation, like.groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    conv.weight = frozen(weight, like.weight)
    if bias is not None:
        conv.bias = frozen(bias, like.weight)
    return conv.eval()


def frozen(tensor: Tensor, like: Tensor) -> nn.Parameter:
    """Return a parameter that does not learn, of another's type and place."""
    return nn.Parameter(tensor.to(like), requires_grad=False)
