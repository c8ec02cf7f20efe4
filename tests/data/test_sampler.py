"""Augmentation and the training sampler: what may happen to an image, and that every step can be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.data.augment import TrainBatches, augmentations
from passband.data.dataset import ImageSet

CROP_AND_FLIP = augmentations([{"name": "crop", "pad": "2"}, {"name": "flip"}])


def numbered(count: int = 11, side: int = 5) -> ImageSet:
    """Make a set whose pixels are all different, so that every crop and flip can be told."""
    images = np.arange(count * side * side * 3).reshape(count, side, side, 3) % 251 + 1
    return ImageSet("n", images.astype(np.uint8), np.arange(count), tuple(map(str, range(count))), "n")


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_crop_is_a_window_of_the_zero_padded_image(kind: torch.dtype) -> None:
    images = torch.from_numpy(numbered(64).images).to(kind)
    cut = augmentations([{"name": "crop", "pad": 2}])[0](images, torch.Generator().manual_seed(0))
    assert cut.shape == images.shape and cut.dtype == kind
    padded = torch.zeros(64, 9, 9, 3, dtype=kind)
    padded[:, 2:7, 2:7] = images
    places = []
    for image, whole in zip(cut, padded, strict=True):
        fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(image, whole[y : y + 5, x : x + 5])]
        assert len(fits) == 1
        places += fits
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))


def test_a_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    images = torch.from_numpy(numbered(400).images)
    turned = augmentations([{"name": "flip"}])[0](images, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(a, b.flip(1)) for a, b in zip(turned, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(turned, images, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 160 < sum(mirrored) < 240  # 200 ± 4 standard deviations


SERVED = {"stored": "faa88f148eb90ecd", "viewed": "cd800819875acb9b"}
"""Committed runs were trained on these pixels: whatever makes the augmentations faster changes none of them."""


@pytest.mark.parametrize(("kind", "view"), [("stored", None), ("viewed", lambda images: images * 2 - 0.5)])
def test_what_a_seed_serves_never_changes(kind: str, view: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    digest = hashlib.sha256()
    for images, targets in TrainBatches(replace(numbered(37, 28), view=view), 8, CROP_AND_FLIP, seed=3).epoch(1):
        digest.update(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes() + targets.numpy().tobytes())
    assert digest.hexdigest()[:16] == SERVED[kind]


def test_an_epoch_shows_every_image_once_and_epochs_differ() -> None:
    sampler = TrainBatches(numbered(11), batch=4, seed=3)
    first, again, second = (torch.cat([t for _, t in sampler.epoch(e)]).tolist() for e in (0, 0, 1))
    assert sorted(first) == list(range(11)) and first == again != second
    images, targets = next(iter(sampler.epoch(0)))
    assert torch.equal(images, torch.from_numpy(numbered().images)[targets].permute(0, 3, 1, 2) / 255)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_resumed_epoch_continues_exactly() -> None:
    sampler = TrainBatches(numbered(11), 4, CROP_AND_FLIP, seed=3)
    whole = list(sampler.epoch(2))
    rest = list(TrainBatches(numbered(11), 4, CROP_AND_FLIP, seed=3).epoch(2, start=1))
    assert len(whole) == len(sampler) == 3 and len(rest) == 2
    for (images, targets), (same_images, same_targets) in zip(whole[1:], rest, strict=True):
        assert torch.equal(images, same_images) and torch.equal(targets, same_targets)
    other = next(iter(TrainBatches(numbered(11), 4, CROP_AND_FLIP, seed=4).epoch(2)))
    assert not torch.equal(other[0], whole[0][0])


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 4]), (10, [4, 4, 2]), (3, [3])])
def test_the_last_step_is_kept_unless_it_is_a_single_sample(count: int, sizes: list[int]) -> None:
    sampler = TrainBatches(numbered(count), 4)
    assert [len(targets) for _, targets in sampler.epoch(0)] == sizes
    assert len(sampler) == len(sizes)


def test_a_view_is_seen_before_the_augmentation() -> None:
    viewed = replace(numbered(), view=lambda images: images - 2)
    images, _ = next(iter(TrainBatches(viewed, 11, CROP_AND_FLIP).epoch(0)))
    assert images.max() == 0 and images[images != 0].max() < -1  # zeros are the padding, the rest is viewed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "flipp"}, "did you mean 'flip'"),
        ({"name": "crop", "pd": 4}, "did you mean 'pad'"),
        ({"name": "crop", "pad": 0}, "1 pixel or more"),
        ({"name": "crop", "pad": "four"}, "pad cannot be 'four'"),
        ({"name": "flip", "chance": 2}, "between 0 and 1"),
        ({"pad": 4}, "is written"),
    ],
)
def test_wrong_entries_are_named(entry: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        augmentations([entry])


def test_training_needs_labels_and_two_images() -> None:
    with pytest.raises(PassbandError, match="training needs labels"):
        TrainBatches(replace(numbered(), labels=None), 4)
    with pytest.raises(PassbandError, match="at least two images"):
        TrainBatches(numbered(), 1)
