"""The ResNet-50 of high-frequency, with and without batch norm."""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.models.metadata import own_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"hfc_resnet50.untrained": own_cfg(first_conv="conv1", classifier="fc")})


class HfcResNet50(ResNet):  # type: ignore[misc]
    """Build timm's ResNet-50, without normalization unless it is asked for.

    Convolutions are drawn by Glorot's uniform rule, and every batch norm starts with scale 1 and offset 0, the last
    one of a block too: the networks with and without norms begin with the same convolutions.

    **Source**: high-frequency, appendix B.1 and figure 13, which has no code; sections 4.2 (Xavier) and 5.1 (scale 1).

    Args:
        width: Channels of the first stage inside its blocks; the others have 2, 4 and 8 times as many, the stem 64.
        norm: ``"none"``, or ``"batch"``.
        **arguments: Those of timm's ``ResNet``.

    Raises:
        PassbandError: when the width is below 1, or the norm is unknown.
    """

    def __init__(self, width: int = 64, norm: str = "none", **arguments: Any) -> None:
        if width < 1:
            raise PassbandError(f"a ResNet needs a width of at least 1; got {width}")
        if norm not in ("none", "batch"):
            raise unknown("norm", norm, ("none", "batch"))
        kind: Any = nn.BatchNorm2d if norm == "batch" else nn.Identity
        channels = (width, 2 * width, 4 * width, 8 * width)
        super().__init__(
            Bottleneck, (3, 4, 6, 3), channels=channels, norm_layer=kind, zero_init_last=False, **arguments
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)


@register_model  # type: ignore[untyped-decorator]
def hfc_resnet50(
    pretrained: bool = False, *, width: int = 64, norm: str = "none", drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build the ResNet-50 of high-frequency through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(width=width, norm=norm, drop_rate=drop_rate)
    model: nn.Module = build_model_with_cfg(HfcResNet50, "hfc_resnet50", pretrained, **arguments)
    return model
