"""FAB: projections against an optimizer, distances known on paper, rows free of each other, the peer's strength."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.fab import FAB, onto_plane
from passband.attacks.registry import make
from passband.attacks.search import Rows, asked, begun, searched
from passband.core.errors import PassbandError

EPS = {"Linf": 0.05, "L2": 0.5}


def problem(count: int = 6, size: int = 9) -> tuple[nn.Module, Tensor, Tensor]:
    """A float64 network with the answers it gives, and images with pixels at both ends of the range."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size)).double() / 255
    images[::2, 0] = images[::2, 0].round()
    linear = nn.Linear(6 * (size // 3) ** 2, 4)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(3), nn.Flatten(), linear).double()
    with torch.no_grad():
        linear.bias -= model(images).mean(0)
        labels = model(images).argmax(1)
    return model, images, labels


def begin(attack: FAB, model: nn.Module, images: Tensor, labels: Tensor) -> Rows:
    return begun(attack, images, labels, model(images).detach() if attack.needs_clean else None)


def stepped(attack: FAB, model: nn.Module, rows: Rows) -> None:
    attack.advance(rows, asked(attack, model, rows))
    rows.step = rows.step + 1


def ended(attack: FAB, model: nn.Module, rows: Rows) -> Tensor:
    """Ask to the end, as the engine does, and return the answers."""
    answers, places = torch.empty_like(rows.images), torch.arange(len(rows))
    while len(rows):
        over = rows.done | (rows.step >= attack.queries)
        answers[places[over]] = attack.answer(rows.take(over))
        rows, places = rows.take(~over), places[~over]
        if len(rows):
            stepped(attack, model, rows)
    return answers


class Linear(nn.Module):
    """Logits 0 and, for each further class, w·x + b."""

    def __init__(self, weights: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.weights, self.offsets = weights, offsets

    def forward(self, images: Tensor) -> Tensor:
        return functional.pad(images.flatten(1) @ self.weights.flatten(1).T + self.offsets, (1, 0))


def linear(classes: int = 2, size: int = 8) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear model, gray images of its class 0, their labels, and each margin over each other class."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(classes - 1, 3, size, size, generator=generator, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(5, 3, size, size, generator=generator, dtype=torch.float64)
    model = Linear(weights, torch.zeros(classes - 1, dtype=torch.float64))
    model.offsets = -model(images)[:, 1:].amax(0) - 1
    return model, images, torch.zeros(5, dtype=torch.int64), -model(images)[:, 1:]


def dual(weights: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(weights.flatten(1), ord=1 if norm == "Linf" else 2, dim=1)


def planes(norm: str) -> list[tuple[np.ndarray, np.ndarray, float, np.ndarray]]:
    """Points of ten pixels, slopes, gaps, and the changes that were found; some planes miss the box."""
    generator = np.random.default_rng(0)
    points, slopes, gaps = generator.random((12, 10)), generator.normal(size=(12, 10)), 2 * generator.normal(size=12)
    points[:4, :5] = points[:4, :5].round()
    slopes[5, 3] = 0
    images, normals = (torch.from_numpy(each).view(12, 1, 2, 5) for each in (points, slopes))
    found = onto_plane(images, torch.from_numpy(gaps), normals, norm).flatten(1).numpy()
    return list(zip(points, slopes, gaps, found, strict=True))


def test_projection_in_linf_is_a_linear_programs() -> None:
    """Least t with |δ| <= t, w·δ = -gap and pixels in the range."""
    solved = 0
    for point, slope, gap, change in planes("Linf"):
        bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
        within = np.block([[np.eye(10), -np.ones((10, 1))], [-np.eye(10), -np.ones((10, 1))]])
        best = linprog([0] * 10 + [1], within, np.zeros(20), [[*slope, 0]], [-gap], bounds)
        if best.status == 2:
            corner = np.where(slope == 0, 0, np.where(slope * gap > 0, -point, 1 - point))
            assert np.abs(change - corner).max() < 1e-12
            continue
        solved += 1
        assert abs(slope @ change + gap) < 1e-9 and abs(np.abs(change).max() - best.fun) < 1e-7
        assert (point + change).min() > -1e-12 and (point + change).max() < 1 + 1e-12
    assert 6 < solved < 12


def test_projection_in_l2_satisfies_the_optimality_conditions() -> None:
    """δ = -λw clipped into the box, for the one λ with w·δ = -gap."""

    def clipped(size: float, point: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.clip(-size * slope, -point, 1 - point)

    def left(size: float, point: np.ndarray, slope: np.ndarray, gap: float) -> float:
        return slope @ clipped(size, point, slope) + gap

    solved = 0
    for point, slope, gap, change in planes("L2"):
        size = math.copysign(1e6, gap)
        if left(size, point, slope, gap) * gap < 0:
            solved += 1
            size = brentq(left, 0, size, (point, slope, gap), xtol=1e-14)
        assert np.abs(change - clipped(size, point, slope)).max() < 1e-9
    assert 6 < solved < 12


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_distance_to_a_linear_boundary(norm: str, multi: bool) -> None:
    """D = margin / ‖w‖ of the dual norm, over the classes; the steps come to 1.0052 D, which a hand can follow.

    The first overshoots to 1.05 D; 0.9 of that leaves 0.055 D to go, so the second weighs the image by
    0.055 / 1.055 and ends at (1 - 0.0521)(0.945 + 1.05 · 0.055) + 0.0521 · 1.05 = 1.0052. Later ones end higher.
    """
    model, images, labels, margins = linear(4)
    exact = (margins / dual(model.weights, norm)).amin(1)
    assert len((margins / dual(model.weights, norm)).argmin(1).unique()) > 1
    attack = FAB(norm, float(2 * exact.max()), multi_targeted=multi)
    rows = begin(attack, model, images, labels)
    while not bool(rows.done.any()) and int(rows.step[0]) < attack.queries:
        stepped(attack, model, rows)
    share = 0.055 / 1.055
    by_hand = (1 - share) * (0.945 + 1.05 * 0.055) + share * 1.05
    assert rows.step.tolist() == [20 * (3 if multi else 1)] * 5
    assert (rows.memory["distance"] / exact - by_hand).abs().max() < 1e-9
    found = attack.answer(rows)
    assert torch.equal(found, attack(model, images, labels))
    assert (model(found).argmax(1) != labels).all()
    assert (attack.threat.distance(found, images) / exact - 1).abs().max() < 6e-3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_answer_lies_within_eps_or_is_the_image(norm: str) -> None:
    model, images, labels, margins = linear()
    exact = (margins / dual(model.weights, norm))[:, 0]
    eps = float(exact.sort().values[2:4].mean())
    found = FAB(norm, eps)(model, images, labels)
    near = exact < eps
    assert near.sum() == 3 and ((model(found).argmax(1) != labels) == near).all()
    assert torch.equal(found[~near], images[~near])
    assert FAB(norm, None).threat.eps == {"Linf": 0.3, "L2": 1.0}[norm]


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_no_point_leaves_the_range_nor_an_answer_the_ball(norm: str, multi: bool) -> None:
    model, images, labels = problem()
    attack = FAB(norm, EPS[norm], steps=4, n_restarts=3, multi_targeted=multi)
    rows = begin(attack, model, images, labels)
    last = rows.memory["distance"]
    for _ in range(8 * 3):
        assert rows.points.min() >= 0 and rows.points.max() <= 1
        stepped(attack, model, rows)
        assert (rows.memory["distance"] <= last).all()
        last = rows.memory["distance"]
        assert attack.threat.distance(attack.answer(rows), images).max() <= EPS[norm]
    assert torch.allclose(attack.threat.distance(rows.memory["best"], images)[last < math.inf], last[last < math.inf])
    assert (last < EPS[norm]).any() and (model(rows.memory["best"]).argmax(1) != labels).equal(last < math.inf)


def test_goes_back_from_an_error_and_asks_for_gradients_every_other_time() -> None:
    model, images, labels, _ = linear()
    attack = FAB(steps=2)
    rows = begin(attack, model, images, labels)
    assert torch.equal(rows.points, images)
    assert asked(attack, model, rows).gradient is not None
    stepped(attack, model, rows)
    led = rows.points
    assert asked(attack, model, rows).gradient is None
    stepped(attack, model, rows)
    assert (model(led).argmax(1) != labels).all()
    assert torch.allclose(rows.points, images + 0.9 * (led - images), rtol=0, atol=1e-15)
    assert torch.equal(rows.memory["best"], led)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_restart_lies_at_half_the_distance(norm: str) -> None:
    """Half the smallest distance found, or eps / 2 where that is less."""
    model, images, labels, margins = linear()
    exact = (margins / dual(model.weights, norm))[:, 0]
    eps = float(exact.median())
    attack = FAB(norm, eps, steps=2, n_restarts=2)
    rows = begin(attack, model, images, labels)
    for _ in range(4):
        stepped(attack, model, rows)
    distance = attack.threat.distance(rows.points, images)
    assert torch.allclose(distance, rows.memory["distance"].clamp(max=eps) / 2, rtol=1e-9)
    assert len((distance / eps).unique()) > 1
    other = begin(replace(attack, seed=1), model, images, labels)
    for _ in range(4):
        stepped(attack, model, other)
    assert torch.equal(other.memory["best"], rows.memory["best"]) and not torch.equal(other.points, rows.points)
    stepped(attack, model, rows)
    assert (attack.threat.distance(rows.points, images) > distance).all()


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_rows_are_free_of_each_other(norm: str, multi: bool) -> None:
    model, images, labels = problem(4)
    attack = FAB(norm, EPS[norm] / 4, steps=2, n_restarts=2, multi_targeted=multi)
    together = searched(attack, model, images, labels)
    alone = torch.cat([searched(attack, model, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    backwards = searched(attack, model, images.flip(0), labels.flip(0)).flip(0)
    fallen = (model(together).argmax(1) != labels).sum()
    print(f"{attack}: {fallen} of {len(images)} fell; largest difference {(together - alone).abs().max():.1e}")
    assert 0 < fallen < len(images)
    assert (together - alone).abs().max() < 1e-9 and (together - backwards).abs().max() < 1e-9
    for late in (3, 4):
        early = begin(attack, model, images[:2], labels[:2])
        for _ in range(late):
            stepped(attack, model, early)
        joined = early.joined(begin(attack, model, images[2:], labels[2:]))
        assert (ended(attack, model, joined) - together).abs().max() < 1e-9


def test_wrong_untouched_is_its_own_answer() -> None:
    model, images, labels = problem()
    for multi in (False, True):
        attack = FAB(multi_targeted=multi)
        rows = begin(attack, model, images, (labels + 1) % 4)
        stepped(attack, model, rows)
        assert rows.done.all() and torch.equal(attack.answer(rows), images)


def test_tries_the_likely_classes_first_and_ends_after_the_last() -> None:
    model, images, labels = problem()
    attack = FAB(steps=1, multi_targeted=True)
    rows = begin(attack, model, images, labels)
    order = model(images).argsort(1, descending=True)
    assert torch.equal(rows.memory["goals"], order[:, 1:])
    assert begin(replace(attack, n_classes=3), model, images, labels).memory["goals"].shape == (6, 2)
    for number in range(3):
        said = asked(attack, model, rows)
        logits = model(images)
        expected = logits.gather(1, order[:, number + 1 : number + 2]) - logits.gather(1, order[:, :1])
        assert torch.allclose(said.losses, expected[:, 0]) and not rows.done.any()
        stepped(attack, model, rows)
        stepped(attack, model, rows)
    assert rows.done.all() and attack.queries == 18


def test_type_and_memory_format() -> None:
    model, images, labels = problem()
    attack = FAB(eps=0.1, steps=3, n_restarts=2)
    first = attack(model, images, labels)
    last = images.contiguous(memory_format=torch.channels_last)
    found = attack(model, last, labels)
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == torch.float64
    assert (found - first).abs().max() < 1e-12
    assert attack(model.float(), images.float(), labels).dtype == torch.float32
    model.double()
    assert torch.equal(FAB(eps=0)(model, images, labels), images)
    assert eval(str(attack.at(0.2))) == replace(attack, eps=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "L1"}, "norm"),
        ({"eps": "8"}, "write 8/255"),
        ({"steps": 0}, "steps is 1 or more; got 0"),
        ({"n_restarts": 0}, "n_restarts is 1 or more; got 0"),
        ({"n_classes": 1}, "n_classes is 2 or more; got 1"),
        ({"alpha_max": 1.5}, "alpha_max is a share"),
        ({"beta": -0.1}, "beta is a share"),
        ({"eta": 0.9}, "eta is 1 or more"),
        ({"targeted": True}, "targeted"),
        ({"band": "low"}, "band"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        make("fab", options)


def test_refuses_labels_without_a_class() -> None:
    model, images, labels = problem()
    for multi in (False, True):
        with pytest.raises(PassbandError, match="labels lie in 0 to 3"):
            FAB(multi_targeted=multi)(model, images, labels + 4)


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 5 / 255), ("L2", 0.22)])
def test_is_as_strong_as_torchattacks(trained, norm: str, eps: float, multi: bool) -> None:
    peer = pytest.importorskip("torchattacks", reason="needs the bench extra")
    model, images, labels = trained
    ours = FAB(norm, eps, multi_targeted=multi)(model, images, labels)
    theirs = peer.FAB(model, norm=norm, eps=eps, multi_targeted=multi)(images, labels)
    with torch.no_grad():
        ours, theirs = (int((model(found).argmax(1) == labels).sum()) for found in (ours, theirs))
    print(f"{len(images)} images, {norm} {eps:.3f}, multi_targeted {multi}: {ours} stand, under torchattacks {theirs}")
    assert len(images) == 128 and 16 < ours < 112 and ours <= theirs + 1
