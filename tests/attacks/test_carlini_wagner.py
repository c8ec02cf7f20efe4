"""Carlini and Wagner's attack: as torchattacks in its compat mode, near the truth and free of the batch without."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.carlini_wagner import CW
from passband.attacks.search import asked, begun
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import keep
from passband.models.state import frozen

OLD, NEW = "torchattacks-3.2", "torchattacks-3.5.1"


def patterns(count: int) -> tuple[Tensor, Tensor]:
    """Images of four classes, a pattern of each and noise, a fifth of the pixels at 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.rand(4, 3, 10, 10, generator=generator)
    labels = torch.arange(count) % 4
    noise = torch.randn(count, 3, 10, 10, generator=generator)
    return (0.5 + 0.5 * (shapes[labels] - 0.5) + 0.3 * noise).clamp(0, 1), labels


@cache
def learned() -> nn.Module:
    """A convolutional network that knows the patterns."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 4),
    )
    model = nn.Sequential(*layers)
    images, labels = patterns(128)
    parameters = list(model.parameters())
    for _ in range(30):
        gradients = torch.autograd.grad(functional.cross_entropy(model(images), labels), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.2 * gradient
    return model.eval()


def trained(shift: float = 0.0) -> nn.Module:
    """A copy of the network, all its logits moved by ``shift``."""
    model = deepcopy(learned())
    model[6].bias.data += shift
    return model


def fooled(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1) != labels


def calls(model: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What a run returns, and how often it asked the model."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = model.register_forward_hook(counted)
    found = run()
    hook.remove()
    return found, count


@pytest.mark.parametrize("compat", [NEW, OLD])
@pytest.mark.parametrize("shift", [0.0, -2.0], ids=["mixed", "negative"])
def test_agrees_with_torchattacks(compat: Any, shift: float) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="needs the bench extra")

    class Old(torchattacks.CW):
        def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
            """Version 3.2: the label's own logit is exact."""
            kind = functional.one_hot(labels, outputs.shape[1])
            return torch.clamp(outputs[kind.bool()] - ((1 - kind) * outputs).amax(1), min=-self.kappa)

    model, (images, labels) = trained(shift), patterns(16)
    labels[3] = (labels[3] + 1) % 4  # wrong when untouched
    assert bool((images == 0).any() & (images == 1).any())
    largest, stopped, broken = 0.0, 0, 0
    for size in (1, 7, 16):
        for options in (
            {"steps": 30},
            {"c": 0.3, "kappa": 1.5, "steps": 25, "lr": 0.02},
            {"steps": 4, "lr": 0.3, "c": 20.0},
        ):
            x, y, attack = images[-size:], labels[-size:], CW(**options, compat=compat)
            other = (torchattacks.CW if compat == NEW else Old)(
                model, c=attack.c, kappa=attack.kappa, steps=attack.steps, lr=attack.lr
            )
            theirs, asked_theirs = calls(model, lambda other=other, x=x, y=y: other(x, y))
            ours, asked_ours = calls(model, lambda attack=attack, x=x, y=y: attack(model, x, y))
            assert asked_ours == asked_theirs
            largest = max(largest, float((ours - theirs).abs().max()))
            stopped += asked_ours < attack.steps
            broken += int((ours != x).any((1, 2, 3)).sum())
    print(f"CW {compat}, shift {shift:g}: largest difference {largest:.3g}; {broken} broken, {stopped} of 9 stopped")
    assert largest <= 1e-6
    if shift == 0:
        assert broken and 0 < stopped < 9


def test_agrees_with_torchattacks_towards_a_class() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="needs the bench extra")
    model, (images, labels) = trained(), patterns(16)
    goals = (labels + 1) % 4
    other = torchattacks.CW(model, c=5, steps=60)
    other.set_mode_targeted_by_label(quiet=True)
    ours = CW(c=5.0, steps=60, targeted=True, compat=NEW)(model, images, goals)
    largest = float((ours - other(images, goals)).abs().max())
    print(f"CW targeted: largest difference {largest:.3g}")
    assert largest <= 1e-6 and not fooled(model, ours, goals).all()


def test_negative_logits_blind_the_compat_modes_alone() -> None:
    """Shifted logits are the same classifier; products with a one-hot lose its margins."""
    images, labels = patterns(16)

    def broken(shift: float, **options: Any) -> int:
        model = trained(shift)
        return int(fooled(model, CW(c=20.0, steps=25, lr=0.02, **options)(model, images, labels), labels).sum())

    assert broken(0) == broken(-20) == 16
    assert broken(0, compat=NEW) > 8 and broken(-20, compat=NEW) == 0
    # With κ above the shift the label's exact logit has a slope left, its product with a one-hot has none.
    assert broken(-20, kappa=40.0, compat=OLD) > 8 and broken(-20, kappa=40.0, compat=NEW) == 0


@pytest.mark.parametrize(
    "attack",
    [CW(steps=20), CW(search_steps=3, steps=15, lr=0.03), CW(c=20.0, steps=20, lr=0.03, band=Band.disc(3))],
    ids=["one c", "search", "band"],
)
def test_depends_on_no_other_image(attack: CW) -> None:
    model, (images, labels) = trained().double(), patterns(6)
    images = images.double()
    together = attack(model, images, labels)
    assert fooled(model, together, labels).sum() >= 3 and not attack.couples_batch
    alone = torch.cat([attack(model, images[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert float((alone - together).abs().max()) < 1e-9
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert float((attack(model, images[order], labels[order]) - together[order]).abs().max()) < 1e-9


def test_rows_may_join_at_any_step() -> None:
    attack, model, (images, labels) = CW(c=0.1, search_steps=3, steps=10), trained().double(), patterns(6)
    images = images.double()
    with frozen(model):
        rows = begun(attack, images[:3], labels[:3])
        for number in range(attack.queries + 15):
            if number == 15:
                rows = rows.joined(begun(attack, images[3:], labels[3:]))
            said = asked(attack, model, rows)
            live = ~(rows.done | (rows.step >= attack.queries))
            after = rows.take(torch.arange(len(rows)))
            attack.advance(after, said)
            after.step += 1
            # Rows that have ended stay as they are, as in a pool that took them out.
            both = rows.joined(after)
            rows = both.take(torch.arange(len(rows)) + len(rows) * live)
        assert bool((rows.done | (rows.step >= attack.queries)).all())
    assert float((attack.answer(rows) - attack(model, images, labels)).abs().max()) < 1e-9


def test_batch_decides_in_compat_mode() -> None:
    model, (images, labels) = trained(), patterns(16)
    attack = CW(lr=0.05, steps=20, compat=NEW)
    assert attack.couples_batch
    together = attack(model, images, labels)
    alone = torch.cat([attack(model, images[i : i + 1], labels[i : i + 1]) for i in range(16)])
    assert float((alone - together).abs().max()) > 0.01
    with pytest.raises(PassbandError, match="couples the images of a batch"):
        attack.search()


def test_pixels_at_the_ends_move() -> None:
    model, (images, _) = trained(), patterns(16)
    images = images.round()
    labels = model(images).argmax(1)
    assert torch.equal(CW(c=20.0, compat=NEW)(model, images, labels), images)
    found = CW(c=20.0)(model, images, labels)
    assert fooled(model, found, labels).all() and float(found.min()) >= 0 and float(found.max()) <= 1


def linear(weights: Tensor, bias: Tensor) -> nn.Module:
    layer = nn.Linear(weights.shape[1], len(weights)).double()
    layer.weight.data, layer.bias.data = weights, bias
    return nn.Sequential(nn.Flatten(), layer)


@pytest.mark.parametrize("scale", [0.1, 10])
def test_finds_the_distance_of_a_linear_model(scale: float) -> None:
    """The boundary lies |margin|/‖w‖ away, whatever the logits' scale, and the search over c comes within 5%."""
    generator = torch.Generator().manual_seed(0)
    weights = scale * torch.randn(2, 48, generator=generator, dtype=torch.float64)
    images = 0.3 + 0.4 * torch.rand(8, 3, 4, 4, generator=generator, dtype=torch.float64)
    model = linear(weights, torch.zeros(2, dtype=torch.float64))
    logits = model(images).detach()
    labels = logits.argmax(1)
    truth = (logits[:, 0] - logits[:, 1]).abs() / (weights[0] - weights[1]).norm()
    found = CW(search_steps=9)(model, images, labels)
    assert fooled(model, found, labels).all()
    ratio = (found - images).flatten(1).norm(dim=1) / truth
    print(f"L2 over |margin|/||w||: {ratio.min():.5f} to {ratio.max():.5f}")
    assert float(ratio.min()) >= 1 - 1e-9 and float(ratio.max()) < 1.05


def test_search_breaks_what_a_small_c_does_not() -> None:
    model, (images, labels) = trained(), patterns(16)
    attack = CW(c=0.001, steps=25)
    assert not fooled(model, replace(attack, compat=NEW)(model, images, labels), labels).any()
    assert not fooled(model, attack(model, images, labels), labels).any()
    found = replace(attack, search_steps=6)(model, images, labels)
    assert fooled(model, found, labels).all()
    # A c that is too large goes farther than it must; the search comes back.
    large = replace(attack, c=1000.0)(model, images, labels)
    assert float((found - images).norm()) < 0.9 * float((large - images).norm())


def test_kappa_is_a_margin() -> None:
    model, (images, labels) = trained(), patterns(16)

    def margins(points: Tensor) -> Tensor:
        with torch.no_grad():
            logits = model(points)
        return logits.gather(1, labels[:, None])[:, 0] - logits.scatter(1, labels[:, None], -torch.inf).amax(1)

    near, far = (CW(kappa=kappa, search_steps=3, steps=25, lr=0.02)(model, images, labels) for kappa in (0.0, 1.5))
    assert float(margins(near).max()) <= 0 and float(margins(far).max()) <= -1.5
    assert bool(((far - images).flatten(1).norm(dim=1) > (near - images).flatten(1).norm(dim=1)).all())
    # Where no iterate has the margin, one that fools the model is the answer.
    beyond = CW(c=20.0, kappa=1e6, steps=25)(model, images, labels)
    assert fooled(model, beyond, labels).all()


def test_leads_to_a_class() -> None:
    model, (images, labels) = trained(), patterns(16)
    goals = (labels + 2) % 4
    found = CW(c=0.1, search_steps=4, steps=25, lr=0.03, targeted=True)(model, images, goals)
    with torch.no_grad():
        assert torch.equal(model(found).argmax(1), goals)


def test_stays_in_a_band() -> None:
    model, (images, labels) = trained().double(), patterns(16)
    images, band = 0.4 + 0.2 * images.double(), Band.disc(2)
    labels = model(images).argmax(1)
    found = CW(c=20.0, band=band)(model, images, labels)
    assert fooled(model, found, labels).all() and float(found.min()) > 0 and float(found.max()) < 1
    assert float(keep(found - images, ~band).abs().max()) < 1e-12 < float((found - images).abs().max())


def test_last_iterate_counts() -> None:
    weights = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    model, label = linear(weights, torch.zeros(2, dtype=torch.float64)), torch.tensor([0])
    image = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    model[1].bias.data[0] = -0.992
    # One step of lr/2 leads from a margin of 0.008 to one of -0.002.
    found = CW(steps=1)(model, image, label)
    assert abs(float(found - 0.495)) < 1e-9 and torch.equal(CW(steps=1, compat=NEW)(model, image, label), image)


def test_image_that_is_wrong_already_comes_back() -> None:
    model, (images, labels) = trained(), patterns(4)
    labels = (model(images).argmax(1) + 1) % 4
    assert torch.equal(CW()(model, images, labels), images)


def test_ends_early_when_the_cost_rises() -> None:
    model, (images, labels) = trained(), patterns(1)
    found, count = calls(model, lambda: CW(lr=0.3, c=20.0)(model, images, labels))
    assert count < CW().queries == 51 and fooled(model, found, labels).all()
    assert CW(search_steps=9).queries == 9 * 51


def test_has_no_radius() -> None:
    attack = CW()
    assert attack.at(0.1) is attack and attack.threat is None and attack.search() is attack


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c": 0.0}, "c is a finite number above 0; got 0"),
        ({"lr": -1.0}, "lr is a finite number above 0; got -1"),
        ({"lr": float("nan")}, "lr is a finite"),
        ({"kappa": -1.0}, "kappa is a finite number of 0 or more; got -1"),
        ({"steps": 0}, "steps is 1 or more; got 0"),
        ({"search_steps": 0}, "search_steps is 1 or more; got 0"),
        ({"search_steps": 9, "compat": NEW}, "no search over c"),
        ({"band": Band.disc(3), "compat": OLD}, "has no band"),
        ({"targeted": True, "compat": OLD}, "judges a targeted attack by the true labels"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        CW(**options)
    assert "\n" not in str(caught.value)


def test_compat_refuses_as_every_attack_does() -> None:
    model, (images, labels), attack = trained(), patterns(4), CW(compat=NEW)
    with pytest.raises(PassbandError, match="divide by 255"):
        attack(model, 255 * images, labels)
    with pytest.raises(PassbandError, match="labels lie in 0 to 3"):
        attack(model, images, labels + 1)
    model[6].bias.data[0] = float("nan")
    with pytest.raises(PassbandError, match="the model gives NaN"):
        attack(model, images, labels)
