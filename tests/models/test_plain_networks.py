"""LeNet, AlexNet, VGG and ResNet-18 at the size of small images: their layers counted, at both sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from passband.core.errors import PassbandError
from passband.models.small_resnet18 import SmallResNet18


def made(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10, **arguments).eval()


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolved(*channels: int, kernels: tuple[int, ...]) -> int:
    """Count the weights and biases of convolutions in a row."""
    pairs = zip(pairwise(channels), kernels, strict=True)
    return sum(inputs * outputs * kernel**2 + outputs for (inputs, outputs), kernel in pairs)


def linear(*widths: int) -> int:
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


COUNTS = {
    "small_lenet": convolved(3, 6, 16, kernels=(5, 5)) + linear(400, 120, 84, 10),
    "small_alexnet": convolved(3, 64, 192, 384, 256, 256, kernels=(5, 5, 3, 3, 3)) + linear(1024, 1024, 1024, 10),
    "small_vgg": convolved(3, 64, 128, 256, 256, 512, 512, 512, 512, kernels=(3,) * 8) + linear(512, 512, 10),
    "small_resnet18": 11_173_962,
}
"""Parameters at full width; ResNet-18's with a 3×3 stem of 64 and ten classes are those of CIFAR codes everywhere."""


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_counted_by_hand(name: str) -> None:
    assert weights(made(name)) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("small_lenet", 28, (16, 7, 7)), ("small_lenet", 32, (16, 8, 8)),
        ("small_alexnet", 28, (32, 4, 4)), ("small_alexnet", 32, (32, 4, 4)),
        ("small_vgg", 28, (64, 1, 1)), ("small_vgg", 32, (64, 1, 1)),
        ("small_resnet18", 28, (64, 4, 4)), ("small_resnet18", 32, (64, 4, 4)),
    ],
)  # fmt: skip
def test_images_of_both_sizes_come_through(name: str, size: int, features: tuple[int, ...]) -> None:
    width = {"small_lenet": 6}.get(name, 8)
    model = made(name, width=width)
    images = torch.rand(2, 3, size, size)
    assert model.forward_features(images).shape == (2, *features) and model(images).shape == (2, 10)


def test_every_convolution_and_hidden_layer_is_followed_by_a_relu() -> None:
    model, images = made("small_alexnet", width=4), torch.rand(2, 3, 28, 28)
    features = images
    for module in model.features:
        if isinstance(module, nn.Conv2d):
            features = F.relu(F.conv2d(features, module.weight, module.bias, padding=module.kernel_size[0] // 2))
        elif isinstance(module, nn.MaxPool2d):
            features = F.max_pool2d(features, 2, ceil_mode=True)
    hidden = F.adaptive_avg_pool2d(features, 2).flatten(1)
    for module in model.hidden:
        if isinstance(module, nn.Linear):
            hidden = F.relu(module(hidden))
    torch.testing.assert_close(model(images), model.fc(hidden))


@pytest.mark.parametrize("name", ["small_lenet", "small_alexnet", "small_vgg"])
def test_dropout_stands_before_every_linear_layer(name: str) -> None:
    model = made(name, width=4, drop_rate=0.5)
    seen: list[str] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Linear):
            module.register_forward_hook(lambda one, *_: seen.append(type(one).__name__))
    model(torch.rand(2, 3, 28, 28))
    assert seen == ["Dropout", "Linear"] * (len(seen) // 2) and len(seen) >= 4
    assert all(module.p == 0.5 for module in model.modules() if isinstance(module, nn.Dropout))


def test_vgg_has_eleven_or_sixteen_layers_less_one_hidden() -> None:
    for depth in (11, 16):
        layers = [one for one in made("small_vgg", width=4, depth=depth).modules() if hasattr(one, "bias")]
        assert len(layers) == depth - 1
    with pytest.raises(PassbandError, match="a depth of 11 or 16; got 13"):
        made("small_vgg", depth=13)


def test_resnet18_keeps_the_side_in_its_stem_and_can_be_without_norms() -> None:
    model = made("small_resnet18", width=8)
    assert model.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 64, 4, 4)
    assert (model.conv1.kernel_size, model.conv1.stride) == ((3, 3), (1, 1))
    layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert len([one for one in layers if getattr(one, "kernel_size", (3, 3)) == (3, 3)]) == 18
    bare = made("small_resnet18", width=8, norm="none")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in bare.modules())
    assert bare(torch.rand(2, 3, 32, 32)).isfinite().all()


def test_wrong_sizes_and_norms_are_refused() -> None:
    with pytest.raises(PassbandError, match="needs a channel"):
        made("small_lenet", width=0)
    with pytest.raises(PassbandError, match="width of at least 1; got 0"):
        made("small_resnet18", width=0)
    with pytest.raises(PassbandError, match="unknown norm 'layer'"):
        SmallResNet18(norm="layer")
