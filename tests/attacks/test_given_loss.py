"""Attacks up a loss that the caller gives: a detector's, a restorer's, or the usual one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from passband.attacks.given_loss import climbed, detection_loss
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import BIM, FFGSM, FGSM, PGD
from passband.attacks.registry import ATTACKS, make
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.data.objects import Objects, Targets
from passband.models.losing import losing

WALKS = [FGSM(), FFGSM(), BIM(), PGD(steps=3), PGDL2(steps=3), PGD(0.1, alpha=0.05, steps=2, step_decay=0.5)]


def classifier() -> nn.Module:
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(392, 4))
    return nn.Sequential(*layers).double()


def images(count: int = 8, size: int = 16) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    return (torch.randint(0, 256, (count, 3, size, size), generator=chance) / 255).double()


LABELS = torch.arange(8) % 4


def by_image(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(model(images), labels, reduction="none")


def summed(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return by_image(model, images, labels).sum()


def mean(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return by_image(model, images, labels).mean()


class Detector(nn.Module):
    """What :class:`passband.models.detector.Detector` does of one of torchvision's detectors, where attacks look."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor, targets: Targets | None = None) -> Any:
        if targets is None:
            return self.inner(list(images))
        with losing(self.inner):
            return self.inner(list(images), [{"boxes": one.boxes, "labels": one.labels} for one in targets])


def detector(sampling: bool = False) -> Detector:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    backbone.out_channels = 8
    anchors, sizes = AnchorGenerator(((16, 32),), ((1.0,),)), {"min_size": 64, "max_size": 64}
    few = {"rpn_batch_size_per_image": 8, "box_batch_size_per_image": 8}
    model = (
        FasterRCNN(backbone, 3, rpn_anchor_generator=anchors, **sizes, **few)
        if sampling
        else RetinaNet(backbone, 3, anchor_generator=anchors, **sizes)
    )
    for layer in (model.rpn if sampling else model).head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.2)  # torchvision's 0.01 leave a loss without a slope
    return Detector(model)


def scenes(count: int = 3) -> tuple[Tensor, Targets]:
    chance = torch.Generator().manual_seed(0)
    corners = 4 + torch.randint(0, 20, (count, 2, 2), generator=chance)
    boxes = torch.cat((corners, corners + 30), 2).float()
    labels = torch.tensor([1, 2])
    crowd = torch.zeros(2, dtype=torch.bool)
    objects = tuple(Objects(one, labels, crowd, torch.full((2,), 900.0)) for one in boxes)
    return torch.rand(count, 3, 64, 64, generator=chance), Targets(objects)


def detected(model: nn.Module, images: Tensor, targets: Targets) -> float:
    """The mean of a few losses, for Faster R-CNN draws which boxes count."""
    torch.manual_seed(0)
    with torch.no_grad():
        return float(torch.stack([detection_loss(model, images, targets) for _ in range(5)]).mean())


@pytest.mark.parametrize("attack", WALKS)
def test_the_cross_entropy_given_is_the_usual_attack_bit_for_bit(attack: PGD) -> None:
    """However it is reduced: a batch of a power of two scales the mean's gradient without rounding."""
    model, untouched = classifier(), images()
    usual = attack(model, untouched, LABELS)
    for loss in (by_image, summed, mean):
        assert torch.equal(attack(model, untouched, LABELS, loss=loss), usual)
    assert not torch.equal(usual, untouched)


def test_targeted_lowers_the_loss_and_a_band_holds() -> None:
    model, untouched = classifier().eval(), images()
    attack = PGD(steps=3, targeted=True)
    found = attack(model, untouched, LABELS, loss=mean)
    assert torch.equal(found, attack(model, untouched, LABELS))
    assert bool(mean(model, found, LABELS) < mean(model, untouched, LABELS))
    banded = PGD(steps=3, band=Band.disc(4))
    assert torch.equal(banded(model, untouched, LABELS, loss=summed), banded(model, untouched, LABELS))


def test_restarts_end_with_the_highest_loss_of_each_image() -> None:
    model, untouched = classifier().eval(), images()
    attack = PGD(8 / 255, alpha=None, steps=2, seed=3)
    several = replace(attack, n_restarts=4)(model, untouched, LABELS, loss=by_image)
    losses = by_image(model, several, LABELS)
    once = by_image(model, attack(model, untouched, LABELS, loss=by_image), LABELS)
    assert bool((losses >= once).all()) and bool((losses > once).any())
    lowest = replace(attack, n_restarts=4, targeted=True)(model, untouched, LABELS, loss=by_image)
    others = by_image(model, replace(attack, targeted=True)(model, untouched, LABELS), LABELS)
    assert bool((by_image(model, lowest, LABELS) <= others).all())
    with pytest.raises(PassbandError, match=r"one number for 8 images: return one per image"):
        replace(attack, n_restarts=4)(model, untouched, LABELS, loss=mean)
    alone = replace(attack, n_restarts=4)(model, untouched[:1], LABELS[:1], loss=mean)
    torch.testing.assert_close(alone, several[:1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampling", [False, True])
def test_pgd_raises_a_detectors_loss_inside_the_ball(sampling: bool) -> None:
    model, (untouched, targets) = detector(sampling), scenes()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.inner.head_of_mixed_modes = nn.Dropout().eval()
    modes = [module.training for module in model.modules()]
    attack = PGD(8 / 255, steps=5)
    found = attack(model, untouched, targets, loss=detection_loss)
    assert float(found.min()) >= 0 and float(found.max()) <= 1 and found.dtype == untouched.dtype
    # float32 rounds ε and x + δ once each, by at most 2^-25 below 1.
    assert 0 < float((found.double() - untouched.double()).abs().max()) <= 8 / 255 + 2**-24
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    model.eval()
    assert detected(model, found, targets) > 1.1 * detected(model, untouched, targets)
    assert torch.equal(attack.at(0)(model, untouched, targets, loss=detection_loss), untouched)
    assert torch.equal(attack(model, untouched, targets, loss=detection_loss), found)


def test_no_image_looks_at_the_others_of_its_batch() -> None:
    """Neither does a detector: its losses are means over images."""
    model, (untouched, targets) = detector().double(), scenes()
    attack = PGD(8 / 255, steps=3)
    found = attack(model, untouched.double(), targets, loss=detection_loss)
    for place in range(3):
        one = attack(model, untouched[place : place + 1].double(), targets.tensor_split(3)[place], loss=detection_loss)
        torch.testing.assert_close(one, found[place : place + 1], rtol=0, atol=1e-9)


def test_what_a_loss_draws_has_the_attacks_seed_and_leaves_the_callers() -> None:
    model, (untouched, targets) = detector(sampling=True), scenes()
    drawn: list[Tensor] = []

    def noisy(model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
        drawn.append(torch.rand(4))
        return detection_loss(model, images, targets)

    torch.manual_seed(7)
    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        PGD(steps=2, random_start=False, seed=seed)(model, untouched, targets, loss=noisy)
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (torch.stack(drawn[at : at + 2]) for at in (0, 2, 4))
    assert torch.equal(first, second) and not bool(first.eq(third).any()) and not bool(first[0].eq(first[1]).any())


def test_restoration_takes_images_as_targets() -> None:
    torch.manual_seed(0)
    model, untouched = nn.Conv2d(3, 3, 3, padding=1).double(), images()

    def distance(model: nn.Module, images: Tensor, clean: Tensor) -> Tensor:
        return (model(images) - clean).square().mean((1, 2, 3))

    found = PGD(steps=3)(model, untouched, untouched, loss=distance)
    assert bool((distance(model, found, untouched) > distance(model, untouched, untouched)).all())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_model_is_in_the_attacks_mode_and_comes_back_after_an_error(mode: str) -> None:
    model = classifier()
    model[1].eval()
    modes, seen = [module.training for module in model.modules()], []

    def failing(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        seen.append({module.training for module in model.modules()})
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise KeyError

    with pytest.raises(KeyError):
        PGD(mode=mode)(model, images(), LABELS, loss=failing)  # type: ignore[arg-type]
    assert seen == [{mode == "train"}] and [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())


def blind(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return mean(model, images, labels)


def own_weight(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """A loss whose gradient is by another thing than the images."""
    return blind(model, images, labels) * torch.ones((), requires_grad=True)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (blind, "no gradient reaches the images .* PGD follows one; let gradients through$"),
        (own_weight, "no gradient reaches the images"),
        (lambda model, images, labels: model(images), r"one per image, \[\] or \[8\]; got torch.float64 \[8, 4\]"),
        (lambda model, images, labels: {"a": images.sum()}, "got dict: .*detection_loss"),
        (lambda model, images, labels: images.sum() * float("nan"), "the loss is NaN"),
        (lambda model, images, labels: (images - images).sum().sqrt(), "gradient of NaN"),
    ],
)
def test_refuses_a_loss_that_is_none(loss: Callable[..., Any], message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        PGD()(classifier(), images(), LABELS, loss=loss)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("fgsm", "ffgsm", "bim", "pgd", "pgdl2")])
def test_attacks_with_a_loss_of_their_own_take_no_other(name: str) -> None:
    attack: Any = make(name)
    with pytest.raises(PassbandError, match=f"{type(attack).__name__} .* takes no loss; attack with pgd"):
        attack(classifier(), images(), LABELS, loss=by_image)


def test_refuses_images_that_are_no_batch_and_a_model_without_losses() -> None:
    model, (untouched, targets) = detector(), scenes()
    with pytest.raises(PassbandError, match=r"tensor .* got a list: stack them"):
        climbed(PGD(), model, list(untouched), targets, detection_loss)
    with pytest.raises(PassbandError, match="divide by 255"):
        PGD()(model, 255 * untouched, targets, loss=detection_loss)
    with pytest.raises(PassbandError, match=r"losses by name .* gave Tensor: make it with create_detector"):
        detection_loss(nn.Bilinear(2, 2, 2), torch.ones(1, 2), torch.ones(1, 2))
