"""Augmentations that move boxes with their images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from passband.core.errors import PassbandError
from passband.data.objects import Objects
from passband.data.scene_augment import SceneAugment, scene_augment


def scene(
    height: int = 20, width: int = 40, *boxes: tuple[float, ...], crowd: tuple[int, ...] = ()
) -> tuple[Tensor, Objects]:
    """An image in which each box's pixels hold its number, 100 and on, over black."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    table = torch.tensor(boxes).reshape(-1, 4)
    for number, (left, top, right, bottom) in enumerate(table.int().tolist()):
        image[:, top:bottom, left:right] = 100 + number
    crowded = torch.zeros(len(table), dtype=torch.bool)
    crowded[list(crowd)] = True
    areas = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
    return image, Objects(table, torch.arange(len(table)), crowded, areas)


def augmented(entries: list[dict], size: int, image: Tensor, objects: Objects, seed: int = 0) -> tuple[Tensor, Objects]:
    torch.manual_seed(seed)
    return scene_augment(entries, size)(image, objects)


def extent(image: Tensor, value: int) -> list[int]:
    rows, columns = (image[0] == value).nonzero().T
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_a_flip_by_hand() -> None:
    image, objects = scene(32, 32, (4.0, 2.0, 10.0, 8.0), (20.0, 16.0, 32.0, 30.0))
    flipped, moved = augmented([{"name": "flip", "chance": 1}], 32, image, objects)
    assert torch.equal(flipped, image.flip(-1))
    assert moved.boxes.tolist() == [[22.0, 2.0, 28.0, 8.0], [0.0, 16.0, 12.0, 30.0]]  # 32 - right, 32 - left
    assert moved.labels.tolist() == [0, 1] and moved.areas.tolist() == [36.0, 168.0]
    untouched, stayed = augmented([{"name": "flip", "chance": 0}], 32, image, objects)
    assert torch.equal(untouched, image) and torch.equal(stayed.boxes, objects.boxes)


def test_all_comes_to_one_size_and_boxes_with_it() -> None:
    image, objects = scene(20, 40, (10.0, 5.0, 20.0, 10.0))
    squashed, moved = augmented([], 80, image, objects)
    assert squashed.shape == (3, 80, 80) and squashed.dtype == torch.uint8
    assert moved.boxes.tolist() == [[20.0, 20.0, 40.0, 40.0]] and moved.boxes.dtype == torch.float32
    assert moved.areas.tolist() == [50.0]  # of the photograph


@pytest.mark.parametrize("seed", range(4))
def test_boxes_stay_on_their_objects_when_zoomed_out(seed) -> None:
    """The canvas is up to four times as large; a box is where its pixels are."""
    image, objects = scene(64, 64, (0.0, 0.0, 64.0, 64.0))
    entries = [{"name": "zoom-out", "chance": 1, "fill": 1.0}]
    torch.manual_seed(seed)
    zoomed, moved = scene_augment(entries, 256)(image, objects)
    left, top, right, bottom = moved.boxes[0].tolist()
    found = extent((zoomed < 180).to(torch.uint8), 1)
    assert found == pytest.approx([left, top, right, bottom], abs=2.5)
    assert right - left == pytest.approx(bottom - top, abs=1e-3) and 64 <= right - left <= 256
    assert int(zoomed.amax()) == 255 or right - left > 250


@pytest.mark.parametrize("seed", range(6))
def test_boxes_stay_on_their_objects_when_cropped(seed) -> None:
    image, objects = scene(64, 64, (4.0, 4.0, 24.0, 24.0), (36.0, 30.0, 60.0, 60.0))
    cropped, moved = augmented([{"name": "iou-crop", "chance": 1}], 64, image, objects, seed)
    assert 1 <= len(moved) <= 2 and float(moved.boxes.min()) >= 0 and float(moved.boxes.max()) <= 64
    for box, label in zip(moved.boxes, moved.labels.tolist(), strict=True):
        left, top, right, bottom = (round(value) for value in box.tolist())
        assert float((cropped[0, top:bottom, left:right] == 100 + label).float().mean()) > 0.75
    assert set(moved.areas.tolist()) <= {400.0, 720.0}


def test_crowds_and_boxes_of_no_pixel_are_left_out() -> None:
    image, objects = scene(32, 32, (0.0, 0.0, 32.0, 32.0), (3.0, 3.0, 3.2, 9.0), (30.0, 30.0, 40.0, 40.0), crowd=(0,))
    _, moved = augmented([], 32, image, objects)
    assert moved.labels.tolist() == [2] and not moved.crowd.any()
    assert moved.boxes.tolist() == [[30.0, 30.0, 32.0, 32.0]]  # cut at the edge


def test_an_image_without_objects_goes_through_all() -> None:
    image, objects = scene(32, 48)
    entries = [{"name": name} for name in ("photometric", "zoom-out", "iou-crop", "flip")]
    for seed in range(3):
        made, moved = augmented(entries, 32, image, objects, seed)
        assert made.shape == (3, 32, 32) and len(moved) == 0
        assert moved.boxes.shape == (0, 4) and moved.labels.dtype == torch.int64


def test_colors_change_and_boxes_do_not() -> None:
    image, objects = scene(32, 32, (4.0, 4.0, 24.0, 24.0))
    made, moved = augmented([{"name": "photometric", "chance": 1}], 32, image, objects)
    assert not torch.equal(made, image) and torch.equal(moved.boxes, objects.boxes)


def test_the_same_numbers_give_the_same_image() -> None:
    image, objects = scene(40, 56, (4.0, 4.0, 24.0, 24.0), (30.0, 20.0, 50.0, 36.0))
    entries = [{"name": name} for name in ("photometric", "zoom-out", "iou-crop", "flip")]
    (first, a), (again, b), (other, _) = (augmented(entries, 64, image, objects, seed) for seed in (5, 5, 6))
    assert torch.equal(first, again) and torch.equal(a.boxes, b.boxes) and not torch.equal(first, other)


def test_the_recipes_words_are_torchvisions_transforms() -> None:
    made = scene_augment([{"name": "zoom-out", "fill": 0.5}, {"name": "multi-scale", "sizes": [64, 96]}], 64)
    assert isinstance(made, SceneAugment) and made.sizes == (64, 96)
    (zoom,) = made.transforms
    assert zoom.fill == 128 and tuple(zoom.side_range) == (1.0, 4.0) and zoom.p == 0.5
    assert scene_augment([{"name": "multi-scale"}], 640).sizes.count(640) == 3


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "crop"}], "unknown augmentation of scenes 'crop'"),
        ([{"name": "flip", "chnace": 1}], "did you mean 'chance'"),
        ([{"name": "flip", "chance": 2}], "a chance between 0 and 1; got 2"),
        ([{"name": "iou-crop", "chance": -0.1}], "augmentation iou-crop takes a chance"),
        ([{"name": "zoom-out", "fill": 255}], "a fill within 0 and 1"),
        ([{"name": "zoom-out", "largest": 0.5}], "a largest of 1 or more"),
        ([{"chance": 1}], "an augmentation is written"),
        ([{"name": "multi-scale"}, {"name": "flip"}], "put it last"),
        ([{"name": "multi-scale", "sizes": [100]}], r"multiples of 32; got \[100\]"),
        ([{"name": "multi-scale", "sizes": []}], r"multiples of 32; got \[\]"),
    ],
)
def test_mistakes_are_one_line(entries, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        scene_augment(entries, 64)
    assert "\n" not in str(caught.value)
