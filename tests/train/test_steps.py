from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from passband.attacks.gradient_sign import FGSM
from passband.attacks.trades import TPGD
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Part, Recipe
from passband.core.spec import ImageSpec
from passband.tasks.classification import loss
from passband.train import build, steps
from passband.train.run import train

EPS = 8 / 255


def images_of(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*layers).double()


def gradients(model: nn.Module, value: Tensor) -> Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(value, list(model.parameters()))])


def shifted(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Stand for an attack."""
    return (images + 0.1).clamp(0, 1)


def test_trades_is_its_formula_and_learns_through_both_answers() -> None:
    model, images, targets = small().eval(), images_of(7), torch.arange(7) % 5

    def by_hand(one_sided: bool = False) -> Tensor:
        p, q = model(images).softmax(1), model(shifted(model, images, targets)).softmax(1)
        natural = -p[torch.arange(7), targets].log().sum() / 7
        p = p.detach() if one_sided else p
        return natural + 6 * (p * (p.log() - q.log())).sum() / 7

    value, logits = steps.trades(shifted, {}).step(model, images, targets, 0)
    torch.testing.assert_close(logits, model(images))
    torch.testing.assert_close(value, by_hand(), rtol=1e-12, atol=0)
    found = gradients(model, value)
    torch.testing.assert_close(found, gradients(model, by_hand()), rtol=1e-9, atol=1e-12)
    one_sided = gradients(model, by_hand(one_sided=True))
    assert (found - one_sided).norm() > 0.01 * found.norm()
    natural, _ = steps.trades(shifted, {}, beta=0.0).step(model, images, targets, 0)
    assert natural.item() == loss(model(images), targets).item()


def test_trades_makes_its_images_by_the_recipes_attack_with_another_start_each_step() -> None:
    tpgd = steps.make_scheme(Part(name="trades"), None, {}).attack
    assert tpgd == TPGD(eps=EPS, alpha=2 / 255, steps=10)
    scheme = steps.make_scheme(Part(name="trades", beta="12/2"), Part(name="fgsm", eps="4/255"), {})
    assert scheme.attack == FGSM(eps=4 / 255)
    model, images, targets = small().eval(), images_of(4), torch.arange(4)
    same = steps.trades(shifted, {}, beta=6.0).step(model, images, targets, 0)[0]
    assert steps.make_scheme(Part(name="trades", beta="12/2"), None, {}).step(model, images, targets, 0)[0] != same
    seeds: list[int] = []

    class Seen(TPGD):
        def __call__(self, model: Any, images: Any, labels: Any) -> Any:
            seeds.append(self.seed)
            return images

    step = steps.trades(Seen(), {}).step
    for number in (3, 4):
        step(model, images, targets, number)
    assert seeds == [3, 4]


class Counting(nn.Module):
    """Tell classes apart by a linear map, and say how many there are as models here do."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.spec = nn.Linear(108, 5), ImageSpec((6, 6), None, None, "test", 5)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        logits: Tensor = self.head(images.flatten(1))
        return logits


def test_mixup_mixes_neighbors_and_their_labels_by_one_share_per_step() -> None:
    model, images, targets = Counting(), images_of(7).float(), torch.arange(7) % 5
    step = steps.make_scheme(Part(name="mixup"), None, {}).step
    shares = []
    for number in range(200):
        value, logits = step(model, images, targets, number)
        mixed, other = model.seen.pop(), images.roll(1, 0)
        share = float(((mixed - other) * (images - other)).sum() / (images - other).square().sum())
        torch.testing.assert_close(mixed, share * images + (1 - share) * other)
        chances = logits.log_softmax(1)
        rows = torch.arange(7)
        by_hand = -(share * chances[rows, targets] + (1 - share) * chances[rows, targets.roll(1, 0)]).mean()
        torch.testing.assert_close(value, by_hand)
        shares.append(share)
    spread = torch.tensor(shares)
    # Beta(1/2, 1/2) has mean 1/2 and variance 1/8; a share is a draw of its own, within four standard errors.
    assert abs(spread.mean() - 0.5) < 4 * (1 / 8 / 200) ** 0.5 and abs(spread.var() - 1 / 8) < 0.03
    assert len(set(shares)) == 200


def test_mixup_draws_by_the_steps_number_alone_and_leaves_the_worlds_randomness() -> None:
    model, images, targets = Counting(), images_of(4).float(), torch.arange(4)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    values = [steps.mixup(None, {}).step(model, images, targets, number)[0].item() for number in (5, 6, 5)]
    assert torch.equal(torch.get_rng_state(), state)
    assert values[0] == values[2] != values[1]
    steps.mixup(None, {}, alpha=1e6).step(model, images, targets, 0)
    torch.testing.assert_close(model.seen[-1], (images + images.roll(1, 0)) / 2, rtol=0, atol=0.01)
    with pytest.raises(PassbandError, match="alpha above 0; got 0"):
        steps.mixup(None, {}, alpha=0.0)
    with pytest.raises(PassbandError, match="leave attack null"):
        steps.make_scheme(Part(name="mixup"), Part(name="fgsm"), {})


def test_mixup_or_cutmix_is_always_exactly_one_of_both() -> None:
    model, images, targets = Counting(), images_of(7).float(), torch.arange(7) % 5
    step = steps.make_scheme(Part(name="mixup-or-cutmix", mixup="1/5", cutmix=1.0), None, {}).step
    ways = []
    for number in range(200):
        state = torch.get_rng_state()
        value, logits = step(model, images, targets, number)
        assert torch.equal(torch.get_rng_state(), state)
        mixed, other = model.seen.pop(), images.roll(1, 0)
        cut = (mixed == images) | (mixed == other)
        kept = (mixed == images).all(1).float().mean((1, 2))
        share = float(((mixed - other) * (images - other)).sum() / (images - other).square().sum())
        patched = bool(cut.all()) and bool((kept == kept[0]).all())
        if patched:  # one patch for the batch, whose label weighs what is left
            share = float(kept[0])
        else:
            torch.testing.assert_close(mixed, share * images + (1 - share) * other)
        ways.append((patched, share))
        chances, rows = logits.log_softmax(1), torch.arange(7)
        by_hand = -(share * chances[rows, targets] + (1 - share) * chances[rows, targets.roll(1, 0)]).mean()
        torch.testing.assert_close(value, by_hand)
    patches = torch.tensor([share for patched, share in ways if patched])
    shares = torch.tensor([share for patched, share in ways if not patched])
    # Within four standard errors: a fair coin; Beta(1/5, 1/5), whose variance is 1/4 / 1.4.
    assert abs(len(patches) - 100) < 4 * 50**0.5
    assert abs(shares.mean() - 0.5) < 4 * (1 / 5.6 / len(shares)) ** 0.5 and abs(shares.var() - 1 / 5.6) < 0.04
    assert step(model, images, targets, 3)[0] == step(model, images, targets, 3)[0]


def test_mixup_or_cutmix_refuses_in_one_line() -> None:
    with pytest.raises(PassbandError, match="mixup-or-cutmix mixes images as they are; leave attack null"):
        steps.make_scheme(Part(name="mixup-or-cutmix"), Part(name="fgsm"), {})
    for option in ("mixup", "cutmix"):
        with pytest.raises(PassbandError, match=rf"takes a {option} \(its alpha\) above 0; got 0"):
            steps.make_scheme(Part(name="mixup-or-cutmix", **{option: 0}), None, {})


def test_mixup_trains(tmp_path, monkeypatch) -> None:
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(20))
    recipe = Recipe.of(
        {
            "model": {"name": "hfc_resnet32", "depth": 1, "width": 4},
            "data": {"name": "photos", "part": 64},
            "scheme": {"name": "mixup", "alpha": "1/2"},
            "optimizer": {"name": "adam", "lr": 3e-3},
            "epochs": 1,
            "batch": 32,
        }
    )
    run = train(recipe, compute=Compute(device="cpu"), runs=tmp_path)
    (line,) = (run.folder / "log.csv").read_text().splitlines()[1:]
    assert 0.5 * math.log(15) < float(line.split(",")[3]) < 2 * math.log(15)


def test_free_moves_one_delta_by_the_gradient_that_teaches_the_weights() -> None:
    model, memory = small(), {}
    step = steps.free(None, memory, replays=2, eps=EPS).step
    expected = torch.zeros(4, 3, 6, 6, dtype=torch.float64)
    # Batches of 4, 4 and 2: the last of an epoch moves the first rows alone.
    for number, count in enumerate((4, 4, 2, 4)):
        images, targets = images_of(count, number), torch.arange(count)
        model.zero_grad()
        value, _ = step(model, images, targets, number)
        assert torch.equal(memory["delta"], expected)  # not before the backward pass
        value.backward()  # type: ignore[no-untyped-call]
        taught = [parameter.grad.clone() for parameter in model.parameters()]
        change = expected[:count].clone().requires_grad_(True)
        again = loss(model((images + change).clamp(0, 1)), targets)
        torch.testing.assert_close(value, again, rtol=1e-12, atol=0)
        gradient, *own = torch.autograd.grad(again, [change, *model.parameters()])
        for one, other in zip(taught, own, strict=True):
            torch.testing.assert_close(one, other)
        expected[:count] = (expected[:count] + EPS * gradient.sign()).clamp(-EPS, EPS)
        assert torch.equal(memory["delta"], expected)
        assert memory["delta"].abs().max() <= EPS
    assert memory["delta"].abs().max() == EPS


def test_free_takes_one_forward_and_one_backward_pass_a_replay(tmp_path, monkeypatch) -> None:
    whole = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole(*arguments).take(20))
    passes: dict[str, list[Any]] = {"forward": [], "backward": []}
    plain, backward = steps.plain, Fabric.backward
    monkeypatch.setattr(
        steps, "plain", lambda *given: passes["forward"].append((given[3], given[2].tolist())) or plain(*given)
    )
    monkeypatch.setattr(Fabric, "backward", lambda self, loss: passes["backward"].append(0) or backward(self, loss))
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: pytest.fail("a gradient of its own"))
    recipe = Recipe.of(
        {
            "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 2},
            "data": {"name": "photos", "part": 150},
            "scheme": {"name": "free", "replays": 3, "eps": "8/255"},
            "schedule": {"name": "multistep", "milestones": [1]},
            "epochs": 2,
            "batch": 64,
        }
    )
    run = train(recipe, compute=Compute(device="cpu"), runs=tmp_path)
    numbers, targets = zip(*passes["forward"], strict=True)
    assert list(numbers) == list(range(2 * 3 * 3)) and len(passes["backward"]) == 18
    assert all(targets[i] == targets[i - i % 3] for i in numbers)  # each batch three times in a row
    assert [len(one) for one in targets[:9:3]] == [64, 64, 22]
    # A replay is a step of the schedule: the rate falls after an epoch of nine.
    lines = [line.split(",") for line in (run.folder / "log.csv").read_text().splitlines()[1:]]
    assert [(line[1], float(line[2])) for line in lines] == [("9", 0.1), ("9", pytest.approx(0.01))]
    delta = torch.load(run.folder / "checkpoint.pt", weights_only=True)["memory"]["delta"]
    assert delta.shape == (64, 3, 32, 32)
    assert 0 < delta.abs().max().item() <= EPS * (1 + 1e-6) and math.isfinite(delta.sum().item())
