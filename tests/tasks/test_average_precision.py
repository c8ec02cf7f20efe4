"""Average precision: a case worked by hand, the ends of the scale, and pycocotools on made and on real annotations."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from passband.core.errors import PassbandError
from passband.data.objects import Objects
from passband.models.found import Found
from passband.tasks.average_precision import average_precision
from passband.tasks.box_matching import match_boxes
from passband.tasks.precision_interval import interval, precisions, redraw

pytest.importorskip("faster_coco_eval", reason="needs the detection extra")
NAMES = ("cat", "dog", "bird")


def objects(*rows: tuple, crowd: tuple[int, ...] = ()) -> Objects:
    """Make an image's objects of (left, top, right, bottom, class)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    areas = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
    crowded = torch.tensor([at in crowd for at in range(len(table))], dtype=torch.bool)
    return Objects(table[:, :4], table[:, 4].long(), crowded, areas)


def found(*rows: tuple) -> Found:
    """Make what is found in an image of (left, top, right, bottom, class, score)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    order = table[:, 5].argsort(descending=True)
    return Found(table[order, :4], table[order, 5], table[order, 4].long())


def seen(there: Objects) -> Found:
    return Found(there.boxes, torch.ones(len(there)), there.labels)


def coco_json(there: list[Objects]) -> dict:
    annotations = []
    for place, one in enumerate(there):
        for box, label, crowd, area in zip(one.boxes.double(), one.labels, one.crowd, one.areas, strict=True):
            left, top, right, bottom = box.tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": place, "category_id": int(label), "iscrowd": int(crowd),
                 "area": float(area), "bbox": [left, top, right - left, bottom - top]}
            )  # fmt: skip
    images = [{"id": place, "width": 1000, "height": 1000} for place in range(len(there))]
    labels = sorted({one["category_id"] for one in annotations})
    categories = [{"id": label, "name": str(label)} for label in labels]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def by_pycocotools(said: list[Found], truth: dict, category_ids: list[int], image_ids: list[int]) -> list[float]:
    """Return AP, AP50, AP75, small, medium and large as COCO's own code gives them."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    rows = []
    for image_id, one in zip(image_ids, said, strict=True):
        for box, score, label in zip(one.boxes.double(), one.scores, one.labels, strict=True):
            left, top, right, bottom = box.tolist()
            rows.append({"image_id": image_id, "category_id": category_ids[int(label)], "score": float(score),
                         "bbox": [left, top, right - left, bottom - top]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = truth
        reference.createIndex()
        judge = evaluation.COCOeval(reference, reference.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats[:6]]


def numbers(precision: object) -> list[float]:
    return [-1.0 if value is None else value for value in astuple(precision)[:6]]


def perturbed(there: list[Objects], classes: int, seed: int) -> list[Found]:
    """Find most objects, not quite where they are, some twice or as another class, and some that are not there."""
    generator = torch.Generator().manual_seed(seed)
    said = []
    for one in there:
        chosen = one.take(torch.rand(len(one), generator=generator) < 0.8)
        twice = torch.cat([chosen.boxes, chosen.boxes[::2], chosen.boxes.roll(1, 0) + 40])
        sides = (twice[:, 2:] - twice[:, :2]).repeat(1, 2)
        boxes = twice + 0.08 * sides * torch.randn(twice.shape, generator=generator)
        boxes = torch.cat([boxes[:, :2].minimum(boxes[:, 2:]), boxes[:, :2].maximum(boxes[:, 2:])], dim=1)
        labels = torch.cat([chosen.labels, chosen.labels[::2], chosen.labels])
        other = torch.randint(classes, labels.shape, generator=generator)
        labels = labels.where(torch.rand(labels.shape, generator=generator) < 0.9, other)
        # In tenths: equal scores, whose order matters, occur in all sizes of sets.
        scores = (10 * torch.rand(len(labels), generator=generator)).ceil() / 10
        order = scores.argsort(descending=True, stable=True)
        said.append(Found(boxes[order], scores[order], labels[order]))
    return said


def made() -> tuple[list[Objects], list[Found]]:
    generator = torch.Generator().manual_seed(3)
    there = []
    for place in range(12):
        count = [0, 3, 6, 9][place % 4]
        corner = 400 * torch.rand(count, 2, generator=generator)
        sides = 8 + 140 * torch.rand(count, 2, generator=generator)
        labels = torch.randint(3, (count, 1), generator=generator)
        rows = torch.cat([corner, corner + sides, labels], dim=1).tolist()
        there.append(objects(*rows, crowd=(0, 4) if place % 3 == 1 else ()))
    return there, perturbed(there, 3, 5)


def test_three_boxes_by_hand() -> None:
    there = [objects((0, 0, 100, 100, 0), (200, 0, 300, 100, 0), (0, 200, 100, 300, 0))]
    # By score: the first object with IoU 1; nothing; the second object with IoU 60/100 = 0.6 (it lies inside, and is
    # 60 wide). The third object is not found.
    said = [found((0, 0, 100, 100, 0, 0.9), (500, 500, 600, 600, 0, 0.8), (200, 0, 260, 100, 0, 0.7))]
    # At IoU 0.50, 0.55: right, wrong, right. Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3. Of the 101 recalls 0, 0.01
    # to 1, the 34 up to 0.33 have precision 1, the 33 from 0.34 to 0.66 have 2/3, the 34 above have 0.
    loose = (34 * 1 + 33 * 2 / 3) / 101
    # From 0.65 on: right, wrong, wrong. The 34 recalls up to 0.33 have precision 1.
    strict = 34 / 101
    # At 0.60 a detection counts that overlaps by 0.60 or more, and linspace(0.5, 0.95, 10)[2] is 0.6 in float64.
    precision = average_precision(said, there, NAMES)
    assert precision.ap50 == pytest.approx(loose, abs=1e-6)
    assert precision.ap75 == pytest.approx(strict, abs=1e-6)
    assert precision.ap == pytest.approx((3 * loose + 7 * strict) / 10, abs=1e-6)
    assert (precision.small, precision.medium) == (None, None)
    assert precision.large == pytest.approx(precision.ap, abs=1e-6)  # 100² pixels each
    assert precision.per_class == {"cat": pytest.approx(precision.ap, abs=1e-6), "dog": None, "bird": None}
    # The first object alone: precision 1 at all ten; the second 2/3 at three of ten; the third none.
    assert match_boxes(said, there).object_score == pytest.approx([1, 0.2, 0])


def test_perfect_boxes_are_1_and_none_0() -> None:
    there, _ = made()
    singles = [one.single for one in there]
    assert numbers(average_precision([seen(one) for one in singles], there, NAMES)) == pytest.approx([1.0] * 6)
    assert numbers(average_precision([found() for _ in there], there, NAMES)) == [0.0] * 6
    nothing = average_precision([found((0, 0, 9, 9, 1, 0.5))], [objects()], NAMES)
    assert numbers(nothing) == [-1.0] * 6 and set(nothing.per_class.values()) == {None}


def test_a_recall_on_a_threshold_counts_as_in_coco() -> None:
    # 10 objects, the first found, then a wrong one, then a second: recall 1/10 lies on the threshold 0.1, and
    # float32's 0.1 is above it.
    there = [objects(*[(100 * at, 0, 100 * at + 50, 50, 0) for at in range(10)])]
    said = [found((0, 0, 50, 50, 0, 0.9), (0, 300, 50, 350, 0, 0.8), (100, 0, 150, 50, 0, 0.7))]
    assert average_precision(said, there, NAMES).ap == pytest.approx((11 * 1 + 10 * 2 / 3) / 101, abs=1e-6)


def test_it_is_pycocotools_number_with_crowds_and_empty_images() -> None:
    there, said = made()
    expected = by_pycocotools(said, coco_json(there), [0, 1, 2], list(range(len(there))))
    assert 0.05 < expected[0] < 0.9
    assert numbers(average_precision(said, there, NAMES)) == pytest.approx(expected, abs=1e-6)
    without = [Objects(one.boxes, one.labels, torch.zeros_like(one.crowd), one.areas) for one in there]
    assert average_precision(said, without, NAMES).ap != pytest.approx(expected[0], abs=1e-3)  # crowds matter here


def test_own_pairing_gives_the_same_number() -> None:
    there, said = made()
    expected = average_precision(said, there, NAMES)
    (row,) = precisions(match_boxes(said, there), np.ones((1, len(there)), dtype=np.int32))
    assert row.mean() == pytest.approx(expected.ap, abs=1e-6)
    assert (row[0], row[5]) == pytest.approx((expected.ap50, expected.ap75), abs=1e-6)


def test_images_drawn_twice_count_twice() -> None:
    there, tied = made()
    # Without ties: where two detections of an image are equally certain, COCO's order is that of the images.
    said = [Found(one.boxes, one.scores - 1e-4 * torch.arange(len(one)), one.labels) for one in tied]
    counts = redraw(len(there), 4, seed=1)
    assert (counts.sum(1) == len(there)).all() and (counts == redraw(len(there), 4, seed=1)).all()
    rows = precisions(match_boxes(said, there), counts)
    for row, count in zip(rows, counts, strict=True):
        drawn = np.repeat(np.arange(len(there)), count)
        expected = average_precision([said[at] for at in drawn], [there[at] for at in drawn], NAMES)
        assert row.mean() == pytest.approx(expected.ap, abs=1e-6)
    empty = precisions(match_boxes([found()], [objects()]), np.ones((3, 1), dtype=np.int32))
    assert interval(empty.mean(1)) == (None, None)
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))


def test_an_objects_score_is_its_share_of_the_images_precision() -> None:
    there = [objects((0, 0, 50, 50, 0), (100, 0, 150, 50, 0), (0, 100, 50, 150, 1), (0, 0, 400, 400, 0), crowd=(3,))]
    # On cats: a wrong one, the first, one on the crowd (ignored), the second with IoU 0.8: 1/2 and 2/3 at 7 of 10.
    # From IoU 0.85 on, the last one lies on the crowd too, wholly.
    said = [
        found(
            (600, 0, 650, 50, 0, 0.9), (0, 0, 50, 50, 0, 0.8), (200, 200, 250, 250, 0, 0.7), (100, 0, 140, 50, 0, 0.6),
            (0, 100, 50, 150, 1, 0.04),
        )
    ]  # fmt: skip
    matches = match_boxes(said, there)
    assert matches.object_score == pytest.approx([0.5, 0.7 * 2 / 3, 1])
    assert matches.object_label.tolist() == [0, 0, 1] and matches.ignored.sum(0).tolist() == [0, 0, 10, 3, 0]
    assert match_boxes(said, there, threshold=0.05).object_score == pytest.approx([0.5, 0.7 * 2 / 3, 0])


@pytest.mark.parametrize(
    ("said", "there", "words"),
    [
        ([found()], [], "1 and 0 images"),
        ([], [], "one at least"),
        ([found((0, 0, 1, 1, 3, 0.5))], [objects()], "outside the 3 classes"),
        ([found()], [objects((0, 0, 1, 1, -1))], "outside the 3 classes"),
    ],
)
def test_what_cannot_be_compared_is_refused(said: list, there: list, words: str) -> None:
    with pytest.raises(PassbandError, match=words):
        average_precision(said, there, NAMES)


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(PassbandError, match=r"passband\[detection\]"):
        average_precision([found()], [objects()], NAMES)


@pytest.mark.data
def test_it_is_pycocotools_number_on_the_shipped_photographs() -> None:
    path = Path(os.environ["PASSBAND_DATA"]) / "coco128/annotations/instances_val2017.json"
    truth = json.loads(path.read_text())
    category_ids = sorted(one["id"] for one in truth["categories"])
    image_ids = sorted(one["id"] for one in truth["images"])
    rows: dict[int, list[dict]] = {one: [] for one in image_ids}
    for one in truth["annotations"]:
        rows[one["image_id"]].append(one)
    there = []
    for place in image_ids:
        boxes = torch.tensor([one["bbox"] for one in rows[place]], dtype=torch.float64).reshape(-1, 4)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1).float()
        labels = torch.tensor([category_ids.index(one["category_id"]) for one in rows[place]], dtype=torch.int64)
        crowd = torch.tensor([bool(one["iscrowd"]) for one in rows[place]], dtype=torch.bool)
        areas = torch.tensor([one["area"] for one in rows[place]], dtype=torch.float32)
        there.append(Objects(boxes, labels, crowd, areas))
    said = perturbed(there, len(category_ids), 0)
    expected = by_pycocotools(said, truth, category_ids, image_ids)
    names = [one["name"] for one in sorted(truth["categories"], key=lambda one: one["id"])]
    precision = average_precision(said, there, names)
    assert numbers(precision) == pytest.approx(expected, abs=1e-6)
    (row,) = precisions(match_boxes(said, there), np.ones((1, len(there)), dtype=np.int32))
    assert (row.mean(), row[0], row[5]) == pytest.approx(expected[:3], abs=1e-6)
