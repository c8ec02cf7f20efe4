"""The probe `envelope`: which filters make the bank, and its numbers where they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.core.results import Curve, Map, Table, row_dicts
from passband.models.layers import SeparableConv2d
from passband.probes.envelope import envelope


def by_name(model: nn.Module, **options: object) -> dict:
    return {result.name: result for result in envelope(model, None, **options)}


def box_and_delta() -> nn.Module:
    """Two depthwise layers, all boxes and all deltas, with mixing between that must not count."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
    with torch.no_grad():
        model[0].weight.fill_(1 / 9)
        model[2].weight.zero_()
        model[2].weight[:, 0, 1, 1] = 0.5
    return model


def test_boxes_pass_what_a_box_passes_and_deltas_pass_all() -> None:
    found = by_name(box_and_delta(), size=32)
    lines = np.fft.fftshift(np.fft.fftfreq(32))
    line = np.abs(1 + 2 * np.cos(2 * np.pi * lines)) / 3
    box = line[:, None] * line[None, :]
    np.testing.assert_allclose(found["envelope.first"].values, box, atol=1e-6)
    np.testing.assert_allclose(found["envelope.last"].values, np.full((32, 32), 0.5), atol=1e-6)
    np.testing.assert_allclose(found["envelope.all"].values, np.maximum(box, 0.5), atol=1e-6)
    assert all(isinstance(found[f"envelope.{name}"], Map) for name in ("all", "first", "last"))
    table = found["envelope.coverage"]
    assert isinstance(table, Table)
    rows = row_dicts(table)
    assert [(row["layer"], row["filters"]) for row in rows] == [("0", 4), ("2", 8), ("all layers", 12)]
    assert rows[0]["coverage of the plane"] == float((box > 0.5).mean()) and rows[1]["coverage of the plane"] == 1


def test_the_radial_curve_of_a_flat_envelope_is_flat() -> None:
    curve = by_name(box_and_delta(), size=256)["envelope.radial"]
    assert isinstance(curve, Curve) and [line.name for line in curve.series] == ["all layers", "0", "2"]
    assert curve.x.values[0] == 0 and curve.x.values[-1] == 0.5
    assert curve.series[2].values == pytest.approx([0.5] * len(curve.x.values))
    assert curve.series[1].values[0] == pytest.approx(1.0)
    assert curve.arrays["layers"].shape == (2, 129)


def test_many_layers_are_all_kept_and_a_few_drawn() -> None:
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, groups=2) for _ in range(11)))
    curve = by_name(model, size=32)["envelope.radial"]
    assert [line.name for line in curve.series] == ["all layers", "0", "2", "4", "6", "8", "10"]
    assert curve.arrays["layers"].shape[0] == 11


def test_low_energy_of_boxes_lies_low_and_of_deltas_is_the_discs_share() -> None:
    rows = row_dicts(by_name(box_and_delta(), size=128, cutoff=0.2)["envelope.coverage"])
    box, delta, whole = ((row["low energy of the envelope"], row["low energy of a filter"]) for row in rows)
    lines = np.fft.fftshift(np.fft.fftfreq(128))
    line = (1 + 2 * np.cos(2 * np.pi * lines)) / 3
    power, low = (line[:, None] * line) ** 2, np.hypot(lines[:, None], lines) <= 0.2
    assert box == pytest.approx((power[low].sum() / power.sum(),) * 2, abs=0.01)
    assert delta == pytest.approx((np.pi * 0.2**2,) * 2, abs=0.001)
    # Four boxes and eight deltas: the mean goes over filters, not over layers.
    assert whole[1] == pytest.approx((4 * box[1] + 8 * delta[1]) / 12)


def test_every_layer_has_its_map_and_every_filter_its_share_where_they_are_asked_for() -> None:
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, groups=2) for _ in range(3)))
    found = by_name(model, size=32, every=True)
    maps = [name for name, result in found.items() if isinstance(result, Map)]
    assert maps == ["envelope.all", "envelope.layer.0", "envelope.layer.1", "envelope.layer.2"]
    np.testing.assert_array_equal(found["envelope.layer.2"].values, by_name(model, size=32)["envelope.last"].values)
    table = found["envelope.coverage"]
    for row in row_dicts(table)[:3]:
        assert table.arrays[row["layer"]].mean() == pytest.approx(row["low energy of a filter"])
    assert not by_name(model, size=32)["envelope.coverage"].arrays


def test_a_bank_of_zeros_has_no_low_energy_to_speak_of() -> None:
    model = nn.Conv2d(2, 2, 3, groups=2)
    nn.init.zeros_(model.weight)
    row = row_dicts(by_name(model, size=32)["envelope.coverage"])[0]
    assert row["low energy of the envelope"] is None and row["low energy of a filter"] is None


def test_the_bank_of_a_separable_network_is_its_depthwise_filters() -> None:
    model = nn.Sequential(SeparableConv2d(1, 4, 3, multiplier=9), SeparableConv2d(4, 4, 3, multiplier=9))
    found = by_name(model, size=32)["envelope.coverage"]
    assert [row[:3] for row in found.rows[:2]] == [("0.depthwise", "3×3", 9), ("1.depthwise", "3×3", 36)]


def test_without_depthwise_filters_the_dense_ones_are_taken_slice_by_slice_and_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    found = by_name(model, size=32)
    assert set(found) == {"envelope.all", "envelope.radial", "envelope.coverage"}
    assert "12 slices (output × input channel) of dense convolutions" in found["envelope.all"].notes[0]
    spectra = np.abs(np.fft.fft2(model[0].weight.detach().double().numpy().reshape(12, 3, 3), s=(32, 32)))
    np.testing.assert_allclose(found["envelope.all"].values, np.fft.fftshift(spectra.max(0)), atol=1e-6)


def test_the_model_is_left_as_it_was_found() -> None:
    model = box_and_delta()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    by_name(model, size=32)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_mistakes_are_one_line() -> None:
    for call, words in (
        (lambda: envelope(nn.Linear(3, 3), None), "Linear has none"),
        (lambda: envelope(box_and_delta(), None, size=2), "raise the size"),
        (lambda: envelope(box_and_delta(), None, threshold=1.0), "threshold"),
        (lambda: envelope(box_and_delta(), None, cutoff=0.0), "cut-off"),
    ):
        with pytest.raises(PassbandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
