"""What a followed training holds, and what is read off its lines."""

from __future__ import annotations

import numpy as np
import pytest

from passband.core.compute import Compute
from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import training
from passband.experiments.high_frequency.tracking import (
    TRAINING_IMAGES,
    Followed,
    between,
    ended,
    followed,
    gap,
    measured,
    reaches,
    trajectory,
)
from passband.sweeps.lab import Lab
from passband.train.run import Run

CASE = {"case": "one", "data": "photos", "seed": 0}


def by_hand(tmp_path, epochs: dict[int, dict[str, list[float]]]) -> Followed:
    verdicts = {epoch: {line: np.array(right) for line, right in found.items()} for epoch, found in epochs.items()}
    return Followed(Run(tmp_path / "run", Recipe(), {}), (4, 8), verdicts, {}, 10)


def test_a_training_is_followed_on_whole_images_and_on_every_copy(tmp_path) -> None:
    lab = Lab(Scale.SMOKE, "c", runs=tmp_path, compute=Compute(device="cpu", threads=1), limit=30)
    recipe = training(Scale.SMOKE, data="photos", seed=0, model={"width": 2}, part=40, epochs=2)
    course = followed(recipe, lab, radii=(4, 8))
    assert list(course.epochs) == [1, 2] and course.radii == (4, 8) and course.classes == 15
    copies = {f"{side} {which}" for side in ("LFC", "HFC") for which in ("r1", "r2", "mean")}
    assert set(course.last) == {"train", "test", "lost"} | copies
    assert {len(right) for right in course.last.values()} == {30}
    low = (course.last["LFC r1"] + course.last["LFC r2"]) / 2
    assert np.array_equal(course.last["LFC mean"], low)
    assert np.array_equal(course.last["lost"], course.last["test"] - low)
    names = ["train", "test", "r = 4 low", "r = 4 high", "r = 8 low", "r = 8 high"]
    assert [line.name for line in course.curve("x").series] == names
    learned = followed(recipe, lab, radii=(4,), copies="train")
    assert "test" not in learned.last and np.array_equal(learned.last["train"], course.last["train"])
    whole = ended(recipe, lab)
    assert list(whole.epochs) == [2] and np.array_equal(whole.last["LFC r1"], course.last["LFC r1"])
    assert len([name for name in whole.last if name.startswith("HFC r")]) == 4


def test_a_row_holds_means_in_percent_of_verdicts_that_can_be_drawn_anew(tmp_path) -> None:
    lines = {"train": [1.0, 1.0, 1.0, 0.0], "test": [1.0, 0.0, 0.0, 0.0]}
    found = measured(by_hand(tmp_path, {1: lines}), CASE, more={"own": np.ones(4)})
    assert (found.row["train"], found.row["test"], found.row["gap"], found.row["own"]) == (75, 25, 50, 100)
    assert set(found.verdicts) == {"train", "test", "own"} and len(found.results) == 1
    assert found.row["chance"] == 10
    assert not measured(by_hand(tmp_path, {1: lines}), CASE, drawn=False).results
    row = CASE | found.row
    assert gap([row], "one") == 50 and gap([row], "another") is None


def test_columns_of_training_images_say_so(tmp_path) -> None:
    both = by_hand(tmp_path, {1: {"train": [1.0, 0.0], "test": [1.0, 0.0], "LFC r1": [0.0, 0.0]}})
    more = both.by_epoch("train", "test") | {"convergence": np.ones(2)}
    found = measured(both, CASE, more=more, learned=("convergence",))
    assert found.drawn_from == dict.fromkeys(("train", "train @1", "convergence"), TRAINING_IMAGES)
    alone = by_hand(tmp_path, {1: {"train": [1.0, 0.0], "LFC r1": [0.0, 0.0]}})
    assert set(measured(alone, CASE).drawn_from) == {"train", "LFC r1"}


def test_the_area_under_a_line_is_straight_between_measured_epochs(tmp_path) -> None:
    course = by_hand(tmp_path, {1: {"train": [0.0, 1.0]}, 3: {"train": [1.0, 1.0]}, 11: {"train": [1.0, 0.0]}})
    # The first image: half of two epochs and all of eight, of ten; the second: all of two and half of eight.
    assert course.mean_over_epochs("train") == pytest.approx([0.9, 0.6])
    assert by_hand(tmp_path, {1: {"train": [0.0, 1.0]}}).mean_over_epochs("train").tolist() == [0, 1]


def test_lines_become_columns_and_lines_again(tmp_path) -> None:
    course = by_hand(tmp_path, {2: {"train": [0.0, 1.0]}, 10: {"train": [1.0, 1.0]}})
    row = measured(course, CASE, more=course.by_epoch("train")).row
    assert row["train @2"] == 50
    assert trajectory([CASE | row], "one", "train") == [(2, 50.0), (10, 100.0)]
    assert trajectory([CASE | row], "one", "test") == trajectory([], "one", "train") == []


def test_a_line_reaches_a_target_between_its_points() -> None:
    points = [(1, 10.0), (3, 50.0), (5, 40.0), (9, 80.0)]
    assert reaches(points, 30) == 2 and reaches(points, 50) == 3 and reaches(points, 60) == 7
    assert between(points, 2) == 30 and between(points, 7) == 60 and between(points, 9) == 80
    assert reaches(points, 5) == 1 and reaches(points, 81) is None and reaches([], 0) is None
