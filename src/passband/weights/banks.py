"""Filter banks of depthwise convolutions: drawn anew, and read out."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from passband.core.errors import unknown
from passband.weights.depthwise import depthwise_convolutions

Bank = Literal["different", "same", "box", "identity"]


def draw_filters(model: nn.Module, kind: Bank, seed: int) -> None:
    """Fill every depthwise kernel of a model; biases stay.

    ``different`` draws each kernel by itself, uniform within ±1/√k² as PyTorch does; ``same`` draws one set
    of ``multiplier`` kernels a layer and gives it to every input channel; ``box`` is the constant 1/k²;
    ``identity`` is one at the tap that lies on the pixel itself: row and column k // 2, but (k − 1) // 2
    where ``padding="same"`` puts the odd zero of an even kernel on the right (ConvMixer).

    **Source**: spatial-mixing, section 4.1.3 and figure 3. **Differs**: the paper does not say how its box
    filters are scaled; all of a channel's are 1/k² here.

    Args:
        model: Any model with depthwise convolutions; changed in place.
        kind: The bank.
        seed: Decides what ``different`` and ``same`` draw, whatever the device.

    Raises:
        PassbandError: for an unknown kind, or a model without depthwise convolutions.
    """
    if kind not in get_args(Bank):
        raise unknown("filter bank", kind, get_args(Bank))
    generator = torch.Generator().manual_seed(seed)
    for _, convolution in depthwise_convolutions(model):
        with torch.no_grad():
            convolution.weight.copy_(_bank(kind, convolution, generator))


def filter_bank(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return name and kernels, ``[filters, 1, height, width]``, of every depthwise convolution.

    Raises:
        PassbandError: for a model without depthwise convolutions.
    """
    return [(name, convolution.weight.detach()) for name, convolution in depthwise_convolutions(model)]


def _bank(kind: Bank, convolution: nn.Conv2d, generator: Generator) -> Tensor:
    filters, _, height, width = convolution.weight.shape
    bound = (height * width) ** -0.5
    if kind == "box":
        return torch.full((filters, 1, height, width), 1 / (height * width))
    if kind == "identity":
        delta = torch.zeros(filters, 1, height, width)
        early = 1 if convolution.padding == "same" else 0
        delta[:, :, (height - early) // 2, (width - early) // 2] = 1
        return delta
    # Channel c's q-th filter is number c · multiplier + q, so a layer's set repeats channel by channel.
    channels = convolution.in_channels if kind == "same" else 1
    drawn = torch.empty(filters // channels, 1, height, width).uniform_(-bound, bound, generator=generator)
    return drawn.repeat(channels, 1, 1, 1)
