"""The probe `reliance` on a model that reads one wave: which images it finds, and what chance would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.results import Gallery, Scalar, Table
from passband.data.dataset import ImageSet
from passband.frequency import low_rank
from passband.probes import PROBES
from passband.probes.reliance import by_chance
from passband.tasks.classification import wilson

reliance = PROBES["reliance"]
SIDE, CYCLES = 28, 9


class Detector(nn.Module):
    """Answer 1 where an image holds a horizontal wave of `CYCLES` cycles, the surer the stronger, else 0."""

    def forward(self, images: Tensor) -> Tensor:
        wave = torch.fft.rfft2(images.mean(1))[:, 0, CYCLES].abs() / SIDE**2
        return torch.stack([torch.full_like(wave, 0.01), wave, torch.zeros_like(wave)], dim=1) * 20


def waves(count: int = 12) -> ImageSet:
    """Every third image is flat (class 0), the others hold the wave, ever stronger; the last one's label is wrong."""
    strength = np.where(np.arange(count) % 3 == 0, 0.0, np.linspace(0.1, 0.4, count))
    plane = np.cos(2 * np.pi * CYCLES * np.arange(SIDE) / SIDE)
    images = 0.5 + strength[:, None, None] * np.broadcast_to(plane, (count, SIDE, SIDE))
    labels = (np.arange(count) % 3 > 0).astype(np.int64)
    labels[-1] = 0
    pixels = np.repeat((images * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    return ImageSet("waves", pixels, labels, ("flat", "wave", "never"), "0" * 64)


def by_name(*arguments: object, **options: object) -> dict:
    return {result.name.removeprefix("reliance."): result for result in reliance(*arguments, **options)}


WAVES = np.array([1, 2, 4, 5, 7, 8, 10])
"""The images that hold the wave and are labeled so."""


@pytest.mark.parametrize("rescale", ["max", "none"])
def test_images_that_need_the_wave_are_found_where_it_is_cut_off(rescale: str) -> None:
    found = by_name(Detector(), waves().batches(5), radius=8.0, rescale=rescale)
    share = found["share"]
    assert isinstance(share, Scalar) and share.n == 12 and share.value == 7 / 12
    assert (share.low, share.high) == wilson(7, 12)
    assert np.array_equal(np.flatnonzero(share.arrays["found"]), WAVES)
    assert np.array_equal(np.flatnonzero(share.arrays["high.predicted"]), [*WAVES, 11])
    assert share.arrays["low.predicted"].sum() == 0 and "high part of 4 images is empty" in share.notes[1]
    table = found["verdicts"]
    assert isinstance(table, Table) and [column.name for column in table.columns][:3] == ["image", "LFC", "HFC"]
    counts = {row[:3]: row[3] for row in table.rows}
    assert counts["right", "wrong", "right"] == 7 and counts["right", "right", "right"] == 4
    assert counts["wrong", "right", "wrong"] == 1 and sum(counts.values()) == 12
    # All of them are answered alike on HFC, so dealing those answers anew changes nothing.
    assert found["by_chance"].value == pytest.approx(7 / 12)


@pytest.mark.parametrize(
    ("options", "count"), [({"radius": 9.0}, 0), ({"radius": 9.0, "edge": "exclusive"}, 7), ({}, 0)]
)
def test_the_cut_is_12_of_32_and_keeps_its_edge(options: dict, count: int) -> None:
    # At 28 pixels the usual radius is 10.5, which keeps the wave.
    assert by_name(Detector(), waves().batches(12), **options)["share"].arrays["found"].sum() == count


def test_pictures_are_ordered_by_what_is_lost_and_can_be_seen() -> None:
    data = waves()
    found = by_name(Detector(), data.batches(5), radius=8.0, examples=3)
    gallery = found["examples"]
    assert isinstance(gallery, Gallery) and "low disc r<=8" in gallery.title
    assert [picture.data["id"] for picture in gallery.pictures] == ["10", "8", "7"]
    picture = gallery.pictures[0]
    # Four times as large: image, a white column, LFC, a white column, HFC.
    assert picture.image.shape == (112, 4 * (3 * 28 + 2), 3)
    assert np.array_equal(picture.image[::4, : 4 * 28 : 4], data.images[10])
    assert (picture.image[:, 112:116] == 255).all() and (picture.image[:, 228:232] == 255).all()
    low, high = picture.image[:, 116:228], picture.image[:, 232:]
    # Rounded pixels leave a trace of the wave.
    assert low.min() >= 254 and high.min() == 0 and high.max() == 255
    assert picture.data["truth"] == "wave" and picture.data["low"]["prediction"] == "flat"
    assert picture.caption.startswith("image: wave (") and "; LFC: flat (" in picture.caption
    assert "examples" not in by_name(Detector(), data.batches(5), radius=9.0)
    assert "examples" not in by_name(Detector(), data.batches(5), radius=8.0, examples=0)


def test_svd_keeps_the_wave_that_the_fourier_split_cuts_off() -> None:
    # A wave along x over a flat image has rank 1: what keeps as much energy keeps both.
    data = waves()
    found = by_name(Detector(), data.batches(5), radius=8.0, by="svd")
    share = found["share"]
    assert share.arrays["found"].sum() == 0 and np.array_equal(share.arrays["ranks"], np.ones((12, 3)))
    assert found["verdicts"].columns[1].name == "largest singular values" and "rank" in share.how
    nothing = by_name(Detector(), data.batches(5), by="svd", rank=0)
    assert np.array_equal(np.flatnonzero(nothing["share"].arrays["found"]), WAVES)
    pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    assert torch.equal(low_rank.split(pixels, 0)[1], pixels)


def test_chance_is_what_dealing_the_answers_gives() -> None:
    rng = np.random.default_rng(0)
    targets, said, among = rng.integers(0, 4, 300), rng.integers(0, 3, 300), rng.random(300) < 0.5
    scores = by_chance(said, targets, among)
    dealt = [float((rng.permutation(said[among]) == targets[among]).sum()) / 300 for _ in range(2000)]
    assert scores.mean() == pytest.approx(np.mean(dealt), abs=3 * np.std(dealt) / 2000**0.5)
    assert not scores[~among].any()
    assert not by_chance(said, targets, np.zeros(300, dtype=bool)).any()
    right_always = by_chance(targets, targets, among)
    assert right_always.mean() < among.mean() / 2


def test_chances_scores_have_its_spread() -> None:
    rng = np.random.default_rng(0)
    targets, among = rng.integers(0, 4, 1000), rng.random(1000) < 0.4
    said = np.where(rng.random(1000) < 0.3, targets, 1)
    draws = [rng.integers(1000, size=1000) for _ in range(600)]
    again = np.std([by_chance(said[draw], targets[draw], among[draw]).mean() for draw in draws])
    scores = by_chance(said, targets, among)
    assert np.std([scores[draw].mean() for draw in draws]) == pytest.approx(again, rel=0.05)


def test_the_model_is_left_as_it_was_found_and_batches_do_not_matter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26**2, 3))
    modes = [module.training for module in model.modules()]
    few, many = (by_name(model, waves().batches(size), radius=8.0)["share"] for size in (5, 12))
    assert [module.training for module in model.modules()] == modes
    assert all(
        np.array_equal(few.arrays[f"{part}.predicted"], many.arrays[f"{part}.predicted"]) for part in ("low", "high")
    )


def test_options_come_as_strings_and_mistakes_are_one_line() -> None:
    options = parse_options(
        reliance, {"radius": "8", "by": "svd", "rank": "0", "examples": "1"}, owner="probe reliance"
    )
    assert len(by_name(Detector(), waves().batches(12), **options)["examples"].pictures) == 1
    for given, words in (
        ({"rank": 3}, "rank=3 belongs to by=svd"),
        ({"by": "svd", "rank": -1}, "got -1"),
        ({"examples": -1}, "examples is 0 or more"),
        ({"radius": -1.0}, "cut-off"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            by_name(Detector(), waves().batches(12), **given)
        assert "\n" not in str(caught.value)
