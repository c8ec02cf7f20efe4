"""What the un-shuffling experiment reads off its rows, and a score in its own unit under the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from passband.core.claims import Claim
from passband.core.results import Column, Curve
from passband.core.scale import Scale
from passband.experiments.protocol import Experiment, Measured
from passband.experiments.reproduce import reproduce
from passband.experiments.spatial_mixing import unshuffle
from passband.sweeps.lab import Lab


def row(learn: str, width: int, kernel: int, psnr: float, learned: int = 10) -> dict:
    name = {"case": f"{learn} {width} {kernel}", "data": "a", "seed": 0, "learns": learn}
    return name | {"width": width, "depth": 2, "kernel": kernel, "PSNR": psnr, "learned": learned}


ROWS = [
    row("everything", 16, 3, 20.0), row("channels", 16, 3, 18.0), row("spatial", 16, 3, 10.0),
    row("everything", 32, 3, 24.0), row("channels", 32, 3, 21.0), row("spatial", 32, 3, 11.0),
    row("everything", 16, 5, 21.0, 14), row("channels", 16, 5, 19.0), row("spatial", 16, 5, 19.5),
    {"case": "missing", "data": "a", "seed": 0, "note": "not measured: needs a"},
]  # fmt: skip


def test_margins_are_those_of_the_worst_network() -> None:
    # Nearer to everything than to spatial by 8 - 2, 10 - 3 and -0.5 - 2; gaps 2, 3 and 2.
    assert unshuffle.nearest(ROWS) == pytest.approx(-2.5) and unshuffle.nearest(ROWS[:6]) == pytest.approx(6.0)
    assert unshuffle.within(ROWS, 3.5) == pytest.approx(0.5)
    assert unshuffle.nearest(ROWS[1:3]) is None and unshuffle.within([], 3.0) is None


def test_a_sweep_is_the_largest_group_alike_otherwise() -> None:
    assert {(found["width"], found["kernel"]) for found in unshuffle.sweep(ROWS, "width")} == {(16, 3), (32, 3)}
    assert unshuffle.growth(ROWS, "width") == pytest.approx(3.0)
    assert unshuffle.growth(ROWS, "kernel") == pytest.approx(1.0)
    assert unshuffle.growth(ROWS, "depth") is None
    assert unshuffle.without_kernel(ROWS) == 0.0
    assert unshuffle.without_kernel([*ROWS, row("channels", 16, 7, 20.0, 12)]) == -2.0


def test_a_curve_for_each_sweep_and_a_line_for_each_mode() -> None:
    width, kernel = unshuffle.figures(ROWS)
    assert isinstance(width, Curve) and isinstance(kernel, Curve)
    assert (width.name, kernel.name) == ("PSNR.width.a", "PSNR.kernel.a") and width.y.unit == "dB"
    assert {line.name: line.values for line in width.series}["channels"] == (18.0, 21.0)


@pytest.mark.parametrize("scale", Scale)
def test_each_scale_varies_one_thing_at_a_time_and_shows_its_center_first(scale: Scale) -> None:
    networks = unshuffle.networks(scale)
    center = unshuffle.CENTER[scale]
    assert networks[0] == center and len({tuple(network.values()) for network in networks}) == len(networks)
    apart = [sum(network[axis] != center[axis] for axis in center) for network in networks[1:]]
    assert set(apart) <= ({1, 2} if scale is Scale.FULL else {1})  # the paper's largest stands apart
    cases = unshuffle.cases(scale)
    assert [case["learn"] for case in cases[:3]] == ["everything", "channels", "spatial"]
    assert all(unshuffle.recipe(scale, case).task == "unshuffle" for case in cases)


def test_samples_are_drawn_anew_in_their_own_unit_and_verdicts_in_percent() -> None:
    scores = np.random.default_rng(0).normal(20.0, 3.0, 400)

    def measure(case, lab) -> Measured:
        values = scores + case["added"]
        row = {"PSNR": float(values.mean()), "share": 100 * float((values > 20).mean())}
        return Measured(row, verdicts={"share": (values > 20).astype(float)}, samples={"PSNR": values})

    def margin(column: str):
        return lambda rows: None if len(rows) < 2 else rows[0][column] - rows[1][column]

    experiment = Experiment(
        title="t", source="s", columns=(Column(name="PSNR", unit="dB"), Column(name="share", unit="%")),
        cases=lambda scale: [
            {"case": name, "data": "a", "seed": 0, "added": added} for name, added in (("more", 2.0), ("less", 0.0))
        ],
        measure=measure,
        claims=[Claim(column, "x", "y", margin(column), unit="dB") for column in ("PSNR", "share")],
    )  # fmt: skip
    psnr, share = reproduce("x", experiment, Lab(Scale.SMALL, "c")).claims
    # The same images are drawn for both cases, which differ by 2 dB on each: no spread is left but rounding.
    assert psnr.verdict == "holds" and psnr.margin == pytest.approx(2.0)
    assert psnr.low == pytest.approx(2.0) and psnr.high == pytest.approx(2.0)
    assert share.verdict == "holds" and share.low is not None and share.margin is not None and share.high is not None
    assert 5 < share.low < share.margin < share.high < 50


def test_growth_is_that_of_the_least_step_and_restoring_is_against_the_mean_image() -> None:
    rows = [row("channels", width, 3, psnr) | {"mean image": 12.0} for width, psnr in ((64, 21.0), (16, 18.0))]
    assert unshuffle.growth([*rows, row("channels", 32, 3, 18.5)], "width") == pytest.approx(0.5)
    assert unshuffle.growth([*rows, row("channels", 32, 3, 22.0)], "width") == pytest.approx(-1.0)
    assert unshuffle.restored(rows) == pytest.approx(6.0) and unshuffle.restored(ROWS) is None
