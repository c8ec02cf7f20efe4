"""Scores for a bootstrap where some of what is drawn has no number."""

from __future__ import annotations

import numpy as np

from passband.core.errors import PassbandError


def finite(values: np.ndarray) -> np.ndarray:
    """Return scores of all samples whose mean is that of the ones that have a number.

    A sample without one keeps its place, so that samples are drawn at the same places in every model: its score is
    the mean of the others, and theirs lie further apart for it (the influence values of the mean).

    Args:
        values: [sample], NaN or infinite where there is no number.

    Raises:
        PassbandError: when none has a number.
    """
    known = np.isfinite(values)
    if not known.any():
        raise PassbandError(
            f"none of {values.size} samples has a finite number, so that there is no mean: look at what was measured"
        )
    center = values[known].mean(dtype=np.float64)
    return np.asarray(center + np.where(known, values - center, 0.0) / known.mean())
