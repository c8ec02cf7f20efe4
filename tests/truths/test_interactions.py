"""Interactions of functions whose own are known on paper, and of a small network by brute force."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.results import Curve
from passband.data.dataset import ImageSet
from passband.probes.interaction_players import orders, patches
from passband.probes.interaction_strength import middle_share
from passband.probes.interactions import Sampling, interactions, measured

BLACK = torch.zeros(3, 1, 1)


class OfPatches(nn.Module):
    """Give the logits (0, f) for a function f of the patches' first pixels on a grid, float64 [row, player]."""

    def __init__(self, function, grid: int = 3) -> None:
        super().__init__()
        self.function, self.grid = function, grid
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        step = images.shape[-1] // self.grid
        players = images[:, 0, ::step, ::step].flatten(1).double()
        margin = self.function(players).float()
        return torch.stack((torch.zeros_like(margin), margin), 1)


def white(count: int, side: int) -> ImageSet:
    return ImageSet("white", np.full((count, side, side, 3), 255, np.uint8), np.ones(count, np.int64), ("a", "b"), "0")


def by_name(results) -> dict:
    return {result.name: result for result in results}


@pytest.mark.parametrize("value", ["log-odds", "logit"])
def test_an_additive_function_has_no_interactions_at_all(value: str) -> None:
    weights = torch.arange(25).double() - 7  # whole numbers, whose sums are exact
    model = OfPatches(lambda players: players @ weights, 5)
    found = by_name(interactions(model, white(3, 10).batches(2), grid=5, pairs=6, contexts=4, value=value))
    curve = found["interactions.strength"]
    assert isinstance(curve, Curve) and len(curve.x.values) == 13
    assert (curve.arrays["mean"] == 0).all() and (curve.arrays["floor"] == 0).all()
    assert set(curve.series[0].values) == {None} and found["interactions.mean"].value == 0
    assert found["interactions.middle"].value is None


def test_of_a_product_of_two_patches_that_pair_alone_shows_at_every_order() -> None:
    i, j = 4, 6
    model = OfPatches(lambda players: 8 * players[:, i] * players[:, j] + players.sum(1))
    # All pairs that there are: none lies more than two steps apart.
    curve = by_name(interactions(model, white(1, 9).batches(1), grid=3, pairs=36, contexts=3))["interactions.strength"]
    pairs, mean = curve.arrays["pairs"][0], curve.arrays["mean"][0]
    own = (pairs == (i, j)).all(1)
    assert own.sum() == 1 and (mean[own] == 8).all() and (mean[~own] == 0).all()
    assert set(curve.series[0].values) == {1.0}


def test_a_product_of_three_shows_as_often_as_the_third_is_in_the_context() -> None:
    model = OfPatches(lambda players: players[:, :3].prod(1))
    curve = by_name(interactions(model, white(1, 9).batches(1), grid=3, pairs=36, contexts=100))
    curve = curve["interactions.strength"]
    row = curve.arrays["pairs"][0].tolist().index([0, 1])
    assert curve.arrays["mean"][0, row] == pytest.approx(np.array(orders(3)) / 7)  # all contexts, each once
    assert (curve.arrays["floor"] == 0).all()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 25, 4)).eval()


def noise(count: int, side: int = 7) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, rng.integers(0, 4, count), tuple("abcd"), "0")


def test_it_is_what_a_plain_loop_over_all_contexts_gives() -> None:
    model, data, baseline = network(), noise(2), torch.tensor([0.2, 0.5, 0.7]).view(3, 1, 1)
    asked = Sampling(grid=3, count=2, pairs=3, contexts=35)
    found = measured(model, data.batches(2), asked, value="log-odds", baseline=baseline, seed=0)
    image, target = next(iter(data.batches(1)))
    where = patches(3, 7, 7)
    every = [frozenset(np.flatnonzero(bits).tolist()) for bits in product((0, 1), repeat=9)]
    keep = torch.stack([torch.tensor([[p in seen for p in line] for line in where.tolist()]) for seen in every])
    with torch.no_grad():
        p = model(torch.where(keep[:, None], image, baseline)).double().softmax(1)[:, int(target)]
    v = dict(zip(every, (p / (1 - p)).log().tolist(), strict=True))
    for (i, j), means in zip(found["pairs"][0].tolist(), found["mean"][0], strict=True):
        others = sorted(set(range(9)) - {i, j})
        for order, mean in zip(orders(3), means, strict=True):
            deltas = [
                v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s] for s in map(frozenset, combinations(others, order))
            ]
            assert mean == pytest.approx(np.mean(deltas), abs=1e-5) and abs(mean) > 1e-4


def test_few_contexts_lift_the_middle_and_the_correction_takes_most_of_it_away() -> None:
    # x' C x / 2 and the sum of all products of three of e x: I(i, j) = C_ij + e_i e_j (sum of e over the context).
    pairs_of = torch.randn(25, 25, generator=torch.Generator().manual_seed(0)).double().triu(1)
    e = torch.tensor([1.0] * 12 + [0.0] + [-1.0] * 12).double()

    def function(players: Tensor) -> Tensor:
        signed = e * players
        first, second, third = (one.sum(1) for one in (signed, signed * signed, signed * signed * signed))
        return (players @ pairs_of * players).sum(1) + (first**3 - 3 * first * second + 2 * third) / 6

    found = by_name(
        interactions(OfPatches(function, 5), white(2, 5).batches(2), grid=5, pairs=100, contexts=4, value="logit")
    )
    arrays = found["interactions.strength"].arrays
    i, j = torch.from_numpy(arrays["pairs"]).flatten(0, 1).T
    # Of a context of m players each other one is in m / 23 of all; the others' e add up to minus the pair's.
    ratios = torch.tensor(orders(5)).double() / 23
    true = pairs_of[i, j][:, None] - (e[i] * e[j] * (e[i] + e[j]))[:, None] * ratios
    assert arrays["mean"].reshape(200, 13)[:, [0, -1]] == pytest.approx(true[:, [0, -1]].numpy(), abs=1e-4)
    middle = middle_share(true.abs().mean(0).numpy(), 5)
    share, mended = (found[f"interactions.{name}"].value for name in ("middle", "middle_corrected"))
    assert abs(mended - middle) < (share - middle) / 2
    # Half of the players, the seventh order: a sum drawn without replacement, of which the mean of four is taken.
    spread = (e[i] * e[j]).abs() * (22 / 4 / 4) ** 0.5
    assert (arrays["floor"][:, [0, -1]] == 0).all()
    assert arrays["floor"].mean(0)[6] == pytest.approx(float(spread.mean()) * (2 / np.pi) ** 0.5, rel=0.2)
