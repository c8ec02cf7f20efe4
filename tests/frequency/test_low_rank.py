"""Low-rank parts of images: the nearest of their rank, with as much energy as a band, and no rank more than that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import low
from passband.frequency.low_rank import split, split_as_band


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape))


@pytest.mark.parametrize("rank", [0, 1, 4, 9, 20])
def test_the_error_is_what_the_trailing_singular_values_hold(rank: int) -> None:
    images = noise(2, 3, 12, 9)
    dominant, rest = split(images, rank)
    values = np.linalg.svd(images.numpy(), compute_uv=False)
    errors = np.sqrt((values[..., rank:] ** 2).sum(-1))
    np.testing.assert_allclose(np.linalg.norm((images - dominant).numpy(), axis=(-2, -1)), errors, atol=1e-12)
    found = np.linalg.matrix_rank(dominant.numpy(), tol=1e-9)
    assert np.array_equal(found, np.full((2, 3), min(rank, 9)))
    torch.testing.assert_close(dominant + rest, images, rtol=0, atol=1e-15)


def test_no_other_image_of_that_rank_is_nearer() -> None:
    image = noise(10, 10)
    _, rest = split(image, 3)
    rng = np.random.default_rng(1)
    for _ in range(20):
        left, _ = np.linalg.qr(rng.normal(size=(10, 3)))
        other = image.numpy() - left @ (left.T @ image.numpy())
        assert np.linalg.norm(rest.numpy()) < np.linalg.norm(other)


@pytest.mark.parametrize("band", [Band.disc(0), Band.disc(2), Band.disc(4, inclusive=False), ~Band.square(8)], ids=str)
def test_the_rank_is_the_smallest_that_keeps_as_much_energy_as_the_low_side(band: Band) -> None:
    images = noise(3, 3, 14, 16) + torch.linspace(0, 3, 16)
    dominant, rest, ranks = split_as_band(images, band)
    energy = low(images, band.low).square().sum((-2, -1))
    kept = dominant.square().sum((-2, -1))
    assert bool((kept >= energy * (1 - 1e-12)).all()) and bool((ranks >= 1).all())
    fewer, _ = split(images, ranks - 1)
    assert bool((fewer.square().sum((-2, -1)) < energy).all())
    torch.testing.assert_close(split(images, ranks)[0], dominant, rtol=0, atol=0)
    torch.testing.assert_close(dominant + rest, images, rtol=0, atol=1e-14)


def test_a_band_that_keeps_everything_asks_for_the_rank_itself() -> None:
    rows, columns = noise(12, 2), noise(2, 12)
    images = torch.stack((torch.zeros(12, 12), torch.full((12, 12), 0.5), rows @ columns, noise(12, 12)))
    dominant, rest, ranks = split_as_band(images, Band.disc(20))
    assert ranks.tolist() == [0, 1, 2, 12]
    torch.testing.assert_close(dominant, images, rtol=0, atol=1e-12)
    assert float(rest.abs().max()) < 1e-12


def test_single_precision_comes_back_as_such_and_negative_ranks_are_refused() -> None:
    images = noise(2, 3, 8, 8).float()
    dominant, rest, ranks = split_as_band(images, Band.disc(2))
    assert dominant.dtype == rest.dtype == torch.float32 and ranks.shape == (2, 3)
    double, _, same = split_as_band(images.double(), Band.disc(2))
    assert torch.equal(ranks, same)
    torch.testing.assert_close(dominant, double.float(), rtol=0, atol=1e-6)
    with pytest.raises(PassbandError, match="0 singular values or more; got -1"):
        split(images, -1)
