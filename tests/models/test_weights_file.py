"""Weights come whole from a file that runs no code, or the network stays as it was."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.digest import digest
from passband.models.weights_file import load_weights, read_weights, save_weights
from passband.models.wrap import Classifier


def _net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, width, 1), nn.BatchNorm2d(width), nn.Flatten())


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"state_dict": {}, "state_dict_ema": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"_orig_mod.model.{name}": value for name, value in state.items()}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
)
def test_weights_are_found_where_frameworks_put_them(nest: Callable[[Any], Any], tmp_path: Path) -> None:
    source, target = _net(), _net()
    torch.save(nest(source.state_dict()), tmp_path / "weights.pt")
    assert digest(source) != digest(target)
    load_weights(target, tmp_path / "weights.pt")
    assert digest(source) == digest(target)


def test_safetensors_go_both_ways_with_their_metadata(tmp_path: Path) -> None:
    spec = ImageSpec((4, 4), (0.25, 0.5), (0.5, 0.75), "here", 2, channels=2, class_names=("a", "b"))
    source, target = Classifier(_net(), spec), Classifier(_net(), spec)
    path = save_weights(source, tmp_path / "weights.safetensors")
    file = read_weights(path)
    assert (file.mean, file.std, file.class_names) == (spec.mean, spec.std, spec.class_names)
    load_weights(target, path)
    assert digest(target) == digest(source)
    assert set(file.tensors) == set(source.inner.state_dict())  # plain names: they load in timm as they are


def _refused(path: Path, model: nn.Module | None = None) -> str:
    model = _net() if model is None else model
    before = digest(model)
    with pytest.raises(PassbandError) as caught:
        load_weights(model, path)
    assert digest(model) == before
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "there is no weights file" in _refused(tmp_path / "none.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.95])
def test_a_truncated_file_is_refused(suffix: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    save: Callable[..., Any] = torch.save if suffix == "pt" else save_file
    save(_net().state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "damaged, cut short" in _refused(path)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"state_dict": _net().state_dict(), "config": _Code(mark)}, tmp_path / "weights.pt")
    assert "would run code" in _refused(tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Code(mark), protocol=2))
    assert "would run code" in _refused(tmp_path / "plain.pt")
    assert not mark.exists()


def test_something_else_than_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    assert "holds no state dict" in _refused(tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("not weights")
    assert "damaged, cut short" in _refused(tmp_path / "text.pt")


def test_another_architecture_is_told_by_names_shapes_and_counts(tmp_path: Path) -> None:
    torch.save(_net(5).state_dict(), tmp_path / "wider.pt")
    text = _refused(tmp_path / "wider.pt")
    assert "another architecture" in text and "6 differ in shape" in text
    assert "'0.weight': [5, 2, 1, 1] in the file, [3, 2, 1, 1] in the model" in text
    torch.save(nn.Sequential(nn.Linear(2, 3), nn.Identity(), nn.Linear(3, 1)).state_dict(), tmp_path / "o.pt")
    text = _refused(tmp_path / "o.pt")
    assert "of the model's 7 tensors are missing, first '1.weight'" in text
    assert "2 of the file's 4 are not the model's" in text and "first '2.weight'" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named_by_its_tensor(value: float, tmp_path: Path) -> None:
    state = _net().state_dict()
    state["1.running_var"][1] = value
    torch.save(state, tmp_path / "weights.pt")
    assert "1 of 3 values of '1.running_var' are NaN or infinite" in _refused(tmp_path / "weights.pt")


def test_a_digest_sees_every_weight_buffer_name_and_type() -> None:
    torch.manual_seed(0)
    net = _net()
    found = {digest(net)}
    net[1].running_mean[0] += 1e-6  # type: ignore[index,operator]
    found.add(digest(net))
    found.add(digest(nn.Sequential(net)))
    with torch.no_grad():
        net[0].weight[0, 0] += 1e-6  # type: ignore[index,operator]
    found.add(digest(net))
    spec = ImageSpec((4, 4), (0.25,), (0.5,), "here", 2, channels=2)
    other = ImageSpec((4, 4), (0.5,), (0.5,), "here", 2, channels=2)
    found |= {digest(Classifier(net, spec)), digest(Classifier(net, other)), digest(net.bfloat16())}
    assert len(found) == 7
