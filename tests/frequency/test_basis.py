"""The real Fourier basis: one frequency an image, unit norm, all of them together complete."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.frequency.basis import basis, half_plane, on_plane

SIZES = [(4, 4), (5, 5), (4, 5), (6, 3), (1, 4)]


@pytest.mark.parametrize("size", SIZES)
def test_an_image_holds_one_frequency_and_its_conjugate_alone(size: tuple[int, int]) -> None:
    frequencies = half_plane(size)
    for (ky, kx), image in zip(frequencies.tolist(), basis(frequencies, size), strict=True):
        spectrum = np.abs(np.fft.fft2(image.numpy().astype(float)))
        held = {(int(row), int(column)) for row, column in np.argwhere(spectrum > 1e-4)}
        assert held == {(ky % size[0], kx % size[1]), (-ky % size[0], -kx % size[1])}


@pytest.mark.parametrize("size", SIZES)
def test_each_pair_comes_once_and_what_is_its_own_conjugate_too(size: tuple[int, int]) -> None:
    height, width = size
    found = [(ky % height, kx % width) for ky, kx in half_plane(size).tolist()]
    conjugates = [(-ky % height, -kx % width) for ky, kx in found]
    assert len(set(found)) == len(found) and len(set(found) | set(conjugates)) == height * width
    own = sum(one == other for one, other in zip(found, conjugates, strict=True))
    assert own == (2 if height % 2 == 0 else 1) * (2 if width % 2 == 0 else 1)
    assert 2 * len(found) - own == height * width


def test_it_is_as_many_as_the_plane_asks_for_from_low_to_high() -> None:
    frequencies = half_plane((32, 32))
    assert len(frequencies) == 514 and frequencies[0].tolist() == [0, 0]
    assert frequencies.min() == -16 and frequencies.max() == 15
    radii = frequencies.square().sum(1)
    assert bool((radii.diff() >= 0).all())
    assert len(half_plane((224, 224), 63)) == (63**2 + 1) // 2


@pytest.mark.parametrize("size", SIZES)
def test_with_the_conjugates_images_it_is_orthonormal_and_complete(size: tuple[int, int]) -> None:
    half = half_plane(size)
    images = basis(half, size).flatten(1)
    torch.testing.assert_close(images @ images.T, torch.eye(len(half)), atol=1e-6, rtol=0)
    both = torch.stack([half % torch.tensor(size), -half % torch.tensor(size)], 1).flatten(0, 1).unique(dim=0)
    everything = basis(both, size).flatten(1)
    torch.testing.assert_close(everything @ everything.T, torch.eye(math.prod(size)), atol=1e-6, rtol=0)
    image = torch.rand(math.prod(size), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((everything @ image) @ everything, image, atol=1e-6, rtol=0)


def test_the_phase_is_that_of_the_authors_code() -> None:
    # There: 0.5 + 0.5j at the first of a pair on the shifted plane, its conjugate at the second, times √(HW).
    size = (4, 6)
    for (ky, kx), image in zip(half_plane(size).tolist(), basis(half_plane(size), size), strict=True):
        spectrum = np.zeros(size, complex)
        place, other = (ky + 2, kx + 3), ((-ky + 2) % 4, (-kx + 3) % 6)
        spectrum[place] = 0.5 - 0.5j
        spectrum[other] = 0.5 + 0.5j
        if place == other:
            spectrum[place] = 1
        expected = math.sqrt(24) * np.fft.ifft2(np.fft.ifftshift(spectrum)).real
        np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)


def test_numbers_lie_at_their_frequency_and_its_conjugate() -> None:
    frequencies = half_plane((4, 5), 3)
    plane = on_plane(torch.arange(5.0), frequencies, (4, 5))
    assert plane[2, 2] == 0 and bool(plane[0].isnan().all()) and bool(plane[:, 0].isnan().all())
    for value, (ky, kx) in enumerate(frequencies.tolist()):
        assert plane[2 + ky, 2 + kx] == plane[2 - ky, 2 - kx] == value
    full = on_plane(torch.arange(10.0), half_plane((4, 4)), (4, 4))
    assert not full.isnan().any() and full[0, 1] == full[0, 3] and full[1, 0] == full[3, 0]


def test_mistakes_are_one_line() -> None:
    for call, words in (
        (lambda: half_plane((0, 4)), "1 pixel or more"),
        (lambda: half_plane((4, 4), 2), "odd number"),
        (lambda: half_plane((4, 4), 5), "1 to 4"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
