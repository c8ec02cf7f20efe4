"""Linear centered kernel alignment in sample space: Gram matrices, HSIC of all pairs at once, and their ratio.

HSIC of two layers is the inner product of their centered Gram matrices, so that all pairs are one matrix product.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Estimator = Literal["unbiased", "biased"]
LEAST: dict[Estimator, int] = {"unbiased": 4, "biased": 2}
"""Images below which an estimator of HSIC divides by zero."""

ROUNDING = 1e-6
"""Features that differ by less, in parts of their length, differ by rounding in float32: they are constant."""

_COLUMNS = 8192
"""Features whose products are summed at a time: they stay in a processor's cache."""
_ROWS = 64
"""Rows that are computed at a time of a Gram matrix's lower half; fewer leave out more, and cost more each."""


def gram(features: Float[Tensor, "image ..."]) -> Float[Tensor, "image image"]:
    """Return the inner products of images' features, from each of which the first image's are taken.

    A shift of all features changes no centered Gram matrix, but large means cost digits: with this one, constant
    features give zeros. The order of the features does not matter, so they are read as they lie in memory.

    Args:
        features: A row per image, of any shape and layout.

    Returns:
        float32, or float64 for features of float64, on their device.
    """
    flat = _flat(features)
    kind = torch.promote_types(flat.dtype, torch.float32)
    reference = flat[0].to(kind)
    if flat.device.type == "cpu":
        found = _lower_half(flat, reference)
        found = found.tril() + found.tril(-1).T
    else:
        rest = flat.to(kind) - reference
        found = rest @ rest.T
    constant = found.diagonal().max() <= ROUNDING**2 * reference.square().sum()
    return torch.where(constant, 0, found)


def _flat(features: Tensor) -> Tensor:
    """Return features [image, feature] without a copy, where channels lie last too."""
    last = features.ndim == 4 and not features.is_contiguous()
    return (features.permute(0, 2, 3, 1) if last else features).flatten(1)


def _lower_half(flat: Float[Tensor, "image feature"], reference: Float[Tensor, " feature"]) -> Tensor:
    count, width = flat.shape
    found = reference.new_zeros(count, count)
    buffer = reference.new_empty(count, min(width, _COLUMNS))
    edges = [*range(0, count, _ROWS), count]
    for start in range(0, width, _COLUMNS):
        columns = slice(start, min(start + _COLUMNS, width))
        block = buffer[:, : columns.stop - columns.start]
        torch.sub(flat[:, columns].to(reference.dtype), reference[columns], out=block)
        for low, high in pairwise(edges):
            found[low:high, :high].addmm_(block[low:high], block[:high].T)
    return found


def centered(gram: Float[Tensor, "image image"], estimator: Estimator) -> Float64[Tensor, "image image"]:
    """Center a Gram matrix, so that HSIC of two is the sum of the products of their entries.

    ``"unbiased"`` centers without the diagonal, which stays zero; each row still sums to zero. Divisors are inside.

    **Source**: Song et al., *Feature selection via dependence maximization* (2012), equation 5, in the form of Székely
    and Rizzo, *Partial distance correlation with methods for dissimilarities* (2014), definition 2; ``"biased"``:
    Gretton et al., *Measuring statistical dependence with Hilbert-Schmidt norms* (2005), definition 2.

    Args:
        gram: Inner products of at least `LEAST` images.
        estimator: Of HSIC.

    Returns:
        On the CPU: not every device has float64.
    """
    matrix, count = gram.to("cpu", torch.float64, copy=True), len(gram)
    if estimator == "biased":
        rows = matrix.mean(1)
        matrix.sub_(rows[:, None]).sub_(rows).add_(rows.mean())
        return matrix.div_(count - 1)
    matrix.fill_diagonal_(0)
    rows = matrix.sum(1) / (count - 2)
    matrix.sub_(rows[:, None]).sub_(rows).add_(rows.sum() / (count - 1))
    return matrix.fill_diagonal_(0).div_((count * (count - 3)) ** 0.5)


def hsic(
    first: Float64[Tensor, "layer image image"], second: Float64[Tensor, "other image image"]
) -> Float64[Tensor, "layer other"]:
    """Return HSIC of every pair of centered Gram matrices."""
    return first.flatten(1) @ second.flatten(1).T


def shares(
    first: Float64[Tensor, "layer image image"], second: Float64[Tensor, "other image image"]
) -> Float64[Tensor, "layer other image"]:
    """Return each image's part of HSIC of every pair; the parts add up to it."""
    return torch.einsum("aij,bij->abi", first, second)


def leanings(parts: Float64[Tensor, "*pair image"]) -> Float64[Tensor, "*pair image"]:
    """Return how HSIC moves when an image of the batch is there once more, to first order.

    They add up to zero. HSIC is quadratic in how often an image is there, and centering adds nothing to first order.

    **Source**: the infinitesimal jackknife, Efron, *The jackknife, the bootstrap and other resampling plans* (1982),
    chapter 6.

    Args:
        parts: As :func:`shares` gives them for one batch.
    """
    return 2 * (parts - parts.mean(-1, keepdim=True))


def cka(cross: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return CKA of every pair: their HSIC over the root of each one's own; NaN where a layer's own is zero.

    **Source**: Kornblith et al., *Similarity of neural network representations revisited* (2019), equation 4; for sums
    over batches, Nguyen et al., *Do wide and deep networks learn the same things?* (2020), equation 2.

    Args:
        cross: HSIC of pairs, [layer, other], summed over batches.
        first: Each layer's HSIC with itself, [layer], summed alike.
        second: The others', [other].
    """
    own = np.sqrt(np.outer(first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(own > 0, cross / own, np.nan)
