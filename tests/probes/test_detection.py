"""The probe `detection`: what it cuts, keeps and refuses, and that it goes on after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.answer import Answer
from passband.core.band import Band
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import defaults, parse_options
from passband.core.results import row_dicts
from passband.core.spec import ImageSpec
from passband.data.objects import Objects
from passband.data.scenes import SceneSet
from passband.frequency.filters import split
from passband.models.detector import Detector, Host
from passband.models.found import Found
from passband.probes import PROBES
from passband.probes.detection import detection
from passband.tasks.average_precision import average_precision

pytest.importorskip("faster_coco_eval", reason="needs the detection extra")
NAMES = ("cat", "dog")


class Guess(nn.Module):
    """Find boxes whose places and scores depend on the image, and remember what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked: list[Tensor] = []

    def forward(self, image: Tensor) -> Found:
        assert not self.training
        self.asked.append(image.clone())
        moments = torch.stack([image.mean(), image.std(), image[0].mean(), image[-1, -1].mean()]) * self.weight
        corner = 10 * moments[:2].abs()
        first = torch.cat([corner, corner + 12])
        scores = torch.tensor([0.9, 0.3]) * moments[2].sigmoid()
        return Found(torch.stack([first, first + 1]), scores, torch.tensor([0, 1]))


def detector() -> Detector:
    spec = ImageSpec((32, 32), None, None, "none", 2, class_names=NAMES)
    host = Host(lambda model, images: [model.inner(one) for one in images], lambda model, images, targets: {})
    return Detector(Guess(), spec, host)


def scenes(count: int = 5) -> SceneSet:
    rng = np.random.default_rng(0)
    sizes = tuple((24 + 3 * at, 33 - 2 * at) for at in range(count))
    images = {f"{at}.jpg": rng.integers(0, 256, (*size, 3), dtype=np.uint8) for at, size in enumerate(sizes)}
    objects = []
    for at in range(count):
        boxes = torch.tensor([[5.0, 3, 17, 15], [4, 4, 16, 16], [0, 0, 20, 20]])[: at % 4]
        crowd = torch.tensor([False, False, True])[: at % 4]
        objects.append(Objects(boxes, torch.tensor([0, 1, 0])[: at % 4], crowd, torch.full((at % 4,), 144.0)))
    return SceneSet("made", tuple(images), sizes, tuple(objects), images.__getitem__, NAMES, "0" * 64)


def by_name(results: tuple) -> dict:
    return {one.name: one for one in results}


def test_numbers_are_those_of_the_copies_made_one_by_one() -> None:
    model, data = detector(), scenes()
    table = by_name(detection(model, data.batches(2), radii=(3.0, 9.0), draws=0, examples=0))["detection.precision"]
    images = [data.image(at) / 255 for at in range(len(data))]
    cuts = {radius: [split(one, Band.disc(radius)) for one in images] for radius in (3, 9)}
    copies = {("original", None): images}
    for radius, parts in cuts.items():
        copies["LFC", radius] = [low.clamp(0, 1) for low, _ in parts]
        copies["HFC", radius] = [high.clamp(0, 1) for _, high in parts]
        copies["HFC centered", radius] = [(high + 0.5).clamp(0, 1) for _, high in parts]
    rows = {(row["images"], row["radius"]): row for row in row_dicts(table)}
    assert set(rows) == set(copies)
    for (kind, radius), pixels in copies.items():
        with torch.no_grad():
            found = model.eval()(pixels)
        expected = average_precision(found, data.objects, NAMES)
        row = rows[kind, radius]
        for name in ("AP", "AP50", "AP75", "small", "medium", "large"):
            assert row[name] == getattr(expected, name.lower())
        assert (row["AP from"], row["AP to"]) == (None, None)
        key = kind if radius is None else f"{kind}.{radius:g}"
        assert table.arrays[f"{key}.counts"].tolist() == [2] * 5
        np.testing.assert_allclose(table.arrays[f"{key}.scores"], torch.cat([one.scores for one in found]), atol=1e-6)


def test_each_image_is_asked_at_its_own_size_and_by_itself() -> None:
    model, data = detector(), scenes()
    few, many = (detection(model, data.batches(size), radii=(4.0,), draws=5, examples=0) for size in (1, 5))
    assert [tuple(one.shape) for one in model.inner.asked[:4]] == [(3, 24, 33)] * 4
    for one, other in zip(few, many, strict=True):
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])
        assert one.notes == other.notes


def test_several_radii_make_a_curve_and_the_first_given_is_shown() -> None:
    found = by_name(detection(detector(), scenes().batches(2), radii=(9.0, 3.0), draws=10, centered=False))
    curve = found["detection.radius"]
    assert curve.x.values == (3.0, 9.0) and [line.name for line in curve.series] == ["LFC", "HFC", "original"]
    rows = {(row["images"], row["radius"]): row for row in row_dicts(found["detection.precision"])}
    for line in curve.series:
        radii = (None, None) if line.name == "original" else curve.x.values
        assert line.values == tuple(rows[line.name, radius]["AP"] for radius in radii)
        assert line.low == tuple(rows[line.name, radius]["AP from"] for radius in radii)
    assert "radius 9)" in found["detection.images_better"].title
    assert [row["radius"] for row in row_dicts(found["detection.objects"])] == [3.0] * 4 + [9.0] * 4
    assert found["detection.objects"].arrays["LFC"].shape == (2, 5)  # of seven boxes, two are around crowds
    assert found["detection.precision"].arrays["LFC.3.redrawn"].shape == (10,)


def test_a_killed_probe_goes_on(tmp_path: Path) -> None:
    data, options = scenes(), {"radii": (4.0,), "draws": 5, "examples": 0}
    expected = detection(detector(), data.batches(2), **options)
    killed = detector()
    ask, left = killed.host.find, [11]

    def find(model: Detector, images: list[Tensor]) -> list[Found]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return ask(model, images)

    killed.host = replace(killed.host, find=find)
    with pytest.raises(KeyboardInterrupt):
        detection(killed, data.batches(2), **options, resume=tmp_path)
    again = detector()
    found = detection(again, data.batches(2), **options, resume=tmp_path)
    assert len(again.inner.asked) == 1 + 4 * 3  # one to know the detector, and four copies of the three images left
    for one, other in zip(found, expected, strict=True):
        assert one.notes == other.notes
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], other.arrays[name])
    other = detector()
    with torch.no_grad():
        other.inner.weight.mul_(2)
    detection(other, data.batches(2), **options, resume=tmp_path)
    assert len(other.inner.asked) == 1 + 4 * 5  # another detector takes nothing that was kept


def test_the_detector_is_left_as_it_was_and_results_go_through_a_folder(tmp_path: Path) -> None:
    model = detector().train()
    results = detection(model, scenes().batches(3), radii=(4.0,), draws=5, examples=2)
    assert model.training and model.inner.training and model.inner.weight.grad is None
    Answer({"title": "detection"}, results).save(tmp_path)
    for one, other in zip(results, Answer.load(tmp_path).results, strict=True):
        assert (one.name, one.notes, set(one.arrays)) == (other.name, other.notes, set(other.arrays))
    for picture in by_name(results)["detection.better"].pictures + by_name(results)["detection.worse"].pictures:
        height, width = scenes().sizes[int(picture.data["image"][0])]
        assert picture.image.shape == (height, 2 * width, 3)


def test_what_cannot_be_measured_is_refused() -> None:
    data = scenes().batches(2)
    for options, words in (
        ({"radii": ()}, "radii needs"), ({"margin": 2.0}, "margin lies"), ({"threshold": -0.1}, "threshold lies"),
        ({"draws": -1}, "draws is"), ({"precision": "bf16"}, "runs in float32"),
    ):  # fmt: skip
        with pytest.raises(PassbandError, match=words):
            detection(detector(), data, **options)
    with pytest.raises(NotApplicable, match="needs a detector"):
        detection(nn.Flatten(), data)


def test_options_come_as_strings() -> None:
    options = parse_options(PROBES["detection"], {"radii": "64,128", "margin": "0.1"}, owner="probe detection")
    assert options == {"radii": (64.0, 128.0), "margin": 0.1}
    assert not {"resume", "precision"} & set(defaults(PROBES["detection"]))
