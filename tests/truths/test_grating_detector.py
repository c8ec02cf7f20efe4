"""A detector of one grating scores 1 in its band and chance elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.results import Curve, Result
from passband.data.dataset import Batches, ImageSet
from passband.probes.bands import bands

SIDE, CYCLES = 32, 6


class Detector(nn.Module):
    """Answer 1 where an image holds a horizontal wave of `CYCLES` cycles, else 0."""

    def forward(self, images: Tensor) -> Tensor:
        wave = torch.fft.rfft2(images.mean(1))[:, 0, CYCLES].abs().square() / SIDE**4
        return torch.stack([torch.full_like(wave, 1e-3), wave], dim=1)


def gratings(count: int = 40) -> Batches:
    """Half of the images hold the wave along x (class 1), half the same along y (class 0), at random phases."""
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, count)
    waves = 0.5 + 0.4 * np.cos(2 * np.pi * CYCLES * np.arange(SIDE) / SIDE + phases[:, None])
    labels = np.arange(count) % 2
    along_x = np.broadcast_to(waves[:, None, :], (count, SIDE, SIDE))
    planes = np.where(labels[:, None, None] == 1, along_x, along_x.transpose(0, 2, 1))
    pixels = np.repeat((planes * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    return ImageSet("gratings", pixels, labels, ("no", "yes"), "0" * 64).batches(16)


def curve(results: tuple[Result, ...], name: str) -> Curve:
    (found,) = (result for result in results if result.name == name)
    assert isinstance(found, Curve)
    return found


@pytest.mark.parametrize("rescale", ["max", "none", "min-max"])
@pytest.mark.parametrize(("edge", "first_kept"), [("inclusive", 6), ("exclusive", 7)])
def test_the_detector_scores_one_where_its_wave_is_and_chance_where_not(
    edge: str, first_kept: int, rescale: str
) -> None:
    radii = (2.0, 5.0, 6.0, 7.0, 16.0)
    accuracy = curve(bands(Detector(), gratings(), radii=radii, edge=edge, rescale=rescale), "bands.accuracy")
    lines = {series.name: series.values for series in accuracy.series}
    assert accuracy.x.values == radii
    assert lines["LFC"] == tuple(1.0 if radius >= first_kept else 0.5 for radius in radii)
    assert lines["HFC"] == tuple(0.5 if radius >= first_kept else 1.0 for radius in radii)
    assert lines["whole image"] == (1.0,) * 5


@pytest.mark.parametrize(("preset", "at_the_edge"), [("square", 0.5), ("adversarial-focus", 1.0)])
def test_a_square_low_pass_loses_the_wave_below_its_degree(preset: str, at_the_edge: float) -> None:
    # D = 12 reaches to |k| = 6: the clean square drops it, the half-open one lets half of it through.
    found = curve(bands(Detector(), gratings(), degrees=(10.0, 12.0, 14.0), low_pass=preset), "bands.low_pass")
    assert found.series[0].values == (0.5, at_the_edge, 1.0)
