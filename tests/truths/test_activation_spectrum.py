"""The mean frequency of activations where it is known: waves, noise, constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.core.results import Curve
from passband.data.dataset import ImageSet
from passband.frequency.centroid import centroid
from passband.probes.activation_spectrum import activation_spectrum


def wave(row: int, column: int, side: int = 16) -> torch.Tensor:
    places = torch.arange(side, dtype=torch.float64)
    return torch.cos(2 * math.pi * (row * places[:, None] + column * places) / side)


@pytest.mark.parametrize(("row", "column"), [(0, 1), (3, 4), (8, 0), (8, 8)])
def test_a_wave_lies_at_its_own_frequency(row: int, column: int) -> None:
    found = centroid(3 + 5 * wave(row, column)[None])
    assert float(found) == pytest.approx(math.hypot(row, column) / 16, abs=1e-9)


def test_channels_weigh_what_their_power_does() -> None:
    # Power goes with the square of the amplitude: 1 part at 1/16 to 9 parts at 4/16.
    both = torch.stack([wave(0, 1), 3 * wave(0, 4)])
    assert float(centroid(both)) == pytest.approx((1 / 16 + 9 * 4 / 16) / 10, abs=1e-9)


def test_white_noise_lies_at_the_mean_of_the_plane() -> None:
    noise = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(centroid(noise).mean()) == pytest.approx(0.3826, abs=0.005)


def test_a_constant_map_has_none() -> None:
    assert centroid(torch.full((2, 3, 4, 4), 0.1)).isnan().all()


class Filters(nn.Module):
    """Give images blurred at random, and their differences to the pixel on the left."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.difference = nn.Conv2d(3, 3, 3, padding=1), nn.Identity()
        self.head = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        changed = self.difference(images - images.roll(1, 3))
        return self.head((self.same(images) + changed).mean((2, 3)))


def batches(count: int = 6) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, np.zeros(count, np.int64), ("one", "two"), "0" * 64)


def test_differences_lie_higher_than_the_image_whatever_the_batch() -> None:
    model = Filters().train()
    found = [activation_spectrum(model, batches().batches(size), layers=("difference", "same"))[0] for size in (2, 6)]
    for one in found:
        assert isinstance(one, Curve)
        difference, _ = one.arrays["centroid"]
        assert (difference > 0.3826).all() and one.series[0].n == 6
    np.testing.assert_allclose(found[0].arrays["centroid"], found[1].arrays["centroid"], rtol=1e-12)
    assert model.training and not model.same._forward_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ("sam",)}, "same"),
        ({"layers": ("head",)}, "gives maps"),
        ({"count": 0}, "count is 1 or more"),
    ],
)
def test_mistakes_are_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        activation_spectrum(Filters(), batches().batches(4), **options)
