"""Targets that take images of any shape: filters of a band, a network, an attack."""

from __future__ import annotations

from typing import Any

import torch
from fuzz_run import Target
from fuzz_text import band_of, bands
from hypothesis import strategies as st
from torch import nn

from passband.attacks.gradient_sign import FGSM
from passband.core.band import Band
from passband.core.spec import ImageSpec
from passband.frequency.filters import copies, mask, rescale, response, split
from passband.models.wrap import Classifier

_side = st.one_of(st.integers(1, 12), st.integers(1, 40), st.sampled_from([1, 63, 64, 65, 224, 255, 256, 257]))
shapes = st.tuples(st.integers(1, 2), st.integers(1, 5), _side, _side).filter(
    lambda shape: shape[2] * shape[3] <= 70_000
)
_scales = st.sampled_from([1.0, 255.0, 1e-6, 0.0])


def _images(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def cut_holds(case: tuple[tuple[str, Any], tuple[int, ...], int, float]) -> None:
    """Low and high sum to the image, share its energy out where the band is symmetric, and a mask tiles its plane."""
    given, shape, seed, scale = case
    band = band_of(given)
    images = _images(shape, seed, scale)
    low, high = split(images, band)
    for copy in (low, high):
        assert copy.shape == images.shape and copy.dtype == images.dtype and bool(copy.isfinite().all())
    # Each of the two is rounded once; float32 has 2**-24 of a value below the power of two above it.
    assert float((low + high - images).abs().max()) <= 2**-22 * max(scale, 1e-30)
    size = (shape[2], shape[3])
    assert torch.equal(mask(band.low, size) + mask(band.high, size), torch.ones(size))
    if band.edge != "half_open":
        assert torch.equal(response(band, size), mask(band, size))
        whole, parts = (
            float(x)
            for x in (images.double().square().sum(), low.double().square().sum() + high.double().square().sum())
        )
        assert abs(whole - parts) <= 1e-5 * whole
    both = copies(images, (band,))
    assert torch.allclose(both[0, 0], low, atol=1e-5 * max(scale, 1e-30)) and both.shape == (1, 2, *shape)
    for how in ("none", "max", "min-max", "clip"):
        assert bool(rescale(low, how).isfinite().all())


class _Net(nn.Module):
    """A convolution and a mean over what is left: the smallest network that takes images of any size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(channels, 2, 3, padding=1), nn.Linear(2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(images)).mean((2, 3)))


def attack_holds(case: tuple[Any, ...]) -> None:
    """An attacked image stays in its ball and in [0, 1], whatever its shape, and the network is left as it was."""
    given, shape, seed, eps, mean, std, label = case
    band: Band | None = None if given is None else band_of(given)
    spec = ImageSpec(size=(shape[2], shape[3]), channels=shape[1], classes=3, mean=mean, std=std, source="fuzz")
    model = Classifier(_Net(shape[1], 3), spec).train()
    images = _images(shape, seed)
    attacked = FGSM(eps=eps, band=band)(model, images, torch.full((shape[0],), label))
    assert attacked.shape == images.shape and attacked.dtype == images.dtype and bool(attacked.isfinite().all())
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1
    assert float((attacked - images).abs().max()) <= eps + 1e-6
    assert model.training and all(p.grad is None for p in model.parameters())


_statistics = st.one_of(
    st.none(), st.lists(st.sampled_from([0.0, 0.5, 1.0, 1e-6, -1.0, float("nan")]), min_size=1, max_size=5).map(tuple)
)
_epsilons = st.sampled_from([0.0, 8 / 255, 0.5, 1.0, 8.0, -0.1, float("nan")])
_right = st.sampled_from(["low 4", "high 2", "low square 8", "low 0", "high 0", "low 300", "high disc 1"]).map(
    lambda t: ("text", t)
)

TARGETS = (
    Target(
        "cuts of images",
        st.tuples(st.one_of(bands, _right, _right), shapes, st.integers(0, 99), _scales),
        cut_holds,
        10,
    ),
    Target(
        "networks and attacks",
        st.tuples(
            st.one_of(st.none(), _right),
            shapes,
            st.integers(0, 99),
            _epsilons,
            _statistics,
            _statistics,
            st.sampled_from([0, 1, 2, 2, 3, -1]),
        ),
        attack_holds,
        5,
    ),
)
