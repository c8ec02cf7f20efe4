"""A 2-bit and a 4-bit model train, come back from disk as they were, and go out as ONNX by a command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from passband.cli import main
from passband.core.compute import Compute
from passband.core.recipe import Recipe
from passband.train import build
from passband.train.run import load, train
from passband.weights.quantize import describe


@pytest.mark.parametrize("bits", [2, 4])
def test_a_quantized_run_answers_as_the_model_that_was_trained(bits: int, tmp_path: Path, monkeypatch) -> None:
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(50))
    recipe = Recipe.of(
        {
            "model": {"name": "postact_resnet", "depth": 1, "width": 4},
            "quantize": {"bits": bits, "ends": 8, "frequency_aware": bits == 2},
            "data": {"name": "photos", "part": 64},
            "normalize": "none",
            "attack": {"name": "pgd", "steps": 2},
            "epochs": 1,
            "batch": 32,
        }
    )
    run = train(recipe, compute=Compute(device="cpu", keep_epochs=True), runs=tmp_path)
    loaded = load(run)
    assert describe(loaded).plain() == run.metrics["quantized"]
    assert run.metrics.get("masks", {}).keys() == ({"1"} if bits == 2 else set())
    trained, _ = build.trainable_model(recipe, loaded.spec)
    trained.load_state_dict(torch.load(run.folder / "checkpoint.pt", weights_only=True)["model"])
    images = torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), trained.eval()(images))
    if bits == 2:
        with pytest.raises(SystemExit) as end:
            main(["export", str(run.folder), str(tmp_path / "model.onnx")])
        assert end.value.code == 0
        assert (tmp_path / "model.onnx").stat().st_size > 1000
