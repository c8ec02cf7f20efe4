"""The standard evaluation is AutoAttack's members, each on what the ones before it left standing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from passband.attacks.auto_pgd import APGD, APGDT
from passband.attacks.evaluate import robust_accuracy
from passband.attacks.fab import FAB
from passband.attacks.square import Square
from passband.attacks.standard import Standard, Version
from passband.core.errors import PassbandError


class Planes(nn.Module):
    """Logits that are planes over the pixels, whose worst margins are known."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(48, classes, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight


def problem(count: int = 40) -> tuple[Planes, Tensor, Tensor]:
    """Images whose pixels keep 0.2 from both ends, and the model's own answers."""
    generator = torch.Generator().manual_seed(4)
    model, images = Planes(), 0.2 + 0.6 * torch.rand(count, 3, 4, 4, generator=generator)
    return model, images, model(images).argmax(1)


def stands_at(model: Planes, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    logits, weight = model(images).detach(), model.weight.detach()
    steepness = (weight[:, labels].T[:, :, None] - weight[None]).abs().sum(1)
    margins = logits.gather(1, labels[:, None]) - logits - eps * steepness
    return margins.scatter(1, labels[:, None], float("inf")).amin(1) > 0


def test_members_are_autoattacks() -> None:
    apgdt, fabt = APGDT(steps=100), FAB(steps=100, multi_targeted=True)
    square = Square(n_queries=5000, resc_schedule=False)
    assert Standard().members == (APGD(steps=100), apgdt, fabt, square)
    assert Standard(version="plus").members == (
        APGD(steps=100, n_restarts=5),
        APGD(steps=100, n_restarts=5, loss="dlr"),
        FAB(steps=100, n_restarts=5),
        square,
        apgdt,
        fabt,
    )
    assert Standard(version="rand").members == (
        APGD(steps=100, eot_iter=20),
        APGD(steps=100, eot_iter=20, loss="dlr"),
    )


@pytest.mark.parametrize("version", get_args(Version))
def test_members_take_its_options(version: Version) -> None:
    attack = Standard("Linf", 0.1, version, n_classes=7, seed=3).at(0.2)
    assert attack == Standard("Linf", 0.2, version, n_classes=7, seed=3)
    for norm in ("Linf", "L2"):
        for member in Standard(norm, 0.2, version, n_classes=7, seed=3).members:
            assert (member.norm, member.eps, member.seed, member.mode) == (norm, 0.2, 3, "eval")
            assert getattr(member, "n_classes", 7) == 7


@dataclass
class Recolor:
    """Paint some images in the color that fools; remember what it was given."""

    fools: tuple[float, ...]
    given: list[float] = field(default_factory=list)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        shades = images[:, 0, 0, 0]
        self.given += shades.tolist()
        hit = torch.isin(shades, torch.tensor(self.fools))
        return torch.where(hit.view(-1, 1, 1, 1), torch.full_like(images, 0.75), torch.full_like(images, 0.25))


def test_each_member_sees_what_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            light = images.mean((1, 2, 3)) - 0.5
            return torch.stack((-light, light), 1)

    members = (Recolor((0.125,)), Recolor((0.125, 0.375)), Recolor(()))
    monkeypatch.setattr(Standard, "members", property(lambda self: members))
    shades = torch.tensor([0.0625, 0.125, 0.25, 0.375, 0.875])
    images = shades.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    model = Bright().train()
    found = Standard()(model, images, torch.zeros(5, dtype=torch.int64))
    # The last image is wrong untouched: nobody is shown it. One that stands comes back as it was.
    assert [member.given for member in members] == [[0.0625, 0.125, 0.25, 0.375], [0.0625, 0.25, 0.375], [0.0625, 0.25]]
    assert found[:, 0, 0, 0].tolist() == [0.0625, 0.75, 0.25, 0.75, 0.875]
    assert model.training and found.is_contiguous(memory_format=torch.channels_last)


def test_ends_when_nothing_stands() -> None:
    """At a radius where every image falls to the first member the 5000 queries of Square are never asked."""
    model, images, labels = problem()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    found = Standard(eps=0.2)(model, images, labels)
    assert len(calls) < 150 and bool((model(found).argmax(1) != labels).all())
    assert float((found - images).abs().max()) <= 0.2 + 1e-6


@pytest.mark.slow
def test_verdicts_are_the_worst_margins() -> None:
    """Alone and in an evaluation, which takes the members apart, an image stands where its worst margin is above 0."""
    model, images, labels = problem()
    eps = 0.005
    stands = stands_at(model, images, labels, eps)
    assert 8 < int(stands.sum()) < 32
    attack = Standard(eps=eps)
    assert torch.equal(model(attack(model, images, labels)).argmax(1) == labels, stands)
    found = robust_accuracy(model, [(images, labels)], attack, [eps])
    assert torch.equal(torch.from_numpy(found.correct[0]), stands) and len(found.attacks) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 8.0}, "write 8/255"),
        ({"n_classes": 1}, "n_classes is 2 or more"),
    ],
)
def test_refuses_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        Standard(**options)
    assert "\n" not in str(caught.value)


def test_refuses_a_version_that_is_none() -> None:
    attack = Standard()
    object.__setattr__(attack, "version", "fast")  # past the annotations, which only tests enforce
    with pytest.raises(PassbandError, match="unknown version 'fast'"):
        attack.__post_init__()


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda x, y: (2 * x, y), "divide by 255"), (lambda x, y: (x, y + 5), "labels lie in 0 to 4")],
)
def test_refuses_images_and_labels(change, message: str) -> None:
    model, images, labels = problem(4)
    with pytest.raises(PassbandError, match=message):
        Standard()(model, *change(images, labels))


def test_refuses_a_model_of_few_classes() -> None:
    _, images, _ = problem(4)
    model = Planes(3)
    with pytest.raises(PassbandError, match="needs 4 classes or more; this model has 3"):
        Standard(eps=1e-6)(model, images, model(images).argmax(1))
