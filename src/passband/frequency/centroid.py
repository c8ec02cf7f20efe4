"""Where along the frequencies a map's changes lie: their center of gravity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def centroid(maps: Float[Tensor, "*batch channel height width"]) -> Float[Tensor, "*batch"]:
    """Return the mean frequency of maps, weighted by power, without their means (DC).

    Frequencies are lengths of (row, column) frequency vectors. White noise lies at 0.38 cycles per pixel on large maps,
    at 0.39 on 8×8, a wave at its own frequency. Scaling all channels changes nothing.

    Args:
        maps: The channels of one layer share one mean, each weighing what its power does.

    Returns:
        Cycles per pixel, 0 to √½, float64; NaN where every channel is constant.

    >>> wave = torch.cos(torch.pi / 4 * torch.arange(8)).expand(1, 8, 8)
    >>> float(centroid(wave).round(decimals=6))
    0.125
    """
    height, width = maps.shape[-2:]
    # Less its mean, in float64, a constant map has exactly no power.
    maps = maps.double()
    power = torch.fft.fft2(maps - maps.mean((-2, -1), keepdim=True)).abs().square().sum(-3)
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64, device=maps.device) for side in (height, width))
    length = torch.hypot(rows[:, None], columns)
    weighed = (power * length).sum((-2, -1))
    found: Tensor = weighed / power.sum((-2, -1))
    return found
