"""Write trained dense kernels as depthwise filters followed by pointwise weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fit_weights(
    kernels: Float[Tensor, "outputs inputs k k"], filters: Float[Tensor, "inputs d k k"]
) -> Float[Tensor, "outputs inputs d"]:
    """Return the weights with which given filters come nearest to the kernels, by least squares.

    Each input channel has its own problem: its ``out`` kernels as sums of its ``d`` filters. With as many independent
    filters as a kernel has pixels the sums are exact. Computed in float64 on the CPU; of many best weights, the
    smallest.

    Args:
        kernels: Dense kernels.
        filters: Depthwise filters of each input channel.
    """
    targets = _by_channel(kernels)
    basis = filters.detach().to("cpu", torch.float64).flatten(2)
    weights: Tensor = torch.linalg.lstsq(basis.mT, targets, driver="gelsy").solution
    return weights.permute(2, 0, 1)


def best_filters(
    kernels: Float[Tensor, "outputs inputs k k"], count: int
) -> tuple[Float[Tensor, "inputs d k k"], Float[Tensor, "outputs inputs d"]]:
    """Return the filters and weights that come nearest to the kernels of all that there are, largest share first.

    They are the truncated singular value decomposition of each input channel's ``out`` kernels, ``[k², out]``: the
    filters are orthonormal and the weights carry the singular values. Computed in float64 on the CPU.

    **Source**: Eckart and Young, 1936: no other ``d`` filters leave a smaller sum of squares.

    Args:
        kernels: Dense kernels.
        count: Filters per input channel; there are at most ``min(k², out)``, and no more come back.
    """
    filters, values, weights = torch.linalg.svd(_by_channel(kernels), full_matrices=False)
    count = min(count, values.shape[1])
    chosen = filters[:, :, :count].mT.unflatten(2, tuple(kernels.shape[2:]))
    return chosen, (values[:, :count, None] * weights[:, :count]).permute(2, 0, 1)


def relative_error(kernels: Tensor, approximation: Tensor) -> float:
    """Return the norm of what is missing over the norm of the kernels; 0 where both are zero."""
    wanted = kernels.detach().double()
    missing, whole = (wanted - approximation.detach().double()).norm(), wanted.norm()
    return float(missing / whole) if whole > 0 else float(missing > 0)


def _by_channel(kernels: Float[Tensor, "outputs inputs k k"]) -> Float[Tensor, "inputs k2 outputs"]:
    return kernels.detach().to("cpu", torch.float64).permute(1, 2, 3, 0).flatten(1, 2)
