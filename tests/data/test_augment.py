"""Augmentations that other libraries make: each step repeats by its seed, and nothing else is drawn differently."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.data.augment import TrainBatches, augmentations
from passband.data.dataset import ImageSet

LIBRARIES = (
    {"name": "randaugment", "num_ops": 2, "magnitude": 12},
    {"name": "timm-randaugment"},
    {"name": "erasing", "chance": 0.5},
    {"name": "erasing", "chance": 0.5, "fill": "mean"},
    {"name": "resized-crop"},
)


def photos(count: int = 24, side: int = 16) -> torch.Tensor:
    return torch.randint(256, (count, side, side, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def applied(entry: dict[str, object], images: torch.Tensor, seed: int) -> torch.Tensor:
    return augmentations([entry])[0](images, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("entry", LIBRARIES, ids=lambda entry: entry["name"])
def test_the_generator_alone_decides_and_the_worlds_randomness_goes_on_as_it_was(entry: dict[str, object]) -> None:
    images = photos()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first = applied(entry, images, seed=1)
    assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[2])
    assert np.array_equal(np.random.get_state()[1], states[1])
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert torch.equal(applied(entry, images, seed=1), first)
    assert not torch.equal(applied(entry, images, seed=2), first)
    assert first.shape == images.shape and first.dtype == torch.uint8 and torch.equal(images, photos())
    assert (first != images).flatten(1).any(1).sum() > 0.2 * len(images)


def test_images_of_a_batch_are_changed_each_by_itself() -> None:
    same = photos(1).expand(16, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in applied(LIBRARIES[0], same, seed=0)}) > 8


def test_a_step_of_an_epoch_repeats_whatever_came_before() -> None:
    images = photos(12)
    dataset = ImageSet("n", images.numpy(), np.arange(12), tuple(map(str, range(12))), "n")
    sampler = TrainBatches(dataset, 4, augmentations(LIBRARIES), seed=3)
    whole = [images for images, _ in sampler.epoch(1)]
    (last,) = [images for images, _ in sampler.epoch(1, start=2)]
    assert torch.equal(whole[2], last)


def test_erasing_puts_noise_of_the_given_color_into_one_rectangle() -> None:
    black = torch.zeros(64, 32, 32, 3, dtype=torch.uint8)
    entry = {"name": "erasing", "chance": 1.0, "mean": (0.2, 0.5, 0.8), "std": (0.01, 0.02, 0.03)}
    noisy = applied(entry, black, seed=0)
    erased = (noisy > 0).any(-1)
    for lit in erased[erased.flatten(1).any(1)]:
        rows, columns = lit.any(1).nonzero(), lit.any(0).nonzero()
        height, width = (int(found.max() - found.min()) + 1 for found in (rows, columns))
        assert lit.sum() == height * width and 0.01 < height * width / 1024 < 0.36
    pixels = noisy[erased].double() / 255
    torch.testing.assert_close(pixels.mean(0), torch.tensor([0.2, 0.5, 0.8]).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(pixels.std(0), torch.tensor([0.01, 0.02, 0.03]).double(), atol=2e-3, rtol=0)


def test_erasing_puts_the_mean_color_where_it_is_asked_to() -> None:
    black = torch.zeros(64, 32, 32, 3, dtype=torch.uint8)
    options = {"name": "erasing", "chance": 1.0, "mean": (0.2, 0.4, 0.8)}
    flat = applied({**options, "fill": "mean"}, black, seed=0)
    erased = (flat > 0).any(-1)
    assert 0 < erased.sum() < erased.numel()
    assert torch.equal(flat[erased].unique(dim=0), torch.tensor([[51, 102, 204]], dtype=torch.uint8))
    # A floating view of an image has the color exactly, so that a network that subtracts it sees 0.
    exact = applied({**options, "fill": "mean"}, black.float(), seed=0)
    assert torch.equal(exact[erased].unique(dim=0), torch.tensor([[0.2, 0.4, 0.8]]))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_resized_crop_is_a_window_of_the_image_each_by_itself(kind: torch.dtype) -> None:
    # Pixels say where they are: after a linear resize they still do.
    rows, columns = torch.meshgrid(torch.arange(48.0) * 5, torch.arange(48.0) * 5, indexing="ij")
    images = torch.stack((rows, columns, rows * 0 + 7), -1).to(kind).expand(64, -1, -1, -1)
    cut = applied({"name": "resized-crop", "scale": (0.25, 0.5)}, images, seed=0).float()
    assert cut.shape == images.shape and cut[..., 2].eq(7).all()
    # The slope between inner pixels (the border's are cut off) is the window's side over the image's.
    height = (cut[:, 40, 24, 0] - cut[:, 8, 24, 0]) / 5 / 32
    width = (cut[:, 24, 40, 1] - cut[:, 24, 8, 1]) / 5 / 32
    assert (height * width).min() > 0.25 * 0.9 and (height * width).max() < 0.5 * 1.1
    assert (width / height).min() > 0.75 * 0.9 and (width / height).max() < 4 / 3 * 1.1
    assert len({(float(a), float(b)) for a, b in cut[:, 24, 24, :2]}) > 32


def test_wrong_options_and_images_are_one_line() -> None:
    floats = photos().float()
    for call, words in (
        (lambda: applied({"name": "randaugment", "magnitude": 31}, photos(), 0), "magnitude 0 to 30"),
        (lambda: applied({"name": "timm-randaugment", "policy": "augmix"}, photos(), 0), "no policy 'augmix'"),
        (lambda: applied({"name": "timm-randaugment", "policy": "rand-x9"}, photos(), 0), "no policy 'rand-x9'"),
        (lambda: applied({"name": "randaugment"}, floats, 0), "not on a view"),
        (lambda: applied({"name": "erasing", "chance": 2}, photos(), 0), "between 0 and 1"),
        (lambda: applied({"name": "erasing", "fill": "meen"}, photos(), 0), "fill cannot be 'meen'"),
        (lambda: applied({"name": "resized-crop", "scale": (0, 1)}, photos(), 0), "a scale within 0 and 1"),
        (lambda: applied({"name": "resized-crop", "ratio": (2, 1)}, photos(), 0), "a ratio above 0"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
