"""The probe `filtered`: attacked once without a filter, then asked behind each one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.attacks.gradient_sign import FGSM
from passband.core.answer import Answer
from passband.core.band import preset
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import parse_options
from passband.data.dataset import ImageSet
from passband.frequency.filters import low
from passband.models.state import batch_statistics
from passband.probes import PROBES
from passband.probes.filtered import filtered


def images(count: int = 40) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, rng.integers(0, 2, count), ("a", "b"), "0" * 64)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2)
    )  # fmt: skip


def test_every_image_is_attacked_without_the_filter_and_answers_behind_it(tmp_path) -> None:
    model, data = network(), images()
    modes = [module.training for module in model.modules()]
    results = filtered(model, data.batches(7), attacks=("fgsm", "gn"), degrees=(8.0, 4.0))
    assert [result.name for result in results] == ["filtered.adversarial-focus", "filtered.square"]
    assert [module.training for module in model.modules()] == modes
    pixels, labels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255, torch.from_numpy(data.labels)
    points = {"clean": pixels, "fgsm": FGSM(eps=8 / 255)(model.eval(), pixels, labels)}
    for result in results:
        assert result.x.values == (4.0, 8.0) and set(result.arrays) == {"clean", "fgsm", "gn"}
        band = preset(result.name.removeprefix("filtered."), 4.0)
        for name, finished in points.items():
            with torch.no_grad():
                whole = (model(finished).argmax(1) == labels).numpy()
                behind = (model(low(finished, band).clamp(0, 1)).argmax(1) == labels).numpy()
            assert np.array_equal(result.arrays[name], [behind, whole])
            line = next(series for series in result.series if series.name == name)
            assert line.values == (behind.mean(), whole.mean()) and line.low[0] < line.values[0] < line.high[0]
    # What was wrong untouched counts too, and the two squares are not one.
    assert not np.array_equal(*(result.arrays["fgsm"][0] for result in results))
    Answer({}, results).save(tmp_path)
    assert Answer.load(tmp_path)["filtered.square"].arrays["gn"].shape == (2, 40)


def test_a_whole_degree_filters_nothing_and_degrees_follow_the_side() -> None:
    found = filtered(network(), images(4).batches(4), attacks=("cw",), steps=2, low_pass=("square",))
    (curve,) = found
    assert curve.x.values == (4.0, 6.0, 8.0) and "steps=2" in curve.how["attacks"]["cw"]
    assert all(series.n == 4 for series in curve.series)


def test_between_the_sides_of_an_image_the_filter_still_works_along_the_longer_one() -> None:
    rng = np.random.default_rng(0)
    data = ImageSet("wide", rng.integers(0, 256, (40, 8, 16, 3), dtype=np.uint8), None, (), "0" * 64)
    model = network().eval()
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        said = model(pixels).argmax(1)
        behind = model(low(pixels, preset("square", 10.0)).clamp(0, 1)).argmax(1)
    assert not torch.equal(behind, said)
    own = data.batches(40).with_targets(said, "prediction")
    options = {"attacks": ("fgsm",), "low_pass": ("square",)}
    (curve,) = filtered(model, own, degrees=(10.0, 16.0), **options)
    assert np.array_equal(curve.arrays["clean"], [(behind == said).numpy(), np.ones(40, bool)])
    (curve,) = filtered(model, own, **options)
    assert curve.x.values == (4.0, 6.0, 8.0, 16.0)


class Counting(nn.Module):
    """Counts the images of calls that want gradients, which attacks alone do, and stops at so many."""

    asked: ClassVar[int] = 0
    last: ClassVar[int | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            if Counting.asked == Counting.last:
                raise KeyboardInterrupt
            Counting.asked += len(images)
        return self.inner(images)


def test_a_killed_attack_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passband.probes.filtered.working_size", lambda _: 10)
    model, batches = Counting(), images().batches(7)

    def attacked(folder: Path | None, last: int | None = None, steps: int = 2) -> tuple[int, Any]:
        Counting.asked, Counting.last = 0, last
        try:
            found = filtered(model, batches, steps=steps, degrees=(4.0,), resume=folder)
        except KeyboardInterrupt:
            return Counting.asked, None
        return Counting.asked, [result.arrays for result in found]

    whole, expected = attacked(None)
    assert whole == 40 * 3  # FGSM asks once, PGD twice
    assert attacked(tmp_path, last=80) == (80, None)  # in the third batch, of which two thirds are lost
    again, found = attacked(tmp_path)
    assert again == 40 * 3 - 60
    for one, other in zip(found, expected, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in (*one, *other))
    assert attacked(tmp_path, steps=1)[0] == 40 * 2
    with torch.no_grad():
        model.inner[0].bias += 1
    assert attacked(tmp_path)[0] == whole


def test_mistakes_are_one_line() -> None:
    model, batches = network(), images(4).batches(4)
    for call, words in (
        (lambda: filtered(model, batches, attacks=()), "at least one attack"),
        (lambda: filtered(model, batches, attacks=("fgsn",)), "fgsm"),
        (lambda: filtered(model, batches, degrees=(0.0,)), "degrees are 1 bin or more"),
        (lambda: filtered(model, batches, low_pass=("disc",)), "band preset"),
        (lambda: parse_options(PROBES["filtered"], {"eps": "big"}, owner="probe filtered"), "eps cannot be"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    with batch_statistics(model), pytest.raises(NotApplicable, match="do not depend on the batch"):
        filtered(model, batches)
