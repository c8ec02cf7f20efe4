"""The spectrum of changes that are known: FGSM on a linear model changes each pixel by the sign of its weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.results import Curve, Gallery, Map
from passband.data.dataset import Batches, ImageSet
from passband.probes.kernels import flattened_low, kernels
from passband.probes.perturbation import perturbation

SIDE, EPS = 8, 8 / 255
BOARD = torch.from_numpy(2.0 * (np.indices((SIDE, SIDE)).sum(0) % 2) - 1)


class Linear(nn.Module):
    """Answers 1 by how much of a pattern an image holds, the same in each channel."""

    def __init__(self, pattern: Tensor) -> None:
        super().__init__()
        self.pattern = nn.Parameter(pattern.float())

    def forward(self, images: Tensor) -> Tensor:
        found = (images * self.pattern).mean((1, 2, 3))  # small, or the softmax would have no gradient
        return torch.stack([-found, found], 1)


def gray(count: int = 6, *, low: int = 100, high: int = 150) -> Batches:
    pixels = np.random.default_rng(0).integers(low, high, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return ImageSet("gray", pixels, np.arange(count) % 2, ("a", "b"), "0" * 64).batches(64 if count > 64 else 4)


def probe(pattern: Tensor, batches: Batches, **options: object) -> dict[str, Map | Curve | Gallery]:
    return {result.name: result for result in perturbation(Linear(pattern), batches, attack="fgsm", **options)}


@pytest.mark.parametrize(("pattern", "share", "ring"), [(torch.ones(SIDE, SIDE), 1.0, 0), (BOARD, 0.0, 6)])
def test_a_constant_change_is_dc_and_a_checkerboard_is_the_corner(pattern: Tensor, share: float, ring: int) -> None:
    found = probe(pattern, gray(), radii=(2.0, 1.0))
    shares = found["perturbation.share"]
    assert shares.x.values == (1.0, 2.0)
    np.testing.assert_allclose(shares.arrays["difference"], np.full((2, 6), share), atol=1e-9)
    # Within 1 bin lie 5 of 64 bins, within 2 bins 13.
    assert shares.arrays["bins"].tolist() == [5 / 64, 13 / 64]
    rings = found["perturbation.ring"].arrays["difference"]
    expected = np.zeros(rings.shape)
    expected[:, ring] = EPS**2
    np.testing.assert_allclose(rings, expected, atol=1e-9)
    energy = found["perturbation.difference"].arrays["energy"]
    assert energy.sum() == pytest.approx(EPS**2, rel=1e-5)
    where = (SIDE // 2, SIDE // 2) if share else (0, 0)
    assert np.unravel_index(energy.argmax(), energy.shape) == where
    # Clean energy at that bin, the mean over images and channels.
    clean = np.abs(np.fft.fft2(np.concatenate([some for some, _ in gray()]))) ** 2 / SIDE**4
    ratio = 10 * np.log10(EPS**2 / clean.mean((0, 1))[(0, 0) if share else (SIDE // 2, SIDE // 2)])
    assert found["perturbation.relative"].values[where] == pytest.approx(ratio, abs=1e-3)


def test_random_signs_are_flat_until_black_pixels_cut_them() -> None:
    free, cut = (probe(BOARD, gray(128, low=low, high=low + 2), radii=(2.0,)) for low in (110, 0))
    flat, bent = (found["perturbation.share"] for found in (free, cut))
    # A share of 13 of 64 bins spreads by some 7 points in a channel: over 128 images of 3 by a third of a point.
    assert flat.arrays["random signs"].mean() == pytest.approx(13 / 64, abs=0.02)
    # Pixels of 0 and 1 change by 0 or 8 and by -1 or 8: their mean is DC, and what they vary by is flat.
    mean, square = np.mean([0, 8, -1, 8]), np.mean(np.square([0, 8, -1, 8]))
    expected = (mean**2 + (square - mean**2) * 13 / 64) / square
    assert bent.arrays["random signs"].mean() == pytest.approx(expected, abs=0.02)


def test_results_say_what_was_done_and_depend_on_no_batch() -> None:
    found = probe(BOARD, gray(), examples=2, seed=3)
    again = probe(BOARD, gray().cut(6), examples=2, seed=3)
    shares, gallery = found["perturbation.share"], found["perturbation.spectra"]
    assert shares.x.values == (1.0, 2.0, 3.0, 4.0)
    for kind, values in shares.arrays.items():
        np.testing.assert_allclose(values, again["perturbation.share"].arrays[kind], rtol=1e-9, atol=1e-12)
    assert [picture.caption for picture in gallery.pictures] == ["mean over 6 images", "image 0", "image 1"]
    strip = gallery.pictures[0].image
    factor = 128 // SIDE
    assert strip.shape == (128, 3 * 128 + 4) and (strip[:factor, -128 : factor - 128] == 255).all()
    relative = found["perturbation.relative"].values
    assert np.isfinite(relative).sum() >= 1 and not np.isinf(relative).any()
    with pytest.raises(PassbandError, match="examples is 0 or more"):
        probe(BOARD, gray(), examples=-1)
    with pytest.raises(PassbandError, match="at least one number"):
        probe(BOARD, gray(), radii=())


def test_flattened_kernels_that_are_known() -> None:
    constant, turning, single = torch.ones(2, 2, 2), torch.tensor([1.0, -1.0]).repeat(4).view(2, 2, 2), torch.zeros(8)
    single[3] = 5.0
    weight = torch.stack([constant, turning, single.view(2, 2, 2), torch.zeros(2, 2, 2)])
    # All at zero; all at half a cycle; flat: 5 of the 8 bins lie within a quarter of a cycle.
    np.testing.assert_allclose(flattened_low(weight).numpy(), [1.0, 0.0, 5 / 8, np.nan])
    layer = nn.Conv2d(2, 4, 2, bias=False)
    layer.weight = nn.Parameter(weight)
    *usual, spectrum, low = kernels(nn.Sequential(layer), None, flattened=True)
    assert [result.name for result in usual] == ["kernels.pictures", "kernels.spectrum", "kernels.smoothness"]
    expected = np.zeros((4, 8))
    expected[0, 0] = expected[1, 4] = 8.0
    expected[2] = 5.0
    np.testing.assert_allclose(spectrum.values, expected, atol=1e-6)
    assert low.value == pytest.approx((1 + 5 / 8) / 3) and low.n == 3 and "62.5%" in " ".join(low.notes)
