"""The players whose interactions are measured: patches of an image, pairs of near ones, and contexts around them."""

from __future__ import annotations

import hashlib
import math
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from passband.core.errors import PassbandError

RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Sizes of contexts, in parts of all players but the pair."""
MIDDLE = (0.3, 0.7)
"""First and last of these ratios that count as middle orders."""
REACH = 2
"""Patches by which the two of a pair lie apart at most, down and across."""
SIGNS = (1, -1, -1, 1)
"""Of the pair with the context, its first with it, its second with it, and the context alone."""


def orders(grid: int, low: float = 0.0, high: float = 1.0) -> tuple[int, ...]:
    """Return how many players a context holds: the whole part of each ratio of all but the pair.

    Args:
        grid: Patches a side; below 5 some ratios give the same number, which is then there once.
        low: Least ratio.
        high: Greatest ratio.
    """
    return tuple(sorted({int((grid**2 - 2) * ratio) for ratio in RATIOS if low <= ratio <= high}))


def draw_pairs(grid: int, count: int, image: str, seed: int) -> Int[np.ndarray, "pair 2"]:
    """Draw distinct pairs of patches: one anywhere, the other up to `REACH` away each way, moved in at the border.

    Args:
        grid: Patches a side.
        count: Pairs.
        image: What the image is called; each has pairs of its own, whatever model is asked.
        seed: Any integer.

    Returns:
        Numbers of patches, row by row; the smaller of a pair first.

    Raises:
        PassbandError: when the grid has fewer such pairs.
    """
    # Ordered pairs within reach along one side, to the square, less each patch with itself.
    possible = (sum(max(0, grid - abs(step)) for step in range(-REACH, REACH + 1)) ** 2 - grid**2) // 2
    if count > possible:
        raise PassbandError(f"probe interactions: a grid of {grid}×{grid} has {possible} near pairs; got pairs={count}")
    source = _bits("pairs", image, seed)
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        first, down, across = map(int, source.random_raw(3))
        row, column = divmod(first % grid**2, grid)
        other = _moved(row, down, grid) * grid + _moved(column, across, grid)
        if other != first % grid**2:
            found[min(first % grid**2, other), max(first % grid**2, other)] = None
    return np.array(list(found), dtype=np.int64)


def _moved(place: int, word: int, grid: int) -> int:
    return min(max(place + word % (2 * REACH + 1) - REACH, 0), grid - 1)


def exhausted(grid: int, order: int, count: int) -> bool:
    """Tell whether there are no more contexts of an order than are asked for, as at both ends, which have one."""
    return math.comb(grid**2 - 2, order) <= count


def draw_contexts(
    grid: int, pair: tuple[int, int], order: int, count: int, image: str, seed: int
) -> Bool[np.ndarray, "context player"]:
    """Draw contexts of a pair: each holds ``order`` of the other players, uniform without replacement.

    Each pair, order and image has draws of its own, whatever else is asked. Where there are no more contexts than asked
    for, each is there once.

    Args:
        grid: Patches a side.
        pair: Numbers of its two patches.
        order: Players in a context.
        count: Contexts.
        image: What the image is called.
        seed: Any integer.
    """
    others = np.delete(np.arange(grid**2), pair)
    if exhausted(grid, order, count):
        chosen = np.array(list(combinations(range(len(others)), order)), dtype=np.int64)
    else:
        words = _bits("contexts", image, seed, pair, order).random_raw(count * len(others))
        chosen = words.reshape(count, -1).argsort(axis=1, kind="stable")[:, :order]
    present = np.zeros((len(chosen), grid**2), dtype=bool)
    np.put_along_axis(present, others[chosen], True, axis=1)
    return present


def _bits(*what: object) -> np.random.PCG64:
    """Return a source of bits, which numpy keeps from version to version, that belongs to what is drawn."""
    return np.random.PCG64(int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:16], "little"))


def with_pair(present: Bool[np.ndarray, "context player"], pair: tuple[int, int]) -> Bool[np.ndarray, "context 4 p"]:
    """Return each context with both of a pair, its first, its second, and neither, in the order of `SIGNS`."""
    terms = present[:, None].repeat(len(SIGNS), axis=1)
    terms[:, :2, pair[0]] = terms[:, (0, 2), pair[1]] = True
    return terms


def patches(grid: int, height: int, width: int) -> Int[Tensor, "height width"]:
    """Return the number of the patch that each pixel lies in: the grid, upsampled to the nearest."""
    rows, columns = (torch.arange(side) * grid // side for side in (height, width))
    return rows[:, None] * grid + columns


def masked(
    image: Float[Tensor, "channel height width"],
    present: Bool[Tensor, "row player"],
    where: Int[Tensor, "height width"],
    baseline: Float[Tensor, "channel 1 1"],
) -> Float[Tensor, "row channel height width"]:
    """Return an image with only the patches that are present, the baseline in place of the others."""
    return torch.where(present[:, where][:, None], image, baseline)
