from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.gradient_sign import PGD
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Part, Recipe
from passband.train import build, steps
from passband.train import mixing as mixing_module
from passband.train.mixing import Mixing, soft_cross_entropy
from passband.train.run import train

EPS = 8 / 255
CLASSES = 5


def images_of(count: int, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, CLASSES))


def soft(shares: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    first, second = (functional.one_hot(one, CLASSES) for one in (labels, others))
    return shares[:, None] * first + (1 - shares[:, None]) * second


def summed(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy by its definition, per image."""
    chance = logits.sigmoid()
    return -(target * chance.log() + (1 - target) * (1 - chance).log()).sum(1)


def test_mixup_and_cutmix_share_images_and_labels_with_the_image_before() -> None:
    images, labels = images_of(6), torch.arange(6) % CLASSES
    for number in range(20):
        mixture = Mixing("mixup").mixed(images, labels, number)
        share = mixture.shares[0]
        assert 0 <= share <= 1 and (mixture.shares == share).all()
        torch.testing.assert_close(mixture.images, share * images + (1 - share) * images.roll(1, 0))
        assert torch.equal(mixture.labels, labels) and torch.equal(mixture.others, labels.roll(1))
        patched = Mixing("cutmix").mixed(images, labels, number)
        kept = (patched.images == images).all(1)
        assert torch.equal(patched.images, torch.where(kept[:, None], images, images.roll(1, 0)))
        assert (kept == kept[0]).all()  # one patch for the batch
        torch.testing.assert_close(patched.shares, kept.float().mean((1, 2)))


def test_cutout_blanks_a_patch_of_each_image() -> None:
    images = images_of(50) * 0.9 + 0.1
    found = Mixing("cutout").mixed(images, torch.zeros(50, dtype=torch.int64), 3)
    gone = (found.images == 0).all(1)
    assert torch.equal(found.images, torch.where(gone[:, None], 0, images))
    assert len({tuple(one.flatten().tolist()) for one in gone}) > 25
    torch.testing.assert_close(found.shares, 1 - gone.float().mean((1, 2)))


def test_a_patch_is_a_square_of_the_drawn_area_around_any_center_and_clipped() -> None:
    mixing, side = Mixing("cutout"), 16
    blank = torch.ones(4000, 1, side, side)
    gone = mixing.mixed(blank, torch.zeros(4000, dtype=torch.int64), 0).images[:, 0] == 0
    heights, widths = gone.any(2).sum(1), gone.any(1).sum(1)
    assert torch.equal(gone.sum((1, 2)), heights * widths)  # rectangles
    inner = ~(gone[:, 0].any(1) | gone[:, -1].any(1) | gone[:, :, 0].any(1) | gone[:, :, -1].any(1))
    assert inner.sum() > 500 and torch.equal(heights[inner], widths[inner])
    # Every pixel is at the center alike often: patches leave through all sides alike.
    edges = torch.stack([gone[:, 0].any(1), gone[:, -1].any(1), gone[:, :, 0].any(1), gone[:, :, -1].any(1)])
    rates = edges.float().mean(1)
    assert (rates - rates.mean()).abs().max() < 4 * (0.25 / 4000) ** 0.5
    # By hand: areas are uniform, and a side s around a uniform center keeps s - s²/4 of the line on average, so the
    # area that is left is E[(s - s²/4)²] = 1/2 - 1/5 + 1/48.
    assert abs(gone.float().mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 0.02


def test_it_draws_by_the_steps_number_alone_and_leaves_the_worlds_randomness() -> None:
    images, labels = images_of(4), torch.arange(4)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for how in ("mixup", "cutout", "cutmix"):
        one, two, again = (Mixing(how).mixed(images, labels, number).images for number in (5, 6, 5))
        assert torch.equal(one, again) and not torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    shares = torch.tensor([float(Mixing("mixup").mixed(images, labels, n).shares[0]) for n in range(400)])
    # Beta(1, 1) has mean 1/2 and variance 1/12.
    assert abs(shares.mean() - 0.5) < 4 * (1 / 12 / 400) ** 0.5 and abs(shares.var() - 1 / 12) < 0.015
    narrow = Mixing("mixup", alpha=1e6).mixed(images, labels, 0)
    torch.testing.assert_close(narrow.images, (images + images.roll(1, 0)) / 2, rtol=0, atol=0.01)


def test_mixed_labels_are_learned_by_the_binary_cross_entropy_of_each_class() -> None:
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(1))
    labels, others = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 1, 0, 4, 2, 3])
    shares = torch.linspace(0, 1, 6)
    expected = summed(logits, soft(shares, labels, others))
    torch.testing.assert_close(soft_cross_entropy(logits, labels, others, shares), expected)


class Marking:
    """Stand for an attack: images come out brighter, and what came in is kept."""

    mode = "eval"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(images)
        return images / 2 + 0.5


@pytest.mark.parametrize("how", ["mixup", "cutmix", "cutout", "none"])
def test_on_adversarial_images_the_attack_comes_first(how: Any) -> None:
    model, images, labels, attack = network(), images_of(6), torch.arange(6) % CLASSES, Marking()
    mixing = Mixing(how, "adversarial")
    value, logits = mixing.learn(attack, model, images, labels, 4)
    assert torch.equal(attack.seen[0], images)
    mixture = mixing.mixed(images / 2 + 0.5, labels, 4)
    torch.testing.assert_close(logits, model(mixture.images))
    target = soft(mixture.shares, labels, labels.roll(1))
    by_hand = functional.cross_entropy(logits, labels) if how == "cutout" else summed(logits, target).mean()
    torch.testing.assert_close(value, by_hand)
    assert how != "none" or torch.equal(mixture.images, images / 2 + 0.5)
    assert how != "none" or bool((mixture.shares == 1).all())


@pytest.mark.parametrize("how", ["mixup", "cutmix", "cutout", "none"])
def test_on_clean_images_the_mixture_is_attacked_up_its_own_loss(how: Any) -> None:
    model, images, labels = network(), images_of(6), torch.arange(6) % CLASSES
    mixing = Mixing(how, "clean")
    mixture = mixing.mixed(images, labels, 2)
    model.eval()
    target = soft(mixture.shares, labels, labels.roll(1))
    points = mixture.images.clone()
    for _ in range(3):
        points.requires_grad_(True)
        logits = model(points)
        loss = functional.cross_entropy(logits, labels) if how == "cutout" else summed(logits, target).mean()
        (gradient,) = torch.autograd.grad(loss, points)
        moved = points.detach() + EPS / 2 * gradient.sign()
        points = (mixture.images + (moved - mixture.images).clamp(-EPS, EPS)).clamp(0, 1)
    model.train()
    attack = PGD(eps=EPS, alpha=EPS / 2, steps=3, random_start=False)
    seen = []
    model.register_forward_pre_hook(lambda module, given: seen.append((given[0].detach(), module.training)))
    _, logits = mixing.learn(attack, model, images, labels, 2)
    found, training = seen[-1]
    torch.testing.assert_close(found, points)
    assert training and not any(mode for _, mode in seen[:-1])


def test_the_second_label_goes_with_its_image_where_rows_end_early(monkeypatch) -> None:
    model, images = network().eval(), images_of(6)
    mixing = Mixing("mixup", "clean")
    answers = model(mixing.mixed(images, torch.arange(6), 0).images).argmax(1)
    # Every other image is wrong from the start and ends early; no two have the same pair of labels.
    labels = torch.where(torch.arange(6) % 2 == 0, answers, (answers + torch.arange(6)) % CLASSES)
    mixture = mixing.mixed(images, labels, 0)
    asked: list[list[tuple[int, int]]] = []
    real = mixing_module.soft_cross_entropy

    def watched(logits: Tensor, first: Tensor, others: Tensor, shares: Tensor) -> Tensor:
        asked.append(list(zip(first.tolist(), others.tolist(), strict=True)))
        return real(logits, first, others, shares)

    monkeypatch.setattr(mixing_module, "soft_cross_entropy", watched)
    mixing.learn(PGD(eps=1e-4, alpha=1e-4, steps=1, n_restarts=2), model, images, labels, 0)
    pairs = list(zip(mixture.labels.tolist(), mixture.others.tolist(), strict=True))
    wrong = (labels != answers).tolist()
    assert 0 < sum(wrong) < 6 and asked[0] == asked[1] == asked[-1] == pairs
    assert asked[2] == [pair for pair, over in zip(pairs, wrong, strict=True) if not over]


def test_what_cannot_be_is_said() -> None:
    pgd = Part(name="pgd", steps=2)
    with pytest.raises(PassbandError, match="give an attack"):
        steps.make_scheme(Part(name="mixed"), None, {})
    with pytest.raises(PassbandError, match="fgsm, ffgsm, bim or pgd; got TPGD"):
        steps.make_scheme(Part(name="mixed", on="clean"), Part(name="tpgd"), {})
    with pytest.raises(PassbandError, match="alpha above 0; got 0"):
        steps.make_scheme(Part(name="mixed", alpha=0), pgd, {})
    with pytest.raises(PassbandError, match="cutmix"):
        steps.make_scheme(Part(name="mixed", how="cutmixed"), pgd, {})
    assert steps.make_scheme(Part(name="mixed"), Part(name="tpgd"), {}).attack is not None


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(("how", "on"), [("cutout", "adversarial"), ("cutmix", "clean")])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, monkeypatch, how: str, on: str) -> None:
    whole_set = build.test_set
    monkeypatch.setattr(build, "test_set", lambda *arguments: whole_set(*arguments).take(4))
    recipe = Recipe.of(
        {
            "model": {"name": "postact_resnet", "depth": 1, "width": 4},
            "data": {"name": "photos", "part": 24},
            "normalize": "none",
            "attack": {"name": "pgd", "steps": 1},
            "scheme": {"name": "mixed", "how": how, "on": on},
            "epochs": 1,
            "batch": 8,
        }
    )
    compute = Compute(device="cpu", checkpoint_seconds=0.0)
    whole = train(recipe, compute=compute, runs=tmp_path / "whole")
    real, steps_made = Mixing.learn, []

    def dying(*arguments: Any) -> Any:
        steps_made.append(arguments[-1])
        if len(steps_made) == 2:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(Mixing, "learn", dying)
    with pytest.raises(Killed):
        train(recipe, compute=compute, runs=tmp_path / "parts")
    parts = train(recipe, compute=compute, runs=tmp_path / "parts")
    assert steps_made == [0, 1, 1, 2]
    kept, again = (load_file(run.folder / "weights.safetensors") for run in (whole, parts))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
