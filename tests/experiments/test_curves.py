"""Rows as a figure: which lines there are, what is a mean over seeds, and what is left out."""

from __future__ import annotations

import pytest

from passband.core.results import Column, Curve
from passband.core.scale import Scale
from passband.experiments.curves import across, over
from passband.experiments.protocol import Experiment, Measured
from passband.experiments.reproduce import reproduce
from passband.sweeps.lab import Lab

DEPTH, ACCURACY = Column(name="depth"), Column(name="accuracy", unit="%")


def row(learn: str, depth: int, seed: int, accuracy: float | None, data: str = "a") -> dict:
    return {"case": f"{learn} {depth}", "data": data, "seed": seed, "learn": learn} | (
        {"note": "not measured: needs a"} if accuracy is None else {"depth": depth, "accuracy": accuracy}
    )


def test_a_line_for_each_kind_of_case_and_a_curve_for_each_set() -> None:
    rows = [row("all", 4, 0, 80.0), row("all", 2, 0, 70.0), row("some", 2, 0, 60.0)]
    rows += [row("all", 2, 0, 50.0, "b"), row("all", 4, 0, 55.0, "b"), row("all", 2, 0, 50.0, "one place alone")]
    first, second = over(rows, DEPTH, ACCURACY, by="learn", name="figure", title="Depth")
    assert (first.name, first.title, second.name) == ("figure.a", "Depth, a", "figure.b")
    assert first.x.values == (2, 4) and first.y.unit == "%"
    assert {line.name: line.values for line in first.series} == {"all": (70.0, 80.0), "some": (60.0, None)}
    assert first.series[0].low is None and first.series[0].n is None and not first.notes


def test_three_seeds_have_students_interval_and_two_a_mean_alone() -> None:
    rows = [row("all", 2, seed, value) for seed, value in enumerate((70.0, 72.0, 74.0))] + [
        row("all", 4, seed, value) for seed, value in enumerate((80.0, 90.0))
    ]
    (curve,) = over(rows, DEPTH, ACCURACY, by="learn", name="figure", title="Depth")
    (line,) = curve.series
    assert line.values == (72.0, 85.0) and line.n == 3
    # t(0.975, 2 degrees of freedom) = 4.3027 standard errors of 2 / √3, from a printed table.
    assert line.low == (pytest.approx(72 - 4.3027 * 2 / 3**0.5, abs=1e-3), None)
    assert line.high == (pytest.approx(72 + 4.3027 * 2 / 3**0.5, abs=1e-3), None)


def test_columns_stand_side_by_side_and_rows_that_were_not_measured_are_left_out() -> None:
    rows = [{"case": "one", "data": "a", "seed": 0, "fgsm 1": 50.0, "fgsm 8": 10.0}, row("two", 1, 0, None)]
    columns = {8.0: "fgsm 8", 1.0: "fgsm 1"}
    (curve,) = across(rows, columns, Column(name="ε", unit="1/255"), ACCURACY, name="figure", title="Attacked")
    assert curve.x.values == (1, 8) and [(line.name, line.values) for line in curve.series] == [("one", (50.0, 10.0))]
    assert over(rows[1:], DEPTH, ACCURACY, by="learn", name="figure", title="Depth") == ()


def test_an_experiments_figures_stand_behind_its_table_and_say_how_they_were_made() -> None:
    experiment = Experiment(
        title="t", source="s", columns=(ACCURACY,), claims=(),
        cases=lambda scale: [{"case": str(depth), "data": "a", "seed": 0, "at": depth} for depth in (2, 4)],
        measure=lambda case, lab: Measured({"learn": "all", "depth": case["at"], "accuracy": 1.0 * case["at"]}),
        figures=lambda rows: over(rows, DEPTH, ACCURACY, by="learn", name="figure", title="x"),
    )  # fmt: skip
    answer = reproduce("x", experiment, Lab(Scale.SMALL, "command"))
    assert [result.name for result in answer.results] == ["table", "figure.a"]
    figure = answer["figure.a"]
    assert isinstance(figure, Curve) and figure.series[0].values == (2.0, 4.0)
    assert figure.how["command"] == "command" and figure.how["experiment"] == "x"
