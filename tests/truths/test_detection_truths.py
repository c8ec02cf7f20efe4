"""Detection truths: finders of smooth blobs and of checkerboards, whose answers on band copies are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.core.results import row_dicts
from passband.core.spec import ImageSpec
from passband.data.objects import Objects
from passband.data.scenes import SceneSet
from passband.models.detector import Detector, Host
from passband.models.found import Found
from passband.probes.detection import detection

pytest.importorskip("faster_coco_eval", reason="needs the detection extra")
SIZES = ((48, 64), (61, 40))


def bright(image: Tensor) -> Tensor:
    return image.mean(0) > 0.65


def fine(image: Tensor) -> Tensor:
    """Return where a pixel stands out from the nine around it."""
    gray = image.mean(0)[None]
    return (gray - functional.avg_pool2d(gray, 3, 1, 1, count_include_pad=False)).abs()[0] > 0.1


def around(where: Tensor) -> list[float]:
    rows, columns = where.any(1).nonzero()[:, 0], where.any(0).nonzero()[:, 0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


class Finder(nn.Module):
    """Find the bright as a blob, the fine as a checkerboard, and, if confused by the fine, a blob that is none."""

    def __init__(self, confused: bool = False) -> None:
        super().__init__()
        self.confused = confused

    def forward(self, image: Tensor) -> Found:
        rows = [([0.0, 0.0, 9.0, 9.0], 0.95, 2)]
        if self.confused and fine(image).any():
            rows.append(([0.0, 0.0, 9.0, 9.0], 0.9, 0))
        for label, where in enumerate((bright(image), fine(image))):
            if where.any():
                rows.append((around(where), 0.6, label))
        boxes, scores, labels = zip(*rows, strict=True)
        return Found(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


def finder(confused: bool = False) -> Detector:
    spec = ImageSpec((64, 64), None, None, "none", 3, class_names=("blob", "checkerboard", "thing"))
    host = Host(lambda model, images: [model.inner(one) for one in images], lambda model, images, targets: {})
    return Detector(Finder(confused), spec, host)


def scene(blob: bool, checkerboard: bool, size: tuple[int, int]) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    pixels = np.full(size, 0.3)
    if blob:
        pixels += 0.6 * np.exp(-((rows - 14) ** 2 + (columns - 15) ** 2) / (2 * 5.0**2))
    if checkerboard:
        pixels[-18:-6, -18:-6] = (0.3 + 0.25 * (-1.0) ** (rows + columns))[-18:-6, -18:-6]
    return np.repeat((255 * pixels).round().astype(np.uint8)[:, :, None], 3, axis=2)


def scenes(*kinds: tuple[bool, bool]) -> SceneSet:
    """Make a set of images with a blob or none, a checkerboard or none; objects are annotated where they are."""
    images = {str(at): scene(*kind, SIZES[at % 2]) for at, kind in enumerate(kinds)}
    objects = []
    for name, (blob, checkerboard) in zip(images, kinds, strict=True):
        image = torch.from_numpy(images[name]).permute(2, 0, 1) / 255
        there = ((blob, bright(image), 1), (checkerboard, fine(image), 0))
        places = [(around(where), label) for shown, where, label in there if shown]
        boxes = torch.tensor([box for box, _ in places]).reshape(-1, 4)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        labels = torch.tensor([label for _, label in places], dtype=torch.int64)
        objects.append(Objects(boxes, labels, torch.zeros(len(places), dtype=torch.bool), areas))
    sizes = tuple((one.shape[0], one.shape[1]) for one in images.values())
    names = ("checkerboard", "blob")  # in another order than the finder's
    return SceneSet("made", tuple(images), sizes, tuple(objects), images.__getitem__, names, "0" * 64)


def measured(kinds: list[tuple[bool, bool]], **options) -> dict:
    results = detection(
        finder(options.pop("confused", False)), scenes(*kinds).batches(2), radii=(8.0,), draws=20, **options
    )
    return {one.name: one for one in results}


def test_what_is_smooth_is_found_on_low_and_what_is_fine_on_high_frequencies() -> None:
    for kind, expected in (((True, False), (1, 1, 0, 0)), ((False, True), (1, 0, 1, 1))):
        rows = row_dicts(measured([kind] * 4, examples=0)["detection.precision"])
        assert [row["images"] for row in rows] == ["original", "LFC", "HFC", "HFC centered"]
        assert [row["AP"] for row in rows] == pytest.approx(expected)
        assert [(row["AP from"], row["AP to"]) for row in rows] == [pytest.approx((one, one)) for one in expected]


def test_objects_are_found_better_equally_and_worse() -> None:
    kinds = [(True, True), (True, False), (False, False), (False, False)]
    # The fine texture leads to a blob that is none, more certain than the right one: precision 1/2, and 1 without it.
    found = measured(kinds, confused=True)
    objects = found["detection.objects"]
    assert objects.arrays["label"].tolist() == [1, 0, 1] and objects.arrays["photograph"].tolist() == [0, 0, 1]
    assert objects.arrays["original"] == pytest.approx([0.5, 1, 1])
    assert objects.arrays["LFC"] == pytest.approx(np.array([[1, 0, 1]]))
    everything, small, *larger = row_dicts(objects)
    for row in (everything, small):  # all three are small
        assert [row[name] for name in ("objects", "better", "equal", "worse", "found in neither")] == [3, 1, 1, 1, 0]
        assert (row["score on the original"], row["score on LFC"]) == pytest.approx((2.5 / 3, 2 / 3))
    assert [row["objects"] for row in larger] == [0, 0]
    images = found["detection.images_better"]
    assert (images.value, images.n) == (1, 4) and 0 < images.low < 1 < images.high < 4
    assert "1 of 4 images, 25.0%" in images.notes[0]
    assert [one.caption for one in found["detection.better"].pictures] == ["blob 0.50 → 1.00"]
    assert [one.caption for one in found["detection.worse"].pictures] == ["checkerboard 1.00 → 0.00"]


def test_a_difference_within_the_margin_is_none() -> None:
    found = measured([(True, True), (True, False)], confused=True, margin=0.5)
    assert found["detection.images_better"].value == 0 and found["detection.better"].pictures == ()
    everything = row_dicts(found["detection.objects"])[0]
    assert [everything[name] for name in ("better", "equal", "worse")] == [0, 2, 1]


def test_what_is_found_with_little_certainty_is_not_found() -> None:
    found = measured([(True, True)], threshold=0.7)
    assert not found["detection.objects"].arrays["original"].any()
    assert row_dicts(found["detection.precision"])[0]["AP"] == pytest.approx(1)  # which takes all that is found
