"""What the experiments with many trainings read off their rows, and what they train."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.high_frequency import (
    architectures,
    batch_size,
    batchnorm_on_low,
    heuristics,
    label_shuffle,
    optimizers,
)
from passband.experiments.high_frequency.settings import MOVED, training
from passband.experiments.high_frequency.tracking import TRAINING_IMAGES, Followed
from passband.train.run import Run

ALL = (label_shuffle, batch_size, heuristics, batchnorm_on_low, architectures, optimizers)


class Asked(Exception):
    """Ends a case where its training begins."""


def asked(module: ModuleType, scale: Scale, monkeypatch) -> dict[str, Recipe]:
    """Return by case what an experiment trains at seed 0 on its first set."""
    recipes: list[Recipe] = []

    def stop(recipe: Recipe, lab: object, **reading: object) -> None:
        recipes.append(recipe)
        raise Asked

    for name in ("followed", "ended"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, stop)
    cases = [case for case in module.cases(scale) if case["seed"] == 0]
    first = [case for case in cases if case["data"] == cases[0]["data"]]
    lab = type("Lab", (), {"scale": scale})()
    for case in first:
        with pytest.raises(Asked):
            module.measure(case, lab)
    return {case["case"]: recipe for case, recipe in zip(first, recipes, strict=True)}


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__.rpartition(".")[2])
def test_rows_that_were_not_measured_give_no_margin(module) -> None:
    experiment = importlib.import_module(module.__name__).EXPERIMENT
    rows = [
        {"case": case["case"], "data": case["data"], "seed": 0, "note": "not measured: needs it"}
        for case in experiment.cases(Scale.FULL)
    ]
    assert len({claim.name for claim in experiment.claims}) == len(experiment.claims)
    assert [claim.margin(rows) for claim in experiment.claims] == [None] * len(experiment.claims)


def test_equal_trainings_of_the_experiments_are_one_run(monkeypatch) -> None:
    found = {module: asked(module, Scale.SMALL, monkeypatch) for module in ALL}
    vanilla = found[heuristics]["vanilla"]
    shared = [
        found[batch_size]["batch 100"], found[heuristics]["vanilla, copies unscaled"],
        found[batchnorm_on_low]["whole images, without batch norm"], found[architectures]["ResNet of the code"],
        found[optimizers]["Adam, rate 0.003"],
    ]  # fmt: skip
    assert [recipe.model_dump() for recipe in shared] == [vanilla.model_dump()] * len(shared)
    for module, count in ((batchnorm_on_low, 8), (heuristics, 6), (architectures, 5), (optimizers, 9)):
        assert len({recipe.model_dump_json() for recipe in found[module].values()}) == count
    sgd = found[optimizers]["SGD, rate 0.01"].optimizer
    assert sgd.name == "sgd" and sgd.arguments == {"lr": 0.01, "momentum": 0, "weight_decay": 0}
    moved = training(Scale.SMALL, data="fashion-mnist", seed=0, augment=list(MOVED))
    assert found[heuristics]["moved"] == moved and moved.augment == found[heuristics]["adversarial"].augment


def test_imagenets_batch_norm_is_compared_with_its_twin() -> None:
    whole = {"data": "restricted-imagenet", "seed": 0}
    names = {case["case"] for case in heuristics.cases(Scale.FULL) if case["data"] == whole["data"]}
    assert names == set(heuristics.READ)
    networks = {name: heuristics.recipe(Scale.FULL, whole | {"case": name}).model.model_dump() for name in names}
    assert networks["vanilla"] == networks["moved"] == {"name": "resnet50"}
    assert networks["without batch norm"] == {"name": "hfc_resnet50"}
    assert networks["batch norm, running statistics"] == {"name": "hfc_resnet50", "norm": "batch"}
    color = {case["case"] for case in heuristics.cases(Scale.FULL) if case["data"] == "cifar10"}
    assert color == names - {"without batch norm"}
    assert {case["case"] for case in heuristics.cases(Scale.SMALL)} == color - {"vanilla, images scaled"}
    scaled = heuristics.recipe(Scale.FULL, {"case": "vanilla, images scaled", "data": "cifar10", "seed": 0})
    assert scaled.data.view is not None and scaled.data.view.name == "rescaled"
    radii = {case["radius"] for case in batchnorm_on_low.cases(Scale.FULL) if case["data"] == whole["data"]}
    assert radii == {25, 50, 100, 150, None}
    rows = [{"case": case, "LFC r1": low} for case, low in (
        ("vanilla", 70.0), ("batch norm, running statistics", 60.0), ("without batch norm", 40.0),
    )]  # fmt: skip
    assert heuristics.picks_more(rows, "running statistics", ("LFC",), (1,)) == 20
    assert heuristics.picks_more(rows[:2], "running statistics", ("LFC",), (1,)) == -10


def test_shuffled_labels_are_learned_three_times_as_long(monkeypatch) -> None:
    for scale, epochs in ((Scale.SMALL, 50), (Scale.FULL, 100)):
        found = asked(label_shuffle, scale, monkeypatch)
        natural, shuffled = found["natural"], found["shuffled"]
        assert (natural.epochs, shuffled.epochs) == (epochs, 3 * epochs)
        assert shuffled.data.shuffle_labels and natural.data == shuffled.data.model_copy(
            update={"shuffle_labels": False}
        )
    imagenet = {"case": "shuffled", "data": "restricted-imagenet", "seed": 0}
    assert label_shuffle.recipe(Scale.FULL, imagenet).epochs == 150


def labels() -> list[dict]:
    natural = {"case": "natural", "chance": 10.0, "train": 90.0, "LFC r1": 50.0, "first epoch": 40.0}
    natural |= {"train @1": 30.0, "LFC mean @1": 35.0, "HFC mean @1": 15.0, "train @11": 90.0}
    natural |= {"LFC mean @11": 70.0, "HFC mean @11": 45.0, "LFC mean": 70.0, "HFC mean": 45.0}
    shuffled = {"case": "shuffled", "chance": 10.0, "train": 60.0, "LFC r1": 20.0, "first epoch": 5.0}
    shuffled |= {"train @1": 10.0, "LFC mean @1": 10.0, "HFC mean @1": 10.0, "train @51": 60.0}
    shuffled |= {"LFC mean @51": 20.0, "HFC mean @51": 30.0, "LFC mean": 20.0, "HFC mean": 30.0}
    return [natural, shuffled]


def test_labels_are_compared_where_they_fit_alike() -> None:
    rows = labels()
    # Both reach 60%: natural halfway between its points, shuffled at its last.
    assert label_shuffle.later(rows) == 51 - 6
    assert label_shuffle.barely(rows) == (50 - 20) - (20 - 10)
    assert label_shuffle.early(rows) == 40 - 10
    assert label_shuffle.comparable(rows) == (60 - 10) - (90 - 60)


def test_low_frequencies_come_first_where_lfc_leads_hfc_early() -> None:
    rows = labels()
    margins = {claim.name: claim.margin(rows) for claim in label_shuffle.CLAIMS}
    assert margins["LFC first"] == 35 - 15
    # Shuffled labels fit 30% at epoch 21, two fifths of the way, where LFC is at 14% and HFC at 18%.
    assert margins["no such order when shuffled"] == pytest.approx((35 - 15) - (14 - 18))
    rows[1]["train @51"] = 29.0
    assert label_shuffle.order(rows) is None
    rows[0] |= {"LFC mean @1": 10.0, "HFC mean @1": 30.0}
    assert label_shuffle.lead(rows, "natural") == -20


def test_a_preference_for_hfc_is_no_preference_for_lfc() -> None:
    rows = labels()
    margins = {claim.name: claim.margin(rows) for claim in label_shuffle.CLAIMS}
    assert margins["natural prefers LFC"] == 70 - 45
    assert margins["shuffled has less of a preference"] == (70 - 45) - (30 - 20)
    rows[0] |= {"LFC mean": 20.0, "HFC mean": 60.0}
    assert label_shuffle.preference(rows, "natural") == -40 and label_shuffle.indifferent(rows) == -50


def test_the_papers_epochs_belong_to_cases_and_sets() -> None:
    cases = {f"{case['case']}, {case['data']}" for case in label_shuffle.cases(Scale.FULL)}
    assert len(label_shuffle.EXPERIMENT.reported) == 4 and set(label_shuffle.EXPERIMENT.reported) <= cases


def batches() -> list[dict]:
    small = {"train @1": 50.0, "train @5": 90.0, "test @1": 50.0, "test @5": 70.0}
    big = {"train @1": 20.0, "train @5": 70.0, "test @1": 20.0, "test @5": 65.0}
    return [
        {"case": "batch 500", "batch": 500, "train": 70.0, "test": 65.0, "HFC mean": 12.0, "lost": 5.0} | big,
        {"case": "batch 50", "batch": 50, "train": 90.0, "test": 70.0, "HFC mean": 20.0, "lost": 10.0} | small,
        {"case": "batch 100", "batch": 100, "train": 80.0, "test": 68.0, "HFC mean": 16.0, "lost": 7.0},
    ]


def test_the_smallest_batch_is_compared_with_the_biggest() -> None:
    rows = batches()
    assert batch_size.falls(rows, "test") == 5 and batch_size.falls(rows[:1], "test") is None
    assert batch_size.closes(rows) == 20 - 5
    # Both reach 70% of the training images: the smallest batch at epoch 3, with 60% of the test images.
    assert batch_size.closes_at_equal_training(rows) == pytest.approx(65 - 60)
    assert batch_size.related(rows, "HFC mean") == pytest.approx(0.99, abs=0.01)
    assert batch_size.related(rows[:2], "HFC mean") is None
    margins = {claim.name: claim.margin(rows) for claim in batch_size.EXPERIMENT.claims}
    assert margins["smaller batch, higher train"] == 20 and margins["smaller batch, higher test"] == 5
    assert margins["bigger batch, less HFC, by accuracy on HFC"] == 8
    assert margins["bigger batch, less HFC, by what is lost without HFC"] == 5


def test_heuristics_are_compared_with_vanilla_in_the_same_reading() -> None:
    def row(case: str, test: float, low: float, high: float) -> dict:
        copies = {f"LFC r{rank}": low for rank in (1, 2, 3)} | {f"HFC r{rank}": high for rank in (1, 2, 3)}
        return {"case": case, "train": test + 5, "test": test, "HFC mean": high, "lost": test - low} | copies

    rows = [
        row("vanilla", 80, 60, 20), row("dropout", 81, 61, 19), row("mixup", 78, 55, 30),
        row("batch norm, batch statistics", 82, 70, 40), row("adversarial", 70, 65, 15),
        row("vanilla, copies unscaled", 80, 58, 14), row("adversarial, copies unscaled", 70, 66, 11),
        row("moved", 76, 64, 25) | {"train": 86.0},
    ]  # fmt: skip
    rows[0]["chance"] = 10.0
    rows[3] |= {"LFC r3": 62.0, "HFC r3": 21.0}
    assert heuristics.like_vanilla(rows) == pytest.approx((2 + 2 + 3 * 5 + 3 * 10) / 8 - 1)
    assert heuristics.similar_accuracy(rows) == 10 - 2
    by_reading = {reading: heuristics.loses_less(rows, pair) for reading, pair in heuristics.PAIRS.items()}
    assert by_reading == {"copies scaled": 20 - 5, "copies unscaled": 22 - 4, "panels as drawn": 20 - 4}
    assert [heuristics.knows_less(rows, pair) for pair in heuristics.PAIRS.values()] == [5, 3, 9]
    assert [heuristics.knows_r1(rows, pair) for pair in heuristics.PAIRS.values()] == [-5, -3, -9]
    assert heuristics.ignored(rows) == (80 - 20) - (20 - 10)
    margins = {claim.name: claim.margin(rows) for claim in heuristics.CLAIMS}
    assert margins["batch norm picks more LFC, r1 and r2, batch statistics"] == 10
    assert margins["batch norm picks more HFC, r1 and r2, batch statistics"] == 20
    assert margins["batch norm, r1 and r2 especially, batch statistics"] == 15 - 1.5
    assert margins["batch norm, r1 and r2 especially, running statistics"] is None
    assert margins["mixup catches more HFC, by accuracy on HFC"] == 10
    beside = {name: margin for name, margin in margins.items() if name.endswith(", beside moved")}
    # Adversarial training loses 5 points on LFC of 70, moved images 12 of 76; the gaps are 5 and 10.
    assert list(beside.values()) == [76 - 70, 10 - 5, 25 - 15, 12 - 5]


def test_batch_norms_help_is_told_by_radius() -> None:
    def row(radius: int | None, network: str, test: float, convergence: float) -> dict:
        return {"case": f"{radius}, {network}", "radius": radius, "network": network} | {
            "test": test, "own": test + 1, "convergence": convergence
        }  # fmt: skip

    norm, without = "batch norm, batch statistics", batchnorm_on_low.WITHOUT
    rows = [
        row(4, without, 60.0, 70.0), row(4, norm, 55.0, 71.0), row(8, without, 70.0, 75.0), row(8, norm, 73.0, 80.0),
        row(12, norm, 75.0, 84.0), row(12, without, 74.0, 76.0),
        row(None, without, 1.0, 1.0), row(None, norm, 9.0, 9.0),
    ]  # fmt: skip
    assert batchnorm_on_low.help_by_radius(rows, norm, "test") == {4: -5, 8: 3, 12: 1}
    assert batchnorm_on_low.not_always(rows, norm, "test") == 5
    assert batchnorm_on_low.less_at_small(rows, norm, "own") == 6
    assert batchnorm_on_low.generalizes_less(rows, norm) == pytest.approx(1 / 3)
    assert batchnorm_on_low.boosts(rows, norm) == 1 and batchnorm_on_low.boosts_smallest_least(rows, norm) == 4
    assert batchnorm_on_low.help_by_radius(rows, "batch norm, running statistics", "test") == {}


def test_the_gap_of_a_network_that_learned_from_lfc_is_on_lfc(tmp_path, monkeypatch) -> None:
    right = {"train": [1.0, 1.0, 1.0, 1.0], "test": [0.0, 0.0, 0.0, 1.0], "LFC r1": [1.0, 1.0, 0.0, 1.0]}
    verdicts = {1: {line: np.array(found) for line, found in right.items()}}
    course = Followed(Run(tmp_path / "run", Recipe(), {}), (4,), verdicts, {}, 10)
    monkeypatch.setattr(batchnorm_on_low, "followed", lambda *_, **__: course)
    case = batchnorm_on_low.cases(Scale.SMALL)[0]
    found = batchnorm_on_low.measure(case, SimpleNamespace(scale=Scale.SMALL))
    assert found.row["gap"] == 25 and found.drawn_from["convergence"] == TRAINING_IMAGES


def test_a_resnet_is_compared_with_the_best_of_the_earlier_networks() -> None:
    rows = [
        {"case": case, "train": test + apart, "test": test, "HFC mean": high, "lost": 1.0}
        for case, test, apart, high in (
            ("LeNet", 80.0, 2.0, 30.0), ("AlexNet", 85.0, 9.0, 20.0), ("VGG", 84.0, 5.0, 25.0),
            ("ResNet of the code", 86.0, 4.0, 12.0),
        )
    ]  # fmt: skip
    resnet = "ResNet of the code"
    margins = {claim.name: claim.margin(rows) for claim in architectures.EXPERIMENT.claims}
    assert margins[f"better accuracy, {resnet}"] == 1 and margins[f"smaller gap, {resnet}"] == -2
    assert margins[f"weaker tendency, by accuracy on HFC, {resnet}"] == 8
    assert margins[f"weaker tendency, by what is lost without HFC, {resnet}"] == 0
    assert architectures.below(rows[1:], resnet, architectures.error) is None


def test_a_rival_that_stayed_at_chance_has_no_gap_to_be_compared_with() -> None:
    resnet = "ResNet of the code"
    rows = [
        {"case": case, "train": test + apart, "test": test, "HFC mean": 10.0, "lost": apart, "at chance": test == 10}
        for case, test, apart in (("LeNet", 80.0, 6.0), ("AlexNet", 85.0, 9.0), ("VGG", 10.0, 0.0), (resnet, 86.0, 4.0))
    ]

    def margins() -> dict[str, float | None]:
        return {claim.name: claim.margin(rows) for claim in architectures.EXPERIMENT.claims}

    lost = f"weaker tendency, by what is lost without HFC, {resnet}"
    assert margins()[f"smaller gap, {resnet}"] == margins()[lost] == 6 - 4
    assert margins()[f"better accuracy, {resnet}"] == 86 - 85
    for row in rows[:3]:
        row["at chance"] = True
    assert margins()[f"smaller gap, {resnet}"] is None and margins()[f"better accuracy, {resnet}"] == 1
    rows[0]["at chance"], rows[3]["at chance"] = False, True
    assert margins()[lost] is None


def test_a_network_is_at_chance_where_its_interval_reaches_down_to_it(tmp_path, monkeypatch) -> None:
    case = architectures.cases(Scale.SMALL)[0]
    for right, at_chance in ((10, True), (15, True), (20, False)):
        verdicts = {1: {"train": np.ones(100), "test": (np.arange(100) < right).astype(float)}}
        course = Followed(Run(tmp_path / "run", Recipe(), {}), (4,), verdicts, {}, 10)
        monkeypatch.setattr(architectures, "ended", lambda *_, course=course, **__: course)
        found = architectures.measure(case, SimpleNamespace(scale=Scale.SMALL))
        assert found.row["at chance"] is at_chance


def test_optimizers_are_compared_at_their_better_rate() -> None:
    rows = [
        {"case": f"{name}, {rate}", "optimizer": name, "test": test, "HFC mean": high, "lost": 0.0}
        for name, rate, test, high in (
            ("SGD", 0.1, 80.0, 30.0), ("SGD", 0.01, 60.0, 90.0), ("Adam", 0.003, 82.0, 14.0),
            ("AdaGrad", 0.01, 81.0, 12.0), ("AdaDelta", 1.0, 81.0, 10.0), ("RMSprop", 0.001, 83.0, 16.0),
        )
    ]  # fmt: skip
    assert optimizers.best(rows)["SGD"]["HFC mean"] == 30
    assert optimizers.sgd_most(rows, "HFC mean") == 30 - 16
    assert optimizers.sgd_alone(rows, "HFC mean") == (30 - 13) - (16 - 10)
    assert optimizers.sgd_most(rows[2:], "HFC mean") is None
