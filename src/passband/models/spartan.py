"""SpaRTAN: a light network of two-branch spatial mixers and wave-based channel mixers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.core.errors import PassbandError, unknown
from passband.models.headed import HeadedNetwork
from passband.models.metadata import own_cfg
from passband.models.spartan_inference import folded_block
from passband.models.spatial_mixers import GELU, ConvolutionMixer, Features, Layer, Norm, SpatialMixer, normed
from passband.models.wave_mixer import Perceptron, WaveMixer

Activation = Literal["gelu", "silu"]
Normalization = Literal["batch", "layer"]
Spatial = Literal["smixer", "convolution"]
Channel = Literal["cmixer", "mlp", "mlp+se"]
Groups = Literal["code", "paper"]
CONVOLUTIONS = {"H": "FFDD", "F": "FFFF", "D": "DDDD"}
"""Table VIII's types as one letter for each stage: full or depthwise."""

_ACTIVATIONS: dict[str, Layer] = {"gelu": GELU, "silu": nn.SiLU}
_NORMS: dict[str, Norm] = {
    "batch": partial(nn.BatchNorm2d, eps=1e-6),
    # The released code's layer norm: over channels and positions, scaled and shifted channel by channel.
    "layer": partial(nn.GroupNorm, 1, eps=1e-6),
}

_IMAGENET = {
    "input_size": (3, 224, 224), "num_classes": 1000, "pool_size": (7, 7), "crop_pct": 1.0,
    "interpolation": "bilinear", "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD,
    "first_conv": "stem.0.conv", "classifier": "head.fc",
}  # fmt: skip

_FEATURES = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}

# timm reads this while `register_model` runs, so it stands above the entry points.
default_cfgs = generate_default_cfgs(
    {
        "spartan_t.untrained": _IMAGENET,
        "spartan_xt.untrained": _IMAGENET,
        "spartan_micro.untrained": own_cfg(first_conv="stem.0.conv"),
    }
)


class SpartanBlock(nn.Module):
    """Add what a spatial mixer, then what a channel mixer makes of the normalized features, each scaled.

    **Source**: spartan, equations 1 and 2; the scales, which begin at 1e-5, as in the released code.

    Args:
        channels: C.
        spatial: The spatial mixer.
        channel: The channel mixer.
        norm: Makes the normalization before each.
        drop_path: Share of samples whose branches are left out in training, of either branch by itself.
    """

    def __init__(self, channels: int, spatial: nn.Module, channel: nn.Module, norm: Norm, drop_path: float) -> None:
        super().__init__()
        self.spatial_norm, self.spatial = norm(channels), spatial
        self.channel_norm, self.channel = norm(channels), channel
        self.spatial_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-5))
        self.channel_scale = nn.Parameter(torch.full((channels, 1, 1), 1e-5))
        self.drop_path = DropPath(drop_path)

    def forward(self, features: Features) -> Features:
        """Return the block's features."""
        features = features + self.drop_path(self.spatial_scale * self.spatial(self.spatial_norm(features)))
        output: Tensor = features + self.drop_path(self.channel_scale * self.channel(self.channel_norm(features)))
        return output

    def inference_form(self) -> tuple[nn.Module, Mapping[str, int]] | None:
        """Return what :func:`~passband.models.spartan_inference.folded_block` makes of the block."""
        return folded_block(self) if type(self) is SpartanBlock else None


class Spartan(HeadedNetwork):
    """Classify with four stages of blocks, each behind a patch embedding, pooling and a linear head.

    **Source**: spartan, section III and table I, where it leaves something open its released code.
    **Differs**: see :class:`~passband.models.wave_mixer.WaveMixer` for what text and code say differently.

    Args:
        widths: Channels of the stages, multiples of 8.
        depths: Blocks of the stages.
        ratios: Expansion of the stages' channel mixers.
        stem_strides: Of the stem's two convolutions; the second has ``widths[0]`` channels, the first half of them.
        convolution: ``"H"``, ``"F"`` or ``"D"`` (table VIII), or a letter for each stage: F for full, D for depthwise
            convolutions in the spatial mixer.
        groups: Of the channel mixers' convolutions: ``"code"`` is depthwise where the spatial mixer is full and has
            one group per input channel where it is depthwise (the model of the tables); ``"paper"`` is full or
            depthwise as the spatial mixer is.
        kernel: 3 or 5, of the spatial mixers' low branch (table V).
        stem_act: Activation of the stem.
        patch_act: Activation of the other patch embeddings (table VI).
        block_act: Activation of the mixers (table VI).
        conv_norm: Normalization after convolutions (table VII).
        mixer_norm: Normalization before mixers (table VII).
        spatial: The spatial mixer (table IV).
        channel: The channel mixer (table IV).
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.
        drop_path_rate: Block k of K is left out with probability rate·k/K, counted from 0.

    Raises:
        PassbandError: when an argument is none of those.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        depths: tuple[int, ...] = (3, 3, 12, 2),
        ratios: tuple[int, ...] = (4, 4, 2, 2),
        stem_strides: tuple[int, ...] = (2, 2),
        convolution: str = "H",
        groups: Groups = "code",
        kernel: int = 3,
        stem_act: Activation = "gelu",
        patch_act: Activation = "silu",
        block_act: Activation = "gelu",
        conv_norm: Normalization = "batch",
        mixer_norm: Normalization = "layer",
        spatial: Spatial = "smixer",
        channel: Channel = "cmixer",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        letters = _letters(convolution)
        _check_sizes(widths, depths, ratios, stem_strides)
        _check_choices(
            groups=(groups, Groups), stem_act=(stem_act, Activation), patch_act=(patch_act, Activation),
            block_act=(block_act, Activation), conv_norm=(conv_norm, Normalization),
            mixer_norm=(mixer_norm, Normalization), spatial=(spatial, Spatial), channel=(channel, Channel),
        )  # fmt: skip
        if not 0 <= drop_path_rate < 1:
            raise PassbandError(f"SpaRTAN's drop_path_rate is 0 or more and below 1; got {drop_path_rate:g}")
        if kernel not in (3, 5):
            raise PassbandError(f"SpaRTAN's low branch has a kernel of 3 (two of them) or 5; got {kernel}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = widths[-1]
        norm, act, patch = _NORMS[conv_norm], _ACTIVATIONS[block_act], _ACTIVATIONS[patch_act]
        self.stem = _stem(in_chans, widths[0], stem_strides, norm, _ACTIVATIONS[stem_act])

        def mixers(stage: int) -> tuple[nn.Module, nn.Module]:
            width, ratio, depthwise = widths[stage], ratios[stage], letters[stage] == "D"
            mix: nn.Module = ConvolutionMixer(width, depthwise=depthwise, norm=norm, act=act)
            if spatial == "smixer":
                mix = SpatialMixer(width, depthwise=depthwise, kernel=kernel, norm=norm, act=act)
            if channel != "cmixer":
                return mix, Perceptron(width, ratio, attention=channel == "mlp+se", act=act)
            count = _groups(groups, depthwise, width, ratio)
            return mix, WaveMixer(width, ratio, groups=count, norm=norm, act=act)

        stages, done, reduction = [], 0, math.prod(stem_strides)
        self.feature_info = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            parts: list[nn.Module] = []
            if stage:
                parts.append(normed(widths[stage - 1], width, 2, norm, patch, stride=2))
                reduction *= 2
            for _ in range(depth):
                rate = drop_path_rate * done / sum(depths)
                parts.append(SpartanBlock(width, *mixers(stage), _NORMS[mixer_norm], rate))
                done += 1
            stages.append(nn.Sequential(*parts))
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"stages.{stage}"})
        self.stages = nn.Sequential(*stages)
        self.head = ClassifierHead(widths[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(_initialize)

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.stages(self.stem(images))
        return features

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def no_weight_decay(self) -> set[str]:
        """Return the names of the tensors of two axes or more that the paper's recipe does not decay: γ."""
        return {name for name, _ in self.named_parameters() if name.endswith(".gamma")}


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        # Kaiming's normal draw by what a group gives out, of gain √2.
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _stem(channels: int, width: int, strides: tuple[int, ...], norm: Norm, act: Layer) -> nn.Sequential:
    return nn.Sequential(
        normed(channels, width // 2, 3, norm, act, stride=strides[0], padding=1),
        normed(width // 2, width, 3, norm, act, stride=strides[1], padding=1),
    )


def _groups(groups: str, depthwise: bool, width: int, ratio: int) -> int:
    if groups == "code":
        return width if depthwise else width * ratio
    return width * ratio if depthwise else 1


def _letters(convolution: str) -> str:
    letters = CONVOLUTIONS.get(convolution, convolution)
    if len(letters) != 4 or set(letters) - {"F", "D"}:
        raise PassbandError(
            f"SpaRTAN's convolution is {', '.join(CONVOLUTIONS)} or a letter, F or D, for each of the four stages; "
            f"got '{convolution}'"
        )
    return letters


def _check_sizes(
    widths: tuple[int, ...], depths: tuple[int, ...], ratios: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    if [len(widths), len(depths), len(ratios), len(strides)] != [4, 4, 4, 2]:
        raise PassbandError(
            f"SpaRTAN has four widths, depths and ratios and two stem strides; got {len(widths)}, {len(depths)}, "
            f"{len(ratios)} and {len(strides)}"
        )
    if any(width < 8 or width % 8 for width in widths) or min(*depths, *ratios, *strides) < 1:
        raise PassbandError(
            f"SpaRTAN's widths are multiples of 8, its depths, ratios and strides 1 or more; got {list(widths)}, "
            f"{list(depths)}, {list(ratios)}, {list(strides)}"
        )


def _check_choices(**choices: tuple[str, Any]) -> None:
    for name, (value, kind) in choices.items():
        if value not in get_args(kind):
            raise unknown(f"SpaRTAN's {name}", value, get_args(kind))


def _entry(name: str, **sizes: Any) -> Callable[..., nn.Module]:
    """Return an entry point for timm that takes what :class:`Spartan` takes, with its own sizes where none are given.

    Its signature is the network's, so that a wrong option is found before anything is built.
    """

    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        features = dict(_FEATURES)  # timm writes into it
        made: nn.Module = build_model_with_cfg(Spartan, name, pretrained, feature_cfg=features, **(sizes | arguments))
        return made

    own = list(inspect.signature(Spartan).parameters.values())
    first = inspect.Parameter("pretrained", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False)
    options = [one.replace(default=sizes.get(one.name, one.default), kind=one.KEYWORD_ONLY) for one in own]
    entry: Any = build
    entry.__signature__ = inspect.Signature([first, *options])
    entry.__annotations__ = Spartan.__init__.__annotations__
    entry.__name__ = entry.__qualname__ = name
    registered: Callable[..., nn.Module] = register_model(entry)
    return registered


spartan_t = _entry("spartan_t")
"""SpaRTAN-T: 3.8 million parameters for 1,000 classes. **Source**: spartan, table I."""

spartan_xt = _entry("spartan_xt", widths=(32, 64, 96, 192), depths=(3, 3, 10, 2))
"""SpaRTAN-XT: 2.2 million parameters for 1,000 classes. **Source**: spartan, table I."""

spartan_micro = _entry("spartan_micro", widths=(16, 32, 48, 96), depths=(1, 1, 3, 1), stem_strides=(2, 1))
"""Half of XT's widths, six blocks and a stem of stride 2, for images of 32 pixels: it stands for XT where that would
take days. **Differs**: it is none of the paper's."""
