"""Auto-PGD finds what is known on paper, stays where it may, keeps its rows apart, and is no weaker than its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.auto_pgd import APGD, APGDT, checkpoints
from passband.attacks.gradient_length import PGDL2
from passband.attacks.gradient_sign import PGD
from passband.attacks.logit_ratio import logit_ratio, targeted_logit_ratio
from passband.attacks.search import Rows, asked, begun
from passband.attacks.threat import threat_of
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import keep
from passband.models.state import frozen

Attack = APGD | APGDT
EPS = {"Linf": 8 / 255, "L2": 0.5}


def network(classes: int = 6) -> nn.Module:
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8 * 3 * 3, classes)).double().eval()


def pictures(count: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 256, (count, 3, 12, 12), generator=generator) / 255).double()


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def attacks(norm: str) -> list[Attack]:
    eps = EPS[norm]
    return [
        APGD(norm, eps),
        APGD(norm, eps, n_restarts=2, loss="dlr"),
        APGD(norm, eps, targeted=True),
        APGD(norm, eps, targeted=True, loss="dlr"),
        APGD(norm, eps, steps=4, eot_iter=2, n_restarts=2),
        APGDT(norm, eps, steps=4, n_restarts=2, n_classes=3),
        APGD(norm, eps, band=Band.disc(3)),
    ]


every_attack = pytest.mark.parametrize("attack", [*attacks("Linf"), attacks("L2")[0], attacks("L2")[-1]], ids=str)


# What is known on paper.


def test_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9, 10)
    assert checkpoints(1) == (1,)


def test_ratios_by_hand() -> None:
    logits = torch.tensor([[4.0, 1.0, 2.0, 0.0], [4.0, 1.0, 2.0, 0.0]])
    labels = torch.tensor([0, 1])
    assert torch.allclose(logit_ratio(logits, labels), torch.tensor([-2 / 3, 3 / 3]))
    found = targeted_logit_ratio(logits, labels, torch.tensor([1, 2]))
    assert torch.allclose(found, torch.tensor([-3 / 3.5, 1 / 3.5]))
    moved = 7 * logits - 3
    assert torch.allclose(logit_ratio(moved, labels), logit_ratio(logits, labels))
    assert logit_ratio(torch.zeros(1, 5), labels[:1]).item() == 0


class Planes(nn.Module):
    """Logits that are planes over the pixels; two of them by default."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(48, classes, generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight


def central(count: int = 32) -> Tensor:
    """Images whose pixels keep 0.2 from both ends."""
    generator = torch.Generator().manual_seed(4)
    return 0.2 + 0.6 * torch.rand(count, 3, 4, 4, generator=generator, dtype=torch.float64)


def worst(model: Planes, images: Tensor, labels: Tensor, norm: str, eps: float) -> Tensor:
    """By how much the label's plane lies above each other, at worst."""
    logits, weight = model(images).detach(), model.weight.detach()
    slopes = weight[:, labels].T[:, :, None] - weight[None]
    steepness = torch.linalg.vector_norm(slopes, ord=1 if norm == "Linf" else 2, dim=1)
    margins = logits.gather(1, labels[:, None]) - logits - eps * steepness
    return margins.scatter(1, labels[:, None], float("inf")).amin(1)


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(images)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return logits.gather(1, labels[:, None])[:, 0] - others


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("Linf", 0.2), ("L2", 0.05), ("L2", 0.2)])
def test_worst_margin_of_two_planes_is_found(norm: str, eps: float) -> None:
    model, images = Planes(), central()
    labels = predicted(model, images)
    found = margin(model, APGD(norm, eps, steps=40)(model, images, labels), labels)
    assert torch.allclose(found, worst(model, images, labels, norm, eps), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.005), ("L2", 0.04)])
def test_every_goal_is_tried(norm: str, eps: float) -> None:
    """Of five planes each goal's own worst margin is reached, so that an image stands just where all are above 0."""
    model, images = Planes(5), central(48)
    labels = predicted(model, images)
    stands = worst(model, images, labels, norm, eps) > 0
    found = predicted(model, APGDT(norm, eps, steps=25)(model, images, labels)) == labels
    assert 8 < int(stands.sum()) < 40 and torch.equal(found, stands)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_targeted_leads_to_the_goal(loss: str) -> None:
    model, images = Planes(5), central()
    goals = (predicted(model, images) + torch.arange(32) % 5) % 5
    adversarial = APGD(eps=0.15, steps=20, loss=loss, targeted=True)(model, images, goals)
    assert torch.equal(predicted(model, adversarial), goals)


def test_a_step_that_is_too_long_is_halved() -> None:
    """On a hill that one step of 2ε crosses, only shorter steps reach the top."""

    class Hill(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            height = -(images - 0.53).square().flatten(1).sum(1)
            return torch.stack((0.9 - height, torch.zeros_like(height)), 1)

    images, labels = torch.full((3, 3, 4, 4), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    automatic, fixed = APGD(eps=0.2, steps=100), PGD(0.2, 0.4)
    near, far = ((attack(Hill(), images, labels) - 0.53).abs().max() for attack in (automatic, fixed))
    assert near < 0.01 < far


@pytest.mark.parametrize("rho", [0.75, 0.5])
def test_each_point_is_algorithm_1s(rho: float) -> None:
    """The same path, point by point, as the algorithm written for one image, with its two conditions."""
    model, attack = network(), APGD(eps=0.2, steps=60, rho=rho)
    causes = set()
    for image in pictures(4).split(1):
        label = predicted(model, image)
        rows = begun(attack.search(), image, label)
        x = old = best = rows.points
        size, top, left, rises, since, halved, checked = 2 * attack.eps, -torch.inf, torch.inf, 0, 0, False, -torch.inf
        for k in range(61):
            assert torch.allclose(rows.points, x, atol=1e-12, rtol=0)
            point = x.clone().requires_grad_()
            loss = functional.cross_entropy(model(point), label)
            (slope,), f = torch.autograd.grad(loss, point), loss.item()
            rises += f > left
            if f > top:
                top, best, best_slope = f, x, slope
            if k in checkpoints(60):
                few, stuck = rises < rho * (k - since), not halved and top == checked
                causes |= {(few, stuck)}
                halved = few or stuck
                if halved:
                    size, x, slope, f = size / 2, best, best_slope, top
                rises, since, checked = 0, k, top
            left = f
            z = near(x + size * slope.sign(), image, attack.eps)
            x, old = (near(x + 0.75 * (z - x) + 0.25 * (x - old), image, attack.eps) if k else z), x
            follow(attack, model, rows, 1)
    assert len(causes) > 2


def near(points: Tensor, image: Tensor, eps: float) -> Tensor:
    return points.clamp(image - eps, image + eps).clamp(0, 1)


# The ball, the range, the band.


@every_attack
def test_stays_in_the_ball_and_in_the_range(attack: Attack) -> None:
    model, images = network(), pictures()
    images[0], images[1] = 0, 1
    adversarial = attack(model, images, predicted(model, images))
    distance = threat_of(attack.norm, attack.eps).distance(adversarial, images)
    assert float(adversarial.min()) >= 0 and float(adversarial.max()) <= 1
    assert float(distance.max()) <= attack.eps * (1 + 1e-12) and float(distance.min()) > attack.eps / 4


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("band", [None, Band.disc(2), ~Band.disc(2)], ids=str)
def test_starts_at_the_edge_of_the_ball(norm: str, band: Band | None) -> None:
    images, labels = central().expand(32, 3, 4, 4), torch.zeros(32, dtype=torch.int64)
    attack = APGD(norm, 0.1, band=band)
    rows = begun(attack.search(), images, labels)
    change = rows.points - images
    lengths = threat_of(norm, 0.1).distance(rows.points, images)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.1), atol=1e-12)
    assert change.mean().abs() < 0.02 and len(change.flatten(1).unique(dim=0)) == 32
    if band is not None:
        assert torch.allclose(keep(change, band), change, atol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_changes_only_the_band(norm: str) -> None:
    model, images, band = network(), 0.3 + 0.4 * pictures(), Band.disc(3)
    labels = predicted(model, images)
    change = APGD(norm, EPS[norm], band=band)(model, images, labels) - images
    assert keep(change, ~band).abs().max() < 1e-6 * change.abs().max()


def test_zero_eps_changes_nothing() -> None:
    model, images = network(), pictures()
    for norm in ("Linf", "L2"):
        assert torch.equal(APGD(norm, 0.0)(model, images, predicted(model, images)), images)


# Rows are free of each other.


def follow(
    attack: Attack, model: nn.Module, rows: Rows, count: int, look: Callable[[Rows], float] = lambda rows: 0.0
) -> list[float]:
    """Give rows ``count`` answers, and look at them after each."""
    seen = []
    with frozen(model):
        for _ in range(count):
            attack.search().advance(rows, asked(attack.search(), model, rows))
            rows.step += 1
            seen.append(look(rows))
    return seen


@every_attack
def test_a_batch_is_its_images(attack: Attack) -> None:
    model, images = network(), pictures()
    labels = (predicted(model, images) + torch.arange(8) % 2) % 6
    together = attack(model, images, labels)
    for i in (0, 7):
        alone = attack(model, images[i : i + 1], labels[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-9, rtol=0)


@every_attack
def test_rows_that_began_later_are_the_rows_alone(attack: Attack) -> None:
    model, images = network(), pictures()
    labels, search = (predicted(model, images) + 1) % 6, attack.search()
    with torch.no_grad():
        clean = model(images)
    first = begun(search, images[:4], labels[:4], clean[:4])
    follow(attack, model, first, 7)
    mixed = first.joined(begun(search, images[4:], labels[4:], clean[4:]))
    follow(attack, model, mixed, search.queries - int(mixed.step.max()))
    early, late = mixed.take(mixed.step == search.queries), mixed.take(mixed.step < search.queries)
    follow(attack, model, late, search.queries - int(late.step[0]))
    answers = torch.cat((search.answer(early), search.answer(late)))
    whole = begun(search, images, labels, clean)
    follow(attack, model, whole, search.queries)
    assert torch.allclose(answers, search.answer(whole), atol=1e-9, rtol=0)


@pytest.mark.parametrize("attack", [APGD(n_restarts=3), APGDT(n_classes=4)], ids=str)
def test_restarts_and_goals_differ(attack: Attack) -> None:
    model, images = network(), pictures()
    labels, search = predicted(model, images), attack.search()
    with torch.no_grad():
        rows = begun(search, images, labels, model(images))
    starts = [rows.points]
    for _ in range(2):
        follow(attack, model, rows, 11)
        starts.append(rows.points)
    assert search.queries == 33 and not any(torch.equal(one, other) for one, other in pairwise(starts))


def test_goals_are_ranked_by_the_untouched_image() -> None:
    model, images = network(), pictures()
    with torch.no_grad():
        clean = model(images)
    for labels in (clean.argmax(1), clean.argmin(1)):
        rows = begun(APGDT().search(), images, labels, clean)
        ranked = [
            [k for k in row.argsort(descending=True).tolist() if k != y] for row, y in zip(clean, labels, strict=True)
        ]
        # Six classes have five goals, though ten are asked for.
        assert rows.memory["goals"].tolist() == ranked


def test_ends_where_there_is_no_further_goal() -> None:
    model, images = network(), pictures()
    labels, search = predicted(model, images), APGDT(eps=1e-9, steps=2).search()
    with torch.no_grad():
        rows = begun(search, images, labels, model(images))
    ended = follow(APGDT(eps=1e-9, steps=2), model, rows, 15, lambda rows: float(rows.done.float().mean()))
    assert search.queries == 27 and ended == 14 * [0.0] + [1.0]


def test_average_of_equal_answers_is_the_answer() -> None:
    model, images = network(), pictures()
    labels = predicted(model, images)
    once = APGD(steps=6, n_restarts=2)
    found = replace(once, eot_iter=4)(model, images, labels)
    assert torch.allclose(found, once(model, images, labels), atol=1e-9, rtol=0)


def test_average_is_taken_over_answers() -> None:
    """A gradient that is +3, -1, -1 in turn points up on average, and down two times of three."""

    class Fickle(nn.Module):
        asked = 0

        def forward(self, images: Tensor) -> Tensor:
            slope = (3.0, -1.0, -1.0)[self.asked % 3]
            self.asked += 1
            height = slope * images.flatten(1).sum(1)
            return torch.stack((-height, torch.zeros_like(height)), 1)

    images, labels = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    attack = APGD(eps=0.1, steps=1, eot_iter=3, loss="ce")
    search, model = attack.search(), Fickle()
    # A fixed slope of the loss, so that only the model's turn matters.
    rows = begun(search, images, labels)
    with frozen(model):
        for _ in range(3):
            said = asked(search, model, rows)
            slope = said.gradient / said.gradient.abs() * (3.0 if said.gradient[0, 0, 0, 0] > 0 else 1.0)
            search.advance(rows, replace(said, gradient=slope))
            rows.step += 1
    assert torch.allclose(rows.points, torch.full_like(images, 0.6))


# No weaker than its peers, on a network that learned something.


@pytest.fixture(scope="module")
def learned() -> tuple[nn.Module, Tensor, Tensor]:
    """A tiny network that tells ten noisy patterns apart, and 128 images that it gets right."""
    generator = torch.Generator().manual_seed(0)
    patterns = 0.5 + 0.06 * torch.randn(10, 3, 16, 16, generator=generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (count,), generator=generator)
        noise = 0.15 * torch.randn(count, 3, 16, 16, generator=generator)
        return (patterns[labels] + noise).clamp(0, 1), labels

    torch.manual_seed(0)
    first = (nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())
    second = (nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU())
    model = nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32 * 9, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        images, labels = draw(64)
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = draw(400)
    right = predicted(model.eval(), images) == labels
    return model, images[right][:128], labels[right][:128]


def standing(attack: Callable[..., Tensor], model: nn.Module, images: Tensor, labels: Tensor) -> int:
    return int((predicted(model, attack(model, images, labels)) == labels).sum())


PEERED = [
    APGD("Linf", 5 / 255, steps=20),
    APGD("Linf", 5 / 255, steps=20, loss="dlr"),
    APGDT("Linf", 5 / 255, steps=20, n_classes=4),
    APGD("L2", 0.3, steps=20),
    APGD("L2", 0.3, steps=20, loss="dlr"),
    APGDT("L2", 0.3, steps=20, n_classes=4),
]


@pytest.mark.parametrize("attack", PEERED, ids=str)
def test_no_weaker_than_plain_pgd(attack: Attack, learned: tuple[nn.Module, Tensor, Tensor]) -> None:
    alpha = attack.eps / 4
    plain = PGD(attack.eps, alpha, 20) if attack.norm == "Linf" else PGDL2(attack.eps, alpha, 20)
    mine, other = standing(attack, *learned), standing(plain, *learned)
    print(f"{mine} of 128 stand, {other} under plain PGD")
    assert 32 < mine <= other < 96


@pytest.mark.parametrize("attack", PEERED, ids=str)
def test_no_weaker_than_torchattacks(attack: Attack, learned: tuple[nn.Module, Tensor, Tensor]) -> None:
    peers = pytest.importorskip("torchattacks", reason="needs the bench extra")
    model, images, labels = learned
    options: dict[str, Any] = {"norm": attack.norm, "eps": attack.eps, "steps": attack.steps}
    options |= {"loss": attack.loss} if isinstance(attack, APGD) else {"n_classes": attack.n_classes}
    peer = getattr(peers, type(attack).__name__)(model, **options)
    mine = standing(attack, model, images, labels)
    other = standing(lambda model, images, labels: peer(images, labels), model, images, labels)
    print(f"{mine} of 128 stand, {other} under torchattacks")
    assert 32 < mine <= other + 1


# Mistakes.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(steps=0), "steps is 1 or more; got 0"),
        (lambda: APGD(n_restarts=0), "n_restarts is 1 or more; got 0"),
        (lambda: APGDT(eot_iter=0), "eot_iter is 1 or more; got 0"),
        (lambda: APGD(rho=1.5), "rho is a share of steps, 0 to 1; got 1.5"),
        (lambda: APGDT(n_classes=1), "n_classes is 2 or more"),
        (lambda: APGD(eps=8), "write 8/255"),
        (lambda: APGDT("L2", -1.0), "0 or more"),
    ],
)
def test_refuses_options(make: Callable[[], Attack], message: str) -> None:
    with pytest.raises(PassbandError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_refuses_a_loss_that_is_none() -> None:
    attack = APGD()
    object.__setattr__(attack, "loss", "dlrr")  # past the annotations, which only tests enforce
    with pytest.raises(PassbandError, match="unknown loss 'dlrr': did you mean 'dlr'"):
        attack.__post_init__()


@pytest.mark.parametrize(
    ("attack", "classes", "message"),
    [
        (APGD(loss="dlr"), 2, "DLR loss needs 3 classes or more; this model has 2"),
        (APGD(loss="dlr", targeted=True), 3, "targeted DLR loss needs 4 classes or more; this model has 3"),
        (APGDT(), 3, "targeted DLR loss needs 4 classes or more; this model has 3"),
        (APGDT(), 5, "labels lie in 0 to 4"),
        (APGD(), 5, "labels lie in 0 to 4"),
    ],
    ids=str,
)
def test_refuses_a_model_that_does_not_fit(attack: Attack, classes: int, message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        attack(network(classes), pictures(2), torch.tensor([0, 5 if classes == 5 else 1]))
