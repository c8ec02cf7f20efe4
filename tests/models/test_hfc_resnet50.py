"""ResNet-50 with and without batch norm: timm's own, but for its norms and how it is drawn."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.models.hfc_resnet50 import HfcResNet50

NARROW = (2, 4, 8, 16)


def made(norm: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("hfc_resnet50", num_classes=9, width=NARROW[0], norm=norm)
    return model


def test_it_is_timms_with_norms_and_has_none_without() -> None:
    batch, none = made("batch"), made("none")
    theirs = timm.create_model("resnet50", num_classes=9, channels=NARROW)
    theirs.load_state_dict(batch.state_dict())
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(batch.eval()(images), theirs.eval()(images))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in none.modules())
    assert none(images).isfinite().all()


def test_both_begin_with_the_same_convolutions_and_scales_of_one() -> None:
    batch, none = made("batch").state_dict(), made("none").state_dict()
    kernels = {name: weight for name, weight in none.items() if weight.ndim == 4}
    assert len(kernels) == 53 and all(torch.equal(weight, batch[name]) for name, weight in kernels.items())
    scales = [weight for name, weight in batch.items() if "bn" in name and name.endswith("weight")]
    assert len(scales) == 49 and all((scale == 1).all() for scale in scales)
    weight = none["conv1.weight"]
    limit = (6 / (7 * 7 * (3 + 64))) ** 0.5
    assert 0.99 * limit < weight.abs().max() <= limit


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(PassbandError, match="width of at least 1; got 0"):
        HfcResNet50(width=0)
    with pytest.raises(PassbandError, match="unknown norm 'layer'"):
        HfcResNet50(norm="layer")
