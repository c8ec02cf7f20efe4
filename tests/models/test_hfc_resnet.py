"""The network of high-frequency, layer by layer, as its authors' code has it."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from passband.core.errors import PassbandError
from passband.models.hfc_resnet import EPSILON, HfcResNet


def network(**arguments: Any) -> HfcResNet:
    torch.manual_seed(0)
    return HfcResNet(**arguments).eval()


def stirred(model: HfcResNet) -> HfcResNet:
    """Give every norm a scale, a shift and statistics of its own, so that one left out would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def same(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve as TensorFlow's SAME does: what is missing is padded behind first, ``(n - 1) // stride`` apart."""
    for axis in (2, 3):
        side = images.shape[axis]
        missing = max((-(-side // stride) - 1) * stride + 3 - side, 0)
        before = missing // 2
        images = F.pad(images, (0, 0) * (3 - axis) + (before, missing - before))
    return F.conv2d(images, weight, stride=stride)


def by_hand(model: HfcResNet, images: Tensor) -> Tensor:
    """Return the logits as the authors' code computes them, from the model's own tensors."""

    def norm(module: nn.Module, features: Tensor) -> Tensor:
        if isinstance(module, nn.Identity):
            return features
        shape = (1, -1, 1, 1)
        centered = (features - module.running_mean.view(shape)) / (module.running_var.view(shape) + 1e-3).sqrt()
        return centered * module.weight.view(shape) + module.bias.view(shape)

    features = F.relu(norm(model.stem_norm, same(images, model.stem.weight, 1)))
    for stage, blocks in enumerate(model.stages):
        for position, block in enumerate(blocks):
            first, stride = stage == position == 0, 2 if stage and not position else 1
            inner = features if first else F.relu(norm(block.norm1, features))
            inner = same(inner, block.conv1.weight, stride)
            inner = same(F.relu(norm(block.norm2, inner)), block.conv2.weight, 1)
            if stride == 2:
                pooled = features.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
                empty = torch.zeros_like(pooled[:, : pooled.shape[1] // 2])
                features = torch.cat([empty, pooled, empty], dim=1)
            features = features + inner
    return F.linear(F.relu(features).mean((2, 3)), model.head.fc.weight, model.head.fc.bias)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("size", [(32, 32), (28, 20)], ids=str)
def test_it_computes_what_the_authors_code_does(norm: str, size: tuple[int, int]) -> None:
    model = stirred(network(depth=2, width=4, norm=norm))
    images = torch.rand(3, 3, *size)
    torch.testing.assert_close(model(images), by_hand(model, images), rtol=1e-4, atol=1e-5)


def test_it_has_32_layers_and_461882_parameters() -> None:
    model = network()
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32 and sum(parameter.numel() for parameter in model.parameters()) == 461_882
    assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == ["head.fc.bias"]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert model.stem.weight.shape == (16, 3, 3, 3)  # figure 7: 16 kernels of three channels


def test_batch_norm_stands_before_every_relu_but_the_last() -> None:
    model = network(depth=5, width=4, norm="batch")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 * 15 - 1 and all(norm.eps == EPSILON == 1e-3 for norm in norms)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    assert isinstance(model.stages[0][0].norm1, nn.Identity) and isinstance(model.stages[0][0].act1, nn.Identity)


def test_without_norm_a_louder_first_layer_is_louder_features_and_nothing_else() -> None:
    model, images = network(depth=2, width=4).double(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    before = model.forward_head(model.forward_features(images), pre_logits=True)
    with torch.no_grad():
        model.stem.weight.mul_(9)
    after = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(after, 9 * before)


def test_weights_are_drawn_as_the_authors_draw_them() -> None:
    model = network()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            limit = (6 / (9 * module.in_channels + 9 * module.out_channels)) ** 0.5
            assert 0.9 * limit < module.weight.abs().max() <= limit
    limit = (3 / 64) ** 0.5
    head = model.get_classifier()
    assert 0.9 * limit < head.weight.abs().max() <= limit and (head.bias == 0).all()
    model.reset_classifier(4)
    assert 0.9 * limit < model.get_classifier().weight.abs().max() <= limit


def test_dropout_stands_before_the_head_and_is_off_at_test() -> None:
    model = network(depth=1, width=4, drop_rate=0.5)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(images), model(images))
    features = model.forward_features(images)
    model.train()
    assert torch.equal(model.forward_features(images), features)
    dropped = model.forward_head(features, pre_logits=True)
    assert torch.equal(dropped, features.mean((2, 3))) or (dropped == 0).any()
    answers = {model(images).sum().item() for _ in range(8)}
    assert len(answers) > 1


def test_timm_gets_its_stages_features() -> None:
    features = timm.create_model("hfc_resnet32", depth=1, width=4, features_only=True)(torch.rand(2, 3, 32, 32))
    assert [tuple(one.shape[1:]) for one in features] == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]


def test_sides_that_are_odd_are_halved_upwards() -> None:
    model = network(depth=1, width=4)
    assert model.forward_features(torch.rand(1, 3, 15, 9)).shape == (1, 16, 4, 3)


def test_wrong_sizes_and_norms_are_refused() -> None:
    with pytest.raises(PassbandError, match="at least 1; got 0 and 16"):
        HfcResNet(depth=0)
    with pytest.raises(PassbandError, match="unknown norm 'bach': did you mean 'batch'"):
        HfcResNet(norm="bach")
