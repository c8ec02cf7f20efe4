"""What `lfi-ratio`, `spectra` and `kernels` read off their rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from passband.core.scale import Scale
from passband.experiments.adversarial_focus import kernels, lfi_ratio, spectra
from passband.experiments.protocol import Experiment
from passband.experiments.scores import finite


def margins(experiment: Experiment, rows: list[dict]) -> dict[str, float | None]:
    return {claim.name: claim.margin(rows) for claim in experiment.claims}


def test_the_paper_s_own_ratios_bear_out_its_claims() -> None:
    rows = [
        {"case": case.partition(",")[0], "seed": 0, **numbers}
        for case, numbers in lfi_ratio.EXPERIMENT.reported.items()
    ]
    found = {name: margin for name, margin in margins(lfi_ratio.EXPERIMENT, rows).items() if margin is not None}
    assert found == pytest.approx(
        {"natural grows": 1.02, "robust grows": 5.36, "robust grows more": 4.34, "robust ends higher": 4.33}
    )


def test_each_reading_of_the_ratio_is_found_where_the_probe_has_it() -> None:
    keys = {reading.name: (reading.key(False), reading.key(True)) for reading in lfi_ratio.READINGS}
    assert keys == {
        "": ("spatial.clean.running", "spatial.pgd.running"),
        "clean": ("spatial.clean.running", "spatial.clean.running"),
        "batch": ("spatial.clean.batch", "spatial.pgd.batch"),
        "channel": ("channel.clean.running", "channel.pgd.running"),
        "channel, batch": ("channel.clean.batch", "channel.pgd.batch"),
    }
    rows = [
        {"case": "natural", "data": "d", "seed": 0, "epochs": 2, "@1": 1.0, "@2": 2.0},
        {"case": "robust", "data": "d", "seed": 0, "epochs": 2, "@1": 1.0, "@2": 6.0},
    ]
    (curve,) = lfi_ratio.figures(rows)
    assert curve.name == "ratio.d" and curve.x.values == (1, 2)
    assert {line.name: line.values for line in curve.series} == {"natural": (1.0, 2.0), "robust": (1.0, 6.0)}


def test_samples_without_a_number_keep_their_place_and_leave_the_mean() -> None:
    scores = finite(np.array([1.0, np.inf, 3.0, np.nan]))
    assert scores.tolist() == [0.0, 2.0, 4.0, 2.0] and scores.mean() == 2.0


def test_shares_are_set_against_the_share_of_bins() -> None:
    shares = {"low": 30.0, "low, bins": 19.0, "low, random": 22.0, "low, relative": 1.0, "half": 60.0}
    rows = [
        {"case": "robust", "seed": 0, **shares, "half, bins": 50.0},
        {"case": "natural", "seed": 0, "low": 18.0, "low, bins": 19.0},
    ]
    assert margins(spectra.EXPERIMENT, rows) == {
        "mainly low": 11.0, "mainly low, half of the bins": 10.0, "mostly low": -20.0, "lower than random signs": 8.0,
        "low relative to the images": -18.0, "natural: mainly low": -1.0, "robust lower than natural": 12.0,
    }  # fmt: skip
    # Half of the bins lie within the second radius, whatever the side.
    assert spectra.radii(28) == {"low": 7.0, "half": pytest.approx(11.17, abs=0.01)}


def test_slices_that_are_alike_correlate_and_constant_ones_have_no_number() -> None:
    one = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    weight = torch.stack([torch.stack([one, 2 * one + 1, -one]), torch.stack([one, one, torch.ones(2, 2)])])
    found = kernels.alike(weight)
    assert found[0] == pytest.approx((1 - 1 - 1) / 3) and found[1].isnan()


def test_the_stages_count_alike_and_all_of_them() -> None:
    rows = [
        {"case": case, "seed": 0, **{f"flat low, stage {stage}": low * stage for stage in (1, 2, 3)}}
        for case, low in (("natural", 1.0), ("robust", 2.0))
    ]
    assert kernels.over_stages(rows, "flat low") == pytest.approx(2.0)
    del rows[0]["flat low, stage 2"]
    assert kernels.over_stages(rows, "flat low") is None


@pytest.mark.parametrize("experiment", [lfi_ratio, spectra, kernels])
def test_both_trainings_stand_on_every_set(experiment: object) -> None:
    found = [(case["case"], case["data"]) for case in experiment.cases(Scale.SMALL)]
    sets = ("fashion-mnist", "cifar10-jpeg")
    assert found == [(trained, data) for data in sets for trained in ("natural", "robust")]
