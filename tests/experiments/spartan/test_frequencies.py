"""What the experiment about frequencies reads off its rows, and what it takes out of a network."""

from __future__ import annotations

import pytest
import torch

import passband
from passband.core.scale import Scale
from passband.experiments.spartan import frequencies
from passband.experiments.spartan.settings import network
from passband.models.spatial_mixers import SpatialMixer


def margins(row: dict) -> dict[str, float]:
    found = {claim.name: claim.margin([row]) for claim in frequencies.EXPERIMENT.claims}
    return {name: margin for name, margin in found.items() if margin is not None}


def test_what_a_branch_matters_in_all_cancels_where_both_margins_are_added() -> None:
    row = {"case": "SpaRTAN", "seed": 0, "LFC 8 without high": 40.0, "LFC 8 without low": 10.0}
    low = "low frequencies rest on the low branch"
    assert margins(row) == {low: 30}
    row |= {"HFC 4 without high": 35.0, "HFC 4 without low": 10.0}
    found = margins(row)
    assert found.pop(low) == 30 and found.pop("high frequencies rest on the high branch") == -25
    assert found == {"each branch matters more to its own frequencies": 5}
    more = row | {"LFC 8 without low": 3.0, "HFC 4 without low": 3.0}
    assert margins(more)["each branch matters more to its own frequencies"] == 5 and margins(more)[low] == 37


@pytest.mark.parametrize("branch", frequencies.BRANCHES)
def test_a_branch_is_taken_out_where_the_projection_reads_it_and_nowhere_else(branch: str) -> None:
    given = network(Scale.SMOKE)
    model = passband.create(given.pop("name"), classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, **given)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    mixers = [name for name, one in model.named_modules() if isinstance(one, SpatialMixer)]
    frequencies._without(branch)(model)
    after = model.state_dict()
    changed = {name for name, one in before.items() if not torch.equal(one, after[name])}
    assert changed == {f"{name}.project.weight" for name in mixers} and len(mixers) == 4
    for name in changed:
        half = after[name].shape[1] // 2
        gone, kept = (slice(0, half), slice(half, None)) if branch == "high" else (slice(half, None), slice(0, half))
        assert not after[name][:, gone].any() and torch.equal(after[name][:, kept], before[name][:, kept])
    # The halves are the branches' own: what the projection gives no longer depends on the branch.
    mixer = model.get_submodule(mixers[0]).eval()
    features = torch.rand(1, mixer.project.out_channels, 8, 8)
    with torch.no_grad():
        plain = mixer(features)
        for parameter in getattr(mixer, branch).parameters():
            parameter.mul_(3)
        assert torch.equal(mixer(features), plain)
