"""The edit that is written, and that it is the model that was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.core.results import Column, Table
from passband.models.create import create
from passband.sweeps import hardening
from passband.sweeps.resolve import Subject, subject
from passband.train.run import train
from passband.weights.edits import edited

IMAGES = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def asked() -> Subject:
    torch.manual_seed(0)
    model = create("small_lenet", classes=4, size=28, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Subject.of("small_lenet", model.eval())


def test_edited_weights_load_in_plain_timm(asked: Subject, tmp_path: Path) -> None:
    path = hardening.write(asked, "small_lenet", ("smooth-first", 0.5), tmp_path)
    weights = path.with_name("hardened.safetensors")
    plain = timm.create_model("small_lenet", num_classes=4, checkpoint_path=str(weights)).eval()
    again = subject(f"{path}:model").model
    torch.testing.assert_close(again(IMAGES), edited(asked.model, "smooth-first", 0.5)(IMAGES))
    expected = edited(asked.model, "smooth-first", 0.5)(IMAGES)
    torch.testing.assert_close(plain((IMAGES - 0.5) / 0.25), expected)
    assert not torch.allclose(asked.model(IMAGES), expected)


def test_a_changed_architecture_comes_as_a_file_that_makes_it(asked: Subject, tmp_path: Path) -> None:
    path = hardening.write(asked, "small_lenet", ("low-pass-input", 8.0), tmp_path)
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["hardened.py", "unedited.safetensors"]
    again = subject(f"{path}:model").model
    torch.testing.assert_close(again(IMAGES), edited(asked.model, "low-pass-input", 8.0)(IMAGES))
    assert again.spec.mean == (0.5,) * 3 and again.spec.classes == 4


def table(*rows: tuple) -> tuple[Table]:
    columns = ("edit", "strength", "clean", "robust", "judged")
    return (
        Table(name="harden.frontier", title="t", columns=tuple(Column(name=name) for name in columns), rows=rows),
    )  # fmt: skip


def test_the_best_is_the_most_robust_that_is_no_illusion_and_not_too_dear() -> None:
    base = ("unedited", None, 0.9, 0.1, "")
    hidden, dear = ("smooth-first", 1.0, 0.9, 0.8, "only hides gradients"), ("a", 1.0, 0.6, 0.7, "more robust")
    good, better = ("b", 1.0, 0.89, 0.2, "more robust"), ("b", 2.0, 0.885, 0.3, "more robust")
    found = table(base, hidden, dear, good, better)
    assert hardening.best(found, 0.02) == ("b", 2.0)
    assert hardening.best(found, 0.4) == ("a", 1.0)
    assert hardening.best(table(base, hidden), 1.0) is None
    assert hardening.judgment(found, ("smooth-first", 1.0)) == "only hides gradients"


def test_another_edit_leaves_nothing_of_the_one_before(asked: Subject, tmp_path: Path) -> None:
    hardening.write(asked, "small_lenet", ("low-pass-input", 8.0), tmp_path)
    path = hardening.write(asked, "small_lenet", ("smooth-first", 1.0), tmp_path)
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["hardened.py", "hardened.safetensors"]
    torch.testing.assert_close(subject(f"{path}:model").model(IMAGES), edited(asked.model, "smooth-first", 1.0)(IMAGES))
    with pytest.raises(PassbandError, match="choose another folder"):
        hardening.write(asked, f"{path}:model", ("smooth-first", 1.0), tmp_path)


@pytest.mark.parametrize("choice", [("smooth-first", 0.5), ("low-pass-input", 16.0)])
def test_a_run_is_made_again_as_it_saw_its_images(choice: tuple[str, float], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PASSBAND_RUNS", str(tmp_path / "runs"))
    recipe = Recipe.of(
        {
            "model": {"name": "hfc_resnet32", "depth": 1, "width": 4, "norm": "batch"},
            "data": {"name": "photos", "part": 64}, "epochs": 1, "batch": 32,
        }
    )  # fmt: skip
    run = train(recipe, compute=Compute(device="cpu", watched=10))
    asked = subject(run.digest)
    again = subject(f"{hardening.write(asked, run.digest, choice, tmp_path / 'out')}:model").model
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images), edited(asked.model, *choice)(images))
    assert again.spec.fit == asked.model.spec.fit == "pad" and again.spec.mean == asked.model.spec.mean
