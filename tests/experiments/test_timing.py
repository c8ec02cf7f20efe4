"""Times of steps and of layers: what is run, how often, and that each gradient is computed by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from passband.core import rounds
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments import timing
from passband.experiments.spatial_mixing import settings
from passband.sweeps.lab import Lab


def separable(path: str, learn: str = "all", **fields: Any) -> Recipe:
    model = {"name": "separable_resnet", "depth": 1, "width": 2, "multiplier": 9, "path": path}
    return Recipe.of({"model": model, "learn": learn, "data": {"size": 16}, "batch": 4} | fields)


def mixer() -> Recipe:
    model = {"name": "conv_mixer", "depth": 2, "width": 4, "kernel": 4, "patch": 1}
    return Recipe.of(
        {"model": model, "learn": "channels", "learn_options": settings.STEM, "data": {"size": 8}, "batch": 4}
    )


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Scale.SMOKE, "passband test", runs=tmp_path / "runs", compute=Compute(device="cpu"))


def test_every_variant_runs_once_a_round_in_changing_order() -> None:
    ran: list[str] = []
    seconds = timing.interleaved({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=5)
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys("abc", 5)
    rounds = [tuple(ran[start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds) and len(set(rounds)) > 1
    with pytest.raises(PassbandError, match="1 round or more; got 0"):
        timing.interleaved({}, rounds=0)


def test_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 200.0, 201.0, 300.0, 302.0])
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: next(clock))
    assert timing.interleaved({"a": lambda: None}, rounds=2) == {"a": [1.0, 2.0]}


def test_a_recipes_seconds_are_measured_once_whatever_its_seed_and_epochs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = torch.get_rng_state()
    first = timing.step_seconds({"all": separable("composed"), "channels": separable("composed", "channels")}, lab, 2)
    assert set(first) == {"all", "channels"} and min(first.values()) > 0
    assert torch.equal(drawn, torch.get_rng_state())
    monkeypatch.setattr(timing, "interleaved", None)  # a second measurement would fail
    again = {name: separable("composed", name, seed=3, epochs=7) for name in ("all", "channels")}
    assert timing.step_seconds(again, lab, 2) == first
    with pytest.raises(TypeError):
        timing.step_seconds({"all": separable("composed", batch=6)}, lab, 2)


@pytest.mark.parametrize(
    "fields",
    [{"attack": {"name": "fgsm"}}, {"ema": {"decay": 0.9}, "normalize": "none"}, {"optimizer": {"name": "adamw"}}],
)
def test_a_step_is_the_recipes_own_and_moves_no_weight(fields: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    model_of = timing.model_of
    monkeypatch.setattr(timing, "model_of", lambda recipe: made.append(model_of(recipe)) or made[-1])
    step = timing.training_step(separable("composed", "channels", **fields), "cpu")
    model, report = made[0]
    before = {name: value.clone() for name, value in model.named_parameters()}
    step()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    learned = sum(value.numel() for value in model.parameters() if value.grad is not None and value.grad.any())
    assert 0 < learned <= report.learned
    assert all(value.grad is None for name, value in model.named_parameters() if "depthwise" in name)


def test_the_layers_of_a_factored_network_are_apart_and_those_of_a_composed_one_together() -> None:
    factored = timing.layers(separable("factored"), "cpu")
    assert [layer.kind for layer in factored] == ["spatial", "channel"] * 7
    assert [layer.shape for layer in factored[:4]] == [(4, 3, 16, 16), (4, 27, 16, 16), (4, 2, 16, 16), (4, 18, 16, 16)]
    assert [layer.inner for layer in factored] == [False] + [True] * 13
    counts = timing._counted(factored)
    assert sum(counts.values()) == 14 and max(counts.values()) == 2  # the first stage's two convolutions
    assert [layer.kind for layer in timing.layers(separable("composed"), "cpu")] == ["composed"] * 7


def test_a_patch_projection_is_no_layer_of_either_kind() -> None:
    found = timing.layers(mixer(), "cpu")
    assert [layer.kind for layer in found] == ["spatial", "channel"] * 2
    assert all(layer.shape == (4, 4, 8, 8) and layer.inner for layer in found)
    assert set(timing._counted(found).values()) == {2}


class Backwards(TorchDispatchMode):
    """Note which gradients each convolution's backward pass is asked for: input, weight, bias."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution_backward.default:
            self.asked.append(list(args[-1]))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", [separable("factored"), separable("composed"), mixer()], ids=["two", "one", "mixer"])
def test_each_gradient_is_computed_by_itself(recipe: Recipe) -> None:
    bias = recipe.model.name == "conv_mixer"
    for layer in timing.layers(recipe, "cpu"):
        passes = dict(timing._passes(layer, "cpu"))
        assert (f"{layer.kind} input gradient" in passes) == layer.inner
        for name, run in passes.items():
            with Backwards() as backwards:
                run()
            if name.endswith("forward"):
                assert backwards.asked == []
            elif name.endswith("input gradient"):
                assert backwards.asked == [[True, False, False]]
            else:
                # A composed layer needs its dense weight gradient for either mixing.
                assert backwards.asked == [[False, True, bias]]


def test_layer_times_count_alike_layers_as_often_as_they_occur(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "interleaved", lambda variants, rounds: {name: [1.0, 2.0] for name in variants})
    found = timing.layer_rounds(separable("factored"), lab, 2)
    assert found == {
        "spatial forward": [7, 14], "spatial input gradient": [6, 12], "spatial weight gradient": [7, 14],
        "channel forward": [7, 14], "channel input gradient": [7, 14], "channel weight gradient": [7, 14],
    }  # fmt: skip
    composed = timing.layer_rounds(separable("composed"), lab, 2)
    assert composed["composed weight gradient"] == composed["spatial weight gradient"] == [7, 14]
    assert composed["composed input gradient"] == [6, 12] and "spatial forward" not in composed


def test_a_first_round_that_used_up_the_budget_is_counted() -> None:
    calls: list[str] = []
    found = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 5, budget=0.0)
    assert sorted(calls) == ["a", "b"] and [len(seconds) for seconds in found.values()] == [1, 1]
