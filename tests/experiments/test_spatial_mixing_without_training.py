"""The experiments that train nothing: what they count, cover and time, and that their claims can fail."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from passband.core.claims import Claim, Rows, judge
from passband.core.errors import MissingData
from passband.core.results import Curve, Map, Table
from passband.core.scale import Scale
from passband.experiments.protocol import Case, Experiment
from passband.experiments.reproduce import reproduce
from passband.experiments.spatial_mixing import (
    envelope_growth,
    parameter_counts,
    resnet_depth,
    training_time,
)
from passband.frequency.spectrum import envelope
from passband.sweeps.lab import Lab


def measured(experiment: Experiment, case: Case, lab: Lab) -> dict[str, Any]:
    return {"case": case["case"], "seed": case["seed"], **experiment.measure(case, lab).row}


@pytest.fixture(scope="module")
def counts() -> Rows:
    lab = Lab(Scale.SMOKE, "c")
    return [measured(parameter_counts.EXPERIMENT, case, lab) for case in parameter_counts.cases(Scale.SMOKE)]


@pytest.mark.parametrize("claim", parameter_counts.CLAIMS, ids=lambda claim: claim.name)
def test_counts_agree_and_each_claim_fails_by_one_parameter(counts: Rows, claim: Claim) -> None:
    assert judge(claim, counts, Scale.SMOKE).verdict == "holds"
    column = {"p_conv": "dense", "p_sep": "separable", "p_point = p_conv with d = k²": "pointwise"}
    column |= {"channels learns the pointwise weights": "channels"}
    kinds = {"no k in a convolution's channels": "only k", "no k in a ConvMixer's channels": "ConvMixer"}
    kinds |= {"channels as many as the dense ResNet": "CIFAR", "a third with d = 3": "d = 3"}
    kind, changed = kinds.get(claim.name, "d = k²"), column.get(claim.name, "channels")
    wrong = [dict(row) for row in counts]
    one = next(row for row in wrong if row["kind"] == kind)
    one[changed] += 1
    found = judge(claim, wrong, Scale.SMOKE)
    assert found.verdict == "fails" and found.margin is not None and found.margin <= -1


def test_counts_are_those_of_a_calculation_by_hand(counts: Rows) -> None:
    by_name = {row["case"]: row for row in counts}
    row = by_name["16 → 32, k = 3, d = 9"]
    assert (row["dense"], row["depthwise"], row["pointwise"], row["separable"]) == (4608, 1296, 4608, 5904)
    assert (row["channels"], row["spatial"]) == (4608, 1296)
    # A stem of 7×7 with d = 9: the dense one has 3 · 64 · (49 − 9) more.
    row = by_name["ImageNet ResNet-18"]
    assert row["dense"] - row["channels"] == 3 * 64 * 40


def test_a_random_filter_passes_one_third_of_the_power_at_any_frequency() -> None:
    for side in envelope_growth.SIDES:
        filters = torch.cat([envelope_growth.draw("different", side, seed) for seed in range(40)])
        power = torch.fft.fft2(filters, s=(16, 16)).abs().square().mean(0)
        assert power.mean().sqrt() == pytest.approx(envelope_growth.LEVEL, rel=0.02)
        assert power.max().sqrt() < 1.1 * envelope_growth.LEVEL and power.min().sqrt() > 0.9 * envelope_growth.LEVEL


def test_banks_are_nested_and_correlated_ones_begin_alike() -> None:
    different, correlated = (envelope_growth.draw(bank, 8, 1) for bank in ("different", "correlated"))
    assert torch.equal(different[0], correlated[0]) and len(correlated) == 64
    assert torch.equal(different, envelope_growth.draw("different", 8, 1))
    angles = torch.corrcoef(torch.stack([correlated[0].flatten(), *correlated[1:].flatten(1)]))[0, 1:]
    assert angles.mean() == pytest.approx(envelope_growth.SHARED**0.5, abs=0.03)
    box = envelope_growth.draw("box", 3, 0)
    assert torch.allclose(box, torch.full((64, 3, 3), 1 / 9))


def test_coverage_is_that_of_the_envelope_and_a_box_never_grows() -> None:
    lab = Lab(Scale.SMOKE, "c")
    cases = {case["case"]: case for case in envelope_growth.cases(Scale.SMOKE) if case["seed"] == 0}
    found = envelope_growth.measure(cases["different, 3×3"], lab)
    filters = envelope_growth.draw("different", 3, 0)
    plane = envelope(filters[:4], 512)
    assert found.row["4 filters"] == 100 * (plane > 3**-0.5).double().mean()
    assert found.row["4 filters, relative"] == 100 * (plane > plane.max() / 2).double().mean()
    maps = [result for result in found.results if isinstance(result, Map)]
    assert [one.name for one in maps] == ["envelope.1", "envelope.2", "envelope.4", "envelope.16", "envelope.64"]
    assert torch.equal(torch.from_numpy(maps[2].values), envelope(filters[:4], 64))
    box = envelope_growth.measure(cases["box, 3×3"], lab)
    assert not box.results and len({value for name, value in box.row.items() if "relative" in name}) == 1


def covered(*percent: float, case: str = "different, 3×3", suffix: str = "") -> dict[str, Any]:
    names = [envelope_growth._column(count) + suffix for count in envelope_growth.COUNTS]
    return {"case": case, "seed": 0, "line": case} | dict(zip(names, percent, strict=True))


def test_coverage_margins_are_the_least_growth_and_the_nearness_of_the_whole_plane() -> None:
    rows = [covered(40.0, 60.0, 61.0, 70.0, 80.0, 85.0, 90.0)]
    assert envelope_growth.least_growth(rows, "different, 3×3") == 1
    rows[0] |= covered(40.0, 60.0, 61.0, 70.0, 80.0, 85.0, 90.0, suffix=", relative")
    assert envelope_growth.nears(rows, "different, 3×3") == (90 - 40) - (100 - 90)
    claims = {claim.name: claim for claim in envelope_growth.EXPERIMENT.claims}
    rows.append(covered(40.0, 50.0, 50.0, 50.0, 50.0, 50.0, 95.0, case="correlated, 3×3"))
    assert claims["uncorrelated filters cover more, 3×3"].margin(rows) == 50 - 55
    rows[0] |= covered(50.0, 40.0, 40.0, 40.0, 40.0, 40.0, 30.0, suffix=", relative")
    assert claims["coverage relative to the peak grows too, 3×3"].margin(rows) == -20
    assert claims["coverage nears the whole plane, 8×8"].margin(rows) is None


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a step of everything learned take 4 ms, of channels 2, of spatial 3, and the n-th pass of layers n ms."""
    seconds = {"everything": 0.004, "channels": 0.002, "spatial": 0.003}
    passes = [f"{kind} {what}" for kind in ("spatial", "channel", "composed") for what in training_time.PASSES]
    monkeypatch.setattr(
        training_time, "step_rounds",
        lambda recipes, lab, rounds: {name: [seconds[name.split(", ")[-1]]] * rounds for name in recipes},
    )  # fmt: skip
    monkeypatch.setattr(
        training_time, "layer_rounds",
        lambda recipe, lab, rounds: {name: [(index + 1) / 1000] * rounds for index, name in enumerate(passes)},
    )  # fmt: skip
    yield


def test_a_row_of_times_has_its_units_and_its_claims_compare_them(timed: None) -> None:
    answer = reproduce("x", training_time.EXPERIMENT, Lab(Scale.SMOKE, "c"))
    table = answer["table"]
    assert isinstance(table, Table) and len(table.rows) == 2 * (5 + 6 + 5)
    rows = {row[0]: dict(zip([column.name for column in table.columns], row, strict=True)) for row in table.rows}
    whole, spatial = rows["ResNet-8, factored, everything"], rows["ResNet-8, factored, spatial"]
    assert whole["step"] == pytest.approx(4) and whole["learned"] > spatial["learned"]
    assert whole["per parameter"] == pytest.approx(4000 / whole["learned"])
    layers = rows["ResNet-8, composed, composed layers"]
    assert (layers["forward"], layers["input gradient"], layers["weight gradient"]) == pytest.approx((7, 8, 9))
    parts = [rows[f"ResNet-8, composed, {kind} layers"]["learned"] for kind in ("spatial", "channel")]
    assert layers["learned"] == sum(parts) and parts[0] == 81 * (3 + 8 + 8 + 8 + 16 + 16 + 32)
    # The patch projection is frozen in both: neither of its weights nor of the other mixing's is counted.
    mixer = rows["ConvMixer-16/2, spatial layers"]
    assert mixer["learned"] == 2 * (25 * 16 + 16) and mixer["per parameter"] == pytest.approx(3000 / mixer["learned"])
    judged = {claim.name: claim for claim in answer.claims}
    assert judged["everything longer than channels, ResNet-8"].margin == pytest.approx(100 * log(2))
    assert judged["everything longer than spatial, ResNet-8"].margin == pytest.approx(100 * log(4 / 3))
    dearer = judged["spatial dearer per parameter than everything, ResNet-8"].margin
    assert dearer == pytest.approx(100 * log(3 / spatial["learned"] * whole["learned"] / 4))
    summary = answer["summary"]
    assert isinstance(summary, Table) and len(summary.rows) == 16
    assert summary.rows[0][0] == "ResNet-8, factored, everything" and summary.rows[0][1:4] == pytest.approx((4, 4, 4))
    assert summary.rows[0][4] == whole["learned"] and summary.rows[0][8:] == (None,) * 9
    assert not any(isinstance(result, Curve) for result in answer.results)


def test_claims_about_time_are_judged_over_rounds(timed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    resnet, mixer, _ = training_time.NETWORKS[Scale.SMALL]
    monkeypatch.setitem(training_time.NETWORKS, Scale.SMALL, (resnet, mixer))
    claims = reproduce("x", training_time.EXPERIMENT, Lab(Scale.SMALL, "c")).claims
    assert [claim.interval for claim in claims] == ["t over 7 rounds"] * (5 + 4)
    verdicts = {claim.name: claim.verdict for claim in claims}
    assert verdicts["channels faster than spatial, ConvMixer-64/4"] == "holds"
    # Made-up seconds: the third pass of spatial layers is shorter than the third of channel layers.
    assert verdicts["spatial layers take more of the training, ConvMixer-64/4"] == "fails"


def test_a_line_over_depth_holds_networks_of_one_size(timed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    mixers = [training_time.Network("ConvMixer", depth, Scale.SMOKE) for depth in (1, 2)]
    other = training_time.Network("ConvMixer", 3, Scale.SMALL)
    monkeypatch.setitem(training_time.NETWORKS, Scale.SMOKE, (*mixers, other))
    answer = reproduce("x", training_time.EXPERIMENT, Lab(Scale.SMOKE, "c"))
    curves = [result for result in answer.results if isinstance(result, Curve)]
    assert [curve.name for curve in curves] == ["ConvMixer-16.step", "ConvMixer-16.per parameter"]
    assert curves[0].x.values == (1, 2) and curves[0].y.unit == "ms"
    lines = {line.name: line.values for line in curves[0].series}
    assert lines["ConvMixer-16, channels"] == pytest.approx((2, 2))


def test_imagenet_that_is_not_there_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    lab = Lab(Scale.FULL, "c", runs=tmp_path / "runs", data_dir=tmp_path)
    cases = [case for case in resnet_depth.cases(Scale.FULL) if case["data"] == "imagenet"]
    assert {case["depth"] for case in cases} == set(resnet_depth.IMAGENET_DEPTHS)
    with pytest.raises(MissingData, match="imagenet is not in"):
        resnet_depth.measure(cases[0], lab)
    recipe = resnet_depth.training(cases[0], Scale.FULL)
    assert recipe.data.size == 224 and recipe.model.arguments["stages"] == 4
    assert resnet_depth.training(cases[0], Scale.SMOKE).data.size == 32
