"""What the experiment about interactions reads off its rows."""

from __future__ import annotations

import pytest

from passband.core.scale import Scale
from passband.experiments.spartan import interactions
from passband.probes.interaction_players import RATIOS, orders


def row(case: str, strength: list[float], floor: float = 0.0) -> dict:
    inner = [0.0, *[floor] * 11, 0.0]
    columns = {"strength": strength, "floor": inner}
    cells = {
        interactions.column(of, ratio): value
        for of, values in columns.items()
        for ratio, value in zip(RATIOS, values, strict=True)
    }
    return {"case": case, "data": "a", "seed": 0, "grid": 8, **cells}


def margins(rows: list[dict]) -> dict[str, float]:
    found = {claim.name: claim.margin(rows) for claim in interactions.EXPERIMENT.claims}
    return {name: margin for name, margin in found.items() if margin is not None}


FLAT, ENDS = [1.0] * 13, [3.0] * 4 + [1.0] * 5 + [3.0] * 4


def test_shares_are_computed_from_the_strengths_as_they_are_and_corrected() -> None:
    rows = [
        row("SpaRTAN", FLAT),
        row("ResNet", ENDS),
        row("ConvNeXt", [5.0] * 13, 4.0),
        row("SpaRTAN, untrained", FLAT),
    ]
    found = margins(rows)
    share, mended = 100 * 5 / 29, 100 * 15 / (11 * 3 + 10)
    assert found["SpaRTAN above ResNet"] == pytest.approx(500 / 13 - share)
    assert found["ResNet neglects the middle"] == pytest.approx(500 / 13 - share)
    assert found["SpaRTAN above ConvNeXt"] == pytest.approx(0)
    assert found["SpaRTAN above ConvNeXt, corrected for the floor"] == pytest.approx(500 / 13 - mended)
    assert found["SpaRTAN above itself untrained"] == 0 and not any("MobileNet" in name for name in found)
    assert margins([{"case": "SpaRTAN", "note": "not measured"}, row("ResNet", [0.0] * 13)]) == {}


def test_every_grid_keeps_all_orders_apart_and_every_network_meets_the_same() -> None:
    for scale in Scale:
        assert len(orders(interactions.GRIDS[scale])) == len(RATIOS)
        names = [case["case"] for case in interactions.cases(scale)]
        assert names == ["SpaRTAN", "ResNet", "MobileNetV2", "ConvNeXt", "SpaRTAN, untrained"]
