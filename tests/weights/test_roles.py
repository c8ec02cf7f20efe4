"""Every parameter has one role, and it is the right one."""

import inspect
import warnings
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.models import _registry
from torch import nn

import passband.models.separable_resnet  # noqa: F401 - registers the model
from passband.core.errors import PassbandError
from passband.weights.roles import ROLES, roles

FAMILIES = {
    "mixer_s32_224": {"blocks.0.mlp_tokens.fc1.weight": "spatial", "blocks.0.mlp_channels.fc1.weight": "channel"},
    "resmlp_12_224": {"blocks.0.linear_tokens.bias": "spatial", "blocks.0.norm1.alpha": "neither"},
    "gmlp_s16_224": {
        "blocks.0.mlp_channels.gate.proj.weight": "spatial",
        "blocks.0.mlp_channels.fc2.weight": "channel",
    },
    "vit_tiny_patch16_224": {
        "pos_embed": "spatial",
        "cls_token": "neither",
        "patch_embed.proj.weight": "both",
        "blocks.0.attn.qkv.weight[query,key]": "spatial",
        "blocks.0.attn.qkv.bias[value]": "channel",
        "blocks.0.attn.proj.weight": "channel",
        "blocks.0.norm1.weight": "neither",
        "head.weight": "neither",
    },
    "convnext_atto": {
        "stages.0.blocks.0.conv_dw.bias": "spatial",
        "stages.0.blocks.0.mlp.fc1.weight": "channel",
        "stages.0.blocks.0.gamma": "neither",
        "stages.1.downsample.1.weight": "both",
        "head.fc.weight": "neither",
    },
    "mobilenetv3_small_050": {"blocks.0.0.conv_dw.weight": "spatial", "blocks.0.0.se.conv_reduce.bias": "channel"},
    "resnet18": {"conv1.weight": "both", "layer2.0.downsample.0.weight": "channel", "fc.bias": "neither"},
    "resnext50_32x4d": {"layer1.0.conv2.weight": "both"},
    "convmixer_768_32": {"stem.0.weight": "both", "blocks.0.0.fn.0.bias": "spatial", "blocks.0.1.weight": "channel"},
    "swin_tiny_patch4_window7_224": {
        "layers.0.blocks.0.attn.relative_position_bias_table": "spatial",
        "layers.1.downsample.reduction.weight": "both",
    },
    "beit_base_patch16_224": {"blocks.0.attn.q_bias": "spatial", "blocks.0.attn.v_bias": "channel"},
    "xcit_nano_12_p8_224": {"blocks.0.attn.qkv.weight": "channel"},
    "levit_128s": {"stages.0.blocks.0.attn.qkv.linear.weight[value]": "channel"},
    "eca_resnext26ts": {"stages.0.0.attn.conv.weight": "channel"},
    "sequencer2d_s": {"stages.0.blocks.0.rnn_tokens.rnn_v.weight_hh_l0": "both"},
    "volo_d1_224": {"network.0.0.attn.attn.weight": "spatial", "network.0.0.attn.v.weight": "channel"},
    "vgg11": {"pre_logits.fc1.weight": "both", "pre_logits.fc2.weight": "channel"},
    "coatnet_nano_rw_224": {"stages.2.blocks.0.attn.qkv.weight[query,key]": "spatial"},
    "efficientnet_b0": {"conv_stem.weight": "both", "conv_head.weight": "channel"},
    "mobilevitv2_050": {},
    "nfnet_l0": {"stages.0.0.conv1.gain": "neither"},
    "mvitv2_tiny": {"stages.0.blocks.0.attn.rel_pos_h": "spatial", "stages.0.blocks.0.attn.pool_k.weight": "spatial"},
    "caformer_s18": {"stages.2.blocks.0.token_mixer.qkv.weight[value]": "channel"},
    "efficientvit_b0": {},
    "densenet121": {},
    "separable_resnet": {"stem.depthwise.weight": "spatial", "stem.pointwise.weight": "channel"},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_roles_of_timm_families(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    found = roles(model)
    assert {key.split("[")[0] for key in found} == {key for key, _ in model.named_parameters()}
    assert set(found.values()) <= set(ROLES)
    assert {key: found.get(key) for key in FAMILIES[name]} == FAMILIES[name]


def test_whole_attention_is_spatial() -> None:
    with torch.device("meta"):
        found = roles(timm.create_model("vit_tiny_patch16_224"), attention="whole")
    assert {role for name, role in found.items() if ".attn." in name} == {"spatial"}
    assert found["blocks.0.mlp.fc1.weight"] == "channel"


@pytest.mark.parametrize(
    ("build", "name", "role"),
    [
        (torchvision.models.vit_b_32, "encoder.layers.encoder_layer_0.self_attention.in_proj_bias[value]", "channel"),
        (torchvision.models.swin_t, "features.1.0.attn.qkv.weight[query,key]", "spatial"),
        (torchvision.models.convnext_tiny, "features.1.0.block.3.weight", "channel"),
        (torchvision.models.vgg11, "classifier.0.weight", "both"),
        (torchvision.models.vgg11, "classifier.6.weight", "neither"),
    ],
)
def test_roles_of_torchvision(build: Callable[..., nn.Module], name: str, role: str) -> None:
    with torch.device("meta"):
        found = roles(build())
    assert found.get(name) == role


class Own(nn.Module):
    """A linear layer on the tokens, which no type tells from one on the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(16, 16)
        self.conv = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 10)


def test_nameless_linear_layer_is_an_error_until_it_is_named() -> None:
    with pytest.raises(PassbandError, match=r"linear layer 'tokens' of Own.*roles=\{'tokens\.\*'"):
        roles(Own())
    found = roles(Own(), overrides={"tokens.*": "spatial"})
    assert found == {
        "tokens.weight": "spatial",
        "tokens.bias": "spatial",
        "conv.weight": "channel",
        "conv.bias": "channel",
        "head.weight": "neither",
        "head.bias": "neither",
    }


def test_pattern_that_matches_nothing_and_unknown_role_are_errors() -> None:
    with pytest.raises(PassbandError, match=r"pattern 'token\.\*' matches none"):
        roles(Own(), overrides={"token.*": "spatial"})
    with pytest.raises(PassbandError, match="did you mean 'channel'"):
        roles(Own(), overrides={"tokens.*": "channels"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_family_of_timm() -> None:
    """One architecture in eight of each of timm's families, at least two."""
    missing = {}
    for names in _registry._module_to_models.values():
        own = [n for n in sorted(names) if inspect.getmodule(timm.model_entrypoint(n)).__name__.startswith("timm.")]
        for name in own[:: max(1, min(8, len(own) // 2))]:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = timm.create_model(name)
            try:
                roles(model)
            except PassbandError as error:
                missing[name] = str(error)
    assert missing == {}
