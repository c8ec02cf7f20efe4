"""What the adversarial and the width experiment read off their rows."""

from __future__ import annotations

import pytest

from passband.core.scale import Scale
from passband.experiments.spatial_mixing import adversarial, width


def attacked(case: str, clean: float, mean: float) -> dict:
    return {"case": case, "data": "a", "seed": 0, "clean": clean, "FGSM mean": mean}


def test_a_gap_goes_when_what_is_left_is_nearer_to_none_than_to_what_it_was() -> None:
    natural = [attacked("channels, natural", 90.0, 50.0), attacked("everything, natural", 90.0, 40.0)]

    def margin(channels: float, everything: float) -> float | None:
        defended = [("channels", channels), ("everything", everything)]
        rows = [*natural, *(attacked(f"{learn}, FGSM-trained", 90.0, value) for learn, value in defended)]
        return adversarial.gap_goes(rows, "FGSM")

    assert margin(70.0, 70.0) == 10 and margin(74.0, 70.0) == 2 and margin(70.0, 79.0) == -8
    assert adversarial.gap_goes(natural, "FGSM") is None


def test_what_is_kept_is_a_share_of_what_was_right() -> None:
    rows = [attacked("channels, natural", 50.0, 25.0), attacked("everything, natural", 80.0, 32.0)]
    assert adversarial.keeps_more(rows, "everything") == pytest.approx(50 - 40)
    assert adversarial.keeps_more(rows, "spatial") is None


def test_the_defense_is_trained_for_what_is_compared_alone_below_full_scale() -> None:
    small = [case for case in adversarial.cases(Scale.SMALL) if case["training"] != "natural"]
    assert [(case["learn"], case["data"], case["seed"]) for case in small] == [
        ("everything", "fashion-mnist", 0),
        ("channels", "fashion-mnist", 0),
    ]
    full = adversarial.cases(Scale.FULL)
    assert len(full) == 3 * 2 * 3 and {case["data"] for case in full} == {"cifar10"}


def test_the_gap_closes_from_the_narrowest_to_the_widest() -> None:
    rows = [
        {"learns": learn, "width": at, "accuracy": value}
        for at, pair in {16: (90.0, 89.5), 4: (80.0, 77.0), 8: (85.0, 80.0)}.items()
        for learn, value in zip(width.MODES, pair, strict=True)
    ]
    assert width.closing(rows) == pytest.approx(3.0 - 0.5)
    assert width.closing(rows[:2]) is None and width.closing([{"case": "x", "note": "not measured"}]) is None
