"""The plain dense ResNet of CIFAR's size, in the shape of the separable one."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from passband.models.metadata import own_cfg
from passband.models.preactivation import PreActivationResNet

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"cifar_resnet.untrained": own_cfg(first_conv="stem")})


class CifarResNet(PreActivationResNet):
    """Build the pre-activation CIFAR ResNet from dense 3×3 convolutions.

    **Source**: He et al. 2016, the CIFAR networks, with parameter-free shortcuts.

    Args:
        depth: Blocks per stage; 6 · depth + 2 layers.
        width: Channels of the first stage.
        **arguments: As ``PreActivationResNet``.
    """

    def __init__(self, depth: int = 3, width: int = 16, **arguments: Any) -> None:
        super().__init__(_dense, depth, width, **arguments)


def _dense(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


@register_model  # type: ignore[untyped-decorator]
def cifar_resnet(
    pretrained: bool = False,
    *,
    depth: int = 3,
    width: int = 16,
    drop_rate: float = 0.0,
    **arguments: Any,
) -> nn.Module:
    """Build a plain CIFAR ResNet through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, width=width, drop_rate=drop_rate)
    model: nn.Module = build_model_with_cfg(CifarResNet, "cifar_resnet", pretrained, **arguments)
    return model
