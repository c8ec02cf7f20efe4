"""The edit that is written, and that it is the model that was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from passband.core.results import Column, Table
from passband.models.create import create
from passband.sweeps import hardening
from passband.sweeps.resolve import Subject, subject
from passband.weights.edits import edited

IMAGES = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def asked() -> Subject:
    torch.manual_seed(0)
    model = create("small_lenet", classes=4, size=28, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Subject.of("small_lenet", model.eval())


def test_edited_weights_load_in_plain_timm(asked: Subject, tmp_path: Path) -> None:
    path = hardening.write(asked, "small_lenet", ("smooth-first", 0.5), tmp_path)
    assert path.name == "hardened.safetensors"
    plain = timm.create_model("small_lenet", num_classes=4, checkpoint_path=str(path)).eval()
    expected = edited(asked.model, "smooth-first", 0.5)(IMAGES)
    torch.testing.assert_close(plain((IMAGES - 0.5) / 0.25), expected)
    assert not torch.allclose(asked.model(IMAGES), expected)


def test_a_changed_architecture_comes_as_a_file_that_makes_it(asked: Subject, tmp_path: Path) -> None:
    path = hardening.write(asked, "small_lenet", ("low-pass-input", 8.0), tmp_path)
    assert path.name == "hardened.py"
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
