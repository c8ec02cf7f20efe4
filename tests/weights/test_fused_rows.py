"""Rows called values are the values: without them attention gives every image the same answer."""

import re

import pytest
import timm
import torch
from torch import nn

from passband.weights.roles import parts

FAST = ["levit_128s", "efficientvit_m0", "mobilevitv2_050"]
SLOW = [
    "tiny_vit_5m_224", "efficientformer_l1", "botnet26t_256", "halonet26t", "coatnet_nano_rw_224",
    "coatnet_nano_cc_224", "maxvit_nano_rw_256", "efficientvit_b0", "lowformer_b0", "cpubone_b0_bfrobust",
    "gcvit_xxtiny", "visformer_tiny", "twins_svt_small", "swinv2_cr_tiny_224", "caformer_s18", "hiera_tiny_224",
    "vit_dlittle_patch16_reg1_gap_256", "nest_tiny_jx",
]  # fmt: skip


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_attention_is_constant_without_its_value_rows(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    images = torch.randn(2, *model.default_cfg["input_size"])
    parameters = dict(model.named_parameters())
    found = parts(model, overrides={})
    fused = {n: part.rows for n, pieces in found.items() for part in pieces if part.label == "value"}
    owners = {re.split(r"\.(?:qkv|kv|aggreg|pwise)", n)[0] for n in fused}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some start at zero, where every answer is the same anyway

    differences = differences_between_images(model, images, owners)
    assert differences and min(differences) > 0
    with torch.no_grad():
        for n, rows in fused.items():
            parameters[n][rows] = 0
    assert max(differences_between_images(model, images, owners)) == 0


def differences_between_images(model: nn.Module, images: torch.Tensor, owners: set[str]) -> list[float]:
    """How far the outputs of each attention module differ between the first image and the second."""
    differences = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        # Windows come image by image: the halves of a batch of windows are the two images.
        first, second = output.chunk(2)
        differences.append(float((first - second).abs().max()))

    hooks = [model.get_submodule(name).register_forward_hook(note) for name in owners]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return differences
