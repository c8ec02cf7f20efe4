"""What the tables' experiments read off their rows, what they train, and what they count."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from passband.core.claims import judge
from passband.core.scale import Scale
from passband.experiments.margins import rank_correlation
from passband.experiments.spartan import (
    ablation,
    activations,
    architecture,
    convolution_type,
    imagenet,
    kernel_size,
    mixers,
    normalization,
)
from passband.experiments.spartan.settings import network, peers, training

ALL = (mixers, kernel_size, activations, normalization, convolution_type, imagenet)


class Asked(Exception):
    """Ends a case where its training begins."""


def recipes(module: ModuleType, scale: Scale) -> dict[str, Any]:
    found = {}

    class Lab:
        def __init__(self) -> None:
            self.scale = scale

        def train(self, recipe: Any) -> None:
            found[case["case"]] = recipe
            raise Asked

    for case in module.cases(scale):
        if case["data"] is not None:
            with pytest.raises(Asked):
                module.measure(case, Lab())
    return found


def papers(module: ModuleType) -> list[dict[str, Any]]:
    """Return the paper's own numbers as rows."""
    said = module.EXPERIMENT.reported
    cases = {case["case"] for case in module.cases(Scale.FULL)}
    return [
        {"case": name, "seed": 0} | said.get(name, {}) | said.get(f"{name}, imagenet", {}) for name in sorted(cases)
    ]


def margins(module: ModuleType, rows: list[dict[str, Any]]) -> dict[str, float | None]:
    return {claim.name: claim.margin(rows) for claim in module.EXPERIMENT.claims}


@pytest.mark.parametrize("module", [*ALL, architecture], ids=lambda module: module.__name__.rpartition(".")[2])
def test_rows_that_were_not_measured_give_no_margin(module: ModuleType) -> None:
    rows = [{"case": case["case"], "seed": 0, "note": "not measured"} for case in module.cases(Scale.FULL)]
    found = margins(module, rows)
    assert len(found) == len(module.EXPERIMENT.claims) and set(found.values()) == {None}
    columns = {column.name for column in module.EXPERIMENT.columns}
    assert all(set(row) <= columns for row in module.EXPERIMENT.reported.values())
    cases = {case["case"] for case in module.cases(Scale.FULL)}
    assert {name.removesuffix(", imagenet") for name in module.EXPERIMENT.reported} <= cases


def test_the_papers_own_numbers_hold_but_where_a_claim_says_so() -> None:
    for module in (mixers, normalization, activations, kernel_size, convolution_type):
        found = margins(module, papers(module))
        failing = {name for name, margin in found.items() if margin is not None and margin < 0}
        said = {claim.name for claim in module.EXPERIMENT.claims if "own numbers say the opposite" in claim.sentence}
        assert failing == said
    assert margins(mixers, papers(mixers))["both"] == pytest.approx(2)
    assert margins(mixers, papers(mixers))["both more than SMixer with SE"] == pytest.approx(1.7)
    assert margins(kernel_size, papers(kernel_size))["acceptable drop"] == pytest.approx(0.27)
    assert margins(kernel_size, papers(kernel_size))["fewer parameters"] == 0


def test_what_smaller_kernels_save_is_the_papers_share_and_not_any() -> None:
    five = {"case": "5, XT at 224", "seed": None, "FLOPs": 1.0, "parameters": 1.0}
    for flops, parameters, expected in ((0.944, 0.9857, (0, 0)), (0.95, 0.98, (-1, -0.6)), (1.0, 1.0, (-6, -1.4))):
        row = {"case": "3, XT at 224", "seed": None, "FLOPs": flops, "parameters": parameters}
        found = margins(kernel_size, [row, five])
        assert (found["fewer FLOPs"], found["fewer parameters"]) == expected


def test_as_many_are_not_fewer() -> None:
    rows = [{"case": f"{name}, XT at 224", "seed": None, "parameters": 2.0, "FLOPs": 1.0} for name in "FD"]
    found = margins(convolution_type, rows)
    assert found["depthwise has fewer parameters"] == found["depthwise has fewer FLOPs"] == -1
    rows = [{"case": name, "seed": None, "parameters": 2.2} for name in ("SpaRTAN-XT at 224", "DeiT-T")]
    assert imagenet.fewest(rows) == -1 and imagenet.fewest([rows[0], rows[1] | {"parameters": 5.7}]) == 3.5


def test_every_table_trains_what_its_columns_say_and_shares_its_default() -> None:
    small = {module: recipes(module, Scale.SMALL) for module in ALL}
    default = training(Scale.SMALL, data="cifar10-jpeg", seed=0)
    shared = [(mixers, "SMixer + CMixer"), (kernel_size, "3"), (activations, "SiLU, GELU")]
    shared += [(normalization, "batch, layer"), (convolution_type, "H"), (imagenet, "SpaRTAN, stand-in")]
    assert all(small[module][name] == default for module, name in shared)
    assert len({str(one) for found in small.values() for one in found.values()}) == 1 + 5 + 1 + 3 + 3 + 3 + 4
    expected = training(
        Scale.SMALL, data="cifar10-jpeg", seed=0, model=network(Scale.SMALL, spatial="convolution", channel="mlp")
    )
    assert small[mixers]["convolution + MLP"] == expected
    peer = training(Scale.SMALL, data="cifar10-jpeg", seed=0, model=peers(Scale.SMALL)["ConvNeXt"])
    assert small[imagenet]["ConvNeXt"] == peer
    full = recipes(imagenet, Scale.FULL)
    assert full["SpaRTAN-T at 256"].data.size == 256 and full["SpaRTAN-T at 256"].model.name == "spartan_t"
    assert full["SpaRTAN-XT at 224"] == training(Scale.FULL, data="imagenet", seed=0)


def test_a_counted_row_holds_the_papers_numbers_as_they_are_rounded_and_no_others() -> None:
    name = "H, XT at 224"
    row = {"case": name, "seed": None, "parameters": 2.222792, "MACs": 614.396864, "FLOPs": 0.64049152}
    claim = next(one for one in convolution_type.EXPERIMENT.claims if one.name == f"{name} as reported")
    assert judge(claim, [row], Scale.SMALL).verdict == "holds"
    found = judge(claim, [row | {"MACs": 614.3, "FLOPs": 0.634}], Scale.SMALL)
    assert (found.verdict, found.margin) == ("fails", -2)


def test_a_network_is_counted_as_its_modules_are() -> None:
    drawn = torch.get_rng_state()
    row = ablation.counted("spartan_micro", 32, convolution="D", num_classes=7).row
    assert torch.equal(drawn, torch.get_rng_state()) and row["input"] == 32
    model = ablation.made("spartan_micro", convolution="D", num_classes=7)
    assert row["parameters"] == sum(one.numel() for one in model.parameters()) / 1e6
    assert row["FLOPs"] > row["MACs"] / 1e3


def test_throughput_is_images_per_second_and_compared_by_ratio() -> None:
    rows = [
        {"case": f"{name}, throughput", "seed": 1, "throughput": speed} for name, speed in (("H", 110.0), ("D", 100.0))
    ]
    found = margins(convolution_type, rows)
    assert found["H quicker than D"] == pytest.approx(9.531, abs=1e-3) and found["H quicker than F"] is None
    (table,) = convolution_type.figures([*rows, rows[0] | {"throughput": 130.0}])
    assert table.rows == (("D", 100, 100, 100, 1), ("H", 120, 110, 130, 2))


def test_accuracy_that_follows_the_parameters_is_seen() -> None:
    rows = [{"case": name, "accuracy": 50.0 + at, "parameters": 1.0 + at} for at, name in enumerate(mixers.NETWORKS)]
    assert rank_correlation(rows, "parameters", "accuracy", 6) == pytest.approx(1)
    assert rank_correlation(rows[1:], "parameters", "accuracy", 6) is None


def test_waves_and_a_stage_are_what_the_formula_and_the_table_say() -> None:
    cases = {case["case"]: case for case in architecture.cases(Scale.SMOKE)}
    rows = [{"case": name, **architecture.measure(cases[name], None).row} for name in architecture.WAVES]
    found = {name: margin for name, margin in margins(architecture, rows).items() if margin is not None}
    assert found == pytest.approx(
        {"enhanced in phase": 0.25, "suppressed out of phase": 0.25, "aligned with the strongest": 0, "equation 9": 0}
        | {"varying frequencies": -len(architecture.WEIGHTS)}
    )
    stage = architecture.measure(cases["XT, stage 4"], None).row
    assert tuple(stage[name] for name in architecture.SHAPE) == architecture.TABLE["XT"][3]
    said = [{"case": f"XT, stage {at}", **dict(zip(architecture.SHAPE, stage, strict=True))}
            for at, stage in enumerate(architecture.TABLE["XT"], 1)]  # fmt: skip
    assert architecture.shaped(said, "XT") == 0
    said[2]["blocks"] = 9
    assert architecture.shaped(said, "XT") == -1
