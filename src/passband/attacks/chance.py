"""Random numbers that belong to an image: the same whatever batch it is in, in any order, on any device."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _signed(word: int) -> int:
    """Return 64 bits as the int64 that torch takes."""
    return word - (1 << 64) if word >= 1 << 63 else word


_STRIDE = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _mix(words: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Scramble 64-bit words in place; int64 products wrap, which is what the mixer asks for."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        words.bitwise_xor_(_shifted(words, shift)).mul_(factor)
    return words.bitwise_xor_(_shifted(words, 31))


def _shifted(words: Int[Tensor, "*shape"], bits: int) -> Int[Tensor, "*shape"]:
    """Shift right as unsigned words: int64 shifts in copies of the sign, which the mask takes away."""
    return words.bitwise_right_shift(bits).bitwise_and_((1 << (64 - bits)) - 1)


def image_keys(images: Float[Tensor, "batch channel height width"], seed: int) -> Int[Tensor, " batch"]:
    """Return 64 bits per image that depend on its pixels, rounded to uint8, and on ``seed`` alone.

    The sum of integers is exact in any order, so a GPU gives the same bits as a CPU.

    Args:
        images: In [0, 1].
        seed: Any integer of 64 bits.
    """
    pixels = images.mul(255).round_().to(torch.int64).flatten(1)
    places = torch.arange(pixels.shape[1], device=pixels.device).bitwise_left_shift_(8)
    content = _mix(pixels.add_(places).mul_(_STRIDE)).sum(1)
    start = _mix(torch.full_like(content, seed).mul_(_STRIDE))
    return _mix(content.bitwise_xor_(start))


def fork(keys: Int[Tensor, " batch"], number: int | Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Return keys of further streams, unrelated to these: one per image and ``number`` (a restart, a step)."""
    numbers = torch.full_like(keys, number) if isinstance(number, int) else number
    return _mix(_mix((numbers + 1).mul_(_STRIDE)).bitwise_xor_(keys))


def uniform(keys: Int[Tensor, " batch"], shape: torch.Size) -> Float[Tensor, "batch ..."]:
    """Draw numbers in [0, 1) for each key: the first 24 bits of its own SplitMix64 stream.

    **Source**: Steele, Lea, Flood, *Fast splittable pseudorandom number generators* (OOPSLA 2014);
    the stream whose state is the key, value by value.

    Args:
        keys: One per image.
        shape: Of one image's numbers, without the batch.

    Returns:
        float32, [batch, *shape].
    """
    counts = torch.arange(1, math.prod(shape) + 1, device=keys.device)
    words = _mix(counts.mul_(_STRIDE)[None] + keys[:, None])
    return _shifted(words, 40).to(torch.float32).mul_(2.0**-24).view(len(keys), *shape)


def normal(keys: Int[Tensor, " batch"], shape: torch.Size) -> Float[Tensor, "batch ..."]:
    """Draw numbers of the standard normal distribution for each key.

    **Source**: Box and Muller, *A note on the generation of random normal deviates* (1958).

    Args:
        keys: One per image.
        shape: Of one image's numbers, without the batch.

    Returns:
        float32, [batch, *shape].
    """
    radius, angle = uniform(keys, torch.Size([2, *shape])).unbind(1)
    # 1 - u lies in (0, 1], where the logarithm is finite.
    return (1 - radius).log_().mul_(-2).sqrt_().mul_(angle.mul_(2 * math.pi).cos_())
