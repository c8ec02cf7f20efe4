"""Sets and batches: order, fingerprints, ranges, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.data.dataset import ImageSet, fingerprint, permutation
from passband.data.pixels import check_pixels


def toy(count: int = 10, classes: int = 3, side: int = 6) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    return ImageSet("toy", images, labels, tuple("abcdefgh"[:classes]), fingerprint("toy", images, labels))


def test_batches_are_the_pixels_over_255_in_order_twice() -> None:
    batches = toy().batches(4)
    for _ in range(2):
        pairs = list(batches)
        assert [len(images) for images, _ in pairs] == [4, 4, 2]
        whole = torch.cat([images for images, _ in pairs])
        assert torch.equal(whole, torch.from_numpy(toy().images).permute(0, 3, 1, 2).float() / 255)
        assert torch.equal(torch.cat([targets for _, targets in pairs]), torch.arange(10) % 3)
        assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in pairs)
    assert (len(batches), batches.count, batches.measure) == (3, 10, "accuracy")


def test_a_limit_is_a_prefix_of_one_fixed_permutation() -> None:
    assert toy().take(4).ids == toy().take().ids[:4] == toy().take(9).ids[:4]
    assert toy().take(4, seed=1).ids != toy().take(4).ids
    assert sorted(toy().take().ids) == sorted(toy().ids)
    assert permutation(10, 5, 0).tolist() == [3, 2, 1, 8, 6]  # must never change: answers are kept by it
    taken = toy().take(4)
    assert np.array_equal(taken.images[0], toy().images[int(taken.ids[0])])
    assert taken.labels is not None and taken.labels[0] == int(taken.ids[0]) % 3


def test_fingerprints_know_content_and_order() -> None:
    changed = toy().images.copy()
    changed[3, 2, 1, 0] ^= 1
    marks = {
        toy().fingerprint,
        fingerprint("toy", changed, toy().labels),
        fingerprint("toy", toy().images, np.roll(np.arange(10) % 3, 1)),
        fingerprint("other", toy().images, toy().labels),
        toy().take(5).fingerprint,
        toy().take(5, seed=1).fingerprint,
        toy().take().fingerprint,
    }
    assert len(marks) == 7
    assert toy().fingerprint == fingerprint("toy", toy().images, toy().labels)
    assert toy().subset(range(10)).fingerprint == toy().fingerprint


def test_a_set_without_labels_gives_targets_only_when_told() -> None:
    unlabeled = replace(toy(), labels=None, class_names=())
    batches = unlabeled.batches(4)
    assert all((targets == -1).all() for _, targets in batches)
    with pytest.raises(PassbandError, match="--truth prediction"):
        _ = batches.measure
    given = batches.with_targets(torch.arange(10), "prediction")
    assert given.measure == "agreement with the prediction on the untouched image"
    assert next(iter(given))[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(PassbandError, match="one target for each"):
        batches.with_targets(torch.arange(9), "prediction")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(10, 3)}, "label 3 of sample 0 is out of range for 3 classes"),
        ({"labels": np.array([0] * 9 + [-1])}, "label -1 of sample 9 is out of range"),
        ({"labels": np.zeros(9, dtype=int)}, "9 labels for 10 images"),
        ({"labels": np.zeros(10)}, "labels are integers"),
        ({"images": np.zeros((10, 6, 6, 1), np.uint8)}, "repeat a gray channel"),
        ({"images": np.zeros((10, 6, 6, 3), np.float32)}, "multiply floats by 255"),
        ({"images": np.zeros((0, 6, 6, 3), np.uint8)}, "holds no images"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        replace(toy(), **change)
    with pytest.raises(PassbandError, match="at least 1 image"):
        toy().take(0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 8, 8), r"images\[None\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"images.float\(\) / 255"),
        (torch.rand(2, 8, 8, 3), r"permute\(0, 3, 1, 2\)"),
        (torch.rand(2, 1, 8, 8), "repeat the gray channel"),
        (torch.rand(2, 4, 8, 8), "drop the transparency"),
        (torch.rand(2, 3, 8, 8) * 255, "divide by 255"),
        (torch.rand(2, 3, 8, 8) * 4 - 2, "before their normalization"),
        (torch.full((2, 3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(0, 3, 8, 8), "empty"),
    ],
)
def test_pixels_out_of_form_are_refused_with_the_cure(images: torch.Tensor, message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        check_pixels(images)
    assert "\n" not in str(caught.value)


def test_good_pixels_pass_unchanged() -> None:
    images = torch.tensor([0.0, 1.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert check_pixels(images) is images
    with pytest.raises(PassbandError):
        check_pixels(images + 1e-6)
