from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.core.store import lock
from passband.tasks.classification import correct, predict
from passband.train import build, fit, steps
from passband.train.checkpoint import State
from passband.train.run import Run, load, open_run, train

TINY = Recipe.of(
    {
        "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 2},
        "data": {"name": "photos", "part": 150},
        "epochs": 2,
        "batch": 64,
    }
)
EVERY_STEP = Compute(device="cpu", checkpoint_seconds=0.0)


@pytest.fixture(autouse=True)
def few_test_images(monkeypatch):
    """Evaluate on a hundred test images: these tests ask how a training goes, not how well."""
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(100))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "weights.safetensors")


def assert_same(left: Run, right: Run) -> None:
    for name, tensor in weights(left).items():
        assert torch.equal(tensor, weights(right)[name]), name


def log(run: Run) -> list[list[str]]:
    with (run.folder / "log.csv").open() as file:
        return [row[:-1] for row in csv.reader(file)]  # all but the seconds


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["ema.decay=0.9", "optimizer.name=adamw", "schedule.warmup=1"],
        ["model.name=resnet10t", "model.drop_rate=0.5"],
        ["scheme={name: free, replays: 3, eps: 8/255}", "data.part=100"],
        ["scheme.name=trades", "attack={name: tpgd, steps: 2}", "early_stop.steps=2", "ema.decay=0.9"],
        [
            "model={name: postact_resnet, depth: 1, width: 4}",
            "quantize={bits: 2, frequency_aware: true}",
            "quantize.progressive=[32]",
            "normalize=none",
        ],
    ],
    ids=["plain", "ema", "dropout", "free", "trades", "quantized"],
)
def test_a_run_stopped_anywhere_ends_with_the_same_weights_and_log(tmp_path, monkeypatch, settings) -> None:
    recipe = TINY.with_settings(settings)
    if "model.name=resnet10t" in settings:
        recipe = recipe.with_settings(["data.part=70", "batch=32"])
    whole = train(recipe, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path / "whole")
    real = steps.plain
    calls = {"left": 2}

    def dying(*arguments):
        if not calls["left"]:
            calls["left"] = 2
            raise Killed
        calls["left"] -= 1
        return real(*arguments)

    monkeypatch.setattr(steps, "plain", dying)
    stops = 0
    while True:
        try:
            parts = train(recipe, compute=EVERY_STEP, runs=tmp_path / "parts")
            break
        except Killed:
            stops += 1
    assert stops >= 2
    assert_same(whole, parts)
    assert log(whole) == log(parts)


def test_the_log_may_watch_few_test_images_which_changes_no_weight_and_no_metric(tmp_path) -> None:
    whole = train(TINY, compute=EVERY_STEP, runs=tmp_path / "whole")
    watched = train(TINY, compute=replace(EVERY_STEP, watched=8), runs=tmp_path / "watched")
    assert_same(whole, watched)
    assert {key: whole.metrics[key] for key in ("test_accuracy", "test_images")} == {
        key: watched.metrics[key] for key in ("test_accuracy", "test_images")
    }
    scores = [float(row[-1]) for row in log(watched)[1:] if row[-1]]
    assert len(scores) == TINY.epochs and all((8 * score).is_integer() for score in scores)
    with pytest.raises(PassbandError, match="watched is 1 test image or more"):
        Compute(watched=0)


def test_lines_that_a_lost_checkpoint_would_have_covered_are_cut_off(tmp_path, monkeypatch) -> None:
    whole = train(TINY, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path / "whole")
    monkeypatch.setattr(fit, "LOG_EVERY", 1)
    expected = train(TINY, compute=replace(EVERY_STEP, checkpoint_seconds=60), runs=tmp_path / "every")
    real, calls = steps.plain, {"left": 5}

    def dying(*arguments):
        calls["left"] -= 1
        if calls["left"] == 0:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(steps, "plain", dying)
    late = replace(EVERY_STEP, checkpoint_seconds=60)  # no checkpoint within an epoch: lines run ahead of it
    with pytest.raises(Killed):
        train(TINY, compute=late, runs=tmp_path / "parts")
    parts = train(TINY, compute=late, runs=tmp_path / "parts")
    assert log(parts) == log(expected) and len(log(parts)) > len(log(whole))


def test_kept_epochs_survive_a_kill_between_them_and_their_checkpoint(tmp_path, monkeypatch) -> None:
    compute = replace(EVERY_STEP, keep_epochs=True, checkpoint_seconds=60)
    real = State.save

    def dying(self, *arguments):
        if self.position.epoch == 2:
            raise Killed
        real(self, *arguments)

    monkeypatch.setattr(State, "save", dying)
    with pytest.raises(Killed):
        train(TINY, compute=compute, runs=tmp_path)
    monkeypatch.setattr(State, "save", real)
    seen: list[int] = []
    plain = steps.plain
    monkeypatch.setattr(steps, "plain", lambda *arguments: seen.append(arguments[3]) or plain(*arguments))
    train(TINY, compute=compute, runs=tmp_path)
    assert seen == [3, 4, 5]  # the second epoch alone


def test_a_changed_test_set_is_measured_anew(tmp_path, monkeypatch) -> None:
    run = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(50))
    monkeypatch.setattr(steps, "plain", lambda *_: pytest.fail("trained again"))
    again = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    assert (run.metrics["test_images"], again.metrics["test_images"]) == (100, 50)


def started(recipe: Recipe, folder: Path, **options) -> subprocess.Popen[str]:
    """Start a training as a user would, and come back once its first checkpoint is there."""
    (folder / "r.yaml").write_text(recipe.text())
    command = [sys.executable, "-m", "passband", "train", str(folder / "r.yaml"), "--runs", str(folder / "runs")]
    process = subprocess.Popen([*command, "--device", "cpu", "--threads", "1"], text=True, **options)
    deadline = time.monotonic() + 120
    while not list(folder.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)
    return process


@pytest.mark.trials
def test_sigkill_and_the_same_recipe_again(tmp_path) -> None:
    recipe = TINY.with_settings(["epochs=20"])
    process = started(recipe, tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    folder = next((tmp_path / "runs").iterdir())
    assert not (folder / "DONE").exists()
    with pytest.raises(PassbandError, match="is not finished"):
        open_run(folder)
    assert 1 <= torch.load(folder / "checkpoint.pt", weights_only=True)["position"]["epoch"] < 20
    compute = Compute(device="cpu", threads=1)
    again, whole = (train(recipe, compute=compute, runs=tmp_path / name) for name in ("runs", "whole"))
    assert_same(again, whole)


@pytest.mark.trials
def test_ctrl_c_saves_between_two_steps_and_says_so(tmp_path) -> None:
    recipe = TINY.with_settings(["epochs=400"])
    process = started(recipe, tmp_path, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "passband: interrupted; the same command goes on from what was finished"
    assert "Traceback" not in said


def test_a_finished_run_is_found_and_not_trained_again(tmp_path, monkeypatch) -> None:
    first = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    monkeypatch.setattr(steps, "plain", lambda *_: pytest.fail("trained again"))
    assert train(TINY, compute=EVERY_STEP, runs=tmp_path) == first
    names = {path.name for path in first.folder.iterdir()} - {".lock"}
    assert names == {
        "recipe.yaml", "environment.json", "spec.json", "log.csv", "checkpoint.pt", "weights.safetensors",
        "metrics.json", "DONE",
    }  # fmt: skip


def test_a_run_gives_its_model_back_and_its_weights_load_in_plain_timm(tmp_path) -> None:
    recipe = TINY.with_settings(["filters=same", "learn=channels", "smooth.sigma=1.0"])
    run = train(recipe, compute=EVERY_STEP, runs=tmp_path)
    model = load(run)
    images, targets = next(iter(build.test_set(recipe).batches(100)))
    verdicts = correct(predict(model, images), targets)
    assert verdicts.float().mean().item() == pytest.approx(run.metrics["test_accuracy"])
    plain = timm.create_model("separable_resnet", depth=1, width=4, multiplier=2, num_classes=model.spec.classes)
    plain.load_state_dict(load_file(run.folder / "weights.safetensors"))
    mean, std = torch.tensor(model.spec.mean), torch.tensor(model.spec.std)
    normalized = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(plain.eval()(normalized), model(images))


def test_kept_epochs_and_a_run_that_had_not_kept_them(tmp_path) -> None:
    run = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    before = weights(run)
    with pytest.raises(PassbandError, match="--keep-epochs"):
        load(run, epoch=1)
    kept = train(TINY, compute=replace(EVERY_STEP, keep_epochs=True), runs=tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(kept).items())
    last = load(kept, epoch=2).inner.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in last.items())
    first = load(kept, epoch=1).inner.state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in first.items())


def test_adversarial_training_and_bfloat16_learn_something_else(tmp_path) -> None:
    runs = [
        train(TINY.with_settings(settings), compute=EVERY_STEP, runs=tmp_path)
        for settings in (
            ["epochs=1"],
            ["epochs=1", "attack.name=pgd", "attack.steps=2"],
            ["epochs=1", "precision=bf16"],
        )
    ]
    assert len({run.digest for run in runs}) == 3
    for other in runs[1:]:
        assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(runs[0]).items())


def test_two_processes_never_train_one_recipe(tmp_path) -> None:
    digest = TINY.digest(build.training_set(TINY).fingerprint)[:16]
    held = tmp_path / digest
    code = (
        "import pathlib, sys, time; from passband.core.store import lock\n"
        "with lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(held)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    try:
        with pytest.raises(PassbandError, match="another process works in"):
            train(TINY, compute=EVERY_STEP, runs=tmp_path)
    finally:
        other.kill()
        other.wait()
    with lock(held):
        pass


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["optimizer.lr=1e30"],
            "the loss is .* at epoch 1, step . \\(images .*checkpoint.*; train with a smaller learning rate",
        ),
        (["optimizer.lrr=1"], "did you mean 'lr'"),
        (["optimizer.name=sdg"], "unknown optimizer 'sdg': did you mean 'sgd'"),
        (["schedule.name=cosin"], "did you mean 'cosine'"),
        (
            ["schedule.name=multistep", "schedule.milestones=[1,2]", "schedule.gamma=[1,2,3]"],
            "one gamma or 2",
        ),
        (["attack.name=pdg"], "unknown attack 'pdg': did you mean 'pgd'"),
        (["scheme.name=trade"], "unknown scheme 'trade': did you mean 'trades'"),
        (["scheme={name: free, replay: 2}"], "unknown option of scheme free 'replay': did you mean 'replays'"),
        (["scheme={name: free, replays: 0}"], "1 replay or more; got 0"),
        (["scheme={name: free, eps: 8}"], "write 8/255"),
        (["scheme.name=free", "attack.name=pgd"], "leave attack null"),
        (["scheme={name: trades, beta: -1}"], "beta of 0 or more; got -1"),
        (["early_stop={}"], "against an L∞ attack, such as ffgsm; this one is on plain images"),
        (["early_stop={}", "attack.name=gn"], "against an L∞ attack, such as ffgsm; this one is on what GN"),
        (["model.name=separable_resnt"], "did you mean 'separable_resnet'"),
        (["model.depht=1"], "depht"),
        (["data.name=fotos"], "did you mean 'photos'"),
        (["augment=[{name: crp}]"], "did you mean 'crop'"),
        (["data.view={name: band_limitd}"], "did you mean 'band_limited'"),
        (["smooth.sigmaa=1"], "did you mean 'sigma'"),
        (["data.part=1000000"], "1,?000,?000"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(tmp_path, settings, words) -> None:
    with pytest.raises(PassbandError, match=words) as caught:
        train(TINY.with_settings(settings), compute=EVERY_STEP, runs=tmp_path)
    assert "\n" not in str(caught.value)


def damaged_run(folder: Path) -> tuple[Path, Run]:
    run = train(TINY, compute=EVERY_STEP, runs=folder)
    (run.folder / "DONE").unlink()
    return run.folder / "checkpoint.pt", run


def test_a_damaged_checkpoint_is_named_and_not_trained_over(tmp_path) -> None:
    checkpoint, _ = damaged_run(tmp_path)
    data = checkpoint.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"not a checkpoint"):
        checkpoint.write_bytes(broken)
        with pytest.raises(PassbandError, match=r"checkpoint.pt is damaged .* remove it to train anew"):
            train(TINY, compute=EVERY_STEP, runs=tmp_path)
    torch.save({"digest": "other"}, checkpoint)
    with pytest.raises(PassbandError, match="belongs to another recipe"):
        train(TINY, compute=EVERY_STEP, runs=tmp_path)
    torch.save(os.getcwd, checkpoint)  # code, which must be refused and not run
    with pytest.raises(PassbandError, match="is damaged"):
        train(TINY, compute=EVERY_STEP, runs=tmp_path)


def test_a_checkpoint_from_before_there_were_schemes_goes_on(tmp_path) -> None:
    checkpoint, run = damaged_run(tmp_path)
    saved = torch.load(checkpoint, weights_only=True)
    del saved["memory"], saved["position"]["ended"]
    torch.save(saved, checkpoint)
    assert_same(run, train(TINY, compute=EVERY_STEP, runs=tmp_path))


def test_a_checkpoint_that_counts_right_answers_goes_on(tmp_path, monkeypatch) -> None:
    """Before there was another task, a position held ``correct``."""
    whole = train(TINY, compute=EVERY_STEP, runs=tmp_path / "whole")
    real, calls = steps.plain, {"left": 2}

    def dying(*arguments):
        calls["left"] -= 1
        if calls["left"] < 0:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(steps, "plain", dying)
    with pytest.raises(Killed):
        train(TINY, compute=EVERY_STEP, runs=tmp_path / "parts")
    monkeypatch.setattr(steps, "plain", real)
    checkpoint = next((tmp_path / "parts").glob("*/checkpoint.pt"))
    saved = torch.load(checkpoint, weights_only=True)
    right = saved["position"].pop("score_sum")
    assert saved["position"]["step"] == 2 and 0 < right == int(right)
    saved["position"]["correct"] = int(right)
    torch.save(saved, checkpoint)
    parts = train(TINY, compute=EVERY_STEP, runs=tmp_path / "parts")
    assert_same(whole, parts)
    assert log(parts) == log(whole)


def test_damaged_weights_are_named(tmp_path) -> None:
    run = train(TINY, compute=EVERY_STEP, runs=tmp_path)
    path = run.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PassbandError, match=r"weights\.safetensors is damaged"):
        load(run)


def test_metrics_say_what_was_measured(tmp_path) -> None:
    run = train(TINY.with_settings(["learn=spatial"]), compute=EVERY_STEP, runs=tmp_path)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["train_images"] == 150 and metrics["test_images"] == 100
    assert metrics["low"] <= metrics["test_accuracy"] <= metrics["high"]
    assert metrics["learned_parameters"] < metrics["parameters"]
