"""How interactions are sampled and asked about: players, presets, baseline, batches, what is kept, mistakes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from passband.core.answer import Answer
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import parse_options
from passband.core.spec import ImageSpec
from passband.data.dataset import ImageSet
from passband.models.state import batch_statistics
from passband.models.wrap import Classifier
from passband.probes import PROBES
from passband.probes.interaction_players import draw_contexts, draw_pairs, masked, orders, patches, with_pair
from passband.probes.interaction_strength import corrected, middle_share
from passband.probes.interactions import PRESETS, SMALL, _sampling, interactions, worth

FEW = {"grid": 3, "pairs": 2, "contexts": 4}


def test_orders_are_the_published_ones() -> None:
    assert orders(14) == (0, 9, 19, 38, 58, 77, 97, 116, 135, 155, 174, 184, 194)
    assert orders(16) == (0, 12, 25, 50, 76, 101, 127, 152, 177, 203, 228, 241, 254)
    assert orders(14, 0.3, 0.7) == (58, 77, 97, 116, 135) and orders(3) == (0, 1, 2, 3, 4, 5, 6, 7)


def test_pairs_are_near_distinct_and_the_image_s_own() -> None:
    pairs = draw_pairs(8, 300, "a", 0)
    (rows, columns), (others, beside) = (np.divmod(pairs[:, side], 8) for side in (0, 1))
    assert len({tuple(pair) for pair in pairs.tolist()}) == 300 and (pairs[:, 0] < pairs[:, 1]).all()
    assert np.abs(rows - others).max() == np.abs(columns - beside).max() == 2
    assert np.array_equal(draw_pairs(8, 10, "a", 0), pairs[:10])
    assert not np.array_equal(draw_pairs(8, 10, "b", 0), pairs[:10])
    assert not np.array_equal(draw_pairs(8, 10, "a", 1), pairs[:10])
    assert len(draw_pairs(5, 168, "a", 0)) == 168
    with pytest.raises(PassbandError, match="168 near pairs; got pairs=169"):
        draw_pairs(5, 169, "a", 0)


def test_contexts_hold_as_many_others_as_asked_uniformly_and_freshly() -> None:
    found = draw_contexts(4, (1, 6), 5, 2000, "a", 0)
    assert found.shape == (2000, 16) and (found.sum(1) == 5).all() and not found[:, [1, 6]].any()
    shares = np.delete(found.mean(0), (1, 6))
    assert np.abs(shares - 5 / 14).max() < 4 * math.sqrt(5 / 14 * 9 / 14 / 2000)
    assert np.array_equal(draw_contexts(4, (1, 6), 5, 50, "a", 0), found[:50])
    for other in (((1, 7), 5, "a", 0), ((1, 6), 5, "b", 0), ((1, 6), 5, "a", 1)):
        pair, order, name, seed = other
        assert not np.array_equal(draw_contexts(4, pair, order, 50, name, seed), found[:50])
    for order, count in ((0, 1), (14, 1), (1, 14), (13, 14)):
        every = draw_contexts(4, (1, 6), order, 20, "a", 0)
        assert len(every) == count == len({tuple(row) for row in every.tolist()})


def test_the_four_terms_share_a_context() -> None:
    context = draw_contexts(3, (0, 4), 3, 6, "a", 0)
    terms = with_pair(context, (0, 4))
    assert terms[:, :, [0, 4]].tolist() == [[[True, True], [True, False], [False, True], [False, False]]] * 6
    assert np.array_equal(np.delete(terms, (0, 4), 2), np.delete(context, (0, 4), 1)[:, None].repeat(4, 1))


def test_a_mask_is_the_grid_upsampled_to_the_nearest() -> None:
    for grid, height, width in ((3, 9, 9), (3, 7, 10), (8, 28, 28)):
        up = nn.functional.interpolate(
            torch.arange(grid**2).view(1, 1, grid, grid).float(), size=(height, width), mode="nearest"
        )
        assert torch.equal(patches(grid, height, width), up[0, 0].long())
    image, gray = torch.rand(3, 6, 6), torch.full((3, 1, 1), 0.25)
    out = masked(image, torch.tensor([[True, False, False, True]]), patches(2, 6, 6), gray)[0]
    assert torch.equal(out[:, :3, :3], image[:, :3, :3]) and torch.equal(out[:, 3:, 3:], image[:, 3:, 3:])
    assert bool((out[:, :3, 3:] == 0.25).all()) and bool((out[:, 3:, :3] == 0.25).all())


def test_v_is_the_log_odds_or_what_is_asked_for() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0], [30.0, -30.0, 0.0]])
    p = logits.double().softmax(1)[:, 1]
    assert worth(logits, 1, "log-odds").tolist() == pytest.approx((p / (1 - p)).log().tolist())
    assert worth(logits, 1, "log-probability").tolist() == pytest.approx(p.log().tolist())
    assert worth(logits, 1, "logit").tolist() == [2, -30]
    # Where p rounds to 1 in float32, the log-odds are still finite.
    assert worth(torch.tensor([[0.0, 200.0]]), 1, "log-odds").tolist() == [200]


def test_presets_and_what_stands_in_place_of_their_numbers() -> None:
    assert _sampling("quick", 64, {}) == SMALL and _sampling("quick", 65, {}) == PRESETS["quick"]
    asked = _sampling("moganet", 224, {"pairs": 7, "grid": None})
    assert (asked.grid, asked.count, asked.pairs, asked.contexts) == (14, 100, 7, 50)


def test_correction_and_shares() -> None:
    strength, floor = np.array([3.0, 5.0, 1.0]), np.array([0.0, 4.0, 2.0])
    assert corrected(strength, floor).tolist() == [3, 3, 0]
    flat = np.ones((2, 13))
    assert middle_share(flat, 8).tolist() == pytest.approx([5 / 13] * 2) and np.isnan(middle_share(0 * flat, 8)).all()


class Seeing(nn.Module):
    """Note every image that came, and stop at a call when it is told to."""

    seen: ClassVar[list[Tensor]] = []
    last: ClassVar[int | None] = None

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4))

    def forward(self, images: Tensor) -> Tensor:
        if len(Seeing.seen) == Seeing.last:
            raise KeyboardInterrupt
        Seeing.seen.append(images.clone())
        logits: Tensor = self.body(images)
        return logits


def noise(count: int = 3) -> ImageSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return ImageSet("noise", pixels, rng.integers(0, 4, count), tuple("abcd"), "0" * 64)


def asked(model: nn.Module, size: int = 3, **options: Any) -> Any:
    Seeing.seen.clear()
    found = interactions(model, noise().batches(size), **(FEW | options))
    return {result.name: result for result in found}["interactions.strength"]


def test_two_models_see_the_same_and_batches_change_nothing() -> None:
    plain = asked(Seeing())
    seen = torch.cat(Seeing.seen[-len(orders(3)) * 3 :])
    other = asked(Seeing(1))
    assert torch.equal(torch.cat(Seeing.seen[-len(orders(3)) * 3 :]), seen)
    assert np.array_equal(plain.arrays["pairs"], other.arrays["pairs"])
    assert not np.array_equal(plain.arrays["mean"], other.arrays["mean"])
    again = asked(Seeing(), size=2)
    assert all(np.array_equal(plain.arrays[name], again.arrays[name]) for name in plain.arrays)
    fewer = asked(Seeing(), count=2)
    assert np.array_equal(fewer.arrays["mean"], plain.arrays["mean"][:2]) and fewer.series[0].n == 2


def test_patches_taken_away_are_zero_after_normalization() -> None:
    spec = ImageSpec((6, 6), (0.3, 0.4, 0.5), (0.2, 0.2, 0.2), "test", 4)
    curve = asked(Classifier(Seeing(), spec))
    shown = torch.cat(Seeing.seen[-len(orders(3)) * 3 :])
    assert 0.2 < float((shown == 0).float().mean()) < 0.8 and curve.how["baseline"] == pytest.approx([0.3, 0.4, 0.5])
    black = asked(Seeing())
    assert black.how["baseline"] == [0, 0, 0] and "(0, 0, 0)" in black.notes[0]
    given = asked(Classifier(Seeing(), spec), baseline=(0.5,))
    assert given.how["baseline"] == [0.5] * 3 and not np.array_equal(given.arrays["mean"], curve.arrays["mean"])


def test_the_model_is_left_as_it_was() -> None:
    model = Seeing().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_killed_one_goes_on_where_it_was(tmp_path: Path) -> None:
    model = Seeing().eval()
    whole = asked(model, resume=tmp_path / "other")
    calls = len(Seeing.seen)
    Seeing.last = calls - 3
    try:
        with pytest.raises(KeyboardInterrupt):
            asked(model, resume=tmp_path)
    finally:
        Seeing.last = None
    again = asked(model, resume=tmp_path)
    assert len(Seeing.seen) == calls - 2 * len(orders(3))  # two of three images were finished
    assert all(np.array_equal(whole.arrays[name], again.arrays[name]) for name in whole.arrays)
    for changed in ({"seed": 1}, {"value": "logit"}):
        asked(model, resume=tmp_path, **changed)
        assert len(Seeing.seen) >= calls


def test_without_labels_the_prediction_stands_and_results_go_through_a_folder(tmp_path: Path) -> None:
    model, data = Seeing().eval(), noise()
    with torch.no_grad():
        said = model(torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255).argmax(1)
    own = data.batches(3).with_targets(said, "prediction")
    options = parse_options(PROBES["interactions"], {"grid": "4", "pairs": "2", "contexts": "3"}, owner="interactions")
    Answer({}, interactions(model, own, **options)).save(tmp_path)
    found = Answer.load(tmp_path)
    assert found["interactions.strength"].arrays["correct"].all() and "do not divide" in found.results[0].notes[2]
    assert 0 < found["interactions.middle"].low <= found["interactions.middle"].value


class RulesOut(Seeing):
    """Give one class no chance at all."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).index_fill(1, torch.arange(4), -math.inf)


def test_mistakes_are_one_line() -> None:
    data, model = noise(), Seeing().eval()
    for options, words in (
        ({"grid": 7}, "a grid of 7 for 6 pixels"),
        ({"grid": 1}, "grid is 2 or more"),
        ({"count": 0}, "count is 1 or more"),
        ({"contexts": 1}, "contexts is 2 or more"),
        ({"pairs": 37}, "36 near pairs"),
        ({"baseline": (0.5, 0.5)}, "1 or 3 finite numbers"),
        ({"precision": "bf16"}, "measured in float32"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            interactions(model, data.batches(3), **(FEW | options))
        assert "\n" not in str(caught.value)
    for option in ({"preset": "mogannet"}, {"value": "odds"}):
        with pytest.raises(PassbandError, match="cannot be"):
            parse_options(PROBES["interactions"], option, owner="probe interactions")
    with pytest.raises(PassbandError, match="no labels"):
        interactions(model, data.batches(3, targets=torch.full((3,), -1)), **FEW)
    with pytest.raises(PassbandError, match="finite logits"):
        interactions(RulesOut().eval(), data.batches(3), **FEW)
    with batch_statistics(model), pytest.raises(NotApplicable, match="do not depend on the batch"):
        interactions(model, data.batches(3), **FEW)
