"""Robust accuracy does not depend on how the data set was cut, and counts as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.attacks.evaluate import robust_accuracy
from passband.attacks.gradient_sign import FGSM, PGD, PRESETS
from passband.core.errors import PassbandError
from passband.core.statistics import wilson

EPS = (0.0, 1 / 255, 4 / 255, 16 / 255)


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A float32 network with running statistics, and labels that it gets right on most images."""
    torch.manual_seed(1)
    layers = (
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
    )
    model = nn.Sequential(*layers, nn.Linear(8 * 5 * 5, 4))
    images = torch.randint(0, 256, (90, 3, 16, 16)) / 255
    with torch.no_grad():
        model(images)
        targets = model.eval()(images).argmax(1)
    targets[::9] = (targets[::9] + 1) % 4
    return model, images, targets


def cut(images: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(size), targets.split(size), strict=True))


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5)], ids=str)
def test_same_verdicts_at_every_batch_size_and_order(attack: FGSM | PGD) -> None:
    model, images, targets = problem()
    found = robust_accuracy(model, cut(images, targets, 90), attack, EPS, working_batch=16)
    assert found.accuracy[0] == found.clean.mean() == 80 / 90 and 0 < found.accuracy[2] < found.accuracy[1]
    for size in (1, 7, 32):
        other = robust_accuracy(model, cut(images, targets, size), attack, EPS, working_batch=16)
        assert np.array_equal(other.correct, found.correct)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    other = robust_accuracy(model, cut(images[order], targets[order], 32), attack, EPS, working_batch=16)
    assert np.array_equal(other.correct, found.correct[:, order.numpy()])


def test_only_images_that_are_right_are_attacked() -> None:
    model, images, targets = problem()
    attacked: list[Tensor] = []

    class Watched(FGSM):
        def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            attacked.append(images)
            return super().__call__(model, images, labels)

    found = robust_accuracy(model, cut(images, targets, 90), Watched(), [4 / 255], working_batch=20)
    assert [len(batch) for batch in attacked] == [20, 20, 20, 20]
    assert torch.equal(torch.cat(attacked), images[torch.from_numpy(found.clean)])
    assert not found.correct[0][~found.clean].any()


def test_intervals_are_wilsons() -> None:
    model, images, targets = problem()
    found = robust_accuracy(model, cut(images, targets, 90), FGSM(), [0])
    assert found.intervals() == (wilson(80, 90),)


def test_model_is_left_as_it_was() -> None:
    model, images, targets = problem()
    model[1].train()
    modes = [part.training for part in model.modules()]
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    robust_accuracy(model, cut(images, targets, 32), PGD(steps=1), [4 / 255])
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: ([], FGSM(), [0.1]), "there is no image"),
        (lambda x, y: ([(x * 2, y)], FGSM(), [0]), r"\[0, 1\] is needed"),
        (lambda x, y: ([(x, y + 4)], FGSM(), [0.1]), "labels lie in 0 to 3"),
        (lambda x, y: ([(x, y)], FGSM(), [4]), "write 4/255"),
        (lambda x, y: ([(x, y)], PGD(mode="train"), [0.1]), "evaluation mode"),
    ],
)
def test_refuses(change, message: str) -> None:
    model, images, targets = problem()
    with pytest.raises(PassbandError, match=message):
        robust_accuracy(model, *change(images, targets))


def test_alpha_keeps_its_share_of_eps() -> None:
    assert PGD(0.2, alpha=0.05).at(0.4) == PGD(0.4, alpha=0.1)
    assert PGD(0.2, alpha=0.05).at(0.4, scale=False) == PGD(0.4, alpha=0.05)
    assert PGD(0.2, alpha=None).at(0.4).step == 0.1
    assert {name: round(pgd.eps / pgd.step, 9) for name, pgd in PRESETS.items()} == {
        "adversarial-focus": 4,
        "high-frequency": 30,
        "spatial-mixing": 2,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 1 or more"),
        ({"alpha": 2}, "alpha lies in 0 to 1"),
        ({"alpha": 0}, "not move"),
    ],
)
def test_pgd_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        PGD(**options)


def test_random_start_has_its_seed() -> None:
    model, images, targets = problem()
    first, again, other = (PGD(steps=1, seed=seed)(model, images, targets) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
