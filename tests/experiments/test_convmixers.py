"""The ConvMixer experiments: which trainings they name, and what their margins say of made-up rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.data.augment import augmentations
from passband.experiments.protocol import Experiment
from passband.experiments.spatial_mixing import convmixer_depth, learned_filters, smoothed_filters
from passband.experiments.spatial_mixing.settings import LEARN, mixer
from passband.experiments.timing import model_of
from passband.probes.banks import filter_banks
from passband.weights.smooth import blurred


class Asked(Exception):
    """Ends a case where its training is asked for."""


def trainings(experiment: Experiment, scale: Scale) -> list[Recipe]:
    """Return the last recipe that each case asks for, none of them trained."""
    found = []
    for case in experiment.cases(scale):
        asked: list[Recipe] = []

        def train(recipe: Recipe, asked: list[Recipe] = asked) -> None:
            asked.append(recipe)

        def probe(*_: object) -> None:
            raise Asked

        with pytest.raises(Asked):
            experiment.measure(case, SimpleNamespace(scale=scale, train=train, probe=probe))
        found.append(asked[-1])
    return found


def test_small_trainings_are_the_shared_ones_and_equal_seconds_fill_the_time(monkeypatch) -> None:
    asked = {"data": "fashion-mnist", "seed": 0}
    seconds = {"everything": 3.2, "channels": 2.0}
    monkeypatch.setattr(convmixer_depth, "step_seconds", lambda recipes, lab: {name: seconds[name] for name in recipes})
    shared = [mixer(Scale.SMALL, learn, **asked, depth=depth) for depth in (2, 4) for learn in LEARN]
    longer = mixer(Scale.SMALL, "channels", **asked, depth=4, epochs=8)
    assert trainings(convmixer_depth.EXPERIMENT, Scale.SMALL) == [*shared, longer]
    everything, channels = (mixer(Scale.SMALL, learn, **asked, depth=4) for learn in ("everything", "channels"))
    assert trainings(learned_filters.EXPERIMENT, Scale.SMALL) == [everything] * 4 + [channels] * 4
    blurs = [(1.0, True), (2.0, True), (1.0, False)]
    smooth = [
        mixer(Scale.SMALL, "channels", **asked, depth=4, smooth={"keep_norm": kept, "sigma": sigma})
        for sigma, kept in blurs
    ]
    assert trainings(smoothed_filters.EXPERIMENT, Scale.SMALL) == [everything, channels, *smooth]


def test_the_authors_recipes_stand_at_full_scale() -> None:
    cifar, imagenet = (mixer(Scale.FULL, "channels", data=data, seed=0, depth=4) for data in ("cifar10", "imagenet"))
    assert (cifar.epochs, cifar.batch, cifar.optimizer.arguments) == (25, 512, {"lr": 0.05, "weight_decay": 0.005})
    assert [part.name for part in cifar.augment] == ["flip", "randaugment"]
    assert (imagenet.data.size, imagenet.epochs, imagenet.batch) == (224, 150, 640)
    assert imagenet.optimizer.arguments == {"lr": 0.01, "weight_decay": 2e-5, "eps": 1e-3}
    assert imagenet.model.arguments == {"depth": 4, "width": 512, "kernel": 8, "patch": 7}
    for recipe in (cifar, imagenet):
        augmentations([part.arguments | {"name": part.name} for part in recipe.augment])


def test_the_layers_that_are_measured_are_the_networks_filter_banks() -> None:
    model, _ = model_of(mixer(Scale.SMOKE, "everything", data="photos", seed=0, depth=2))
    assert [bank.name for bank in filter_banks(model)[0]] == [f"inner.blocks.{at}.depthwise.0" for at in (0, 1)]


def attacked(case: str, largest: float, **others: float) -> dict:
    return {"case": case, "data": "a", "seed": 0, smoothed_filters.LARGEST: largest, "images": 200} | others


def test_a_relative_gain_is_in_percent_of_random_and_counts_one_image_where_none_is_right() -> None:
    gain = smoothed_filters.relative_gain
    assert gain([attacked("random", 10.0), attacked("s", 13.0)], "s") == pytest.approx(30)
    assert gain([attacked("random", 0.0), attacked("s", 2.0)], "s") == pytest.approx(400)
    assert gain([attacked("random", 0.0), attacked("s", 0.0)], "s") == 0
    assert gain([attacked("random", 10.0)], "s") is None


def test_the_claim_of_a_quarter_fails_below_it() -> None:
    claim = next(claim for claim in smoothed_filters.EXPERIMENT.claims if claim.name == "over 25%")
    smoothed = smoothed_filters.smoothed(1.0)
    margins = [claim.margin([attacked("random", 10.0), attacked(smoothed, found)]) for found in (12.0, 13.0)]
    assert margins == pytest.approx([-5, 5]) and claim.unit == "%"


def test_random_filters_begin_both_lines_over_the_blur() -> None:
    rows = [
        attacked("random", 10.0, norm="restored", **{"σ": 0.0}),
        attacked("a", 13.0, norm="restored", **{"σ": 1.0}),
        attacked("b", 16.0, norm="lost", **{"σ": 1.0}),
        attacked("everything", 5.0),
    ]
    figure = next(one for one in smoothed_filters.figures(rows) if one.name == "largest.a")
    assert figure.x.values == (0.0, 1.0)
    assert {line.name: line.values for line in figure.series} == {"restored": (10.0, 13.0), "lost": (10.0, 16.0)}


def test_gains_of_learned_filters_are_means_over_layers() -> None:
    rows = [
        {
            "case": f"{filters}, layer {layer}",
            "filters": filters,
            "layer": layer,
            "low covered": low,
            "high covered": 50.0,
        }
        for filters, layer, low in (
            ("learned", 1, 60.0),
            ("learned", 2, 80.0),
            ("random", 1, 50.0),
            ("random", 2, 58.0),
        )
    ]
    assert learned_filters.gain(rows, "low covered") == 16
    # Of the learned layers alone: 60 covers 20 points more than half and 10 more than the others, 80 covers 60 and 30.
    assert learned_filters.focus(rows) == (10 + 30) / 2 and learned_filters.focus(rows[2:]) is None
    assert learned_filters.gain(rows[:3], "low covered") is None and learned_filters.gain([], "low covered") is None


def test_smoothing_changes_the_response_to_a_constant_as_the_docstring_says() -> None:
    kernels = torch.rand(4096, 1, 7, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    drawn, restored, lost = (
        float(bank.sum((1, 2, 3)).square().mean().sqrt())
        for bank in (kernels, blurred(kernels, 1.0), blurred(kernels, 1.0, keep_norm=False))
    )
    assert restored / drawn == pytest.approx(2.9, abs=0.1) and lost / drawn == pytest.approx(0.8, abs=0.05)
