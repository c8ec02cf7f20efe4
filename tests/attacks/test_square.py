"""Square Attack: schedule, bumps and corners by hand, rows free of each other, and the peer's strength."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.registry import make
from passband.attacks.search import Rows, asked, begun, searched
from passband.attacks.square import Square, _bumps
from passband.core.errors import PassbandError

EPS = {"Linf": 0.05, "L2": 0.5}


def problem(count: int = 6, size: int = 9) -> tuple[nn.Module, Tensor, Tensor]:
    """A float64 network with the answers it gives, and images with pixels at both ends of the range."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size)).double() / 255
    images[::2, 0] = images[::2, 0].round()
    linear = nn.Linear(6 * (size // 3) ** 2, 4)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), linear).double()
    with torch.no_grad():
        linear.bias -= model(images).mean(0)
        labels = model(images).argmax(1)
    return model, images, labels


def stepped(attack: Square, model: nn.Module, rows: Rows) -> None:
    attack.advance(rows, asked(attack, model, rows))
    rows.step = rows.step + 1


def ended(attack: Square, model: nn.Module, rows: Rows) -> Tensor:
    """Ask to the end, as the engine does, and return the answers."""
    answers, places = torch.empty_like(rows.images), torch.arange(len(rows))
    while len(rows):
        over = rows.done | (rows.step >= attack.queries)
        answers[places[over]] = attack.answer(rows.take(over))
        rows, places = rows.take(~over), places[~over]
        if len(rows):
            stepped(attack, model, rows)
    return answers


def striped(rows: Rows) -> bool:
    """Tell whether each column of a channel has moved one way, but for pixels that the range held."""
    signs = (rows.points - rows.images).sign()
    return torch.equal(signs, torch.where(signs != 0, signs.sum(2, keepdim=True).sign(), 0.0))


def rows_that_stand(attack: Square, model: nn.Module, images: Tensor, labels: Tensor, queries: int) -> Tensor:
    """Return the places of the images that do not fall in the first queries."""
    rows = begun(attack, images, labels)
    for _ in range(queries):
        stepped(attack, model, rows)
    assert 0 < int(rows.done.sum()) < len(rows)
    return (~rows.done).nonzero()[:, 0]


class Sure(nn.Module):
    """A linear model whose margin is 1000 + w·x, out of any attack's reach."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor:
        margin = 1000 + (images * self.weight).sum((1, 2, 3))
        return torch.stack((margin, torch.zeros_like(margin)), 1)


def test_side_follows_the_papers_schedule() -> None:
    """Sides of 0.8, 0.4, ... 0.8/512 of 32x32, from √819.2 = 28.6 on, as their queries come."""
    turns = torch.tensor([1, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 6000, 6001])
    sides = [29, 29, 20, 20, 14, 14, 10, 10, 7, 7, 5, 5, 4, 4, 3, 3, 2]
    late, last = torch.tensor([8000, 8001, 9999]), [2, 1, 1]
    attack = Square(n_queries=10_000)
    assert attack.side(torch.cat((turns, late)), 32, 32).tolist() == sides + last
    half = replace(attack, n_queries=5000)
    assert half.side((turns + 1) // 2, 32, 32).tolist() == [29, 29, 20, 20, 14, 14, 10, 10, 7, 7, 5, 5, 4, 4, 3, 3, 2]
    assert replace(half, resc_schedule=False).side(turns, 32, 32).tolist() == sides
    odd = [29, 29, 21, 21, 15, 15, 11, 11, 7, 7, 5, 5, 5, 5, 3, 3, 3]
    assert replace(attack, norm="L2").side(turns, 32, 32).tolist() == odd
    assert Square(p_init=1).side(torch.tensor([1]), 8, 32).item() == 8
    assert Square("L2", p_init=1).side(torch.tensor([1]), 8, 32).item() == 7


def test_proposal_is_one_square_in_a_corner_of_the_ball() -> None:
    _, images, labels = problem(size=12)
    attack = Square(n_queries=1000)
    rows = begun(attack, images, labels * 0)
    corners = torch.stack((images - attack.eps, images + attack.eps)).clamp(0, 1)
    assert ((rows.points - corners).abs().amin(0) < 1e-12).all() and striped(rows)
    for _ in range(60):
        stepped(attack, Sure(torch.ones(3, 12, 12, dtype=torch.float64)), rows)
        side = attack.side(rows.step, 12, 12)
        assert ((rows.points - corners).abs().amin(0) < 1e-12).all()
        for row in range(len(images)):
            changed = ((rows.points - rows.memory["best"])[row].abs() > 1e-12).any(0).nonzero()
            if len(changed):
                assert int((changed.amax(0) - changed.amin(0)).max()) < int(side[row])
    assert len(rows.points[:, 0].reshape(len(images), -1).unique(dim=0)) == len(images)


def test_squares_reach_every_place() -> None:
    """The margin does not change, so no proposal is kept, and all pixels get their turn, the edges too."""
    attack = Square(n_queries=100, p_init=0.1)
    images = torch.full((8, 1, 6, 6), 0.5, dtype=torch.float64)
    rows = begun(attack, images, torch.zeros(8, dtype=torch.int64))
    rows.keys = torch.arange(8)
    touched = torch.zeros(6, 6, dtype=torch.bool)
    for _ in range(100):
        stepped(attack, Sure(torch.zeros(1, 6, 6, dtype=torch.float64)), rows)
        touched |= ((rows.points - rows.memory["best"]) != 0).any(0).any(0)
    assert touched.all()


def test_bumps_are_the_papers() -> None:
    """Equation 2, written out: ring sums around the middle of each half, zero outside the window."""

    def eta(high: int, wide: int) -> Tensor:
        middle, outermost = (high // 2, wide // 2), wide // 2 + 1
        bump = torch.zeros(high, wide, dtype=torch.float64)
        for row in range(high):
            for column in range(wide):
                ring = max(abs(row - middle[0]), abs(column - middle[1]))
                bump[row, column] = sum(1 / j**2 for j in range(ring + 1, outermost + 1))
        return bump

    expected = torch.zeros(2, 1, 10, 12, dtype=torch.float64)
    expected[0, 0, 1:6, 2:7] = torch.cat((eta(2, 5), -eta(3, 5)))
    expected[1, 0, 3:10, 4:11] = torch.cat((eta(3, 7), -eta(4, 7))).T
    y = torch.arange(10) - torch.tensor([[1], [3]])
    x = torch.arange(12) - torch.tensor([[2], [4]])
    found = _bumps(y, x, torch.tensor([5, 7]), torch.tensor([False, True]), torch.float64)
    assert (found - expected).abs().max() < 1e-12


def test_l2_spends_all_of_eps_and_leaves_the_rest_alone() -> None:
    """Away from the ends of the range a proposal has length eps, and outside its windows nothing changes."""
    generator = torch.Generator().manual_seed(0)
    images = 0.4 + 0.2 * torch.rand(4, 3, 15, 15, generator=generator, dtype=torch.float64)
    attack = Square("L2", eps=0.3, n_queries=400, p_init=0.1)
    rows = begun(attack, images, torch.zeros(4, dtype=torch.int64))
    assert (rows.points != images).sum((1, 2, 3)).tolist() == [3 * 15 * 15] * 4
    weight = torch.randn(3, 15, 15, generator=generator, dtype=torch.float64)
    for _ in range(60):
        assert (attack.threat.distance(rows.points, images) - 0.3).abs().max() < 1e-9
        stepped(attack, Sure(weight), rows)
        side = attack.side(rows.step, 15, 15)
        same = ((rows.points - rows.memory["best"]).abs() < 1e-9).all(1).sum((1, 2))
        assert (same >= 15 * 15 - 2 * side.square()).all() and (same < 15 * 15).any()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("size", [3, 9, 13])
def test_no_point_leaves_ball_or_range(norm: str, size: int) -> None:
    _, images, labels = problem(size=size)
    attack = Square(norm, EPS[norm], n_queries=20, n_restarts=2)
    rows = begun(attack, images, labels * 0)
    model = Sure(torch.randn(3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for _ in range(attack.queries):
        assert rows.points.min() >= 0 and rows.points.max() <= 1
        assert attack.threat.distance(rows.points, images).max() <= EPS[norm] * (1 + 1e-12)
        stepped(attack, model, rows)


def test_margin_falls_to_the_linear_models_worst() -> None:
    """In L∞ a linear margin can fall by ε·‖w‖₁ and no more; single pixels get there one by one."""
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    images = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    labels, model = torch.zeros(3, dtype=torch.int64), Sure(weight)
    attack = Square(eps=0.1, n_queries=300, p_init=1 / 16)
    rows = begun(attack, images, labels)
    rows.keys = torch.arange(3)
    last = rows.memory["loss"]
    while int(rows.step[0]) < attack.queries:
        stepped(attack, model, rows)
        assert (rows.memory["loss"] <= last).all()
        last = rows.memory["loss"]
    best = attack.answer(rows)
    assert torch.equal(last, model(best)[:, 0])
    assert torch.allclose(best, images - 0.1 * weight.sign(), rtol=0, atol=1e-12)
    assert torch.allclose(last, model(images)[:, 0] - 0.1 * weight.abs().sum(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_success_ends_a_row_towards_a_class_too(norm: str, loss: str) -> None:
    model, images, labels = problem()
    for targeted in (False, True):
        goals = (labels + 1) % 4 if targeted else labels
        attack = Square(norm, 2 * EPS[norm], n_queries=50, loss=loss, targeted=targeted)
        answers = attack(model, images, goals)
        reached = (model(answers).argmax(1) == goals) == targeted
        assert reached.sum() >= 3
        rows = begun(attack, images, goals)
        while not bool(rows.done.any()):
            stepped(attack, model, rows)
        assert torch.equal((model(rows.memory["best"]).argmax(1) == goals) == targeted, rows.done)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_rows_are_free_of_each_other(norm: str) -> None:
    model, images, labels = problem()
    attack = Square(norm, EPS[norm] / 2, n_queries=12, n_restarts=2)
    together = searched(attack, model, images, labels)
    alone = torch.cat([searched(attack, model, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    backwards = searched(attack, model, images.flip(0), labels.flip(0)).flip(0)
    fallen = (model(together).argmax(1) != labels).sum()
    print(f"{attack}: {fallen} of {len(images)} fell; largest difference {(together - alone).abs().max():.1e}")
    assert 0 < fallen < len(images)
    assert (together - alone).abs().max() < 1e-9 and (together - backwards).abs().max() < 1e-9
    ahead, behind = rows_that_stand(attack, model, images, labels, queries=5), torch.tensor([0, 1])
    early = begun(attack, images[ahead], labels[ahead])
    for _ in range(5):
        stepped(attack, model, early)
    joined = early.joined(begun(attack, images[behind], labels[behind]))
    assert (ended(attack, model, joined) - together[torch.cat((ahead, behind))]).abs().max() < 1e-9


def test_restart_begins_anew() -> None:
    _, images, labels = problem()
    attack = Square(n_queries=10, n_restarts=2)
    model = Sure(torch.ones(3, 9, 9, dtype=torch.float64))
    rows = begun(attack, images, labels * 0)
    first = rows.points
    for _ in range(10):
        assert striped(rows) == (int(rows.step[0]) == 0)
        stepped(attack, model, rows)
    again = rows.points
    assert striped(rows) and not torch.equal(first, again)
    stepped(attack, model, rows)
    assert torch.equal(rows.memory["best"], again) and torch.equal(rows.memory["loss"], model(again)[:, 0])


def test_seed_type_and_memory_format() -> None:
    model, images, labels = problem()
    attack = Square(n_queries=5)
    first, again, other = (replace(attack, seed=seed)(model, images, labels) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    last = images.contiguous(memory_format=torch.channels_last)
    for norm in ("Linf", "L2"):
        attack = Square(norm, EPS[norm], n_queries=5)
        found = attack(model, last, labels)
        assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == torch.float64
        assert (found - attack(model, images, labels)).abs().max() < 1e-12
        single = attack(model.float(), images.float(), labels)
        assert single.dtype == torch.float32
        model.double()
    assert torch.equal(Square(eps=0)(model, images, labels), images)
    assert eval(str(attack.at(0.2))) == replace(attack, eps=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "L1"}, "norm"),
        ({"loss": "dlr"}, "loss"),
        ({"eps": "8"}, "write 8/255"),
        ({"n_queries": 0}, "n_queries is 1 or more; got 0"),
        ({"n_restarts": 0}, "n_restarts is 1 or more; got 0"),
        ({"p_init": 0}, "p_init is a share"),
        ({"p_init": 1.5}, "p_init is a share"),
        ({"band": "low"}, "band"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        make("square", options)


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained for a moment on noisy pictures of ten kinds, and 128 new ones that it gets right."""
    torch.manual_seed(0)
    kinds = functional.interpolate(torch.rand(10, 3, 3, 3), size=10, mode="bilinear")
    labels = torch.arange(768) % 10
    images = (0.5 + 0.3 * (kinds[labels] - 0.5) + 0.1 * torch.randn(768, 3, 10, 10)).clamp(0, 1)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for first in [*range(0, 512, 64)] * 10:
        optimizer.zero_grad()
        functional.cross_entropy(model(images[first : first + 64]), labels[first : first + 64]).backward()
        optimizer.step()
    right = 512 + (model(images[512:]).argmax(1) == labels[512:]).nonzero()[:128, 0]
    return model.eval(), images[right], labels[right]


@pytest.mark.parametrize(("norm", "eps", "queries"), [("Linf", 6 / 255, 500), ("L2", 0.7, 250)])
def test_is_as_strong_as_torchattacks(norm: str, eps: float, queries: int) -> None:
    peer = pytest.importorskip("torchattacks", reason="needs the bench extra")
    model, images, labels = trained()
    with torch.no_grad():
        ours = int((model(Square(norm, eps, queries)(model, images, labels)).argmax(1) == labels).sum())
        theirs = peer.Square(model, norm=norm, eps=eps, n_queries=queries)(images, labels)
        theirs = int((model(theirs).argmax(1) == labels).sum())
    print(f"{len(images)} images, {norm} {eps:.3f}, {queries} queries: {ours} stand, under torchattacks {theirs}")
    assert len(images) == 128 and 16 < ours <= theirs + 1
