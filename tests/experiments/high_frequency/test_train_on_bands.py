"""What the experiment `train-on-bands` trains, and what it reads off its rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.high_frequency import train_on_bands
from passband.experiments.high_frequency.settings import band, radii, training
from passband.experiments.high_frequency.train_on_bands import HFC, LFC, ON_BAND, TEST, TRAIN, name


class Asked(Exception):
    """Ends a case where its model would be probed."""


def trainings(scale: Scale, data: str) -> list[Recipe]:
    found: list[Recipe] = []

    def probe(*_: object, **__: object) -> None:
        raise Asked

    for case in train_on_bands.cases(scale):
        if case["data"] == data and case["seed"] == 0:
            with pytest.raises(Asked):
                train_on_bands.measure(case, SimpleNamespace(scale=scale, train=found.append, probe=probe))
    return found


def test_small_trainings_are_both_sides_of_each_cut_and_the_readings() -> None:
    views = [None, *(band(radius, side) for radius in (4, 8, 12) for side in ("low", "high"))]
    views += [band(4, side, edge="exclusive") for side in ("low", "high")]
    views += [band(4, side, rescale="none") for side in ("low", "high")]
    asked = trainings(Scale.SMALL, "fashion-mnist")
    assert asked == [training(Scale.SMALL, data="fashion-mnist", seed=0, view=view) for view in views]
    cases = [(case["case"], case["data"], case["seed"]) for case in train_on_bands.cases(Scale.FULL)]
    assert len(set(cases)) == len(cases)


def test_the_papers_numbers_belong_to_cases() -> None:
    cases = {f"{case['case']}, {case['data']}" for case in train_on_bands.cases(Scale.FULL)}
    reported = train_on_bands.EXPERIMENT.reported
    assert len(reported) == 16 and set(reported) <= cases
    assert reported[f"{name(HFC, 4)}, cifar10"] == {TRAIN: 98.85, TEST: 20.02}
    assert reported[f"{name(LFC, 150)}, restricted-imagenet"] == {TRAIN: 97.17, TEST: 84.15}


@pytest.mark.parametrize(("data", "least"), [("cifar10", 93.84), ("restricted-imagenet", 24.16)])
def test_both_fit_in_table_1_and_not_in_table_3(data: str, least: float) -> None:
    reported = train_on_bands.EXPERIMENT.reported
    rows = [
        row(kind, radius, numbers[TEST], train=numbers[TRAIN])
        for radius in radii(data)
        for kind in (LFC, HFC)
        if (numbers := reported[f"{name(kind, radius)}, {data}"])
    ]
    # Of ten classes the middle between chance and all is 55%.
    assert margin("both fit", rows) == pytest.approx(least - 55)


def row(kind: str, radius: int, test: float, on_band: float = 50.0, train: float = 90.0, reading: str = "") -> dict:
    return {
        "case": name(kind, radius, reading), "data": "a", "seed": 0, "kind": kind, "radius": radius,
        "reading": reading, TEST: test, ON_BAND: on_band, TRAIN: train, "chance": 10.0, "trained on": kind,
    }  # fmt: skip


WHOLE = {
    "case": "whole images",
    "data": "a",
    "seed": 0,
    "kind": "whole images",
    "radius": None,
    "reading": "",
    TEST: 80.0,
}
ROWS = [
    WHOLE, row(LFC, 8, 71.0, 82.0), row(HFC, 8, 9.0, 60.0), row(LFC, 4, 62.0, 80.0, 97.0),
    row(HFC, 4, 20.0, 81.0, 56.0), row(LFC, 4, 1.0, reading="exclusive"), row(HFC, 4, 2.0, reading="exclusive"),
]  # fmt: skip


def margin(claim: str, rows: list[dict]) -> float | None:
    return next(one.margin(rows) for one in train_on_bands.CLAIMS if one.name == claim)


def test_margins_are_those_of_the_radius_where_least() -> None:
    assert margin("LFC above HFC", ROWS) == pytest.approx(42.0)
    assert margin("LFC above HFC, on their bands", ROWS) == pytest.approx(-1.0)
    assert margin("rises with r", ROWS) == pytest.approx(9.0)
    # 60 - 9 less the one point from 9 to chance, and 81 - 20 less ten points.
    assert margin("HFC near chance", ROWS) == pytest.approx(50.0)
    assert margin("HFC near chance", [row(HFC, 4, 40.0, 60.0)]) == pytest.approx(-10.0)
    # The middle between chance and all is 55.
    assert margin("both fit", ROWS) == pytest.approx(1.0)
    # At 4 LFC loses 35 and HFC 36, at 8 they lose 19 and 81.
    assert margin("LFC loses less", ROWS) == pytest.approx(1.0)
    assert margin("HFC generalizes", ROWS) == pytest.approx(50.0)


def test_readings_are_compared_with_each_other_alone() -> None:
    assert margin("LFC above HFC, exclusive", ROWS) == pytest.approx(-1.0)
    assert margin("LFC above HFC, unscaled", ROWS) is None


def test_what_was_not_measured_is_no_margin() -> None:
    missing = [{"case": "x", "data": "b", "seed": 0, "note": "not measured: needs b"}]
    assert all(claim.margin(missing) is None for claim in train_on_bands.CLAIMS)


def test_lines_go_over_the_radius_without_the_readings() -> None:
    figure = train_on_bands.figures(ROWS)[0]
    assert {line.name: line.values for line in figure.series} == {LFC: (62.0, 71.0), HFC: (20.0, 9.0)}
