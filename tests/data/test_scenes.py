"""Scenes: COCO's layout read with every defect named, the sets by name, the built-in one, classes by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from passband.core.errors import MissingData, PassbandError
from passband.core.spec import ImageSpec
from passband.data import catalog, coco, scene_catalog
from passband.data.objects import Objects, Targets
from passband.data.pasted_photos import CROWDED, EMPTY
from passband.data.scene_classes import as_detected, match

WHOLE: dict[str, Any] = {
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
    "images": [
        {"id": 2, "file_name": "b.jpg", "height": 40, "width": 60},
        {"id": 9, "file_name": "a.jpg", "height": 30, "width": 20},
    ],
    "annotations": [
        {"id": 1, "image_id": 2, "category_id": 90, "bbox": [10, 5, 20, 30], "iscrowd": 0, "area": 123.5},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [-0.5, 1, 10.5, 39.7], "iscrowd": 1},
    ],
}


def laid_out(root: Path, found: dict[str, Any] = WHOLE, split: str = "val2017") -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), (255, 0, 0)).save(root / split / "b.jpg")
    Image.new("L", (20, 30), 100).save(root / split / "a.jpg")
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(found))
    return root


def changed(**entries: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(WHOLE))
    found["annotations"][0] |= entries
    return found


def test_a_folder_in_cocos_layout_becomes_scenes(tmp_path: Path) -> None:
    scenes = scene_catalog.load(f"coco:{laid_out(tmp_path)}")
    assert scenes.ids == ("a.jpg", "b.jpg") and scenes.sizes == ((30, 20), (40, 60))
    assert scenes.class_names == ("car", "dog", "toothbrush")  # by their ids, which have gaps
    empty, full = scenes.objects
    assert len(empty) == 0 and empty.boxes.shape == (0, 4)
    assert full.boxes.tolist() == [[10, 5, 30, 35], [0, 1, 10, 40]]  # the second cut at the image's edges
    assert full.labels.tolist() == [2, 0] and full.crowd.tolist() == [False, True]
    assert full.areas.tolist() == [123.5, pytest.approx(10.5 * 39.7)]  # the outline's, else the box's
    assert len(full.single) == 1
    assert scenes.image(0).shape == (3, 30, 20)  # a gray file has three channels
    (images, targets), *_ = scenes.batches(2)
    assert [tuple(one.shape) for one in images] == [(3, 30, 20), (3, 40, 60)] and len(targets) == 2
    assert 0.98 < float(images[1][0].mean()) <= 1


DEFECTS = {
    "no area": (changed(bbox=[10, 5, 0, 30]), r"annotation 1 \(b.jpg\) has the box .*, which has no area"),
    "outside": (changed(bbox=[50, 5, 20, 30]), r"annotation 1 \(b.jpg\) has the box .*, outside its image of 60×40"),
    "beyond": (changed(bbox=[61, 5, 1, 1]), r"outside its image of 60×40 pixels"),
    "before": (changed(bbox=[-1.5, 5, 1, 30]), r"outside its image of 60×40 pixels"),
    "not a number": (changed(bbox=[float("nan"), 5, 1, 1]), r"outside its image"),
    "category": (changed(category_id=7), r"annotation 1 \(b.jpg\) is of category 7, which is not listed"),
    "image": (changed(image_id=77), r"annotation 1 is of image id 77, which is not listed"),
    "twice": (WHOLE | {"images": [*WHOLE["images"], WHOLE["images"][0]]}, r"image id 2 \(b.jpg\) is listed twice"),
    "file twice": (
        WHOLE | {"images": [*WHOLE["images"], WHOLE["images"][0] | {"id": 3}]},
        r"image b.jpg is listed twice, once with id 3",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_named_and_refused_or_left_out_and_counted(name: str, tmp_path: Path) -> None:
    found, said = DEFECTS[name]
    folder = laid_out(tmp_path, found)
    with pytest.raises(PassbandError, match=rf"1 entries cannot be used, the first: .*{said}.*--skip-bad") as caught:
        scene_catalog.load(f"coco:{folder}")
    assert "\n" not in str(caught.value)
    scenes = scene_catalog.load(f"coco:{folder}", skip_bad=True)
    assert len(scenes) == 2 and len(scenes.objects[1]) == (2 if "twice" in name else 1)
    assert "1 entries were left out; the first" in scenes.notes[0]


def test_an_image_that_is_not_there_goes_with_its_annotations(tmp_path: Path) -> None:
    folder = laid_out(tmp_path)
    (folder / "val2017" / "b.jpg").unlink()
    with pytest.raises(PassbandError, match=r"1 entries cannot be used, the first: image .*b.jpg is not there"):
        scene_catalog.load(f"coco:{folder}")
    assert scene_catalog.load(f"coco:{folder}", skip_bad=True).ids == ("a.jpg",)


DAMAGED = {
    "cut": "{",
    "list": "[]",
    "keys": '{"images": []}',
    "deep": "[" * 100_000,
    "three": json.dumps(changed(bbox=[1, 2, 3])),
    "text": json.dumps(changed(bbox="12")),
    "id": json.dumps(changed(image_id=[2])),
    "infinite": json.dumps(changed(category_id=float("inf"))),
    "area": json.dumps(changed(area=float("nan"))),
    "less than none": json.dumps(changed(area=-1)),
    "crowd": json.dumps(changed(iscrowd="no")),
    "category twice": json.dumps(WHOLE | {"categories": [*WHOLE["categories"], {"id": 3, "name": "bus"}]}),
    "no height": json.dumps(WHOLE | {"images": [WHOLE["images"][0] | {"height": 0}]}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_annotations_are_said_in_a_line(name: str, tmp_path: Path) -> None:
    folder = laid_out(tmp_path)
    (folder / "annotations" / "instances_val2017.json").write_text(DAMAGED[name])
    with pytest.raises(PassbandError, match="cannot be read as COCO's annotations") as caught:
        scene_catalog.load(f"coco:{folder}")
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_or_a_damaged_one_is_refused_when_it_is_read(tmp_path: Path) -> None:
    scenes = scene_catalog.load(f"coco:{laid_out(tmp_path)}")
    Image.new("RGB", (61, 40)).save(tmp_path / "val2017" / "b.jpg")
    with pytest.raises(PassbandError, match=r"b.jpg has 61×40 pixels, and its annotations say 60×40"):
        scenes.image(1)
    (tmp_path / "val2017" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(PassbandError, match=r"b.jpg"):
        scenes.image(1)


def test_images_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    found = json.loads(json.dumps(WHOLE))
    for entry, (folder, color) in zip(found["images"], (("one", 250), ("two", 50)), strict=True):
        entry |= {"file_name": f"{folder}/a.png", "height": 40, "width": 60}
        (tmp_path / "val2017" / folder).mkdir(parents=True)
        Image.new("L", (60, 40), color).save(tmp_path / "val2017" / folder / "a.png")
    scenes = scene_catalog.load(f"coco:{laid_out(tmp_path, found)}")
    assert scenes.ids == ("one/a.png", "two/a.png") and [len(one) for one in scenes.objects] == [2, 0]
    assert [int(scenes.image(at).max()) for at in (0, 1)] == [250, 50]


def test_the_flat_boxes_of_cocos_own_training_set_are_left_out_and_told(tmp_path: Path) -> None:
    found = changed(id=918, bbox=[10, 5, 3, 0])
    laid_out(tmp_path / "coco", found, "train2017")
    scenes = scene_catalog.load("coco", "train", data_dir=tmp_path)
    assert [len(one) for one in scenes.objects] == [0, 1]
    assert scenes.notes[0].startswith("coco: 1 entries were left out; the first: annotation 918 (b.jpg) has the box")
    found["annotations"][1]["bbox"] = [10, 5, 0, 3]
    laid_out(tmp_path / "coco", found, "train2017")
    with pytest.raises(PassbandError, match=r"1 entries cannot be used, the first: annotation 2 "):
        scene_catalog.load("coco", "train", data_dir=tmp_path)


def test_splits_of_a_folder(tmp_path: Path) -> None:
    alone = scene_catalog.load(f"coco:{laid_out(tmp_path)}", "train")
    assert "val2017 alone, which is taken to train and to test on" in alone.notes[0]
    other = json.loads(json.dumps(WHOLE))
    other["images"], other["annotations"] = other["images"][:1], []
    laid_out(tmp_path, other, "train2017")
    assert len(scene_catalog.load(f"coco:{tmp_path}", "train")) == 1
    assert len(scene_catalog.load(f"coco:{tmp_path}", "test")) == 2
    with pytest.raises(PassbandError, match="is not in COCO's layout"):
        scene_catalog.load(f"coco:{tmp_path / 'annotations'}")


def test_the_fingerprint_knows_content_and_no_path(tmp_path: Path) -> None:
    first = scene_catalog.load(f"coco:{laid_out(tmp_path / 'one')}")
    assert scene_catalog.load(f"coco:{laid_out(tmp_path / 'two')}").fingerprint == first.fingerprint
    moved = scene_catalog.load(f"coco:{laid_out(tmp_path / 'three', changed(bbox=[10, 5, 20, 29]))}")
    assert moved.fingerprint != first.fingerprint
    assert first.take(1).fingerprint != first.fingerprint


def test_sets_that_are_not_there_say_where_they_were_looked_for(tmp_path: Path) -> None:
    for name in ("coco", coco.NAME):
        with pytest.raises(MissingData, match=f"{name} is not in {tmp_path}.*PASSBAND_DATA"):
            scene_catalog.load(name, data_dir=tmp_path)
    with pytest.raises(PassbandError, match="unknown set of scenes 'coc0'"):
        scene_catalog.load("coc0", data_dir=tmp_path)
    with pytest.raises(PassbandError, match="unknown split 'val'"):
        scene_catalog.load("pasted-photos", "val")  # type: ignore[arg-type]
    assert catalog.is_scenes("coco:x") and not catalog.is_scenes("photos")
    assert {name for name, *_ in scene_catalog.names(tmp_path)} == set(catalog.SCENES)


def test_the_built_in_scenes_are_the_same_everywhere() -> None:
    train, test = scene_catalog.load("pasted-photos", "train"), scene_catalog.load("pasted-photos", "test")
    assert (len(train), len(test)) == (24, 16)
    assert train.fingerprint[:16] == "d6bdc8ffbd86f5a1" and test.fingerprint[:16] == "aa3deea128cb254e"
    assert len(train.objects[EMPTY]) == 0 and train.objects[CROWDED].crowd.tolist().count(True) == 1
    assert {int(label) for one in train.objects for label in one.labels} == {0, 1, 2, 3}
    for one, (height, width) in zip(train.objects, train.sizes, strict=True):
        assert bool((one.boxes[:, :2] >= 0).all())
        assert bool((one.boxes[:, 2:] <= torch.tensor([width, height])).all())
    box = train.objects[0].boxes[0].int().tolist()
    inside = train.image(0)[:, box[1] : box[3], box[0] : box[2]].float()
    # The first object is a crop of coffee.png, red as nothing behind it is.
    assert float(inside[0].mean() - inside[2].mean()) > 50
    again = train.subset(np.arange(3))
    assert again.ids == ("train-00", "train-01", "train-02")


def spec(*names: str, classes: int | None = None) -> ImageSpec:
    return ImageSpec((64, 64), None, None, "", classes or len(names), class_names=names)


def test_classes_meet_by_name(tmp_path: Path) -> None:
    found = json.loads(json.dumps(WHOLE))
    found["categories"][0]["name"] = "motorcycle"
    scenes = scene_catalog.load(f"coco:{laid_out(tmp_path, found)}")  # car, motorcycle, toothbrush
    theirs = spec("__background__", "toothbrush", "N/A", "motorbike", "cat")
    classes = match(theirs, scenes)
    assert classes.tolist() == [-1, 2, -1, 1, -1]
    assert match(spec(classes=3), scenes).tolist() == [0, 1, 2]
    found["categories"][0]["name"] = "motorbike"  # the older name on the set's side
    older = scene_catalog.load(f"coco:{laid_out(tmp_path, found)}")
    assert match(spec("motorcycle", "motorbike", "cat"), older).tolist() == [1, 1, -1]
    found |= {"categories": [], "annotations": []}
    with pytest.raises(PassbandError, match="has no classes to compare"):
        match(spec("cat"), scene_catalog.load(f"coco:{laid_out(tmp_path, found)}"))
    with pytest.raises(PassbandError, match=r"none of the detector's 2 classes \(the first: cat\) is among coco:"):
        match(spec("cat", "dog"), scenes)
    objects = Objects(
        torch.rand(4, 4), torch.tensor([0, 1, 2, 2]), torch.tensor([False, False, False, True]), torch.ones(4)
    )
    back = as_detected(Targets((objects, objects.take(torch.zeros(4, dtype=torch.bool)))), classes)
    assert back[0].labels.tolist() == [3, 1] and torch.equal(back[0].boxes, objects.boxes[1:3])  # no car, no crowd
    assert len(back[1]) == 0
