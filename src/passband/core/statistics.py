"""Intervals of measured shares."""

from __future__ import annotations

import math
from statistics import NormalDist

from passband.core.errors import PassbandError


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share.

    It keeps its coverage near 0 and 1 and on small counts, where the normal interval leaves [0, 1].

    Args:
        successes: How many of ``n`` succeeded, 0 to ``n``.
        n: How many were tried; with 0 nothing is known and the interval is (0, 1).
        level: Coverage, between 0 and 1.

    Returns:
        The lower and the upper end, shares in [0, 1].

    Raises:
        PassbandError: when the counts or the level make no sense.

    **Source**: Wilson, J. Am. Stat. Assoc. 22 (1927), equation 1; no continuity correction.

    >>> tuple(round(end, 4) for end in wilson(81, 263))
    (0.2553, 0.3662)
    """
    if not 0 <= successes <= n:
        raise PassbandError(f"an interval needs 0 <= successes <= n; got {successes} of {n}")
    if not 0 < level < 1:
        raise PassbandError(f"an interval's level lies between 0 and 1, such as 0.95; got {level}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = successes / n, z * z / n
    center = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    # At 0 and n successes the formula gives 0 and 1 exactly on paper; rounding must not move them.
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return low, high
