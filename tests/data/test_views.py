"""Views of a set, and how its classes meet a model's outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.data import held
from passband.data.augment import TrainBatches, augmentations
from passband.data.classes import match_classes
from passband.data.dataset import ImageSet, fingerprint
from passband.data.views import VIEWS, band_limited, part, rescaled, shuffle_labels

NAMES = ("n01", "n02", "n03")


def noise(count: int = 12, classes: tuple[str, ...] = NAMES) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(len(classes)), -(-count // len(classes)))[:count]
    return ImageSet("noise", images, labels, classes, fingerprint("noise", images, labels))


def whole(dataset: ImageSet) -> torch.Tensor:
    return torch.cat([images for images, _ in dataset.batches(5)])


def test_low_and_high_copies_sum_to_the_image_and_leave_its_range() -> None:
    band = Band.disc(2)
    low, high = (whole(band_limited(noise(), b, "none")) for b in (band.low, band.high))
    torch.testing.assert_close(low + high, whole(noise()))
    assert high.min() < -0.1 and high.mean((2, 3)).abs().max() < 1e-6


def test_copies_are_divided_by_their_maximum_and_empty_ones_left() -> None:
    copies = band_limited(noise(), Band.disc(2).high)
    images = whole(copies)
    assert torch.allclose(images.amax((1, 2, 3)), torch.ones(12)) and images.min() < -0.1
    raw = whole(band_limited(noise(), Band.disc(2).high, "none"))
    assert f"[{raw.min():.3f}, {raw.max():.3f}]" in copies.notes[-1]
    assert whole(band_limited(noise(), Band.disc(99).high)).abs().max() < 1e-5
    clipped = whole(band_limited(noise(), Band.disc(2).high, "clip"))
    assert clipped.min() == 0 and clipped.max() <= 1
    with pytest.raises(PassbandError, match="did you mean 'max'"):
        band_limited(noise(), Band.disc(2), "maxx")  # type: ignore[arg-type]


def test_rescaled_images_have_a_maximum_of_one_and_a_mark_of_their_own() -> None:
    dark = replace(noise(), images=noise().images // 3)
    bright = VIEWS["rescaled"](dark)
    images = whole(dark)
    torch.testing.assert_close(whole(bright), images / images.amax((1, 2, 3), keepdim=True))
    assert "divided by its maximum" in bright.notes[-1] and bright.fingerprint != dark.fingerprint
    black = rescaled(replace(noise(), images=np.zeros_like(noise().images)))
    assert not whole(black).any()
    low = rescaled(band_limited(dark, Band.disc(2), "none"))
    torch.testing.assert_close(whole(low), whole(band_limited(dark, Band.disc(2), "max")))
    assert len({low.fingerprint, bright.fingerprint, band_limited(dark, Band.disc(2), "none").fingerprint}) == 3


def test_a_views_copies_are_made_once_and_held_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_CHUNK", 5)  # 12 images: 5, 5 and 2
    asked: list[int] = []

    def view(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return 2 * images - 0.5

    seen = replace(noise(), view=view)
    batches = TrainBatches(seen, 4, augmentations([{"name": "flip"}]), seed=1)
    epochs = [list(batches.epoch(number)) for number in (0, 1)]
    assert asked == [5, 5, 2]
    torch.testing.assert_close(held.viewed(seen).permute(0, 3, 1, 2), whole(seen))
    monkeypatch.setattr(held, "MOST", 4 * noise().images.size - 1)
    asked.clear()
    step_by_step = TrainBatches(seen, 4, augmentations([{"name": "flip"}]), seed=1)
    for number, epoch in enumerate(epochs):
        for (images, targets), (others, same) in zip(epoch, step_by_step.epoch(number), strict=True):
            assert torch.equal(images, others) and torch.equal(targets, same)
    assert asked == [4] * 6
    monkeypatch.setattr(held, "MOST", 4 * noise().images.size)
    assert held.fits(seen)


def test_training_sees_the_view_too_and_its_fingerprint_differs() -> None:
    copies = band_limited(noise(), Band.disc(2))
    images, targets = next(iter(TrainBatches(copies, 12).epoch(0)))
    order = [int((whole(copies) - image).abs().sum((1, 2, 3)).argmin()) for image in images]
    torch.testing.assert_close(images, whole(copies)[order])
    assert targets.tolist() == noise().labels[order].tolist()
    marks = {band_limited(noise(), b).fingerprint for b in (Band.disc(2), Band.disc(3), ~Band.disc(2))}
    assert len(marks | {noise().fingerprint, band_limited(noise(), Band.disc(2), "none").fingerprint}) == 5


def test_shuffled_labels_keep_each_class_s_count_and_never_change() -> None:
    shuffled, again, other = (shuffle_labels(noise(90), seed) for seed in (0, 0, 1))
    plain = noise(90).labels
    assert np.bincount(shuffled.labels).tolist() == np.bincount(plain).tolist() == [30, 30, 30]
    assert np.array_equal(shuffled.labels, again.labels) and shuffled.fingerprint == again.fingerprint
    assert not np.array_equal(shuffled.labels, other.labels) and shuffled.fingerprint != other.fingerprint
    assert 15 <= (shuffled.labels == plain).sum() <= 45  # a third at chance, ± 3.3 standard deviations
    assert np.array_equal(shuffled.images, noise(90).images)
    with pytest.raises(PassbandError, match="no labels to shuffle"):
        shuffle_labels(replace(noise(), labels=None))


def test_a_part_is_fixed_and_not_larger_than_the_set() -> None:
    assert part(noise(), 4, 1).ids == noise().take(4, 1).ids
    with pytest.raises(PassbandError, match="holds 12 images"):
        part(noise(), 13)


def spec(classes: int, names: tuple[str, ...] = ()) -> ImageSpec:
    return ImageSpec((8, 8), None, None, "test", classes, class_names=names)


def test_a_subset_in_another_order_is_mapped_by_name() -> None:
    model = ("n09", "n03", "n01", "n05", "n02")
    mapped = match_classes(noise(), spec(5, model))
    assert mapped.class_names == model
    assert [model[label] for label in mapped.labels] == [NAMES[label] for label in noise().labels]
    assert mapped.fingerprint != noise().fingerprint
    assert match_classes(noise(), spec(3, NAMES)).fingerprint == noise().fingerprint
    assert match_classes(noise(), spec(3, NAMES[::-1])).labels.tolist() == (2 - noise().labels).tolist()


def test_equal_counts_without_names_are_taken_in_order_with_a_note() -> None:
    for given in (match_classes(noise(), spec(3)), match_classes(noise(), spec(3, ("0", "1", "2")))):
        assert np.array_equal(given.labels, noise().labels)
        assert "same order" in given.notes[-1]


@pytest.mark.parametrize(
    ("dataset", "model"),
    [
        (noise(), spec(4)),
        (noise(), spec(3, ("cat", "dog", "n01"))),
        (noise(classes=("0", "1")), spec(3, NAMES)),
        (replace(noise(), labels=None, class_names=()), spec(3, NAMES)),
    ],
)
def test_other_classes_name_the_way_out(dataset: ImageSet, model: ImageSpec) -> None:
    with pytest.raises(PassbandError, match="--truth prediction"):
        match_classes(dataset, model)
