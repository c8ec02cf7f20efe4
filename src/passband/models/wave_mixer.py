"""SpaRTAN's wave-based channel mixer, and the perceptron that it is compared with."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import SqueezeExcite
from torch import Tensor, fx, nn

from passband.models.spatial_mixers import Features, Layer, Norm, normed


class WaveMixer(nn.Module):
    """Mix channels as waves: superpose each with the strongest one, turn and scale pairs of them, refine, project.

    With n = ratio·C: an amplitude and a phase of n channels each, both pointwise convolutions, are multiplied; the
    product at the channel where the input is largest is added to all; each pair of neighboring channels is a complex
    number that is multiplied by a learned one; a 3×3 convolution, squeeze and excitation and a pointwise convolution
    follow. The complex weights are part of the 3×3 convolution's kernel wherever it sees both channels of a pair
    (the maps meet in weight space), else they are applied in real arithmetic.

    **Source**: spartan, equations 7 to 10 and figure 4; what is selected, the pairs of neighbors, the standard normal
    beginning of the complex weights and the groups as in the released code. The index is that of the input's largest
    channel, not of the largest wave, and only the first C waves can be selected. **Differs**: the paper's text has a
    full convolution in stages 1 and 2 and a depthwise one in 3 and 4; its tables are those of the code's groups.

    Args:
        channels: C.
        ratio: Of expansion; ratio·C is even.
        groups: Of the 3×3 convolution, a divisor of ratio·C.
        norm: Makes the normalization after it.
        act: Makes its activation and the phase's.
    """

    def __init__(self, channels: int, ratio: int, *, groups: int, norm: Norm, act: Layer) -> None:
        super().__init__()
        width = channels * ratio
        self.phase = nn.Conv2d(channels, width, 1)
        self.phase_act = act()
        self.amplitude = nn.Conv2d(channels, width, 1)
        self.rotation = nn.Parameter(torch.randn(width // 2, 2))
        self.refine = normed(width, width, 3, norm, act, padding=1, groups=groups)
        self.attention = SqueezeExcite(width, rd_channels=channels // 4)
        self.project = nn.Conv2d(width, channels, 1)

    def forward(self, features: Features) -> Features:
        """Return the mixed features."""
        strongest = features.argmax(1, keepdim=True)
        waves = self.amplitude(features) * self.phase_act(self.phase(features))
        waves = waves + waves.gather(1, strongest)
        parts: Any = self.refine
        conv, norm, act = parts
        # Who looks at a convolution, or a quantizer of its input, is to see what the convolution itself takes.
        seen = conv._forward_hooks or conv._forward_pre_hooks or not isinstance(conv, nn.Conv2d)
        if not seen and conv.in_channels // conv.groups % 2 == 0:
            refined = conv._conv_forward(waves, modulated_kernel(conv.weight, self.rotation, conv.groups), None)
        else:
            refined = conv(modulated(waves, self.rotation))
        mixed: Tensor = self.project(self.attention(act(norm(refined))))
        return mixed


@fx.wrap  # it looks at the layout, which a stand-in does not have
def modulated(
    waves: Float[Tensor, "batch n height width"], rotation: Float[Tensor, "pairs 2"]
) -> Float[Tensor, "batch n height width"]:
    """Multiply each pair of neighboring channels, a real and an imaginary part, by a complex number.

    Args:
        waves: Channels 2k and 2k + 1 are the real and the imaginary part of wave k.
        rotation: The real and the imaginary part of what it is multiplied by.

    **Source**: spartan, equation 9.
    """
    pixels, precise = waves.permute(0, 2, 3, 1), torch.promote_types(waves.dtype, rotation.dtype)
    exact = precise in (torch.float32, torch.float64)
    if exact and not torch.compiler.is_compiling() and pixels.is_contiguous():
        # The pairs lie side by side in memory, as torch's complex numbers do.
        pairs = torch.view_as_complex(pixels.to(precise).reshape(*pixels.shape[:3], -1, 2))
        turned = torch.view_as_real(pairs * torch.view_as_complex(rotation.to(precise)))
        return turned.flatten(3).permute(0, 3, 1, 2)
    real, imaginary = rotation.unbind(1)
    straight = real.repeat_interleave(2)[:, None, None]
    crossed = torch.stack((-imaginary, imaginary), 1).flatten()[:, None, None]
    swapped = waves.reshape(waves.shape[0], -1, 2, *waves.shape[2:]).flip(2).flatten(1, 2)
    return torch.addcmul(waves * straight, swapped, crossed)


def modulated_kernel(
    kernel: Float[Tensor, "out within height width"], rotation: Float[Tensor, "pairs 2"], groups: int
) -> Float[Tensor, "out within height width"]:
    """Return the kernel that does what ``modulated`` and then the given kernel do.

    Args:
        kernel: Of a convolution whose groups hold whole pairs.
        rotation: Complex numbers, one for each pair of neighboring channels.
        groups: Of the convolution.
    """
    # By elements, which autocast leaves in the weights' own precision: [group, out, pair, height, width].
    turn = rotation.to(kernel).reshape(groups, 1, -1, 2)[..., None, None]
    real, imaginary = turn[..., 0, :, :], turn[..., 1, :, :]
    first, second = kernel.reshape(groups, len(kernel) // groups, -1, 2, *kernel.shape[2:]).unbind(3)
    # What a wave's real part, and what its imaginary part, adds to the product's two parts.
    both = torch.stack((first * real + second * imaginary, second * real - first * imaginary), 3)
    return both.flatten(2, 3).flatten(0, 1)


class Perceptron(nn.Module):
    """Mix channels by two pointwise convolutions with an activation between them.

    **Source**: spartan, section IV-C1: a "vanilla MLP" and an MLP with a squeeze-and-excitation module, which stands
    where the wave mixer's does and has its bottleneck.

    Args:
        channels: C.
        ratio: Of expansion.
        attention: Whether squeeze and excitation follows the activation.
        act: Makes the activation.
    """

    def __init__(self, channels: int, ratio: int, *, attention: bool, act: Layer) -> None:
        super().__init__()
        width = channels * ratio
        self.expand = nn.Conv2d(channels, width, 1)
        self.act = act()
        self.attention = SqueezeExcite(width, rd_channels=channels // 4) if attention else nn.Identity()
        self.project = nn.Conv2d(width, channels, 1)

    def forward(self, features: Features) -> Features:
        """Return the mixed features."""
        mixed: Tensor = self.project(self.attention(self.act(self.expand(features))))
        return mixed
