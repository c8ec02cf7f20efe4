"""Passband's own networks have the papers' sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch
from timm.models import is_model
from torch import nn

import passband.models  # noqa: F401  (registers them)
from passband.core.errors import PassbandError
from passband.models.cifar_resnet import CifarResNet
from passband.models.conv_mixer import ConvMixer
from passband.models.layers import SeparableConv2d
from passband.models.metadata import OWN
from passband.models.separable_resnet import SeparableResNet


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("depth", [1, 3])
def test_a_separable_resnet_has_6n_plus_2_layers_and_the_papers_parameters(depth: int) -> None:
    width, multiplier = 8, 9
    model = SeparableResNet(depth, width, multiplier)
    convolutions = [module for module in model.modules() if isinstance(module, SeparableConv2d)]
    assert len(convolutions) + 1 == 6 * depth + 2
    channels = [3, *[width] * (2 * depth + 1), *[2 * width] * (2 * depth), *[4 * width] * (2 * depth)]
    for module, (inputs, outputs) in zip(convolutions, pairwise(channels), strict=True):
        # spatial-mixing, equation 2: p_sep = C_in · k² · d + C_in · d · C_out
        assert _weights(module) == inputs * 9 * multiplier + inputs * multiplier * outputs
    others = sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert _weights(model) == sum(map(_weights, convolutions)) + others + 4 * width * 10 + 10


@pytest.mark.parametrize("depth", [1, 2])
def test_an_imagenet_resnet_has_8n_plus_2_layers_and_leaves_a_32nd_of_the_side(depth: int) -> None:
    width, multiplier = 4, 9
    model = SeparableResNet(depth, width, multiplier, stages=4, stem="imagenet").eval()
    convolutions = [module for module in model.modules() if isinstance(module, SeparableConv2d)]
    assert len(convolutions) + 1 == 8 * depth + 2
    stem = convolutions[0]
    assert (stem.depthwise.kernel_size, stem.depthwise.stride, stem.depthwise.padding) == ((7, 7), (2, 2), (3, 3))
    assert _weights(stem) == 3 * 49 * multiplier + 3 * multiplier * width
    widths = [*[width] * 2 * depth, *[2 * width] * 2 * depth, *[4 * width] * 2 * depth, *[8 * width] * 2 * depth]
    assert [module.out_channels for module in convolutions[1:]] == widths
    assert model.forward_features(torch.rand(1, 3, 224, 224)).shape == (1, 8 * width, 7, 7)
    # Max pooling, as in ResNet: what the first stage sees is the largest of its 3×3 neighbors.
    images, seen = torch.rand(1, 3, 32, 32), []
    model.stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    assert torch.equal(seen[0], torch.nn.functional.max_pool2d(stem(images), 3, 2, 1)) and seen[0].shape[-1] == 8


def test_the_plain_resnet_has_the_same_shape() -> None:
    plain, separable = CifarResNet(2, 8), SeparableResNet(2, 8, 9)
    assert sum(isinstance(m, nn.Conv2d) for m in plain.modules()) + 1 == 6 * 2 + 2
    images = torch.rand(2, 3, 32, 32)
    assert plain.forward_features(images).shape == separable.forward_features(images).shape == (2, 32, 8, 8)
    large = {"stages": 4, "stem": "imagenet"}
    plain, separable = CifarResNet(1, 4, **large), SeparableResNet(1, 4, 9, **large)
    assert sum(isinstance(m, nn.Conv2d) for m in plain.modules()) + 1 == 8 * 1 + 2
    assert plain.forward_features(images).shape == separable.forward_features(images).shape == (2, 32, 1, 1)


def test_a_shortcut_takes_every_second_pixel_and_fills_up_with_zeros() -> None:
    block = CifarResNet(1, 4).stages[1][0]
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    features = torch.rand(1, 4, 6, 6)
    output = block(features)
    assert torch.equal(output[:, 2:6], features[:, :, ::2, ::2])
    assert not output[:, :2].any() and not output[:, 6:].any()


def test_a_separable_resnet_is_the_plain_one_with_its_composed_kernels() -> None:
    separable, plain = SeparableResNet(1, 4, 9).eval(), CifarResNet(1, 4).eval()
    state = {name: value for name, value in separable.state_dict().items() if "wise" not in name}
    for name, module in separable.named_modules():
        if isinstance(module, SeparableConv2d):
            state[f"{name}.weight"] = module.kernel().detach()
    plain.load_state_dict(state)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(separable(images), plain(images))


def test_a_convmixer_has_the_papers_parameters() -> None:
    width, depth, kernel, patch = 16, 2, 8, 2
    model = ConvMixer(width, depth, kernel, patch)
    stem = 3 * patch**2 * width + width + 2 * width
    block = (kernel**2 * width + width + 2 * width) + (width**2 + width + 2 * width)
    assert _weights(model) == stem + depth * block + width * 10 + 10


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(PassbandError, match="at least 1; got 0 and 16"):
        SeparableResNet(depth=0)
    with pytest.raises(PassbandError, match="patch 0"):
        ConvMixer(patch=0)
    with pytest.raises(PassbandError, match=r"at least 1 stage .* got 0"):
        SeparableResNet(stages=0)
    with pytest.raises(PassbandError, match="unknown stem 'imagnet': did you mean 'imagenet'"):
        CifarResNet(stem="imagnet")


FILES = {
    "hfc_resnet32": "hfc_resnet",
    "small_mobilenetv2": "small_efficientnet",
    **{f"small_{name}": "plain_networks" for name in ("lenet", "alexnet", "vgg")},
    **{f"spartan_{name}": "spartan" for name in ("t", "xt", "micro")},
}
"""The files of networks that are not named as they are."""


@pytest.mark.parametrize("name", OWN)
def test_our_names_are_ours_alone(name: str) -> None:
    assert is_model(name)
    file = FILES.get(name, name)
    assert timm.models.model_entrypoint(name).__module__ == f"passband.models.{file}"
    # timm merges modules that share a file's name, so ours must share none
    assert timm.list_models(module=file) == sorted(own for own in OWN if FILES.get(own, own) == file)


def test_postact_resnet20_has_the_parameters_counted_by_hand() -> None:
    model = timm.create_model("postact_resnet", num_classes=10)
    convolutions = 3 * 16 * 9 + 6 * 16 * 16 * 9 + (16 * 32 + 5 * 32 * 32) * 9 + (32 * 64 + 5 * 64 * 64) * 9
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64 + 64)
    assert sum(parameter.numel() for parameter in model.parameters()) == convolutions + norms + 64 * 10 + 10 == 269_850
