from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from passband.core.claims import Claim, judge
from passband.core.scale import Scale

CLAIM = Claim("gap", "A beats B.", "paper, table 1", lambda rows: _gap(rows))


def _gap(rows):
    values = {row["case"]: row.get("accuracy") for row in rows}
    return None if values.get("a") is None or values.get("b") is None else values["a"] - values["b"]


def rows(*gaps: float | None):
    found = []
    for seed, gap in enumerate(gaps):
        found.append({"case": "a", "seed": seed, "accuracy": None if gap is None else 50 + gap})
        found.append({"case": "b", "seed": seed, "accuracy": 50.0})
    return found


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ((5.0, 6.0, 5.5), "holds"),
        ((-5.0, -6.0, -5.5), "fails"),
        ((5.0, -6.0, 1.0), "undecided"),
        ((None,), "not measured"),
    ],
)
def test_verdicts_over_seeds(gaps, verdict) -> None:
    assert judge(CLAIM, rows(*gaps), Scale.SMALL).verdict == verdict


def test_the_interval_over_seeds_is_students() -> None:
    gaps = [1.0, 4.0, 2.5, 3.0]
    found = judge(CLAIM, rows(*gaps), Scale.SMALL)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(gaps), scale=stats.sem(gaps))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_below_its_scale_a_claim_is_not_judged() -> None:
    found = judge(CLAIM, rows(5.0, 6.0, 5.5), Scale.SMOKE)
    assert found.verdict == "not judged at this scale"
    assert found.margin == pytest.approx(5.5)


def test_a_claim_that_no_scale_can_judge_is_never_judged() -> None:
    claim = Claim("gap", "A beats B.", "paper", lambda rows: _gap(rows), judged_from=None)
    assert judge(claim, rows(5.0, 6.0, 5.5), Scale.FULL).verdict == "not judged at this scale"


def test_one_seed_is_judged_by_resampled_images() -> None:
    scores = np.array([1.0] * 90 + [0.0] * 10), np.array([1.0] * 10 + [0.0] * 90)

    generator = np.random.default_rng(0)

    def redrawn():
        drawn = generator.integers(100, size=(1000, 100))
        return [
            [{"case": c, "seed": 0, "accuracy": 100 * s[index].mean()} for c, s in zip("ab", scores, strict=True)]
            for index in drawn
        ]

    found = judge(CLAIM, rows(80.0), Scale.SMALL, redrawn)
    assert found.verdict == "holds" and "bootstrap" in found.interval
    # 80 paired differences of one and 20 of zero: the bootstrap's spread is that of their mean.
    assert found.high - found.low == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.8 * 0.2 / 100), rel=0.15)


def test_a_margin_that_resampling_never_moves_has_no_interval() -> None:
    found = judge(CLAIM, rows(80.0), Scale.SMALL, lambda: [rows(80.0)] * 10)
    assert found.verdict == "undecided" and found.low is None and "no interval" in found.interval


def test_what_was_drawn_anew_is_named() -> None:
    claim = Claim("gap", "A beats B.", "paper", lambda rows: _gap(rows), drawn="filters")
    found = judge(claim, rows(80.0), Scale.SMALL, lambda: [rows(80.0), rows(81.0)])
    assert found.interval == "paired bootstrap over the filters, 1 seed, which says nothing of others"


def test_one_seed_without_images_stays_undecided() -> None:
    assert judge(CLAIM, rows(80.0), Scale.SMALL).verdict == "undecided"


def test_repetitions_that_are_no_seeds_are_called_by_their_name() -> None:
    claim = Claim("gap", "A beats B.", "paper", lambda rows: _gap(rows), over="rounds")
    assert judge(claim, rows(5.0, 6.0, 5.5), Scale.SMALL).interval == "t over 3 rounds"
    assert judge(CLAIM, rows(5.0, 6.0, 5.5), Scale.SMALL).interval == "t over 3 seeds"


@pytest.mark.parametrize(
    ("gaps", "verdict", "margin"),
    [
        ((0.0,), "holds", 0.0),
        ((-1.0,), "fails", -1.0),
        ((0.0, -2.0, 0.0), "fails", -2.0),
        ((None,), "not measured", None),
    ],
)
def test_an_exact_claim_holds_where_nothing_differs_and_fails_by_one(gaps, verdict, margin) -> None:
    claim = Claim("count", "A equals B.", "paper", lambda rows: _gap(rows), exact=True)
    found = judge(claim, rows(*gaps), Scale.SMALL)
    assert (found.verdict, found.margin, found.interval) == (verdict, margin, "exact")
    assert found.low is None and found.high is None


def test_an_exact_claim_too_waits_for_its_scale() -> None:
    claim = Claim("count", "A equals B.", "paper", lambda rows: _gap(rows), exact=True)
    assert judge(claim, rows(0.0), Scale.SMOKE).verdict == "not judged at this scale"
