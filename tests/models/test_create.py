"""A classifier by name: what it is made of, and what is said when it cannot be made."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from timm.data import ImageNetInfo

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.models.create import create, names
from passband.models.weights_file import save_weights
from passband.models.wrap import Classifier

OWN = """
import torch
from torch import nn
from helper import COLORS

class Net(nn.Module):
    def __init__(self, num_classes=4, width=2):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * COLORS, num_classes))
    def forward(self, images):
        return self.layers(images)

def unknown(**arguments):
    return Net(**arguments)

def known(num_classes=4):
    model = Net(num_classes)
    model.mean, model.std = torch.tensor([0.1, 0.2, 0.3]), (0.5, 0.5, 0.5)
    return model

def with_cfg():
    model = Net()
    model.pretrained_cfg = {"input_size": (3, 9, 8), "mean": (0.4,) * 3, "std": (0.6,) * 3, "crop_pct": 0.8}
    return model

def broken():
    raise KeyError("weights.pt")

def refuses(depth=3):
    return Net() if depth < 3 else undefined_name

def text():
    return "a model"

def features():
    return nn.AdaptiveAvgPool2d(1)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "helper.py").write_text("COLORS = 3\n")
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def _message(**arguments: Any) -> str:
    with pytest.raises(PassbandError) as caught:
        create(**arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_classifier_normalizes_inside() -> None:
    spec = ImageSpec((2, 2), (0.5, 0.25), (0.5, 2.0), "here", classes=2, channels=2)
    model = Classifier(torch.nn.Flatten(), spec)
    images = torch.tensor([[[[1.0, 0.5], [0.0, 0.25]], [[1.0, 0.5], [0.0, 0.25]]]])
    assert model(images).tolist() == [[1.0, 0.0, -1.0, -0.5, 0.375, 0.125, -0.125, 0.0]]
    assert not model.state_dict()
    plain = Classifier(torch.nn.Flatten(), ImageSpec((2, 2), None, None, "none", classes=2, channels=2))
    assert torch.equal(plain(images), images.flatten(1))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.5, 0.5), (1.0,), "one per channel"), ((0.5,), (0.0,), "above 0"), ((0.5,), None, "belong together")],
)
def test_a_classifier_refuses_what_does_not_fit(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(PassbandError, match=message):
        Classifier(torch.nn.Flatten(), ImageSpec((2, 2), mean, std, "here", classes=2))


def test_a_timm_model_brings_its_own_metadata() -> None:
    model = create("resnet18", size=64)
    assert model.spec.mean == (0.485, 0.456, 0.406) and model.spec.source == "timm's pretrained_cfg"
    assert model.spec.size == (64, 64) and model.spec.classes == 1000 and model.spec.crop_pct == 0.95
    assert model.spec.class_names == tuple(ImageNetInfo("imagenet-1k").label_names())
    assert model.spec.class_names[0] == "n01440764"
    assert not create("resnet18", size=32, classes=10).spec.class_names


def test_a_model_of_fixed_size_is_made_for_the_size_asked_for() -> None:
    model = create("vit_tiny_patch16_224", size=32, classes=5, depth=1)
    assert model.spec.size == (32, 32) and model(torch.rand(1, 3, 32, 32)).shape == (1, 5)
    assert create("vit_tiny_patch16_224", depth=1).spec.size == (224, 224)


def test_a_torchvision_model_brings_its_weights_metadata() -> None:
    model = create("torchvision:mobilenet_v3_small", size=64)
    assert model.spec.mean == (0.485, 0.456, 0.406) and model.spec.source == "torchvision's weights metadata"
    assert model.spec.class_names[0] == "n01440764" and model.spec.crop_pct == 224 / 256
    assert model.spec.interpolation == "bilinear"
    assert create("torchvision:mobilenet_v3_small", size=64, classes=7).spec.classes == 7


def test_our_own_take_pixels_as_they_are_until_told_otherwise() -> None:
    model = create("separable_resnet", depth=1, width=4, multiplier=9, classes=3)
    assert model.spec.mean is None and model.spec.classes == 3 and model.spec.size == (32, 32)
    given = create("separable_resnet", depth=1, width=4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), size=28)
    assert given.spec.mean == (0.1, 0.2, 0.3) and given.spec.source == "--mean/--std"
    assert given.spec.size == (28, 28)


def test_given_mean_and_std_win_and_names_are_kept() -> None:
    pair = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    model = create("resnet18", size=32, classes=2, class_names=("cat", "dog"), **pair)  # type: ignore[arg-type]
    assert model.spec.mean == (0.0,) * 3 and model.spec.class_names == ("cat", "dog")
    assert "1 class names were given for a model of 2" in _message(
        name="resnet18", size=32, classes=2, class_names=("a",)
    )


def test_a_factory_of_the_users_brings_what_it_knows(own: str) -> None:
    known = create(f"{own}:known", size=16, classes=6)
    assert known.spec.mean == pytest.approx((0.1, 0.2, 0.3)) and known.spec.classes == 6
    assert known.spec.source == "the model's mean and std"
    with_cfg = create(f"{own}:with_cfg")
    assert with_cfg.spec.size == (9, 8) and with_cfg.spec.crop_pct == 0.8 and with_cfg.spec.classes == 4
    given = create(f"{own}:unknown", size=16, mean=(0.0,), std=(1.0,), width=5)
    assert given(torch.rand(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("unknown", "mean and std of .* are not in its metadata; give --mean and --std"),
        ("known", "the input size of .* is not known"),
        ("broken", "broken raised KeyError: 'weights.pt'"),
        ("refuses", "refuses raised NameError: name 'undefined_name'"),
        ("text", "gave a str; its factory must return a torch.nn.Module"),
        ("knwon", "unknown factory in .* 'knwon': did you mean 'known'"),
    ],
)
def test_a_factory_that_cannot_be_used_says_why(own: str, factory: str, message: str) -> None:
    size = None if factory == "known" else 16
    assert re.search(message, _message(name=f"{own}:{factory}", size=size))


def test_a_users_module_that_is_no_classifier_is_refused(own: str) -> None:
    text = _message(name=f"{own}:features", size=16, mean=(0.0,), std=(1.0,))
    assert "gives [1, 3, 1, 1] for one image" in text
    text = _message(name=f"{own}:with_cfg", classes=9)
    assert "has 4 classes, 9 were asked for" in text


def test_a_file_that_is_missing_or_does_not_run_is_named(tmp_path: Path) -> None:
    assert "there is no file" in _message(name=str(tmp_path / "nothing.py:make"))
    (tmp_path / "bad.py").write_text("import no_such_package\n")
    text = _message(name=str(tmp_path / "bad.py:make"))
    assert "bad.py raised ModuleNotFoundError: No module named 'no_such_package'" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "unknown model 'resnet81': did you mean 'resnet"),
        ({"name": "separable_resnt"}, "did you mean 'separable_resnet'"),
        ({"name": "resnet18.imagenet"}, "unknown model 'resnet18.imagenet': did you mean 'resnet18"),
        ({"name": "torchvision:resnet19"}, "unknown torchvision model 'resnet19': did you mean 'resnet18'"),
        ({"name": "separable_resnet", "widht": 3}, "unknown option of model separable_resnet 'widht': .*'width'"),
        ({"name": "separable_resnet", "depth": "deep"}, "model separable_resnet: depth cannot be 'deep'"),
        ({"name": "resnet18", "widht": 3}, "'resnet18' cannot be made with widht=3.*widht.*change its arguments"),
        ({"name": "resnet18", "classes": 1}, "at least 2 classes; got 1"),
        ({"name": "vit_tiny_patch16_224", "depth": 1, "num_classes": 0}, "has no classes of its own"),
        ({"name": "conv_mixer", "depth": 1, "width": 4, "patch": 40}, "does not take images of 3×32×32"),
        ({"name": "resnet18", "channels": 1}, "for 1 channels are not in its metadata"),
        ({"name": "resnet18", "mean": (0.5,)}, "mean and std belong together"),
        ({"name": "separable_resnet", "pretrained": True}, "no pretrained weights of 'separable_resnet'"),
        ({"name": "resnet18", "pretrained": True, "weights": "x"}, "exclude each other"),
        ({"name": "torchvision:resnet18", "channels": 1}, "take 3 channels; got 1"),
    ],
)
def test_a_wrong_request_is_answered_in_one_line(arguments: dict[str, Any], message: str) -> None:
    assert re.search(message, _message(**arguments))


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "hf-hub:timm/resnet18.a1_in1k"])
def test_without_a_network_pretrained_weights_name_the_ways_out(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    before = constants.HF_HUB_OFFLINE
    text = _message(name=name, pretrained=True)
    assert f"'{name}' could not be downloaded" in text and "--weights FILE" in text
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_ours_bring_mean_std_and_classes(tmp_path: Path) -> None:
    pair = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    arguments: dict[str, Any] = {"depth": 1, "width": 4}
    model = create("separable_resnet", classes=3, class_names=("a", "b", "c"), **pair, **arguments).eval()
    path = save_weights(model, tmp_path / "weights.safetensors")
    again = create("separable_resnet", weights=path, **arguments).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    assert again.spec.mean == pair["mean"] and again.spec.class_names == ("a", "b", "c")
    assert again.spec.source == "the weights file's metadata"
    torch.save(model.inner.state_dict(), tmp_path / "bare.pt")
    text = _message(name="separable_resnet", weights=tmp_path / "bare.pt", **arguments)
    assert "give --mean and --std" in text


def test_names_hold_timms_and_our_own() -> None:
    assert {"resnet18", "separable_resnet", "cifar_resnet", "conv_mixer"} <= set(names())
