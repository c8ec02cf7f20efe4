"""What the experiment `low-pass` asks for, and what it reads off its rows."""

from __future__ import annotations

import pytest

from passband.core.scale import Scale
from passband.experiments.adversarial_focus import low_pass


def printed() -> list[dict]:
    """Return the paper's own table, and a natural model that loses more."""
    rows = [
        {"case": case.removesuffix(", cifar10"), "data": "cifar10", "seed": 0, **numbers}
        for case, numbers in low_pass.EXPERIMENT.reported.items()
    ]
    lost = dict(zip(low_pass.SHARES, (90.0, 80.0, 70.0, 60.0, 50.0), strict=True))
    natural = [
        {"case": low_pass.named(low_pass.NATURAL, eighths), "seed": 0, "clean": clean}
        for eighths, clean in lost.items()
    ]
    return rows + natural


def test_the_papers_own_table_holds_by_its_own_claims() -> None:
    margins = {claim.name: claim.margin(printed()) for claim in low_pass.EXPERIMENT.claims}
    told = {name: margin for name, margin in margins.items() if margin is not None}
    assert all(margin >= -1e-9 for margin in told.values())
    assert told["rises, PGD-20"] == pytest.approx((0.64 + 1.10 + 1.87 + 3.00) / 4)
    assert told["CW jumps"] == pytest.approx(21.28 - 0.64)
    assert told["robust focuses on low frequencies"] == pytest.approx(25 - (0.07 + 0.39 + 0.97 + 2.49) / 4)
    assert told["clean loss is negligible"] == pytest.approx(0)
    # The paper says nothing of an attack that knows the filter, nor of a symmetric square.
    assert all("adaptive" in name or "symmetric" in name for name in margins.keys() - told.keys())


def test_an_adaptive_gain_is_that_over_the_adaptive_row_without_a_filter() -> None:
    rows = [
        {"case": low_pass.named(low_pass.ROBUST, eighths, reading), "seed": 0, "PGD-20": value}
        for eighths, reading, value in (
            (8, low_pass.FINISHED, 50.0), (4, low_pass.FINISHED, 55.0), (4, low_pass.SYMMETRIC, 53.0),
            (8, low_pass.ADAPTIVE, 40.0), (4, low_pass.ADAPTIVE, 38.0),
        )
    ]  # fmt: skip
    gains = {reading: low_pass.gain(rows, "PGD-20", 4, reading=reading) for reading in (*low_pass.PRESETS, "adaptive")}
    assert gains == {low_pass.FINISHED: 5.0, low_pass.SYMMETRIC: 3.0, low_pass.ADAPTIVE: -2.0}
    assert low_pass.mean_gain(rows, "PGD-20") is None


def test_degrees_follow_the_side_and_names_are_unique() -> None:
    assert [low_pass.degree("cifar10", eighths) for eighths in low_pass.SHARES] == [32, 28, 24, 20, 16]
    assert [low_pass.degree("fashion-mnist", eighths) for eighths in low_pass.SHARES] == [28, 24, 20, 18, 14]
    for scale in Scale:
        cases = [(case["case"], case["data"], case["seed"]) for case in low_pass.cases(scale)]
        assert len(set(cases)) == len(cases)
    small = low_pass.cases(Scale.SMALL)
    assert {case["data"] for case in small} == {"fashion-mnist", "cifar10-jpeg"} and {c["seed"] for c in small} == {0}
    adaptive = [case["eighths"] for case in small if case["reading"] == low_pass.ADAPTIVE]
    assert adaptive == [8, 6, 4] * 4
