"""timm's ResNet-18 with a stem for small images."""

from __future__ import annotations

from typing import Any, Literal

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.models.metadata import own_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"small_resnet18.untrained": own_cfg(first_conv="conv1", classifier="fc")})


class SmallResNet18(ResNet):  # type: ignore[misc]
    """Build ResNet-18 whose stem keeps the side: a 3×3 convolution of stride 1, no pooling.

    **Source**: He et al. 2015 in the form that is usual for CIFAR; high-frequency, section 4.2, names ResNet-18.

    Args:
        width: Channels of the stem and of the first stage; the others have 2, 4 and 8 times as many.
        norm: ``"batch"``, or ``"none"``, which leaves every norm out.
        in_chans: Channels of the images.
        **arguments: Those of timm's ``ResNet``.

    Raises:
        PassbandError: when the width is below 1, or the norm is unknown.
    """

    def __init__(self, width: int = 64, norm: str = "batch", in_chans: int = 3, **arguments: Any) -> None:
        if width < 1:
            raise PassbandError(f"a ResNet needs a width of at least 1; got {width}")
        if norm not in ("batch", "none"):
            raise unknown("norm", norm, ("batch", "none"))
        kind: Any = nn.BatchNorm2d if norm == "batch" else nn.Identity
        channels = (width, 2 * width, 4 * width, 8 * width)
        super().__init__(
            BasicBlock, (2, 2, 2, 2), in_chans=in_chans, channels=channels, norm_layer=kind,
            zero_init_last=norm == "batch", stem_width=width // 2 or 1, stem_type="deep", **arguments,
        )  # fmt: skip
        self.conv1 = nn.Conv2d(in_chans, 2 * (width // 2 or 1), 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for info in self.feature_info:  # timm counts a stem that quarters the side
            info["reduction"] = max(1, info["reduction"] // 4)


Norm = Literal["batch", "none"]


@register_model  # type: ignore[untyped-decorator]
def small_resnet18(
    pretrained: bool = False, *, width: int = 64, norm: Norm = "batch", drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build ResNet-18 for small images through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(width=width, norm=norm, drop_rate=drop_rate)
    model: nn.Module = build_model_with_cfg(SmallResNet18, "small_resnet18", pretrained, **arguments)
    return model
