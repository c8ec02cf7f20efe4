from __future__ import annotations

import numpy as np
import pytest

from passband.core.claims import Claim
from passband.core.errors import MissingData, PassbandError
from passband.core.results import Column, Scalar, Table
from passband.core.scale import Scale
from passband.experiments.catalog import find, names
from passband.experiments.margins import nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.reproduce import reproduce
from passband.sweeps.lab import Lab


def experiment(better: float, seeds: int, missing: bool = False) -> Experiment:
    def cases(scale: Scale) -> list[Case]:
        return [{"case": case, "data": "noise", "seed": seed} for seed in range(seeds) for case in ("a", "b")]

    def measure(case: Case, lab: Lab) -> Measured:
        if missing and case["case"] == "b":
            raise MissingData("noise", "noise is not here")
        rng = np.random.default_rng([case["seed"], case["case"] == "a"])
        scores = (rng.random(400) < (0.5 + better * (case["case"] == "a"))).astype(float)
        result = Scalar(name="p.x", title="x", value=1.0)
        return Measured({"accuracy": 100 * scores.mean()}, (result,), {"accuracy": scores})

    def margin(rows) -> float | None:
        found = {row["case"]: row.get("accuracy") for row in rows}
        return None if found.get("b") is None or found.get("a") is None else found["a"] - found["b"]

    claim = Claim("a over b", "A beats B.", "nowhere", margin)
    return Experiment("title", "nowhere", (Column(name="accuracy", unit="%"),), cases, measure, (claim,))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("better", "verdict"), [(0.3, "holds"), (-0.3, "fails")])
def test_claims_are_judged_on_one_seed_by_images_and_on_three_by_seeds(seeds, better, verdict) -> None:
    answer = reproduce("x", experiment(better, seeds), Lab(Scale.SMALL, "c"))
    assert [claim.verdict for claim in answer.claims] == [verdict]
    assert ("bootstrap" in answer.claims[0].interval) == (seeds == 1)
    assert answer["a, noise, seed 0/p.x"].title == "x"


def test_a_case_without_its_data_is_a_row_and_its_claim_not_measured() -> None:
    answer = reproduce("x", experiment(0.3, 1, missing=True), Lab(Scale.SMALL, "c"))
    table = answer["table"]
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == [None, "not measured: needs noise"]
    assert [claim.verdict for claim in answer.claims] == ["not measured"]


def test_every_experiment_states_itself() -> None:
    assert {"quickstart", "spatial-mixing/resnet-depth", "spatial-mixing/static-filters"} <= set(names())
    for name in names():
        found = find(name)
        assert found.title and found.source and found.claims
        for scale in Scale:
            cases = found.cases(scale)
            assert len({(case["case"], case["data"], case["seed"]) for case in cases}) == len(cases)
        assert {case["data"] for case in found.cases(Scale.SMOKE)} <= {"photos", "pasted-photos", None}
    with pytest.raises(PassbandError, match="did you mean 'quickstart'"):
        find("quickstrat")


def test_nearer_is_positive_when_a_case_lies_in_the_upper_half() -> None:
    def rows(case: float):
        return [{"case": name, "x": value} for name, value in (("top", 90.0), ("case", case), ("bottom", 50.0))]

    assert nearer(rows(80.0), "case", to="top", than="bottom", column="x") == 20
    assert nearer(rows(60.0), "case", to="top", than="bottom", column="x") == -20
    assert nearer(rows(60.0)[:2], "case", to="top", than="bottom", column="x") is None
