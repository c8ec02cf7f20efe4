"""What the experiments `examples` and `svd` train, and what they read off their rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.high_frequency import examples, svd
from passband.experiments.high_frequency.settings import training
from passband.experiments.protocol import Experiment
from passband.probes.disagreement import RIGHT


class Asked(Exception):
    """Ends a case where its model would be probed."""


def trainings(experiment: Experiment, scale: Scale) -> list[Recipe]:
    """Return the recipes that the cases ask for, none of them trained, each once."""
    found: list[Recipe] = []

    def probe(*_: object) -> None:
        raise Asked

    for case in experiment.cases(scale):
        with pytest.raises(Asked):
            experiment.measure(case, SimpleNamespace(scale=scale, train=found.append, probe=probe))
    return [recipe for place, recipe in enumerate(found) if recipe not in found[:place]]


@pytest.mark.parametrize("experiment", [examples.EXPERIMENT, svd.EXPERIMENT], ids=["examples", "svd"])
def test_small_trainings_are_the_vanilla_ones(experiment: Experiment) -> None:
    assert trainings(experiment, Scale.SMALL) == [
        training(Scale.SMALL, data="fashion-mnist", seed=0),
        training(Scale.SMALL, data="fashion-mnist", seed=0, network="small_resnet18"),
        training(Scale.SMALL, data="cifar10-jpeg", seed=0),
    ]
    full = experiment.cases(Scale.FULL)
    assert {case["seed"] for case in full} == {0, 1, 2}
    imagenet = [case for case in full if case["data"] == "restricted-imagenet"]
    assert {case["network"] for case in imagenet} == {examples.LARGE}
    asked = training(Scale.FULL, data="restricted-imagenet", seed=0, network=examples.LARGE)
    assert asked == training(Scale.FULL, data="restricted-imagenet", seed=0) and asked.model.name == examples.LARGE
    assert {case["radius"] for case in imagenet} == {25, 50, 100, 150}


def test_names_are_unique_and_figure_2_is_cut_at_12() -> None:
    for scale in Scale:
        for experiment in (examples.EXPERIMENT, svd.EXPERIMENT):
            cases = [(case["case"], case["data"], case["seed"]) for case in experiment.cases(scale)]
            assert len(set(cases)) == len(cases)
    assert [examples.shown(data) for data in ("mnist", "cifar10", "restricted-imagenet")] == [12, 12, 100]


def cut(radius: int, edge: str = "inclusive", network: str = examples.CODE, **numbers: float) -> dict:
    return {
        "case": f"{network} {edge} {radius}", "data": "a", "seed": 0, "network": network, "edge": edge,
        "radius": radius, "at figure 2": radius == 12, "found": 0, "otherwise": 1.0,
    } | numbers  # fmt: skip


MISSING = {"case": "missing", "data": "b", "seed": 0, "note": "not measured: needs b"}


def margin(name: str, rows: list[dict]) -> float | None:
    return next(claim.margin(rows) for claim in examples.EXPERIMENT.claims if claim.name == name)


def test_one_image_is_enough_to_exist() -> None:
    name = "such images exist: hfc_resnet32, r ≤"
    assert [margin(name, [cut(4, found=9), cut(12, found=count), MISSING]) for count in (0, 1, 5)] == [-1, 0, 4]
    assert margin(name, [cut(4), MISSING]) is None and margin(name, [cut(12, "exclusive")]) is None
    assert margin("such images exist: small_resnet18, r <", [cut(12, "exclusive", examples.TEXT, found=3)]) == 2


def test_chance_is_judged_at_figure_2_alone() -> None:
    rows = [cut(4, **{"beyond chance": 7.0}), cut(12, **{"beyond chance": -0.5, "HFC beyond chance": 2.0})]
    assert margin("HFC decides: hfc_resnet32, r ≤", rows) == -0.5
    assert margin("HFC generalizes: hfc_resnet32", rows) == 2.0
    assert margin("HFC generalizes: resnet50", rows) is None


def test_cuts_that_change_no_answer_are_counted_and_fewer_change_at_each_step() -> None:
    rows = [cut(12, otherwise=3.0), cut(4, otherwise=20.0), cut(8, otherwise=5.0), MISSING]
    assert margin("A2", rows) == 0 and margin("A2", [*rows, cut(4, "exclusive", otherwise=0.0)]) == -1
    assert margin("A2", [MISSING]) is None
    name = "fewer answers change as r grows: hfc_resnet32"
    assert margin(name, rows) == pytest.approx(2.0)
    assert margin(name, [*rows[:2], cut(8, otherwise=2.0)]) == pytest.approx(-1.0)
    assert margin(name, rows[:1]) is None


def test_accuracy_that_is_added_is_that_of_the_radius_where_least() -> None:
    rows = [cut(4, **{"HFC adds": 30.0}), cut(12, **{"HFC adds": -0.2}), cut(8, "exclusive", **{"HFC adds": -9.0})]
    assert margin("HFC adds accuracy: hfc_resnet32", rows) == pytest.approx(-0.2)
    rows = [{**row, "network": "resnet50"} for row in rows]
    assert margin("HFC adds accuracy: resnet50", rows) == pytest.approx(-0.2)
    assert margin("HFC adds accuracy: hfc_resnet32", rows) is None


def test_distances_are_over_all_images_answered_otherwise_and_over_those_right_untouched() -> None:
    def line(name: str, *values: float | None) -> SimpleNamespace:
        return SimpleNamespace(name=name, values=values)

    share = SimpleNamespace(
        series=[line(RIGHT, 0.5, 0.0)], arrays={"differs": np.array([[True, True, False], [False] * 3])}
    )
    far = SimpleNamespace(series=[line("mean", 0.25, None)], arrays={"distance": np.array([[0.25, 0.75, 9.0]] * 2)})
    low = {"disagreement.share": share, "disagreement.linf": far, "disagreement.l2": far}
    found = examples._distances(low, 0)
    assert found == {"of right": 50.0, "L∞": 0.5, "L∞ of right": 0.25, "L2": 0.5, "L2 of right": 0.25}
    assert examples._distances(low, 1)["L∞"] is None
    shown = {column.name for column in examples.EXPERIMENT.columns}
    assert set(found) <= shown


def test_lines_are_drawn_by_reading() -> None:
    rows = [cut(4, line="x, ≤", otherwise=20.0), cut(12, line="x, ≤", otherwise=3.0), MISSING]
    (figure,) = (one for one in examples.figures(rows) if one.name == "otherwise.a")
    assert figure.x.values == (4, 12) and [line.values for line in figure.series] == [(20.0, 3.0)]


def test_much_fewer_is_less_than_half() -> None:
    def verdicts(fourier: float, other: float, both: float = 0.0) -> list[float | None]:
        rows = [cut(4, Fourier=0.0, SVD=50.0), cut(12, Fourier=fourier, SVD=other, both=both), MISSING]
        names = ("fewer by SVD", "much fewer by SVD", "most do not remain")
        claims = {claim.name: claim for claim in svd.EXPERIMENT.claims}
        return [claims[f"{name}: hfc_resnet32"].margin(rows) for name in names]

    assert verdicts(10.0, 6.0, 4.0) == [4.0, -2.0, 2.0] and verdicts(10.0, 4.0, 6.0) == [6.0, 2.0, -2.0]
    assert all(claim.margin([MISSING]) is None for claim in svd.EXPERIMENT.claims)


def test_signal_is_compared_per_image_that_is_wrong_on_the_low_part() -> None:
    def signal(wrong: float, beyond: float) -> float | None:
        fourier = {"LFC wrong": 20.0, "Fourier beyond chance": 4.0}
        rows = [cut(12, **fourier, **{"SVD low wrong": wrong, "SVD beyond chance": beyond}), MISSING]
        claims = {claim.name: claim for claim in svd.EXPERIMENT.claims}
        return claims["more than noise: hfc_resnet32"].margin(rows)

    # As much signal in a tenth of the images is no less signal; there are only fewer images.
    assert signal(2.0, 0.4) == pytest.approx(0.0)
    assert signal(2.0, 1.0) == pytest.approx(20.0 - 50.0) and signal(10.0, 0.0) == pytest.approx(20.0)
    assert signal(0.0, 0.0) is None
    assert {"LFC wrong", "SVD low wrong"} <= set(svd.JUDGED)
