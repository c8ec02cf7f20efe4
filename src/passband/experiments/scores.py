"""Scores for a bootstrap where some of what is drawn has no number."""

from __future__ import annotations

import numpy as np


def finite(values: np.ndarray) -> np.ndarray:
    """Return scores of all samples whose mean is that of the ones that have a number.

    A sample without one keeps its place, so that samples are drawn at the same places in every model: its score is
    the mean of the others, and theirs lie further apart for it (the influence values of the mean).

    Args:
        values: [sample], NaN or infinite where there is no number; at least one has one.
    """
    known = np.isfinite(values)
    center = values[known].mean(dtype=np.float64)
    return np.asarray(center + np.where(known, values - center, 0.0) / known.mean())
