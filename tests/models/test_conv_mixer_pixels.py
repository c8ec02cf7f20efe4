"""The ConvMixer that gives images: what it shares with the classifier, and what reads it."""

from __future__ import annotations

import pytest
import timm
import torch

from passband.core.errors import PassbandError
from passband.models.conv_mixer import ConvMixer
from passband.models.conv_mixer_pixels import ConvMixerPixels
from passband.models.create import create
from passband.weights.learn import learn
from passband.weights.roles import roles

SMALL = {"width": 6, "depth": 2, "kernel": 3}


def test_its_body_is_the_classifiers_drawn_alike() -> None:
    states = []
    for kind, arguments in ((ConvMixer, {"patch": 1}), (ConvMixerPixels, {})):
        torch.manual_seed(0)
        states.append(kind(**SMALL, **arguments).state_dict())
    classifier, pixels = states
    assert {name for name in classifier if name not in pixels} == {"head.fc.weight", "head.fc.bias"}
    assert {name for name in pixels if name not in classifier} == {"head.weight", "head.bias"}
    assert all(torch.equal(tensor, pixels[name]) for name, tensor in classifier.items() if name in pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_gives_images_of_the_size_that_came(channels: int) -> None:
    model = timm.create_model("conv_mixer_pixels", in_chans=channels, num_classes=10, **SMALL).eval()
    images = torch.rand(2, channels, 9, 5)
    restored = model(images)
    assert restored.shape == images.shape
    # A linear head at each position, and nothing behind it.
    by_hand = torch.einsum("bfhw,cf->bchw", model.forward_features(images), model.head.weight[:, :, 0, 0])
    torch.testing.assert_close(restored, by_hand + model.head.bias.view(-1, 1, 1))
    assert model.get_submodule(model.pretrained_cfg["classifier"]) is model.get_classifier()


def test_its_head_is_a_head_and_its_1x1_stem_a_channel_mixer() -> None:
    model = create("conv_mixer_pixels", size=8, gives="images", **SMALL)
    found = roles(model)
    assert found["head.weight"] == found["head.bias"] == "neither" and found["stem.0.weight"] == "channel"
    for what, learns in (("channels", "pointwise"), ("spatial", "depthwise")):
        learn(model, what, roles={"stem.0.*": "both"})  # type: ignore[arg-type]
        moving = {name for name, parameter in model.inner.named_parameters() if parameter.requires_grad}
        convolutions = {name for name in moving if name.split(".")[-2] == "0"}
        assert convolutions == {f"blocks.{i}.{learns}.0.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")}
        assert {"head.weight", "head.bias"} <= moving


def test_networks_that_give_something_else_are_refused() -> None:
    model = create("conv_mixer_pixels", size=8, gives="images", **SMALL)
    assert model.spec.classes == 0 and model.spec.size == (8, 8) and not model.spec.class_names
    with pytest.raises(PassbandError, match=r"gives \[1, 3, 32, 32\] for one image; a classifier gives logits"):
        create("conv_mixer_pixels", **SMALL)
    with pytest.raises(PassbandError, match=r"gives \[1, 10\] for one image; images \[1, 3, 32, 32\] are needed"):
        create("conv_mixer", gives="images", **SMALL)
    with pytest.raises(PassbandError, match="sizes of at least 1; got width 6, depth 0"):
        create("conv_mixer_pixels", gives="images", **(SMALL | {"depth": 0}))
    with pytest.raises(PassbandError, match="did you mean 'width'"):
        create("conv_mixer_pixels", gives="images", widht=3)
