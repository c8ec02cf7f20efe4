"""Convolutions that passband's own models are made of: separable and depthwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import PassbandError

Path = Literal["composed", "factored"]

# What it costs to write one intermediate activation and read it back, in multiplications: about 2 memory
# moves at 11 multiplications each (200 GFLOP/s against 35 GB/s, measured on two cores).
TRAFFIC = 22


class SeparableConv2d(nn.Module):
    """Convolve depthwise, then pointwise, with nothing in between.

    Two linear maps in a row are one: the dense kernel ``W[o, c] = Σ_q P[o, c·d + q] · D[c·d + q]`` gives the
    same output and, by the chain rule, the same gradients, and the ``d``-fold activation never exists. On the
    composed path the submodules' forwards are not called, so their forward hooks stay silent;
    parametrizations of their weights act on both paths.

    Path ``"auto"`` composes when the dense kernel costs less per output pixel and input channel, ``k²·out``
    multiplications, than the two steps, ``d·(k² + out)`` and the traffic of ``d`` activations. Composing
    itself is paid once per batch and not counted. With ``d >= k²`` it always composes.

    **Source**: spatial-mixing, section 3 (depth multiplier 9); channel order as Keras' SeparableConv2D.
    **Differs**: PyTorch's default initialization (uniform within 1/√fan_in) instead of Keras' Glorot.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernel in pixels.
        stride: Step of the depthwise convolution in pixels.
        padding: Zeros around the input in pixels; ``kernel_size // 2`` when None.
        multiplier: Depthwise filters per input channel.
        bias: Whether the output has a bias (after the pointwise convolution).
        path: ``"composed"`` and ``"factored"`` force a path, ``"auto"`` takes the cheaper one.

    Raises:
        PassbandError: when a size is below 1 or the path has another name.
    """

    path: Path

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
        multiplier: int = 1,
        bias: bool = False,
        path: str = "auto",
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, kernel_size, stride, multiplier) < 1:
            raise PassbandError("a separable convolution needs channels, kernel, stride and multiplier of at least 1")
        if path not in ("auto", "composed", "factored"):
            raise PassbandError(f"a separable convolution's path is auto, composed or factored; got '{path}'")
        padding = kernel_size // 2 if padding is None else padding
        self.in_channels, self.out_channels, self.multiplier = in_channels, out_channels, multiplier
        middle = in_channels * multiplier
        self.depthwise = nn.Conv2d(in_channels, middle, kernel_size, stride, padding, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(middle, out_channels, 1, bias=bias)
        cheaper = cheaper_path(out_channels, kernel_size, multiplier)
        self.path = cheaper if path == "auto" else "composed" if path == "composed" else "factored"

    def forward(self, images: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the convolved images."""
        if self.path == "factored":
            output: Tensor = self.pointwise(self.depthwise(images))
            return output
        first = self.depthwise
        return F.conv2d(images, self.kernel(), self.pointwise.bias, first.stride, first.padding)

    def kernel(self) -> Float[Tensor, "{self.out_channels} {self.in_channels} k k"]:
        """Return the dense kernel that both convolutions together are."""
        spatial, channel = self.depthwise.weight, self.pointwise.weight
        side = spatial.shape[-1]
        filters = spatial.reshape(self.in_channels, self.multiplier, side * side).transpose(1, 2)
        mixing = channel.reshape(self.out_channels, self.in_channels, self.multiplier).permute(1, 2, 0)
        # [in, k², out]: a quarter faster than [in, out, k²], whose inner products are short
        dense = torch.bmm(filters, mixing).permute(2, 0, 1)
        return dense.reshape(self.out_channels, self.in_channels, side, side)

    def inference_form(self) -> tuple[nn.Module, Mapping[str, int]] | None:
        """Return the dense convolution that both are on the composed path."""
        if type(self) is not SeparableConv2d or self.path != "composed":
            return None
        first, bias = self.depthwise, self.pointwise.bias
        convolution: Any = nn.Conv2d  # whose annotations ask for exactly two numbers
        dense: nn.Conv2d = convolution(
            self.in_channels, self.out_channels, first.kernel_size, first.stride, first.padding, bias=bias is not None,
            device="meta",
        )  # fmt: skip
        dense.weight = nn.Parameter(self.kernel(), requires_grad=False)
        dense.bias = bias
        return dense, {"separable convolution": 1}

    def extra_repr(self) -> str:
        """Say which path is taken."""
        return f"multiplier={self.multiplier}, path={self.path}"


def cheaper_path(out_channels: int, kernel_size: int, multiplier: int) -> Path:
    """Return the path that costs less per output pixel and input channel.

    >>> cheaper_path(16, 3, 9), cheaper_path(64, 3, 1)
    ('composed', 'factored')
    """
    area = kernel_size * kernel_size
    factored = multiplier * (area + out_channels + TRAFFIC)
    return "composed" if area * out_channels < factored else "factored"


class BiasApartConv2d(nn.Conv2d):
    """Convolve as ``nn.Conv2d`` does, and skip the gradient of a frozen kernel where the bias learns.

    On a CPU the backward pass computes the gradients of kernel and bias together, wanted or not, so a bias that
    learns brings back all the work that freezing the kernel saves (half of a ConvMixer's step). There, and only
    there, the bias is added outside the convolution. It has ``nn.Conv2d``'s parameters and nothing else.
    """

    def forward(self, input: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch _ _ _"]:
        """Return the convolved images."""
        weight, bias = self.weight, self.bias
        apart = bias is not None and bias.requires_grad and not weight.requires_grad
        output: Tensor = self._conv_forward(input, weight, None if apart else bias)
        return output + bias.view(-1, 1, 1) if apart and bias is not None else output


class DepthwiseConv2d(BiasApartConv2d):
    """Convolve each channel with its own kernel, keeping the size, as ``Conv2d(..., padding="same")`` does.

    Exact. An even kernel is embedded in the next odd one with a zero row and column in front, so that its padding is
    symmetric and no padded copy of the images is made; what that saves depends on the processor.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the square kernel in pixels.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding="same", groups=channels, bias=True)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        side = self.kernel_size[0]
        if side % 2 == 0:
            weight = F.pad(weight, (1, 0, 1, 0))
        return F.conv2d(input, weight, bias, padding=side // 2, groups=self.groups)


def parameter_free_shortcut(
    features: Float[Tensor, "batch c height width"], stride: int, channels: int
) -> Float[Tensor, "batch c2 height2 width2"]:
    """Take every ``stride``-th pixel and fill up to ``channels`` with zeros, half of them before and half after.

    It has no parameters, so nothing mixes unseen.

    **Source**: He et al. 2016, option A.
    """
    if stride > 1:
        features = features[:, :, ::stride, ::stride]
    missing = channels - features.shape[1]
    return F.pad(features, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else features
