"""Rows on images drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from passband.experiments.bootstrap import DRAWS, redrawn
from passband.experiments.protocol import Measured


def test_cases_share_their_draws_and_units_are_kept() -> None:
    right = np.array([1.0] * 60 + [0.0] * 40)
    first = (
        {"case": "a", "accuracy": 60.0, "loss": 3.0, "fixed": 7},
        Measured({}, (), {"accuracy": right}, {"loss": right}),
    )
    second = {"case": "b", "accuracy": 40.0}, Measured({}, (), {"accuracy": 1 - right})
    rows = redrawn([first, second])
    assert len(rows) == DRAWS
    assert all(a["accuracy"] + b["accuracy"] == pytest.approx(100) for a, b in rows)
    assert all(a["accuracy"] == pytest.approx(100 * a["loss"]) and a["fixed"] == 7 for a, _ in rows)
    spread = np.std([a["accuracy"] for a, _ in rows])
    assert spread == pytest.approx(100 * (0.6 * 0.4 / 100) ** 0.5, rel=0.1)


def test_a_draw_is_a_draw_with_replacement_from_seed_zero() -> None:
    scores = np.arange(5.0)
    rows = redrawn([({"value": 2.0}, Measured({}, (), {}, {"value": scores}))])
    generator = np.random.default_rng(0)
    expected = [scores[generator.integers(5, size=5)].mean() for _ in range(3)]
    assert [row["value"] for (row,) in rows[:3]] == pytest.approx(expected)


def test_test_and_training_images_are_drawn_independently_however_many_they_are() -> None:
    right = np.array([1.0] * 60 + [0.0] * 40)
    row = {"case": "a", "train": 60.0, "test": 60.0}
    both = {"train": right, "test": right}
    variance = 100**2 * 0.6 * 0.4 / 100
    found = Measured({}, (), both, drawn_from={"train": "training images"})
    gaps = [a["train"] - a["test"] for (a,) in redrawn([(row, found)])]
    assert np.var(gaps) == pytest.approx(2 * variance, rel=0.15)
    apart = [a["train"] - b["train"] for a, b in redrawn([(row, found), (row, found)])]
    assert not any(apart)
