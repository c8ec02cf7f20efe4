"""coco128's boxes, and squares around objects whose place is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from passband.core.errors import MissingData, PassbandError
from passband.data.coco import Scene, Thing, coco128
from passband.data.coco_names import CIFAR10, imagenet
from passband.data.object_views import GRAY, ObjectViews, crops, pasted, squashed


def laid_out(root: Path) -> Path:
    folder = root / "coco128"
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    for name in ("b.jpg", "a.jpg"):
        Image.new("RGB", (100, 80)).save(folder / "val2017" / name)
    found = {
        "categories": [{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}],
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 80, "width": 100},
            {"id": 5, "file_name": "a.jpg", "height": 80, "width": 100},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 17, "bbox": [10, 20, 30, 40], "iscrowd": 0},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5.5, 6], "iscrowd": 1},
        ],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(found))
    return folder


def test_scenes_come_by_file_name_with_corners_of_their_boxes(tmp_path: Path) -> None:
    folder = laid_out(tmp_path)
    first, second = coco128(tmp_path)
    assert first == Scene(folder / "val2017" / "a.jpg", (80, 100), ())
    assert second.things == (Thing("cat", (10, 20, 40, 60), area=1200), Thing("car", (0, 0, 5.5, 6), True, 33))


def test_what_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=f"coco128 is not in {tmp_path}: put .*PASSBAND_DATA") as caught:
        coco128(tmp_path)
    assert caught.value.name == "coco128" and "\n" not in str(caught.value)
    folder = laid_out(tmp_path)
    (folder / "val2017" / "a.jpg").unlink()
    with pytest.raises(PassbandError, match=r"1 entries cannot be used, the first: image .*a.jpg is not there; mend"):
        coco128(tmp_path)
    (folder / "annotations" / "instances_val2017.json").write_text('{"images": [{"id": 1')
    with pytest.raises(PassbandError, match="cannot be read as COCO's annotations"):
        coco128(tmp_path)


def test_imagenets_classes_have_a_coco_class_each() -> None:
    found = imagenet()
    flat = [one for members in found.values() for one in members]
    assert len(set(flat)) == len(flat) and set(CIFAR10) <= set(found)
    assert found["zebra"] == ("n02391049",) and "n02085782" in found["dog"]  # the Japanese spaniel of figure 5


def scene(tmp_path: Path) -> Scene:
    """Return a photograph, black but for a white cat of 30×40 and a gray dog, with a crowd of cars."""
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[40:80, 60:90] = 255
    pixels[0:30, 0:30] = 100
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    things = (Thing("cat", (60, 40, 90, 80)), Thing("dog", (0, 0, 30, 30)), Thing("car", (0, 90, 80, 120), True))
    return Scene(path, (120, 160), things)


def means(views: ObjectViews, weight: np.ndarray) -> np.ndarray:
    return (views.images.mean(3) * weight).sum((1, 2)) / weight.sum((1, 2))


def test_a_crop_shows_its_object_where_the_box_says(tmp_path: Path) -> None:
    views = crops([scene(tmp_path)], list(CIFAR10), 32)
    # The cat near four corners; the dog lies in the photograph's corner, so that it has one place alone.
    assert views.kinds == ("cat",) * 4 + ("dog",) and views.objects.tolist() == [0] * 4 + [1]
    assert views.photographs.tolist() == [0] * 5 and views.images.shape == (5, 32, 32, 3)
    assert views.inside.mean((1, 2)) == pytest.approx([0.35] * 5, abs=0.01)
    cats = views.take(range(4))
    assert (means(cats, cats.inside) > 240).all() and (means(cats, 1 - cats.inside) < 10).all()
    middles = [np.argwhere(one > 0.5).mean(0) - 15.5 for one in cats.inside]
    assert sorted(tuple(np.sign(one)) for one in middles) == [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    # Neither dogs nor crowds of cars are absent.
    assert views.absent == ("horse",) * 5


def test_the_occluder_hides_the_middle_of_the_object_and_nothing_else(tmp_path: Path) -> None:
    views = crops([scene(tmp_path)], list(CIFAR10), 32)
    assert views.hidden.sum((1, 2)) == pytest.approx(views.inside.sum((1, 2)) / 4, rel=1e-3)
    assert views.inside - views.visible == pytest.approx(views.hidden, abs=1e-6)
    assert (views.occluded[views.hidden == 1] == GRAY).all()
    assert np.array_equal(views.occluded[views.hidden == 0], views.images[views.hidden == 0])


def test_a_photograph_is_squashed_with_its_boxes_and_those_of_two_kinds_are_found(tmp_path: Path) -> None:
    views = squashed([scene(tmp_path)], list(CIFAR10), 16)
    assert views.kinds == ("cat", "dog", "car")
    assert views.inside.mean((1, 2)) == pytest.approx([1200 / 19200, 900 / 19200, 2400 / 19200], rel=1e-3)
    shared = views.shared()
    assert shared is not None and shared.kinds == ("cat", "dog")
    assert views.take([0]).shared() is None
    for make in (crops, squashed):
        with pytest.raises(PassbandError, match=r"16 pixels.*: needs an object of the classes asked for"):
            make([scene(tmp_path)], ["zebra"], 16)


def test_pasted_photographs_lie_where_their_box_says() -> None:
    views = pasted(3)
    assert views.images.shape == (12, 32, 32, 3) and views.photographs.tolist() == np.repeat(range(3), 4).tolist()
    assert views.inside.sum((1, 2)).tolist() == [256] * 12
    patches = [one[inside == 1] for one, inside in zip(views.images, views.inside, strict=True)]
    for first in (0, 4, 8):
        assert all(np.array_equal(patches[first], patches[first + one]) for one in range(4))
    assert all(kind != absent for kind, absent in zip(views.kinds, views.absent, strict=True))
