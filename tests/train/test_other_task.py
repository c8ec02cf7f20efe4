"""Training another task than classification: what the log and the metrics say, what learns, and a stop anywhere."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.tasks import UNSHUFFLE
from passband.train import build, steps
from passband.train.run import load, train

TINY = Recipe.of(
    {
        "task": "unshuffle",
        "model": {"name": "conv_mixer_pixels", "width": 4, "depth": 1, "kernel": 3},
        "data": {"name": "photos", "part": 96, "size": 8},
        "augment": (),
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.0},
        "epochs": 2,
        "batch": 32,
    }
)
EVERY_STEP = Compute(device="cpu", checkpoint_seconds=0.0)
STEM = {"roles": {"stem.0.*": "both"}}


@pytest.fixture(autouse=True)
def few_test_images(monkeypatch):
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(100))


class Killed(Exception):
    """Stands for whatever ends a process."""


def test_a_training_stopped_at_every_step_ends_with_the_same_weights_and_log(tmp_path, monkeypatch) -> None:
    recipe = TINY.with_settings(["augment=[{name: flip}]"])
    whole = train(recipe, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path / "whole")
    real, calls = steps.learning, {"left": 0}

    def dying(task):
        def step(*arguments):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise Killed
            return real(task)(*arguments)

        return step

    monkeypatch.setattr(steps, "learning", dying)
    stops = 0
    while True:
        calls["left"] = 1
        try:
            parts = train(recipe, compute=EVERY_STEP, runs=tmp_path / "parts")
            break
        except Killed:
            stops += 1
    assert stops == 5  # of six steps
    expected = load_file(whole.folder / "weights.safetensors")
    found = load_file(parts.folder / "weights.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())

    def log(run):
        lines = (run.folder / "log.csv").read_text().splitlines()
        return [line.rpartition(",")[0] for line in lines]  # all but the seconds

    assert log(parts) == log(whole) and log(whole)[0] == "epoch,step,lr,loss,train_psnr,test_psnr"


def test_the_metrics_are_the_psnr_of_the_model_that_comes_back(tmp_path) -> None:
    run = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    model = load(run)
    images, _ = next(iter(build.test_set(TINY).batches(100)))
    order = torch.from_numpy(np.argsort(np.random.PCG64(0).random_raw(64), kind="stable"))
    with torch.no_grad():
        restored = model(images.flatten(2)[:, :, order].view_as(images))
    error = (restored - images).double().square().flatten(1).mean(1)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["test_psnr"] == pytest.approx(float((10 * (1 / error).log10()).mean()), abs=1e-5)
    assert metrics["low"] < metrics["test_psnr"] < metrics["high"] and metrics["test_images"] == 100
    assert model.spec.classes == 0 and "test_accuracy" not in metrics


@pytest.mark.parametrize(
    ("learn", "moves"),
    [("all", {"stem", "depthwise", "pointwise"}), ("channels", {"pointwise"}), ("spatial", {"depthwise"})],
)
def test_what_should_stay_stays_bit_for_bit_and_the_head_always_learns(tmp_path, learn, moves) -> None:
    settings = Recipe.of({**TINY.plain(), "learn": learn, "learn_options": None if learn == "all" else STEM})
    run = train(settings, compute=EVERY_STEP, runs=tmp_path)
    spec = build.image_spec(settings, build.training_set(settings))
    drawn = build.bare_model(settings, spec).inner.state_dict()
    moved = {name for name, tensor in load(run).inner.state_dict().items() if not torch.equal(tensor, drawn[name])}
    places = {
        "stem": {"stem.0.weight", "stem.0.bias"},
        "depthwise": {"blocks.0.depthwise.0.weight", "blocks.0.depthwise.0.bias"},
        "pointwise": {"blocks.0.pointwise.0.weight", "blocks.0.pointwise.0.bias"},
    }
    for place, names in places.items():
        assert names & moved == (names if place in moves else set()), place
    assert {"head.weight", "head.bias"} <= moved


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.name=conv_mixer"], "'conv_mixer' gives .* for one image; images .* as conv_mixer_pixels gives them"),
        (["model.widht=3"], "unknown option of model conv_mixer_pixels 'widht': did you mean 'width'"),
        (["model.depth=0"], "sizes of at least 1"),
        (["task=classification"], "a classifier gives logits"),
    ],
)
def test_mistakes_are_one_line(tmp_path, settings, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        train(TINY.with_settings(settings), compute=EVERY_STEP, runs=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_step_asks_with_the_shuffled_images_and_wants_the_others() -> None:
    images = torch.rand(2, 3, 4, 4)
    loss, outputs = steps.learning(UNSHUFFLE)(torch.nn.Identity(), images, torch.zeros(2), 0)
    assert not torch.equal(outputs, images)
    assert torch.equal(outputs.flatten().sort().values, images.flatten().sort().values)
    torch.testing.assert_close(loss, (outputs - images).square().mean())
