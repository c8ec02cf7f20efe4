"""SpaRTAN's spatial mixer, and the plain convolution that it is compared with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Float
from timm.layers import SqueezeExcite
from torch import Tensor, nn

Features = Float[Tensor, "batch c h w"]
Layer = Callable[[], nn.Module]
"""Makes an activation."""
Norm = Callable[[int], nn.Module]
"""Makes a normalization of this many channels."""


class GELU(nn.GELU):
    """Compute ``nn.GELU`` on activations as they lie in memory.

    The same numbers to rounding. On a processor torch has a loop of twice the speed for what lies in order, which it
    does not take for channels that come last in memory unless it is told that they do.
    """

    def forward(self, input: Features) -> Features:
        """Return the activations."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normed(
    before: int, after: int, kernel: int, norm: Norm, act: Layer, *, stride: int = 1, padding: int = 0,
    dilation: int = 1, groups: int = 1,
) -> nn.Sequential:  # fmt: skip
    """Return a convolution without a bias, its normalization and its activation."""
    conv = nn.Conv2d(before, after, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(after), act=act()))


class SpatialMixer(nn.Module):
    """Mix positions by two branches, of small and of large receptive fields, on half the channels each.

    A pointwise convolution to C/2 channels, x + γ(x - mean of x over positions), a branch of one 3×3 convolution (the
    paper's high frequencies) and one of dilated convolutions that see 9×9 pixels (its low frequencies), squeeze and
    excitation on each, a pointwise convolution of both.

    **Source**: spartan, equations 3 to 6; the layers, γ's beginning at 1e-5 and the dilations as in the released code.

    Args:
        channels: C, even.
        depthwise: Whether the convolutions of the branches are depthwise, else full.
        kernel: 3 takes two dilated 3×3 convolutions in the low branch, 5 one dilated 5×5 convolution (table V).
        norm: Makes the normalization after a convolution.
        act: Makes the activation after it.
    """

    def __init__(self, channels: int, *, depthwise: bool, kernel: int, norm: Norm, act: Layer) -> None:
        super().__init__()
        half = channels // 2
        groups = half if depthwise else 1
        self.reduce = nn.Conv2d(channels, half, 1)
        self.gamma = nn.Parameter(torch.full((half, 1, 1), 1e-5))
        self.high = normed(half, half, 3, norm, act, padding=1, groups=groups)
        side = kernel - 1
        last = normed(half, half, kernel, norm, act, padding=side, dilation=2, groups=groups)
        first = nn.Conv2d(half, half, 3, padding=2, dilation=2, groups=groups, bias=False)
        self.low = nn.Sequential(first, last) if kernel == 3 else nn.Sequential(last)
        self.high_attention = SqueezeExcite(half, rd_channels=half // 4)
        self.low_attention = SqueezeExcite(half, rd_channels=half // 4)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Features) -> Features:
        """Return the mixed features."""
        halved = self.reduce(features)
        mean = halved.mean((2, 3), keepdim=True)
        halved = torch.addcmul(halved, self.gamma, halved - mean)
        both = [self.high_attention(self.high(halved)), self.low_attention(self.low(halved))]
        mixed: Tensor = self.project(torch.cat(both, 1))
        return mixed


class ConvolutionMixer(nn.Module):
    """Mix positions by one 3×3 convolution, then channels by a pointwise one.

    **Source**: spartan, section IV-C1 ("a non-linear projection using 3×3 convolutions"), whose layers it leaves
    open: one convolution with normalization and activation, full or depthwise as the stage has it, and a projection.

    Args:
        channels: C.
        depthwise: Whether the 3×3 convolution is depthwise, else full.
        norm: Makes the normalization after it.
        act: Makes the activation after it.
    """

    def __init__(self, channels: int, *, depthwise: bool, norm: Norm, act: Layer) -> None:
        super().__init__()
        self.spatial = normed(channels, channels, 3, norm, act, padding=1, groups=channels if depthwise else 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Features) -> Features:
        """Return the mixed features."""
        mixed: Tensor = self.project(self.spatial(features))
        return mixed
