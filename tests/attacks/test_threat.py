"""A threat's ball is kept, and a band's change has no energy outside the band before the clip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from passband.attacks.chance import image_keys
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import BIM, FFGSM, FGSM, PGD
from passband.attacks.threat import L2, Banded, Linf, Threat, threat_of
from passband.attacks.trades import TPGD
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import keep

BANDS = [Band.disc(3), ~Band.disc(3), Band.square(6), ~Band.square(6, edge="half_open")]


def pictures(low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(5, 3, 12, 11, generator=generator, dtype=torch.float64)


def energy_outside(change: Tensor, band: Band) -> float:
    """Energy at bins that the band drops altogether, as a share of the whole."""
    spectrum = torch.fft.fft2(change).abs().square()
    kept = torch.fft.fft2(keep(torch.fft.ifft2(torch.ones_like(spectrum)).real, band)).abs()
    return float(spectrum[kept < 1e-9].sum() / spectrum.sum())


@settings(max_examples=40, deadline=None)
@given(
    eps=st.floats(0, 1), seed=st.integers(0, 99), norm=st.sampled_from(["Linf", "L2"]),
    band=st.sampled_from([None, *BANDS]), size=st.floats(0.01, 3),
)  # fmt: skip
def test_ball_and_range_are_kept(eps: float, seed: int, norm: str, band: Band | None, size: float) -> None:
    threat, images = threat_of(norm, eps, band), pictures(seed=seed)
    points = images + size * (pictures(seed=seed + 1) - 0.5)
    for found in (threat.project(points, images), threat.scatter(images, image_keys(images.float(), seed))):
        assert float(found.min()) >= 0 and float(found.max()) <= 1
        assert float(threat.distance(found, images).max()) <= eps * (1 + 1e-12) + 1e-14  # 396 sums, each rounded


@pytest.mark.parametrize("inner", [Linf(0.05), L2(0.4)], ids=str)
@pytest.mark.parametrize("band", BANDS, ids=str)
def test_band_keeps_all_energy_inside_before_the_clip(inner: Linf | L2, band: Band) -> None:
    threat, images = Banded(inner, band), pictures(0.3, 0.7)
    change = threat.ball(pictures(seed=1) - 0.5)
    assert energy_outside(change, band) < 1e-20
    scattered = threat.scatter(images, image_keys(images.float(), 0)) - images
    assert energy_outside(scattered, band) < 1e-20
    size = threat.distance(change, torch.zeros_like(change))
    if band.edge == "half_open":  # its real part weighs the edge by a half, again each time it is filtered
        assert bool((size > 0.9 * inner.eps).all())
    else:  # the ball is used to its edge, not merely kept
        assert torch.allclose(size, torch.full_like(size, inner.eps), rtol=1e-9)


@pytest.mark.parametrize("inner", [Linf(0.05), L2(0.4)], ids=str)
@pytest.mark.parametrize("band", [None, *BANDS], ids=str)
def test_direction_has_norm_one_and_rises(inner: Linf | L2, band: Band | None) -> None:
    threat: Threat = inner if band is None else Banded(inner, band)
    gradient = pictures(seed=3) - 0.5
    gradient[0] = 0
    step = threat.direction(gradient)
    sizes = threat.distance(step, torch.zeros_like(step))
    assert float(sizes[0]) == 0 and torch.allclose(sizes[1:], torch.ones(4, dtype=torch.float64))
    assert bool(((step * gradient).sum((1, 2, 3))[1:] > 0).all())


ATTACKS = [
    FGSM(0.05),
    FFGSM(0.05, alpha=None),
    BIM(0.05, alpha=None, steps=3),
    PGD(0.05, alpha=None, steps=3),
    TPGD(0.05, alpha=None, steps=3),
    PGDL2(0.5, alpha=None, steps=3),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("band", BANDS, ids=str)
def test_attacks_search_the_band_alone(attack, band: Band) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 9, 3)).double()
    # No pixel comes near 0 or 1, so nothing is clipped.
    images, labels = pictures(0.3, 0.7), torch.tensor([0, 1, 2, 0, 1])
    change = replace(attack, band=band)(model, images, labels) - images
    assert float(change.abs().max()) > 0.001 and energy_outside(change, band) < 1e-20
    assert energy_outside(attack(model, images, labels) - images, band) > 0.01


def test_a_detector_of_one_frequency_falls_to_that_band_alone() -> None:
    """A model that looks at one frequency is fooled inside the band that holds it, and stands outside."""
    rows = torch.arange(16)
    wave = torch.cos(2 * torch.pi * 5 * rows / 16)

    class Detector(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            found = (images.mean(1) * wave).mean((1, 2))
            return torch.stack((0.01 - found, found - 0.01), 1)

    images, labels = torch.full((2, 3, 16, 16), 0.5), torch.tensor([0, 0])
    for band, falls in ((Band.disc(5), True), (~Band.disc(4.5), True), (Band.disc(4.5), False), (~Band.disc(5), False)):
        found = Detector()(PGD(8 / 255, band=band)(Detector(), images, labels)).argmax(1)
        assert bool((found == 1).all()) == falls and bool((found == 0).all()) != falls


def test_refuses_what_is_no_radius() -> None:
    with pytest.raises(PassbandError, match="a length of 0 or more"):
        L2(-1)
