"""Kernels as experiments see them: in gray where images are gray, and a score for each kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from passband.core.results import Result
from passband.experiments.scores import finite
from passband.probes.kernels import kernels

GRAY = ("mnist", "fashion-mnist")
"""Sets whose images have three equal channels."""


def in_gray(pictures: Result) -> Result:
    """Return the pictures of the kernels that images meet whose three channels are the same: sums over channels."""
    weight = torch.from_numpy(pictures.arrays["weight"]).sum(1, keepdim=True)
    layer = torch.nn.Conv2d(1, len(weight), (weight.shape[2], weight.shape[3]))
    layer.weight = torch.nn.Parameter(weight)
    note = "Sums over the three input channels, as the images are gray."
    drawn = kernels(layer, None, count=len(weight))[0]
    how = pictures.how | {"channels": "summed"}
    return drawn.model_copy(update={"title": pictures.title, "how": how, "notes": (note, drawn.notes[-1])})


def per_kernel(measured: Callable[[Tensor], Tensor], weight: Tensor) -> np.ndarray:
    """Return scores of all kernels whose mean is that over the kernels that are not zero altogether.

    Such a kernel has no number and keeps its place, so that kernels are drawn at the same places in every model. Its
    score is the mean of the others, and theirs lie further apart for it: the influence values of the mean.

    Args:
        measured: Slices [slice, height, width] to a number each, NaN for a slice of zeros.
        weight: The kernels [kernel, channel, height, width]; each counts as the mean over its slices not zero.

    Returns:
        float64 [kernel].
    """
    means = measured(weight.flatten(0, 1)).view(weight.shape[:2]).double().nanmean(1)
    return finite(means.numpy())
