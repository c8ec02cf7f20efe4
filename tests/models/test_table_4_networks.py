"""The networks of adversarial-focus's table 4."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import passband.models  # noqa: F401  (registers them)
from passband.core.errors import PassbandError


def counted(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_wide_resnets_have_the_parameters_that_are_known_of_them() -> None:
    with torch.device("meta"):
        sizes = {
            (depth, widen): counted(timm.create_model("wide_resnet", depth=depth, widen=widen))
            for depth, widen in ((34, 10), (16, 2), (40, 4))
        }
    # Zagoruyko and Komodakis, table 4, have 0.7 M and 8.9 M for the last two; robustness papers 46.2 M for the first.
    assert sizes == {(34, 10): 46_160_474, (16, 2): 691_674, (40, 4): 8_949_210}


def test_a_wide_block_adds_its_convolutions_to_its_input() -> None:
    torch.manual_seed(0)
    model = timm.create_model("wide_resnet", depth=16, widen=1).eval()
    first, second = model.stages[1]
    images = torch.rand(2, 16, 8, 8)
    assert second.shortcut is None and isinstance(first.shortcut, nn.Conv2d)
    for block in (first, second):
        nn.init.zeros_(block.conv2.weight)
    active = torch.relu(first.norm1(images))
    passed = first(images)
    torch.testing.assert_close(passed, nn.functional.conv2d(active, first.shortcut.weight, stride=2))
    torch.testing.assert_close(second(passed), passed)
    assert [len(stage) for stage in model.stages] == [2, 2, 2]
    dropping = timm.create_model("wide_resnet", depth=10, widen=1, dropout=0.5).train()
    assert not torch.equal(dropping.stages[0](images), dropping.stages[0](images))


def test_small_networks_are_timms_with_a_stem_that_keeps_the_side() -> None:
    torch.manual_seed(0)
    model = timm.create_model("small_mobilenetv2", num_classes=10, width=0.35).eval()
    original = timm.create_model("mobilenetv2_035", num_classes=10).eval()
    model.load_state_dict(original.state_dict())
    original.conv_stem.stride = (1, 1)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), original(images))
        assert model.forward_features(images).shape[2:] == (2, 2)
    assert model.feature_info[-1]["reduction"] == 16
    with torch.device("meta"):
        whole, b0 = (timm.create_model(name, num_classes=10) for name in ("small_efficientnet", "efficientnet_b0"))
    b0.conv_stem.stride = (1, 1)
    assert str(whole) == str(b0)


def test_a_narrow_efficientnet_has_fewer_blocks_too() -> None:
    model = timm.create_model("small_efficientnet", width=0.5, depth=0.5)
    assert [len(stage) for stage in model.blocks] == [1, 1, 1, 2, 2, 2, 1]
    assert model.conv_stem.out_channels == 16 and model.num_features == 640


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("wide_resnet", {"depth": 20}, "6 n . 4"),
        ("wide_resnet", {"depth": 4}, "6 n . 4"),
        ("wide_resnet", {"widen": 0}, "widened by 1 or more; got 0"),
        ("small_mobilenetv2", {"width": 0.0}, "above 0; got 0"),
        ("small_efficientnet", {"depth": -1.0}, "above 0; got 1 and -1"),
    ],
)
def test_arguments_that_make_no_network_are_refused(name: str, arguments: dict, said: str) -> None:
    with pytest.raises(PassbandError, match=said):
        timm.create_model(name, **arguments)
