"""The separable ResNet: every convolution depthwise and then pointwise, the stem too."""

from __future__ import annotations

from typing import Any, Literal

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from passband.models.layers import SeparableConv2d
from passband.models.metadata import own_cfg
from passband.models.preactivation import PreActivationResNet, Stem, feature_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"separable_resnet.untrained": own_cfg(first_conv="stem.depthwise")})


class SeparableResNet(PreActivationResNet):
    """Build the pre-activation ResNet from separable convolutions.

    With ``stages=4, stem="imagenet", width=64`` it is the paper's ImageNet network.

    **Source**: spatial-mixing, section 3: "all convolutions" become separable, with depth multiplier 9.

    Args:
        depth: Blocks per stage; 6 · depth + 2 layers, or 8 · depth + 2 with four stages.
        width: Channels of the first stage.
        multiplier: Depthwise filters per input channel.
        path: Which path the convolutions take (see ``SeparableConv2d``); it changes nothing beyond rounding.
        **arguments: As ``PreActivationResNet``.
    """

    def __init__(
        self,
        depth: int = 3,
        width: int = 16,
        multiplier: int = 9,
        path: Literal["auto", "composed", "factored"] = "auto",
        **arguments: Any,
    ) -> None:
        def convolution(inputs: int, outputs: int, stride: int, kernel_size: int = 3) -> nn.Module:
            return SeparableConv2d(inputs, outputs, kernel_size, stride, multiplier=multiplier, path=path)

        super().__init__(convolution, depth, width, **arguments)


@register_model  # type: ignore[untyped-decorator]
def separable_resnet(
    pretrained: bool = False,
    *,
    depth: int = 3,
    width: int = 16,
    multiplier: int = 9,
    path: Literal["auto", "composed", "factored"] = "auto",
    drop_rate: float = 0.0,
    stages: int = 3,
    stem: Stem = "cifar",
    **arguments: Any,
) -> nn.Module:
    """Build a separable ResNet through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, width=width, multiplier=multiplier, path=path, drop_rate=drop_rate)
    arguments |= dict(stages=stages, stem=stem, feature_cfg=feature_cfg(stages))
    model: nn.Module = build_model_with_cfg(SeparableResNet, "separable_resnet", pretrained, **arguments)
    return model
