"""Cut images by rank, in place of a band: the largest singular values of each channel, and the rest."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import low

_TIE = 1e-12
"""Share of a channel's energy by which two energies may differ and count as equal: float64 keeps some 1e-15."""


def split(
    images: Float[Tensor, "*batch height width"], rank: int | Int[Tensor, "*batch"]
) -> tuple[Float[Tensor, "*batch height width"], Float[Tensor, "*batch height width"]]:
    """Return what the largest singular values make of each channel, and the image less that.

    Args:
        images: Any scale, channels apart from each other.
        rank: How many singular values the first part keeps, 0 or more; one number for all, or one for each channel of
            each image.

    Returns:
        The low-rank part, the nearest of its rank in the least-squares sense, and the rest; they sum to the image.

    Raises:
        PassbandError: when a rank is negative.

    **Source**: high-frequency, section 8 (truncated singular value decomposition).

    >>> dominant, rest = split(torch.eye(4), 1)
    >>> int(torch.linalg.matrix_rank(dominant)), bool(torch.allclose(dominant + rest, torch.eye(4)))
    (1, True)
    """
    ranks = torch.as_tensor(rank, device=images.device).expand(images.shape[:-2])
    if bool((ranks < 0).any()):
        raise PassbandError(f"a low-rank part keeps 0 singular values or more; got {int(ranks.min())}")
    return _cut(images, *_decomposed(images), ranks)


def split_as_band(
    images: Float[Tensor, "*batch height width"], band: Band
) -> tuple[Float[Tensor, "*batch height width"], Float[Tensor, "*batch height width"], Int[Tensor, "*batch"]]:
    """Return the part of smallest rank that keeps as much energy as a band's low side, the rest, and the ranks.

    Energy is the sum of squared pixels of a channel, its mean included; each channel of each image has a rank of its
    own.

    Args:
        images: As for :func:`split`.
        band: Whose low side says how much energy is kept.

    Returns:
        The low-rank part, the image less that, and how many singular values each channel kept.

    **Source**: high-frequency, section 8.
    **Differs**: the paper states no rank.
    """
    factors = _decomposed(images)
    energies = factors[1].square()
    wanted = low(images.double(), band.low).square().sum((-2, -1))
    # What the first 0, 1, ... singular values keep; those too few are counted.
    kept = torch.nn.functional.pad(energies.cumsum(-1), (1, 0))[..., :-1]
    tie = _TIE * energies.sum(-1, keepdim=True)
    ranks = (kept < wanted[..., None] - tie).sum(-1)
    return *_cut(images, *factors, ranks), ranks


def _decomposed(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose in float64: a band's energy differs from the whole by less than float32 can add up."""
    factors = torch.linalg.svd(images.double(), full_matrices=False)
    return factors.U, factors.S, factors.Vh


def _cut(images: Tensor, left: Tensor, values: Tensor, right: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    places = torch.arange(values.shape[-1], device=values.device)
    chosen = values * (places < ranks[..., None])
    dominant = ((left * chosen[..., None, :]) @ right).to(images.dtype)
    return dominant, images - dominant
