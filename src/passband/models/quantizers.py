"""Numbers on a few levels: the grids, the quantizer of activations, and the place in front of a layer for it."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from passband.core.errors import PassbandError, unknown

Grid = Literal["uniform", "power-of-two"]
FLOAT = 32
"""The number of bits that means: not quantized."""

_MOST = {"uniform": 16, "power-of-two": 7}
"""Bits of the finest grid: float32 holds no more levels, and no smaller power of two, apart from 0."""

_SMALLEST_CLIP = 1e-3


def check_bits(bits: int, grid: str) -> None:
    """Refuse what is no grid.

    Raises:
        PassbandError: for another grid, or bits that it does not have.
    """
    if grid not in get_args(Grid):
        raise unknown("grid", grid, get_args(Grid))
    if bits != FLOAT and not 2 <= bits <= _MOST[grid]:
        raise PassbandError(f"a {grid} quantizer takes 2 to {_MOST[grid]} bits, or {FLOAT} for none; got {bits}")


def steps(bits: int, signed: bool) -> int:
    """Return how many levels lie above 0: 2^(bits−1) − 1 with a sign, 2^bits − 1 without."""
    return int(2 ** (bits - 1) - 1 if signed else 2**bits - 1)


def levels(bits: int, signed: bool, grid: Grid = "uniform") -> Float[Tensor, " levels"]:
    """Return the magnitudes of a grid, from 0 to 1, in rising order.

    **Source**: FAT (Tao et al. 2021), as its code has them: i/L for L of :func:`steps`, or 0 and 2^-i for
    i = 0 … L − 1. With 2 bits and a sign both are {0, 1}: ternary.

    Raises:
        PassbandError: as :func:`check_bits`.
    """
    check_bits(bits, grid)
    count = steps(bits, signed)
    if grid == "uniform":
        return torch.arange(count + 1) / count
    return torch.cat([torch.zeros(1), torch.exp2(-torch.arange(count - 1, -1, -1.0))])


def rounded(
    values: Float[Tensor, "*shape"], bits: int, signed: bool, grid: Grid = "uniform"
) -> Float[Tensor, "*shape"]:
    """Return the nearest level of each value.

    Half way between two levels of the uniform grid the even one is taken, of powers of two the smaller one.

    Args:
        values: In [−1, 1] where signed, up to 1 where not: a negative value is put on the same grid.
        bits: `FLOAT` gives the values back.
        signed: Which grid.
        grid: ``"uniform"`` or ``"power-of-two"``.
    """
    if bits == FLOAT:
        return values
    if grid == "uniform":
        count = steps(bits, signed)
        return (values * count).round_().div_(count)
    magnitudes, borders = _grid(bits, signed, grid, values.dtype, values.device)
    return values.sign() * magnitudes[torch.bucketize(values.abs(), borders)]


@cache
def _grid(
    bits: int, signed: bool, grid: Grid, kind: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, " levels"], Float[Tensor, " borders"]]:
    """Return a grid's magnitudes and the borders between them, made once: every forward pass asks for them."""
    magnitudes = levels(bits, signed, grid).to(device, kind)
    return magnitudes, (magnitudes[1:] + magnitudes[:-1]) / 2


def clip_of(learned: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the clip that a learned number means: its size, and 1e-3 where that is smaller.

    An optimizer may step over 0. The gradient passes through the floor, or a clip below it would never learn again.
    """
    size = learned.abs()
    return size + (size.clamp(min=_SMALLEST_CLIP) - size).detach()


class ActivationQuantizer(nn.Module):
    """Put activations on levels up to a learned clip.

    With x̃ = x/clip, cut at 1 (and at −1 where signed), the answer is clip · q for q the nearest level of x̃. The
    gradient to x is that of the cut alone; the clip's is q − x̃ inside and the cut value outside, summed.

    **Source**: FAT (Tao et al. 2021), as its CIFAR code has it. **Differs**: signed activations are cut on both
    sides and have a level less than half as many on each; the code, made for ReLU, lets negative ones pass uncut.

    Args:
        bits: `FLOAT` lets all pass as it came. It is part of the state dict.
        signed: Whether negative activations come.
        clip: Where the clip begins, above 0; what it means when it is learned, :func:`clip_of` says.
        grid: ``"uniform"`` or ``"power-of-two"``.

    Raises:
        PassbandError: for a grid or bits that do not exist, or a clip that is not positive.
    """

    def __init__(self, bits: int, signed: bool, clip: float, grid: Grid = "uniform") -> None:
        super().__init__()
        check_bits(bits, grid)
        if not clip > 0:
            raise PassbandError(f"a quantizer's clip begins above 0; got {clip:g}")
        self.bits, self.signed, self.grid = bits, signed, grid
        self.clip = nn.Parameter(torch.tensor(float(clip)))

    def get_extra_state(self) -> Tensor:
        """Return the bits, which change while a training comes down to them step by step."""
        return torch.tensor(self.bits)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the bits from a state dict."""
        self.bits = int(state)

    def forward(self, activations: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the quantized activations."""
        if self.bits == FLOAT:
            return activations
        quantized: Tensor = _Quantized.apply(activations, clip_of(self.clip), self.bits, self.signed, self.grid)
        return quantized

    def extra_repr(self) -> str:
        """Say which levels."""
        return f"bits={self.bits}, signed={self.signed}, grid={self.grid}"


class QuantizedInput(nn.Sequential):
    """Quantize a layer's input; the layer's weight is quantized by its own parametrization, or was, for good.

    Args:
        quantizer: Of the input.
        layer: What it stands in front of.
    """

    quantizer: ActivationQuantizer
    layer: nn.Module

    def __init__(self, quantizer: ActivationQuantizer, layer: nn.Module) -> None:
        super().__init__(OrderedDict(quantizer=quantizer, layer=layer))


class _Quantized(torch.autograd.Function):
    """Quantize in one pass over the activations, and back in another: they are the large tensors."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, clip: Tensor, bits: int, signed: bool, grid: Grid) -> Tensor:
        ctx.save_for_backward(values, clip)
        ctx.bits, ctx.signed, ctx.grid = bits, signed, grid
        return rounded(_cut(values / clip, signed), bits, signed, grid).mul_(clip)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        values, clip = ctx.saved_tensors
        inside = values <= clip if not ctx.signed else values.abs() <= clip
        passed = gradient * inside if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None, None
        scaled = values / clip
        # Inside, cut and uncut are the same number; outside, the level is the cut value itself.
        level = rounded(_cut(scaled.clone(), ctx.signed), ctx.bits, ctx.signed, ctx.grid)
        return passed, (gradient * (level - scaled * inside)).sum().reshape(clip.shape), None, None, None


def _cut(values: Tensor, signed: bool) -> Tensor:
    return values.clamp_(-1, 1) if signed else values.clamp_(max=1)
