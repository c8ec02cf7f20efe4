from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from passband.attacks.gradient_sign import FFGSM, FGSM, PGD
from passband.core.band import Band
from passband.core.compute import Compute
from passband.core.recipe import EarlyStop, Recipe
from passband.tasks.classification import correct
from passband.train import build, early_stop, steps
from passband.train.checkpoint import State
from passband.train.run import Run, is_done, load, train

FAST = Recipe.of(
    {
        "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 2},
        "data": {"name": "photos", "part": 70},
        "attack": {"name": "ffgsm", "mode": "train"},
        "epochs": 5,
        "batch": 64,
    }
)
WATCHED = FAST.with_settings(["early_stop.drop=0.2"])
KEPT = Compute(device="cpu", keep_epochs=True)


@pytest.fixture(autouse=True)
def few_test_images(monkeypatch):
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(20))


def collapsing(monkeypatch, *accuracies: float) -> None:
    """Let the measured accuracies be these, one an epoch."""
    left = list(accuracies)
    monkeypatch.setattr(early_stop, "robust_accuracy", lambda *_: left.pop(0))


def weights(run: Run, epoch: int | None = None) -> dict[str, torch.Tensor]:
    path = run.folder / "weights.safetensors" if epoch is None else run.folder / "epochs" / f"{epoch:04d}.safetensors"
    return load_file(path)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize("settings", [[], ["ema.decay=0.5"]], ids=["plain", "ema"])
def test_a_collapse_ends_the_training_and_brings_the_epoch_before_back(tmp_path, monkeypatch, settings) -> None:
    collapsing(monkeypatch, 0.3, 0.45, 0.3, 0.05)  # a fall of 15 points is borne, one of 25 is not
    run = train(WATCHED.with_settings(settings), compute=KEPT, runs=tmp_path)
    assert same(weights(run), weights(run, 3)) and not same(weights(run), weights(run, 4))
    assert run.metrics["epochs"] == 4
    assert run.metrics["early_stop"] == {"epoch": 4, "weights_of_epoch": 3, "accuracy_before": 0.3, "accuracy": 0.05}
    *lines, last = (run.folder / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert last == (
        "# ended early after epoch 4: the PGD-5 accuracy on a training batch fell from 0.3000 to 0.0500; "
        "the weights are those of epoch 3"
    )
    model = load(run).inner.state_dict()
    assert same(model, weights(run, 3))
    # The same recipe again finds it done, with every epoch that it had.
    assert is_done(run.folder, keep_epochs=True)
    monkeypatch.setattr(steps, "plain", lambda *_: pytest.fail("trained again"))
    assert train(WATCHED.with_settings(settings), compute=KEPT, runs=tmp_path) == run
    (run.folder / "DONE").unlink()
    assert train(WATCHED.with_settings(settings), compute=KEPT, runs=tmp_path).metrics == run.metrics


def test_a_collapse_at_the_first_epoch_has_nothing_to_go_back_to_and_one_at_the_last_has(tmp_path, monkeypatch) -> None:
    collapsing(monkeypatch, 0.0, 0.0, 0.9, 0.9, 0.6)
    run = train(WATCHED, compute=KEPT, runs=tmp_path)
    assert run.metrics["early_stop"]["epoch"] == run.metrics["epochs"] == 5
    assert same(weights(run), weights(run, 4))


@pytest.mark.parametrize("killed_at", [3, 4])
def test_killed_at_an_epochs_end_it_ends_as_if_left_alone(tmp_path, monkeypatch, killed_at) -> None:
    accuracies = (0.5, 0.5, 0.5, 0.1)
    collapsing(monkeypatch, *accuracies)
    whole = train(WATCHED, compute=KEPT, runs=tmp_path / "whole")
    real = State.save

    def dying(self: State, *arguments: Any) -> None:
        if self.position.epoch == killed_at:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(State, "save", dying)
    collapsing(monkeypatch, *accuracies)
    with pytest.raises(KeyboardInterrupt):
        train(WATCHED, compute=KEPT, runs=tmp_path / "parts")
    monkeypatch.setattr(State, "save", real)
    collapsing(monkeypatch, *accuracies[killed_at - 1 :])
    parts = train(WATCHED, compute=KEPT, runs=tmp_path / "parts")
    assert same(weights(whole), weights(parts))
    timeless = [{k: v for k, v in run.metrics.items() if k != "seconds"} for run in (whole, parts)]
    assert timeless[0] == timeless[1]
    logs = [(run.folder / "log.csv").read_text().splitlines() for run in (whole, parts)]
    assert len(logs[0]) == len(logs[1]) == 6 and logs[0][-1] == logs[1][-1]


def test_watching_changes_no_weight_where_nothing_collapses(tmp_path, monkeypatch) -> None:
    seen: list[tuple[float, torch.Tensor]] = []
    real = early_stop.robust_accuracy

    def noting(model, attack, images, targets) -> float:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        value = real(model, attack, images, targets)
        assert same(before, model.state_dict()) and model.training
        seen.append((value, images))
        return value

    monkeypatch.setattr(early_stop, "robust_accuracy", noting)
    watched = train(WATCHED.with_settings(["epochs=2", "early_stop.drop=0.99"]), compute=KEPT, runs=tmp_path)
    alone = train(FAST.with_settings(["epochs=2"]), compute=KEPT, runs=tmp_path)
    assert watched.digest != alone.digest and same(weights(watched), weights(alone))
    assert "early_stop" not in json.loads((watched.folder / "metrics.json").read_text())
    assert len(seen) == 2 and torch.equal(seen[0][1], seen[1][1])  # the same batch after every epoch


def test_the_measure_is_a_pgd_of_the_trainings_own_size() -> None:
    images, targets = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    found = early_stop.watch(EarlyStop(), FFGSM(eps=4 / 255), images, targets)
    assert found.attack == PGD(eps=4 / 255, alpha=None, steps=5) and found.drop == 0.2
    banded = FGSM(band=Band.disc(4))
    assert early_stop.watch(EarlyStop(steps=3), banded, images, targets).attack == PGD(
        alpha=None, steps=3, band=Band.disc(4)
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
    attack = PGD(eps=0.02, alpha=None, steps=5)
    points = attack(model, images, targets)
    expected = correct(model(points), targets).float().mean().item()
    assert early_stop.robust_accuracy(model, attack, images, targets) == expected
