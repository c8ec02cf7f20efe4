"""Checkpoints of SpaRTAN's released code load as they are, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.create import create
from passband.models.spartan_checkpoint import is_released, sizes, to_ours, to_released
from passband.models.weights_file import load_weights

SMALL: dict[str, Any] = {"widths": (8, 16, 24, 32), "depths": (2, 1, 3, 1), "ratios": (4, 2, 2, 3), "num_classes": 7}

WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "full": {"convolution": "F"},
    "depthwise": {"convolution": "D"},
    "paper": {"groups": "paper"},
    "kernel 5": {"kernel": 5},
    "norms": {"conv_norm": "layer", "mixer_norm": "batch"},
}


class Theirs(nn.Module):
    """Have the names and shapes of the released code, written from its list of names; it computes nothing."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], ratios: tuple[int, ...], classes: int) -> None:
        super().__init__()
        normed = self.normed
        self.conv = nn.Sequential(normed(3, widths[0] // 2, 3), normed(widths[0] // 2, widths[0], 3))
        layers: list[nn.Module] = []
        for stage, width in enumerate(widths):
            if stage:
                layers.append(normed(widths[stage - 1], width, 2))
            layers += [self.block(width, ratios[stage], depthwise=stage > 1) for _ in range(depths[stage])]
        self.layers, self.linear = nn.ModuleList(layers), nn.Linear(widths[-1], classes)

    def normed(self, before: int, after: int, kernel: int, groups: int = 1) -> nn.Module:
        conv = nn.Conv2d(before, after, kernel, groups=groups, bias=False)
        return nn.ModuleDict({"conv": conv, "norm": nn.BatchNorm2d(after)})

    def attention(self, width: int, squeezed: int) -> nn.Module:
        return nn.ModuleDict({"squeeze": nn.Conv2d(width, squeezed, 1), "expand": nn.Conv2d(squeezed, width, 1)})

    def block(self, width: int, ratio: int, depthwise: bool) -> nn.Module:
        half, wide = width // 2, width * ratio
        groups = half if depthwise else 1
        spatial = nn.ModuleDict(
            {
                "proj_in": nn.Conv2d(width, half, 1),
                "h_conv": self.normed(half, half, 3, groups),
                "l_conv": nn.ModuleList(
                    [
                        nn.ModuleDict({"conv": nn.Conv2d(half, half, 3, groups=groups, bias=False)}),
                        self.normed(half, half, 3, groups),
                    ]
                ),
                "h_attn": self.attention(half, half // 4),
                "l_attn": self.attention(half, half // 4),
                "proj_out": nn.Conv2d(width, width, 1),
            }
        )
        spatial.register_parameter("gamma", nn.Parameter(torch.randn(1, half, 1, 1)))
        channel = nn.ModuleDict(
            {
                "theta": nn.Conv2d(width, wide, 1),
                "proj": nn.Conv2d(width, wide, 1),
                "conv": self.normed(wide, wide, 3, width if depthwise else wide),
                "attn": self.attention(wide, width // 4),
                "proj_out": nn.Conv2d(wide, width, 1),
            }
        )
        channel.register_parameter("complex", nn.Parameter(torch.randn(1, 1, 1, wide // 2, 2)))
        parts = {
            "norm_1": nn.GroupNorm(1, width),
            "smixer": spatial,
            "norm_2": nn.GroupNorm(1, width),
            "cmixer": channel,
        }
        block = nn.ModuleDict(parts)
        for scale in ("scale_1", "scale_2"):
            block.register_parameter(scale, nn.Parameter(torch.randn(1, width, 1, 1)))
        return block


def released() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Theirs(SMALL["widths"], SMALL["depths"], SMALL["ratios"], 7).state_dict()


def test_the_released_codes_own_sizes_have_its_number_of_tensors() -> None:
    with torch.device("meta"):
        names = Theirs((32, 64, 128, 256), (3, 3, 12, 2), (4, 4, 2, 2), 1000).state_dict()
        ours = timm.create_model("spartan_t").state_dict()
    assert len(names) == 1012
    renamed = to_ours(names, "here")
    assert {name: one.shape for name, one in renamed.items()} == {name: one.shape for name, one in ours.items()}
    # Every part of ours came from the part of theirs that its layers are called by.
    assert renamed["stages.2.12.spatial.reduce.weight"] is names["layers.19.smixer.proj_in.weight"]
    assert renamed["stages.3.0.conv.weight"] is names["layers.20.conv.weight"]


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 299},
        lambda state: {"state_dict": {f"module.{name}": one for name, one in state.items()}},
        lambda state: {"model": {f"_orig_mod.module.{name}": one for name, one in state.items()}},
    ],
)
def test_a_checkpoint_makes_its_network_whatever_the_name_says(nest: Any, tmp_path: Path) -> None:
    state = released()
    torch.save(nest(state), tmp_path / "released.pth")
    model = create("spartan_t", weights=tmp_path / "released.pth", size=64)
    assert (model.spec.classes, model.spec.mean, model.spec.std) == (7, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert "released code" in model.spec.source
    inner = model.inner
    assert torch.equal(inner.stages[1][1].channel.rotation, state["layers.3.cmixer.complex"].view(-1, 2))
    assert torch.equal(inner.stages[2][3].spatial.low[1].conv.weight, state["layers.7.smixer.l_conv.1.conv.weight"])
    assert torch.equal(inner.head.fc.bias, state["linear.bias"])
    back = to_released(inner.state_dict())
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("way", WAYS)
def test_names_and_sizes_go_there_and_come_back(way: str) -> None:
    arguments = SMALL | WAYS[way]
    own = timm.create_model("spartan_t", **arguments).state_dict()
    theirs = to_released(own)
    assert is_released(theirs) and not is_released(own) and theirs.keys() & own.keys() == set()
    found = to_ours(theirs, "here")
    assert found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)
    told = sizes(theirs, "here")
    again = timm.create_model("spartan_t", **told, num_classes=7)
    again.load_state_dict(own)
    for name, value in WAYS[way].items():
        assert told[name] == {"F": "FFFF", "D": "DDDD"}.get(value, value)


def test_a_network_that_is_there_takes_a_checkpoint(tmp_path: Path) -> None:
    state = released()
    torch.save({"model": state}, tmp_path / "released.pth")
    model = timm.create_model("spartan_t", **SMALL)
    load_weights(model, tmp_path / "released.pth")
    assert torch.equal(model.stem[1].norm.running_var, state["conv.1.norm.running_var"])
    # What is given wins over what is read off.
    with pytest.raises(PassbandError, match=r"differ in shape, first 'stages\.0\.0\.channel\.rotation': \[16, 2\] in"):
        create("spartan_t", weights=tmp_path / "released.pth", size=64, ratios=(2, 2, 2, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers.11.scale_1": (1, 32, 1, 1)}, r"got 11 layers, of which \[2, 4, 8\] are patch embeddings"),
        ({"layers.4.conv.weight": None}, r"three patch embeddings between them; got 10 layers, of which \[2, 8\]"),
        (
            {"layers.0.cmixer.theta.weight": None},
            "a convolution 'layers.0.cmixer.theta.weight' was needed .* got nothing",
        ),
        ({"layers.1.norm_2.bias": None}, "1 of the model's .* are missing, first 'stages.0.1.channel_norm.bias'"),
        ({"layers.1.cmixer.extra": (3,)}, "1 of the file's .* not the model's, first 'layers.1.cmixer.extra'"),
        (
            {"layers.5.scale_2": (1, 12, 1, 1)},
            r"1 differ in shape, first 'stages.2.1.channel_scale': \[12, 1, 1\] in the file, \[24, 1, 1\] in the model",
        ),
        ({"layers.0.smixer.proj_out.weight": (12, 8, 1, 1)}, r"widths are multiples of 8.*got \[12, 16, 24, 32\]"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    state = released()
    for name, shape in change.items():
        state.pop(name, None)
        if shape:
            state[name] = torch.zeros(shape)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(PassbandError, match=words) as caught:
        create("spartan_t", weights=tmp_path / "wrong.pth", size=64)
    assert "\n" not in str(caught.value)


def test_a_network_of_other_mixers_has_no_released_form() -> None:
    model = timm.create_model("spartan_t", **SMALL, spatial="convolution", channel="mlp")
    with pytest.raises(PassbandError, match=r"no place for '.*': its mixers are smixer and cmixer"):
        to_released(model.state_dict())
