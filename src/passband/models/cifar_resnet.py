"""The plain dense ResNet in the shape of the separable one, of CIFAR's size or ImageNet's."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from passband.models.metadata import own_cfg
from passband.models.preactivation import PreActivationResNet, Stem, feature_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"cifar_resnet.untrained": own_cfg(first_conv="stem")})


class CifarResNet(PreActivationResNet):
    """Build the pre-activation ResNet from dense convolutions, with parameter-free shortcuts.

    **Source**: He et al. 2016, the CIFAR networks; their ImageNet shape with ``stages=4, stem="imagenet", width=64``.

    Args:
        depth: Blocks per stage; 6 · depth + 2 layers, or 8 · depth + 2 with four stages.
        width: Channels of the first stage.
        **arguments: As ``PreActivationResNet``.
    """

    def __init__(self, depth: int = 3, width: int = 16, **arguments: Any) -> None:
        super().__init__(_dense, depth, width, **arguments)


def _dense(inputs: int, outputs: int, stride: int, kernel_size: int = 3) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)


@register_model  # type: ignore[untyped-decorator]
def cifar_resnet(
    pretrained: bool = False,
    *,
    depth: int = 3,
    width: int = 16,
    drop_rate: float = 0.0,
    stages: int = 3,
    stem: Stem = "cifar",
    **arguments: Any,
) -> nn.Module:
    """Build a plain CIFAR ResNet through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, width=width, drop_rate=drop_rate)
    arguments |= dict(stages=stages, stem=stem, feature_cfg=feature_cfg(stages))
    model: nn.Module = build_model_with_cfg(CifarResNet, "cifar_resnet", pretrained, **arguments)
    return model
