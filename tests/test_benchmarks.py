"""What the benchmarks compare is equal: their own check of it, on small images."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the benchmarks, which are no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT))
    torch.manual_seed(0)


def test_ours_and_theirs_agree_whatever_a_conv_mixer_learns(benchmarks: None) -> None:
    assert 0 <= importlib.import_module("benchmarks.convmixer").assert_agreement() < 1e-9


def test_the_composed_network_and_its_two_convolutions_agree(benchmarks: None) -> None:
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    assert 0 <= importlib.import_module("benchmarks.separable").assert_agreement(images, labels) < 1e-9


def test_spartan_and_its_reference_agree(benchmarks: None) -> None:
    assert 0 < importlib.import_module("benchmarks.spartan").assert_agreement(pixels=33) < 1e-9


def test_the_split_is_that_of_the_loop_over_images(benchmarks: None) -> None:
    module = importlib.import_module("benchmarks.bands")
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    assert 0 < module.assert_agreement(images, radii=(4, 16)) < module.ALLOWED


def test_our_loader_serves_what_torchvision_does(benchmarks: None) -> None:
    assert 0 < importlib.import_module("benchmarks.loading").assert_agreement(200) < 1e-5


def test_the_heat_map_is_that_of_a_pass_for_each_frequency(benchmarks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("benchmarks.heatmap")
    monkeypatch.setattr(module, "DEPTH", 1)
    model, batches = module.network("cpu", 1), module.patterns(16, 2).batches(8, "cpu")
    with torch.no_grad():
        logits = torch.cat([model(images) for images, _ in batches])
        model.get_classifier().bias -= logits.mean(0)  # else it answers one class whatever it is shown
    own = batches.with_targets((logits - logits.mean(0)).argmax(1), "prediction")
    sides = module.Sides(model, own, module.half_plane((32, 32))[:3])
    theirs = sides.loop.wrong(8)
    assert module.assert_agreement(sides.ours("float32"), theirs) == 0 and 8 <= theirs.sum() <= 40
