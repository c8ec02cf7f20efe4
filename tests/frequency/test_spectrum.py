"""Spectra whose answer is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.frequency.spectrum import (
    amplitude,
    coverage,
    energy_below,
    envelope,
    mean_amplitude,
    radial_mean,
    smoothness,
)


def padded(filters: torch.Tensor, size: int) -> np.ndarray:
    spectra = np.fft.fft2(filters.double().numpy(), s=(size, size))
    return np.fft.fftshift(np.abs(spectra), axes=(-2, -1))


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_of_a_known_slope_has_it_in_the_radial_mean(slope: float) -> None:
    side = 128
    lines = torch.fft.fftfreq(side, dtype=torch.float64)
    distance = torch.hypot(lines[:, None], lines[None, :]).clamp(min=1 / side)
    white = torch.randn(64, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = torch.fft.ifft2(torch.fft.fft2(white) * distance**-slope).real
    radii, values = radial_mean(amplitude(images).mean(0))
    kept = (radii >= 4) & (radii <= side // 2)
    measured = np.polyfit(radii[kept].log().numpy(), values[kept].log().numpy(), 1)[0]
    assert measured == pytest.approx(-slope, abs=0.02)


def test_a_radial_mean_of_distances_is_the_radius() -> None:
    rows, columns = torch.arange(9.0) - 4, torch.arange(12.0) - 6
    radii, values = radial_mean(torch.hypot(rows[:, None], columns[None, :]).expand(2, 9, 12))
    assert radii.tolist() == [0, 1, 2, 3, 4] and values.shape == (2, 5)
    assert values[0, 0] == 0 and values[0, 1] == pytest.approx((4 + 4 * 2**0.5) / 8)
    assert (values - radii).abs().max() < 0.5


def test_a_grating_shows_at_its_frequency_alone() -> None:
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16.0) / 16).expand(16, 16)
    spectrum = amplitude(wave)
    assert spectrum[8, 11] == pytest.approx(128, rel=1e-5) and spectrum[8, 5] == pytest.approx(128, rel=1e-5)
    assert spectrum.sum() == pytest.approx(256, rel=1e-4)


def test_a_delta_kernel_is_spectrally_flat_wherever_it_lies() -> None:
    deltas = torch.zeros(4, 3, 5)
    deltas[range(4), [0, 1, 2, 2], [0, 2, 1, 4]] = 0.5
    torch.testing.assert_close(envelope(deltas, 64), torch.full((64, 64), 0.5))
    assert coverage(envelope(deltas, 64)) == 1.0


@pytest.mark.parametrize("size", [16, 31])
def test_envelope_and_mean_are_those_of_zero_padded_transforms(size: int) -> None:
    filters = torch.randn(37, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    np.testing.assert_allclose(envelope(filters, size), padded(filters, size).max(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(mean_amplitude(filters, size), padded(filters, size).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", ["equal", "spread"])
def test_a_large_bank_loses_no_filter_that_reaches_the_envelope(scale: str) -> None:
    filters = torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(2)).double()
    if scale == "spread":
        filters *= torch.logspace(-2, 0, 500)[:, None, None]
    np.testing.assert_allclose(envelope(filters, 160), padded(filters, 160).max(0), rtol=0, atol=1e-12)


def test_an_envelope_grows_with_its_bank() -> None:
    filters = torch.randn(64, 3, 3, generator=torch.Generator().manual_seed(3))
    shares = [float((envelope(filters[:count], 64) > 6).double().mean()) for count in (1, 8, 64)]
    assert shares[0] < shares[1] < shares[2]


def test_coverage_is_the_share_above_the_threshold() -> None:
    plane = torch.tensor([[4.0, 2.0], [1.0, 2.1]])
    assert coverage(plane) == 0.5
    assert coverage(plane, 0.0) == 1.0
    assert coverage(torch.zeros(2, 2)) == 0.0


def test_smoothness_of_constant_checkered_and_random_kernels() -> None:
    signs = torch.tensor([[1.0, -1.0] * 2, [-1.0, 1.0] * 2] * 2)
    same, checkered, dead = smoothness(torch.stack([torch.ones(4, 4), 3 * signs, torch.zeros(4, 4)]))
    assert same == 1 and checkered == -1 and dead.isnan()
    noise = smoothness(torch.randn(20000, 3, 3, generator=torch.Generator().manual_seed(4)))
    assert abs(noise.mean()) < 4 * noise.std() / 20000**0.5


@pytest.mark.parametrize("shape", [(5, 5), (4, 8), (1, 3)])
def test_energy_below_a_cut_off_is_what_a_fine_spectrum_sums_to(shape: tuple[int, int]) -> None:
    filters = torch.randn(6, *shape, generator=torch.Generator().manual_seed(5)).double()
    lines = np.fft.fftshift(np.fft.fftfreq(512))
    power, inside = padded(filters, 512) ** 2, np.hypot(lines[:, None], lines) <= 0.2
    summed = (power * inside).sum((1, 2)) / power.sum((1, 2))
    np.testing.assert_allclose(energy_below(filters, 0.2).numpy(), summed, atol=2e-3)
    torch.testing.assert_close(energy_below(filters, 0.2), energy_below(-3 * filters, 0.2))


def test_a_delta_and_noise_have_the_discs_share_of_energy_and_a_checkerboard_almost_none() -> None:
    delta = torch.zeros(1, 7, 7)
    delta[0, 2, 5] = 3
    assert float(energy_below(delta)) == pytest.approx(np.pi / 16, abs=1e-12)
    noise = energy_below(torch.randn(5000, 5, 5, generator=torch.Generator().manual_seed(6)))
    assert abs(float(noise.mean()) - np.pi / 16) < 4 * float(noise.std()) / 5000**0.5
    signs = torch.tensor([[1.0, -1.0] * 4, [-1.0, 1.0] * 4] * 4)
    checkered, constant, dead = energy_below(torch.stack([signs, torch.ones(8, 8), torch.zeros(8, 8)]))
    assert checkered < 0.02 and constant > 0.9 and dead.isnan()


def test_impossible_banks_are_refused_in_one_line() -> None:
    for call, words in (
        (lambda: envelope(torch.zeros(0, 3, 3), 8), "empty"),
        (lambda: envelope(torch.ones(1, 9, 9), 8), "raise the size"),
        (lambda: smoothness(torch.ones(1, 1, 1)), "1×1"),
        (lambda: energy_below(torch.ones(1, 3, 3), 0.6), "cut-off"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
