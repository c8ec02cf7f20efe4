"""No weaker than torchattacks on 256 real images and the kept ResNet-20: `pytest -m "slow and data"`, ten minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.auto_pgd import APGD, APGDT
from passband.attacks.evaluate import robust_accuracy
from passband.attacks.fab import FAB
from passband.attacks.registry import Attack
from passband.attacks.square import Square
from passband.data import catalog
from passband.models.create import create

pytestmark = [pytest.mark.slow, pytest.mark.data]
WEIGHTS = Path(__file__).parents[2] / "benchmarks" / "networks" / "natural.safetensors"
EPS = 2.4 / 255
PAIRS: list[tuple[Attack, str, dict[str, Any]]] = [
    (APGD(eps=EPS, steps=20), "APGD", {"steps": 20}),
    (APGD(eps=EPS, steps=20, loss="dlr"), "APGD", {"steps": 20, "loss": "dlr"}),
    (APGDT(eps=EPS, steps=20), "APGDT", {"steps": 20}),
    (FAB(eps=EPS, steps=10), "FAB", {"steps": 10}),
    (FAB(eps=EPS, steps=10, multi_targeted=True), "FAB", {"steps": 10, "multi_targeted": True}),
    (Square(eps=EPS, n_queries=300), "Square", {"n_queries": 300}),
]


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Tensor, Tensor]:
    model = create("postact_resnet", depth=3, activation="relu", classes=10, size=32, weights=WEIGHTS)
    dataset = catalog.load("fashion-mnist", "test", size=(32, 32), limit=256)
    ((images, labels),) = dataset.batches(256)
    return model.eval(), images, labels


@pytest.mark.parametrize(("attack", "name", "options"), PAIRS, ids=lambda value: getattr(type(value), "__name__", ""))
def test_no_weaker_than_torchattacks(
    attack: Attack, name: str, options: dict[str, Any], problem: tuple[nn.Module, Tensor, Tensor]
) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="needs the bench extra")
    model, images, labels = problem
    theirs = getattr(torchattacks, name)(model, eps=EPS, **options)(images, labels)
    with torch.no_grad():
        right = model(images).argmax(1) == labels
        standing = int(((model(theirs).argmax(1) == labels) & right).sum())
    found = robust_accuracy(model, [(images, labels)], attack, verdict="last")
    print(f"{name} {options}: {int(found.correct.sum())} stand under ours, {standing} under theirs, of {len(images)}")
    assert int(found.correct.sum()) <= standing + 1
