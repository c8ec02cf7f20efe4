"""A mean over images with its interval."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

Mean = tuple[float | None, float | None, float | None]
"""A mean and the ends of its 95% interval; None where nothing was measured, or too little."""


def mean_of(values: np.ndarray) -> Mean:
    """Return the mean of the finite values and its normal 95% interval, which two values or more have."""
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return None, None, None
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = NormalDist().inv_cdf(0.975) * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half
