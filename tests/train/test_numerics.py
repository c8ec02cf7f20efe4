"""A training whose numbers are lost stops and says where, and deterministic operations are the default."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.train import steps
from passband.train.checkpoint import read
from passband.train.determinism import deterministic
from passband.train.run import train

TINY = Recipe.of({
    "model": {"name": "small_lenet"}, "data": {"name": "photos", "part": 24, "size": 28}, "batch": 8, "epochs": 2,
    "normalize": "none", "augment": [],
})  # fmt: skip
EVERY_STEP = Compute(device="cpu", threads=1, checkpoint_seconds=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_step_images_and_checkpoint(value, monkeypatch, tmp_path) -> None:
    real, seen = steps.plain, []

    def spoiled(model, images, targets, number):
        loss, logits = real(model, images, targets, number)
        seen.append(images)
        return (loss * value, logits) if number == 4 else (loss, logits)

    monkeypatch.setattr(steps, "plain", spoiled)
    with pytest.raises(PassbandError) as refused:
        train(TINY, compute=EVERY_STEP, runs=tmp_path)
    said = str(refused.value)
    assert "at epoch 2, step 2" in said and "of epoch 1 and 1 steps" in said
    # The images that it names are the ones that the step learned from.
    from passband.train.build import batches, training_set

    dataset = training_set(TINY)
    named = batches(TINY, dataset).ids(1, 1)
    assert len(named) == 8 and ", ".join(named) in said
    held = dataset.subset([dataset.ids.index(name) for name in named])
    assert torch.equal(next(iter(held.batches(8)))[0], seen[-1])
    # What it points to is good, and the same command goes on from there.
    checkpoint = read(next(tmp_path.glob("*/checkpoint.pt")))
    assert all(weight.isfinite().all() for weight in checkpoint["model"].values())
    monkeypatch.undo()
    resumed, whole = (
        train(TINY, compute=EVERY_STEP, runs=tmp_path),
        train(TINY, compute=EVERY_STEP, runs=tmp_path / "w"),
    )
    first, second = ((run.folder / "weights.safetensors").read_bytes() for run in (resumed, whole))
    assert first == second


def test_weights_that_are_no_numbers_are_not_kept(monkeypatch, tmp_path) -> None:
    """The loss of the step is finite; its gradient is not."""
    real = steps.plain

    def steep(model, images, targets, number):
        loss, logits = real(model, images, targets, number)
        if number == 2:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss, logits

    monkeypatch.setattr(steps, "plain", steep)
    with pytest.raises(PassbandError, match=r"is not finite after epoch 1, step 3 \(images .* of epoch 0 and 2 steps"):
        train(TINY, compute=EVERY_STEP, runs=tmp_path)
    assert read(next(tmp_path.glob("*/checkpoint.pt")))["position"]["step"] == 2


def test_a_training_is_deterministic_and_says_so(tmp_path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    run = train(TINY.with_settings(["epochs=1"]), compute=EVERY_STEP, runs=tmp_path)
    assert json.loads((run.folder / "environment.json").read_text())["deterministic"] is True
    assert "nondeterministic_operations" not in run.metrics
    assert torch.are_deterministic_algorithms_enabled() == before


def test_operations_without_a_deterministic_form_are_gathered_and_other_warnings_stay() -> None:
    with deterministic() as met:
        assert torch.are_deterministic_algorithms_enabled()
        for _ in range(2):
            warnings.warn("some_op does not have a deterministic implementation, but you set", stacklevel=1)
        with pytest.warns(UserWarning, match="of another kind"):
            warnings.warn("a warning of another kind", stacklevel=1)
    assert met == ["some_op"]
