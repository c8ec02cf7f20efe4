"""Mixing neighbors in the first layer: which layer, what becomes of its kernels, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations

from passband.core.errors import NotApplicable, PassbandError
from passband.models.hfc_resnet import HfcResNet
from passband.models.layers import DepthwiseConv2d, SeparableConv2d
from passband.weights.first import first_convolution
from passband.weights.neighbors import mix_neighbors, mixed


@pytest.mark.parametrize("side", [(3, 3), (5, 5), (4, 4), (1, 7), (2, 3)])
@pytest.mark.parametrize("keep_gain", [True, False])
def test_each_slice_is_what_scipy_makes_of_it(side: tuple[int, int], keep_gain: bool) -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 3, side), nn.Conv2d(3, 4, 3))
    before = [layer.weight.detach().clone() for layer in model]
    mix_neighbors(model, 0.3, keep_gain=keep_gain)
    mask = np.full((3, 3), 0.3)
    mask[1, 1] = 1
    for (out, channel), _ in np.ndenumerate(np.empty((3, 8))):
        kernel = before[1][out, channel].double().numpy()
        wanted = ndimage.convolve(kernel, mask, mode="nearest") / (1 if keep_gain else 1 + 8 * 0.3)
        np.testing.assert_allclose(model[1].weight[out, channel].detach().numpy(), wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(model[0].weight, before[0]) and torch.equal(model[2].weight, before[2])


def test_white_kernels_gain_what_the_paper_s_do() -> None:
    torch.manual_seed(0)
    for rho, gain in ((0.1, 1.22), (0.25, 1.66), (0.5, 2.52), (1.0, 4.34)):
        layer = nn.Conv2d(100, 200, 3)
        nn.init.normal_(layer.weight)
        report = mix_neighbors(layer, rho)
        assert report.rms_gain == pytest.approx(gain, abs=0.01) and report.dc_gain == 1 + 8 * rho
        assert report.layer == "" and report.rho == rho


def test_nothing_changes_at_zero_and_a_constant_kernel_is_scaled_alone() -> None:
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.detach().clone()
    assert mix_neighbors(layer, 0).rms_gain == 1 and torch.equal(layer.weight, before)
    constant = torch.full((2, 1, 3, 3), 0.7)
    for rho in (0.1, 0.25, 0.5, 1.0):
        assert torch.equal(mixed(constant, rho), ((1 + 8 * rho) * constant.double()).float())
        assert torch.equal(mixed(constant, rho, keep_gain=False), constant)
    nn.init.zeros_(layer.weight)
    assert math.isnan(mix_neighbors(layer, 1.0).rms_gain)


def test_a_separable_convolution_s_dense_kernel_is_mixed_with_its_depthwise_ones() -> None:
    model = nn.Sequential(SeparableConv2d(3, 5, 3, multiplier=4), nn.Conv2d(5, 5, 3))
    stem = model[0]
    wanted = mixed(stem.kernel().detach(), 0.5)
    report = mix_neighbors(model, 0.5)
    assert report.layer == "0.depthwise"
    torch.testing.assert_close(stem.kernel().detach(), wanted)
    assert mix_neighbors(SeparableConv2d(3, 5, 3), 0.5).layer == "depthwise"


def test_a_depthwise_even_kernel_has_neighbors_too() -> None:
    layer = DepthwiseConv2d(6, 4)
    wanted = mixed(layer.weight.detach(), 1.0)
    mix_neighbors(nn.Sequential(layer), 1.0)
    assert torch.equal(layer.weight, wanted)


def test_another_layer_goes_by_its_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(SeparableConv2d(4, 4, 3)))
    assert first_convolution(model) == ("0", model[0])
    assert first_convolution(model, "1.0") == ("1.0", model[1][0])
    assert mix_neighbors(model, 0.5, layer="1.0").layer == "1.0.depthwise"
    assert str(mix_neighbors(model, 0.5, keep_gain=False)) == "neighbors mixed in 0, ρ 0.5, gain divided out"
    assert str(mix_neighbors(model, 0)) == "neighbors mixed in 0, ρ 0"


def test_without_norm_and_bias_the_gain_multiplies_the_logits_but_for_the_head_s_bias() -> None:
    torch.manual_seed(0)
    models = [HfcResNet(depth=1, width=4).eval() for _ in range(2)]
    nn.init.normal_(models[0].head.fc.bias)
    models[1].load_state_dict(models[0].state_dict())
    images = torch.rand(20, 3, 28, 28)
    for model, keep_gain in zip(models, (True, False), strict=True):
        mix_neighbors(model, 1.0, keep_gain=keep_gain)
    with torch.no_grad():
        kept, divided = (model(images) - model.head.fc.bias for model in models)
        torch.testing.assert_close(kept, 9 * divided, rtol=1e-4, atol=1e-4)
        for model in models:
            model.head.fc.bias.zero_()
        kept, divided = (model(images) for model in models)
    assert torch.equal(kept.argmax(1), divided.argmax(1))


def shared() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    return model


def spoiled() -> nn.Module:
    layer = nn.Conv2d(3, 3, 3)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = torch.nan
    return layer


def twice() -> nn.Module:
    layer = nn.Conv2d(3, 3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(3, 3), "Linear has none"),
        (nn.Conv2d(3, 3, 1), "larger than 1×1"),
        (StdConv2d(3, 4, 3), "standardized in each pass of StdConv2d"),
        (parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "computed from other weights"),
        (nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), "computed from other weights"),
        (shared(), "used by another layer"),
        (twice(), "used by another layer"),
        (spoiled(), "NaN"),
    ],
)
def test_what_mixing_would_not_reach_is_refused_in_one_line(model: nn.Module, words: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(NotApplicable, match=words) as caught:
        mix_neighbors(model, 1.0)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name].nan_to_num(), t.nan_to_num()) for name, t in model.state_dict().items())


def test_mistakes_are_one_line() -> None:
    for rho in (-0.1, math.inf, math.nan):
        with pytest.raises(PassbandError, match="rho of 0 or more"):
            mix_neighbors(nn.Conv2d(3, 3, 3), rho)
    with pytest.raises(PassbandError, match="available: 0"):
        mix_neighbors(nn.Sequential(nn.Conv2d(3, 3, 3)), 1.0, layer="1")
