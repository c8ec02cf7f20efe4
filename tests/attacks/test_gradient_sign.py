"""Steps along a gradient do what their options say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import BIM, FFGSM, FGSM, PGD, PRESETS
from passband.attacks.noise import GN
from passband.attacks.registry import make
from passband.attacks.search import asked, begun
from passband.attacks.trades import TPGD
from passband.core.errors import PassbandError


def problem(count: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(8 * 5 * 5, 4)).double()
    images = (torch.randint(0, 256, (count, 3, 16, 16)) / 255).double()
    return model, images, model(images).argmax(1)


def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return functional.cross_entropy(model(images), labels, reduction="none")


def test_alpha_keeps_its_share_of_eps() -> None:
    assert PGD(0.2, alpha=0.05).at(0.4) == PGD(0.4, alpha=0.1)
    assert PGD(0.2, alpha=0.05).at(0.4, scale=False) == PGD(0.4, alpha=0.05)
    assert PGD(0.2, alpha=None).at(0.4).search().alpha == 0.1
    assert FFGSM(0.2, alpha=None).search().alpha == 0.25 and PGDL2(1, alpha=None).search().alpha == 0.2
    assert {name: round(pgd.eps / pgd.search().alpha, 9) for name, pgd in PRESETS.items()} == {
        "adversarial-focus": 4,
        "high-frequency": 30,
        "spatial-mixing": 2,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 1 or more"),
        ({"alpha": 2.0}, "alpha lies in 0 to 1"),
        ({"alpha": 0.0}, "not move"),
        ({"n_restarts": 0}, "n_restarts is 1 or more"),
        ({"n_restarts": 2, "random_start": False}, "would be the same"),
        ({"step_decay": 0.0}, "above 0 and at most 1"),
    ],
)
@pytest.mark.parametrize("kind", [PGD, PGDL2])
def test_pgd_refuses(kind: type[PGD] | type[PGDL2], options: dict[str, float], message: str) -> None:
    if kind is PGDL2 and options.get("alpha"):
        options, message = {"alpha": -1.0}, "alpha lies in 0 to inf"
    with pytest.raises(PassbandError, match=message):
        kind(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [PGD, PGDL2, FFGSM, TPGD, GN])
def test_random_start_has_its_seed(kind: type[PGD]) -> None:
    model, images, labels = problem()
    first, again, other = (kind(seed=seed)(model, images, labels) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_noise_is_normal() -> None:
    model, images, labels = problem()
    images = torch.full_like(images, 0.5)
    images[:, 0, 0, 0] = torch.arange(len(images)) / 255  # each its own noise
    noise = GN(std=0.05)(model, images, labels)[:, :, 1:] - 0.5
    # 17,280 draws: five standard errors of mean, deviation and fourth moment.
    count = noise.numel()
    assert abs(float(noise.mean())) < 5 * 0.05 / count**0.5
    assert abs(float(noise.std()) - 0.05) < 5 * 0.05 / (2 * count) ** 0.5
    assert abs(float((noise / 0.05).pow(4).mean()) - 3) < 5 * (96 / count) ** 0.5


def test_steps_decay() -> None:
    model, images, labels = problem()
    images = 0.4 + 0.2 * images
    found = PGD(0.3, alpha=0.04, steps=3, step_decay=0.5, random_start=False)(model, images, labels)
    by_hand = images
    for alpha in (0.04, 0.02, 0.01):
        by_hand = by_hand.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(by_hand), labels, reduction="sum"), by_hand)
        by_hand = by_hand + alpha * gradient.sign()
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-12)


def test_restarts_keep_the_first_success_and_break_more() -> None:
    model, images, labels = problem(96)
    attack = PGD(4 / 255, alpha=None, steps=2)
    once = model(attack(model, images, labels)).argmax(1) != labels
    several = replace(attack, n_restarts=6)(model, images, labels)
    fallen = model(several).argmax(1) != labels
    assert bool((fallen | ~once).all()) and int(fallen.sum()) > int(once.sum()) > 0
    assert torch.equal(several[once], attack(model, images, labels)[once])


def test_rows_may_join_late_and_leave_early() -> None:
    """Rows that began at different times end where each ends alone."""
    model, images, labels = problem(6)
    search = PGD(8 / 255, steps=4, n_restarts=2, step_decay=0.8).search()
    alone = PGD(8 / 255, steps=4, n_restarts=2, step_decay=0.8)(model, images, labels)
    early, late = begun(search, images[:3], labels[:3]), begun(search, images[3:], labels[3:])
    for _ in range(3):
        search.advance(early, asked(search, model, early))
        early.step = early.step + 1
    rows = early.joined(late)
    ends: dict[int, Tensor] = {}
    places = list(range(6))
    while len(rows):
        over = rows.done | (rows.step >= search.queries)
        for index in over.nonzero()[:, 0].tolist():
            ends[places[index]] = search.answer(rows)[index]
        places = [place for place, ended in zip(places, over.tolist(), strict=True) if not ended]
        rows = rows.take(~over)
        if len(rows):
            search.advance(rows, asked(search, model, rows))
            rows.step = rows.step + 1
    torch.testing.assert_close(torch.stack([ends[i] for i in range(6)]), alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", [FGSM(targeted=True), BIM(targeted=True), PGD(targeted=True), PGDL2(targeted=True)])
def test_targeted_leads_to_the_label(attack: FGSM) -> None:
    model, images, labels = problem()
    goals = (labels + 1) % 4
    assert (loss(model, attack(model, images, goals), goals) < loss(model, images, goals)).all()


def test_tpgd_ignores_labels() -> None:
    model, images, labels = problem()
    assert torch.equal(TPGD()(model, images, labels), TPGD()(model, images, (labels + 1) % 4))


def test_automatic_steps_of_bim() -> None:
    assert [BIM(level / 255, steps=0).search().steps for level in (1, 4, 8, 16, 32)] == [1, 5, 10, 20, 36]


def test_defaults_of_an_earlier_version() -> None:
    assert make("fgsm", defaults="torchattacks-3.2") == FGSM(eps=0.007)
    assert make("pgd", {"steps": 3}, defaults="torchattacks-3.2") == PGD(eps=0.3, alpha=2 / 255, steps=3)
    assert make("tpgd", defaults="torchattacks-3.2") == TPGD(steps=7)
    assert make("gn", defaults="torchattacks-3.2") == GN()
    with pytest.raises(PassbandError, match="did you mean"):
        make("pgd", defaults="torchattacks-3.1")
