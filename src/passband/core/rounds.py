"""Times of several things in turns, so that a busy machine slows all alike."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping

from passband.core.errors import PassbandError


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int, seed: int = 0, budget: float = math.inf
) -> dict[str, list[float]]:
    """Time every variant once a round, in an order drawn anew each round, after one round that is not counted.

    Args:
        variants: What is run, by name.
        rounds: How many are counted, 1 or more.
        seed: Of the orders.
        budget: Seconds after which no round begins; a first round that used them up is counted.

    Returns:
        Seconds by variant, one number a round.

    Raises:
        PassbandError: when there is no round.
    """
    if rounds < 1:
        raise PassbandError(f"times are taken in 1 round or more; got {rounds}")
    order, chance = list(variants), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    began = time.monotonic()
    for count in range(rounds + 1):
        if count and time.monotonic() - began > budget:
            break
        chance.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - begin)
    return {name: values[1:] or values for name, values in seconds.items()}
