"""What the experiment `similarity` compares, and what it reads off its rows."""

from __future__ import annotations

import pytest

from passband.core.scale import Scale
from passband.experiments.adversarial_focus.settings import training
from passband.experiments.adversarial_focus.similarity import NATURAL, ROBUST, SIMILARITY, _recipe, cases, rises


def row(case: str, family: str | None, clean: float, similar: float | None) -> dict:
    return {"case": case, "family": family, "data": "a", "seed": 0, "clean": clean, SIMILARITY: similar}


def test_the_more_accurate_half_of_the_four_is_compared_with_the_other() -> None:
    four = [row("a", "a", 70.0, 0.2), row("b", "b", 80.0, 0.6), row("c", "c", 60.0, 0.1), row("d", "d", 90.0, 0.4)]
    natural = row(NATURAL, None, 95.0, 0.9)
    assert rises([natural, *four], SIMILARITY) == pytest.approx(0.5 - 0.15)
    assert rises([natural], SIMILARITY) is None
    # One that was not measured may have belonged to either half.
    assert rises([*four[:3], row("d", "d", 90.0, None)], SIMILARITY) is None


def test_the_two_resnets_are_the_trainings_that_the_tables_share() -> None:
    small = cases(Scale.SMALL)
    assert [(case["case"], case["data"]) for case in small if case["family"] is None] == [
        (NATURAL, "fashion-mnist"), (ROBUST, "fashion-mnist"), (NATURAL, "cifar10-jpeg"), (ROBUST, "cifar10-jpeg"),
    ]  # fmt: skip
    assert len({case["family"] for case in small}) == 5 and len(cases(Scale.SMOKE)) == 2
    for case, robust in ((small[0], False), (small[1], True)):
        assert _recipe(case, Scale.SMALL) == training(Scale.SMALL, data="fashion-mnist", seed=0, robust=robust)
