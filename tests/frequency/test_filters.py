"""Filters of a band: against a plain numpy loop, the papers' counts, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passband.core.band import Band, preset
from passband.core.errors import PassbandError
from passband.frequency.filters import FLAT, copies, high, keep, low, mask, rescale, response, split, sweep

BANDS = [
    Band.disc(4),
    Band.disc(5, inclusive=False),
    Band.square(6),
    Band.square(7, edge="inclusive"),
    Band.square(8, edge="half_open"),
    Band.disc(0.25, unit="cycles"),
    Band.square(0.5, unit="cycles"),
    ~Band.square(8, edge="half_open"),
]


def inside(band: Band, row: float, column: float) -> bool:
    """Judge one bin by the definition, in Python numbers."""
    distance = (row**2 + column**2) ** 0.5 if band.shape == "disc" else max(abs(row), abs(column))
    if band.edge == "half_open":
        return all(-band.cutoff <= line < band.cutoff for line in (row, column))
    return distance <= band.cutoff if band.edge == "inclusive" else distance < band.cutoff


def by_loop(image: np.ndarray, band: Band) -> np.ndarray:
    """Shift, mask around (H // 2, W // 2), shift back, transform back, take the real part: channel by channel."""
    height, width = image.shape[1:]
    scale = (height, width) if band.unit == "cycles" else (1, 1)
    kept = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            kept[i, j] = inside(band, (i - height // 2) / scale[0], (j - width // 2) / scale[1])
    kept = kept if band.side == "low" else 1 - kept
    planes = [np.fft.ifft2(np.fft.ifftshift(np.fft.fftshift(np.fft.fft2(plane)) * kept)).real for plane in image]
    return np.stack(planes)


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (12, 21), (9, 10)], ids=str)
@pytest.mark.parametrize("band", BANDS, ids=str)
def test_keeps_what_a_plain_loop_keeps(band: Band, size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((2, 3, *size))
    expected = np.stack([by_loop(image, band) for image in images])
    np.testing.assert_allclose(keep(torch.from_numpy(images), band).numpy(), expected, rtol=0, atol=1e-13)
    single = keep(torch.from_numpy(images).float(), band)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(5, 3, 12, 9), (5, 300, 300), (16, 16)], ids=str)
def test_copies_that_are_all_kept_are_those_of_a_sweep(shape: tuple[int, ...]) -> None:
    # Two planes of 300×300 pixels are cut at a time: 2, 2 and 1.
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bands = (Band.disc(2), Band.disc(5, inclusive=False).high)
    for images in (pixels, pixels.float() / 255, pixels.double()):
        kept = copies(images, bands)
        assert kept.dtype == (torch.float64 if images.dtype == torch.float64 else torch.float32)
        floats = images if images.is_floating_point() else images.float()
        expected = torch.stack([torch.stack(pair) for _, *pair in sweep(floats, bands)])
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-6 * float(floats.max()))


COUNTS = {
    (32, True): {4: 49, 8: 197, 12: 441, 16: 795, 20: 999, 24: 1024, 28: 1024},
    (32, False): {4: 45, 8: 193, 12: 437, 16: 793, 20: 995, 24: 1024, 28: 1024},
    (28, True): {4: 49, 8: 197, 12: 441, 16: 719},
    (28, False): {4: 45, 8: 193, 12: 437, 16: 719},
}


@pytest.mark.parametrize(("side", "inclusive"), COUNTS, ids=str)
def test_a_disc_keeps_as_many_coefficients_as_counted_by_hand(side: int, inclusive: bool) -> None:
    counted = COUNTS[side, inclusive]
    kept = {r: int(mask(Band.disc(r, inclusive=inclusive), (side, side)).sum()) for r in counted}
    assert kept == counted


def test_a_bin_on_the_cut_off_is_not_lost_to_rounding() -> None:
    # 3, 4, 5 is a right triangle, but (3/28)² + (4/28)² is not (5/28)² in floats.
    pixels, cycles = Band.disc(5), Band.disc(5 / 28, unit="cycles")
    assert torch.equal(mask(pixels, (28, 28)), mask(cycles, (28, 28)))
    assert mask(cycles, (28, 28))[3, 4] == 1
    assert mask(Band.disc(5 / 28, inclusive=False, unit="cycles"), (28, 28))[3, 4] == 0


def test_the_shifted_mask_is_centered_on_odd_and_non_square_sizes() -> None:
    for height, width in ((32, 32), (9, 14), (7, 7)):
        shifted = torch.fft.fftshift(mask(Band.disc(0), (height, width)))
        assert shifted.nonzero().tolist() == [[height // 2, width // 2]]


def test_the_half_open_edge_weighs_a_half_and_the_open_corner_nothing() -> None:
    weights = response(preset("adversarial-focus", 8), (32, 32))
    assert (weights[0, 3], weights[0, -4], weights[0, 4], weights[0, 5]) == (1, 0.5, 0.5, 0)
    assert (weights[-4, -4], weights[4, 4], weights[4, -4]) == (0.5, 0.5, 0)
    assert torch.equal(response(preset("adversarial-focus", 32), (32, 32)), torch.ones(32, 32))


def test_only_the_half_open_square_is_no_projection() -> None:
    images = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    for name in ("square", "high-frequency", "high-frequency-code"):
        once = low(images, preset(name, 12))
        torch.testing.assert_close(low(once, preset(name, 12)), once, rtol=0, atol=1e-13)
    once = low(images, preset("adversarial-focus", 12))
    change = (low(once, preset("adversarial-focus", 12)) - once).norm() / once.norm()
    assert 0.001 < change < 0.1


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    cutoff=st.floats(0, 16),
    shape=st.sampled_from([("disc", "inclusive"), ("disc", "exclusive"), ("square", "inclusive")]),
    seed=st.integers(0, 99),
)
def test_bands_that_tile_the_plane_sum_to_the_image_and_keep_its_energy(
    height: int, width: int, cutoff: float, shape: tuple[str, str], seed: int
) -> None:
    images = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inner, outer = Band(cutoff, *(shape[0], "pixel", shape[1])), Band(cutoff + 3, *(shape[0], "pixel", shape[1]))
    center, rest = split(images, inner)
    ring, corners = low(rest, outer), high(images, outer)
    torch.testing.assert_close(center + ring + corners, images, rtol=0, atol=1e-12)
    energy = sum(part.square().sum() for part in (center, ring, corners))
    torch.testing.assert_close(energy, images.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("radius", [4, 8, 12, 16])
def test_low_and_high_sum_to_an_image_of_float32(radius: int) -> None:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inside, outside = split(images, Band.disc(radius))
    torch.testing.assert_close(inside + outside, images, rtol=0, atol=1e-6)


def test_a_sweep_gives_what_each_cut_gives_alone_whatever_side_it_names() -> None:
    images = torch.rand(2, 3, 11, 8).contiguous(memory_format=torch.channels_last)
    for band, (given_back, inner, outer) in zip(BANDS, sweep(images, BANDS), strict=True):
        assert given_back == band
        assert torch.equal(inner, low(images, band)) and torch.equal(outer, high(images, band))
        assert torch.equal(keep(images, band), inner if band.side == "low" else outer)


def test_gradients_of_a_cut_are_the_cut_gradients() -> None:
    # A symmetric filter is its own adjoint: d<g, low(x)>/dx = low(g). Also after the mask was made without gradients.
    band = Band.disc(3.5)
    with torch.inference_mode():
        low(torch.rand(1, 1, 9, 10), band)
    images = torch.rand(1, 1, 9, 10, requires_grad=True)
    upstream = torch.rand(1, 1, 9, 10)
    low(images, band).backward(upstream)
    torch.testing.assert_close(images.grad, low(upstream, band), rtol=0, atol=1e-6)


def test_sixteen_bit_images_are_cut_in_float32() -> None:
    images = torch.rand(1, 3, 8, 8)
    cut = low(images.bfloat16(), Band.disc(2))
    assert cut.dtype == torch.float32
    torch.testing.assert_close(cut, low(images.bfloat16().float(), Band.disc(2)))


def test_rescaling_by_the_maximum_keeps_negative_values_and_each_image_apart() -> None:
    images = torch.tensor([[-2.0, 4.0], [0.5, -1.0]]).reshape(2, 1, 1, 2)
    assert rescale(images, "max").flatten().tolist() == [-0.5, 1.0, 1.0, -2.0]
    assert rescale(images, "min-max").flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert rescale(images, "clip").flatten().tolist() == [0.0, 1.0, 0.5, 0.0]
    assert rescale(images, "none") is images


@pytest.mark.parametrize("how", ["max", "min-max"])
def test_rescaling_does_not_blow_up_an_empty_copy(how: str) -> None:
    empty = high(torch.full((1, 3, 32, 32), 0.7), Band.disc(4))
    assert rescale(empty, how).abs().max() <= FLAT
    everything = high(torch.rand(1, 3, 32, 32), Band.disc(23))
    assert rescale(everything, how).abs().max() <= FLAT


def test_an_unknown_rescaling_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PassbandError, match="did you mean 'min-max'"):
        rescale(torch.rand(1, 1, 2, 2), "minmax")
