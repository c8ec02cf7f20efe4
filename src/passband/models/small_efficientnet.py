"""timm's MobileNetV2 and EfficientNet-B0 with a stem for small images."""

from __future__ import annotations

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import _gen_efficientnet, _gen_mobilenet_v2
from torch import nn

from passband.core.errors import PassbandError
from passband.models.metadata import own_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": own_cfg(first_conv="conv_stem", classifier="classifier")
        for name in ("small_mobilenetv2", "small_efficientnet")
    }
)


@register_model  # type: ignore[untyped-decorator]
def small_mobilenetv2(
    pretrained: bool = False, *, width: float = 1.0, drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build MobileNetV2 whose stem keeps the side: timm's network, the stem's stride 1.

    **Source**: Sandler et al., *MobileNetV2: Inverted residuals and linear bottlenecks*, table 2; adversarial-focus,
    section 3.3.1, names the network. **Differs**: the stem. Some networks for CIFAR leave out a second stride.

    Args:
        pretrained: timm's; there are no weights.
        width: Multiplier of every layer's channels but the last convolution's, above 0.
        drop_rate: Dropout before the head.
        **arguments: Those that timm passes on.

    Raises:
        PassbandError: when the width is not positive.
    """
    _check(width, 1.0)
    return _keeping_the_side(
        _gen_mobilenet_v2("small_mobilenetv2", width, pretrained=pretrained, drop_rate=drop_rate, **arguments)
    )


@register_model  # type: ignore[untyped-decorator]
def small_efficientnet(
    pretrained: bool = False, *, width: float = 1.0, depth: float = 1.0, drop_rate: float = 0.0, **arguments: Any
) -> nn.Module:
    """Build EfficientNet-B0 whose stem keeps the side: timm's network, the stem's stride 1.

    **Source**: Tan and Le, *EfficientNet: Rethinking model scaling for convolutional neural networks*, table 1;
    ``width`` and ``depth`` below 1 go on downwards as that paper goes upwards. adversarial-focus, section 3.3.1,
    names the network and no size. **Differs**: the stem.

    Args:
        pretrained: timm's; there are no weights.
        width: Multiplier of every layer's channels, above 0.
        depth: Multiplier of each stage's blocks, rounded up, above 0.
        drop_rate: Dropout before the head.
        **arguments: Those that timm passes on.

    Raises:
        PassbandError: when the width or the depth is not positive.
    """
    _check(width, depth)
    made = _gen_efficientnet(
        "small_efficientnet", width, depth, pretrained=pretrained, drop_rate=drop_rate, **arguments
    )
    return _keeping_the_side(made)


def _check(width: float, depth: float) -> None:
    if not (width > 0 and depth > 0):
        raise PassbandError(f"width and depth are multipliers above 0; got {width:g} and {depth:g}")


def _keeping_the_side(model: Any) -> nn.Module:
    model.conv_stem.stride = (1, 1)
    # timm counts a stem that halves the side; where it gives features, it keeps the list in an object of its own.
    for info in getattr(model.feature_info, "info", model.feature_info):
        info["reduction"] //= 2
    network: nn.Module = model
    return network
