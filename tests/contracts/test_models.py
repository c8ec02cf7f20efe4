"""What every network of passband's own keeps to."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

import passband.models  # noqa: F401  (registers them)
from passband.models.metadata import OWN

SMALL: dict[str, dict[str, Any]] = {
    "separable_resnet": {"depth": 1, "width": 4},
    "cifar_resnet": {"depth": 1, "width": 4},
    "conv_mixer": {"depth": 2, "width": 8, "kernel": 4, "patch": 2},
    "postact_resnet": {"depth": 1, "width": 4},
    "hfc_resnet32": {"depth": 1, "width": 4, "norm": "batch"},
    "hfc_resnet50": {"width": 2, "norm": "batch"},
    "small_lenet": {"width": 6},
    "small_alexnet": {"width": 4},
    "small_vgg": {"width": 4},
    "small_resnet18": {"width": 4},
    "small_mobilenetv2": {"width": 0.25},
    "small_efficientnet": {"width": 0.25, "depth": 0.5},
    "wide_resnet": {"depth": 10, "widen": 1, "dropout": 0.1},
    "spartan_t": {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "stem_strides": (2, 1)},
    "spartan_xt": {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "stem_strides": (1, 2), "channel": "mlp+se"},
    "spartan_micro": {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "ratios": (2, 2, 2, 2), "convolution": "F"},
}


LARGE = {name: SMALL[name] | {"stages": 4, "stem": "imagenet"} for name in ("separable_resnet", "cifar_resnet")}
"""The networks that have a size for ImageNet too."""

STAGED = {**dict.fromkeys((*LARGE, "hfc_resnet32", "wide_resnet"), 3), "small_lenet": 2, "small_alexnet": 3,
          **dict.fromkeys(("small_vgg", "small_resnet18", "hfc_resnet50"), 5),
          **dict.fromkeys(("small_mobilenetv2", "small_efficientnet"), 5),
          **dict.fromkeys((f"{name}-imagenet" for name in LARGE), 4),
          **dict.fromkeys(("spartan_t", "spartan_xt", "spartan_micro"), 4)}  # fmt: skip
"""The networks of which timm can take features, and how many."""

Made = tuple[str, dict[str, Any]]
"""A network's name and its arguments."""


@pytest.fixture(params=[*OWN, *(f"{name}-imagenet" for name in LARGE)])
def made(request: pytest.FixtureRequest) -> Made:
    name, _, large = request.param.partition("-")
    return name, LARGE[name] if large else SMALL[name]


@pytest.fixture
def model(made: Made) -> nn.Module:
    torch.manual_seed(0)
    name, arguments = made
    found: nn.Module = timm.create_model(name, pretrained=False, num_classes=7, in_chans=3, drop_rate=0.0, **arguments)
    return found.eval()


@pytest.mark.parametrize("size", [(32, 32), (28, 20)])
def test_it_gives_logits_at_any_size_and_leaves_its_input_alone(model: nn.Module, size: tuple[int, int]) -> None:
    images = torch.rand(3, 3, *size)
    before = images.clone()
    logits = model(images)
    assert logits.shape == (3, 7) and logits.isfinite().all()
    assert torch.equal(images, before)


def test_its_layout_in_memory_changes_nothing_and_is_kept(model: nn.Module) -> None:
    images = torch.rand(2, 3, 32, 32)
    last = images.contiguous(memory_format=torch.channels_last)
    expected = model(images)
    torch.testing.assert_close(model(last), expected)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(last), expected)
    assert model.forward_features(last).is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator]


def test_its_state_makes_an_equal_network(made: Made, model: nn.Module) -> None:
    name, arguments = made
    assert model.pretrained_cfg["architecture"] == name  # type: ignore[index]
    other = timm.create_model(name, num_classes=7, **arguments).eval()
    images = torch.rand(2, 3, 32, 32)
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


def test_it_answers_as_timms_networks_do(model: Any) -> None:
    images = torch.rand(2, 3, 32, 32)
    features = model.forward_features(images)
    assert features.shape[:2] == (2, model.num_features)
    assert torch.equal(model.forward_head(features), model(images))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    assert model.get_classifier().out_features == model.num_classes == 7
    model.reset_classifier(3)
    assert model(images).shape == (2, 3) and model.num_classes == 3
    model.reset_classifier(0)
    assert model(images).shape == (2, model.head_hidden_size)


def test_its_metadata_name_modules_that_exist(model: Any) -> None:
    cfg = model.pretrained_cfg
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert isinstance(model.get_submodule(cfg["first_conv"]), nn.Conv2d)
    plain = (3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    imagenet = (3, 224, 224), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    expected = imagenet if cfg["architecture"] in ("spartan_t", "spartan_xt") else plain
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == expected


@pytest.mark.parametrize(("made", "stages"), STAGED.items(), indirect=["made"])
def test_timm_gets_the_features_of_the_stages_that_the_metadata_names(made: Made, model: Any, stages: int) -> None:
    name, arguments = made
    images, seen = torch.rand(2, 3, 64, 64), []
    for info in model.feature_info:
        model.get_submodule(info["module"]).register_forward_hook(lambda *given: seen.append(given[2].shape))
    model(images)
    features = timm.create_model(name, features_only=True, **arguments).eval()(images)
    assert len(features) == len(model.feature_info) == stages
    for found, info, inside in zip(features, model.feature_info, seen, strict=True):
        assert found.shape == (2, info["num_chs"], 64 // info["reduction"], 64 // info["reduction"]) == inside


def test_every_parameter_gets_a_gradient(model: nn.Module) -> None:
    model.train()(torch.rand(4, 3, 32, 32)).square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
