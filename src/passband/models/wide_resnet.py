"""The wide ResNet of small images: few pre-activation blocks of many channels."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.headed import HeadedNetwork
from passband.models.metadata import own_cfg
from passband.models.preactivation import feature_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"wide_resnet.untrained": own_cfg(first_conv="stem")})


class WideBlock(nn.Module):
    """Add two 3×3 convolutions, each after batch norm and ReLU, to the input.

    Where the number of channels changes, a 1×1 convolution of the normalized, activated input stands for the input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the first convolution in pixels.
        dropout: Rate of dropout between the convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.drop = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = in_channels == out_channels and stride == 1
        self.shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c2 height2 width2"]:
        """Return the block's features."""
        active = self.act1(self.norm1(features))
        shortcut = features if self.shortcut is None else self.shortcut(active)
        output: Tensor = self.conv2(self.drop(self.act2(self.norm2(self.conv1(active))))) + shortcut
        return output


class WideResNet(HeadedNetwork):
    """Classify with a stem, three stages of pre-activation blocks and a linear head: WRN-depth-widen.

    **Source**: Zagoruyko and Komodakis, *Wide residual networks*, table 1 and figure 1; the shortcut as in their code.

    Args:
        depth: Convolutions along the longest path that are not shortcuts, and the head: 6 n + 4 for n blocks per stage.
        widen: Channels of the first stage in units of 16; the second has twice, the third four times as many.
        dropout: Rate of dropout between the two convolutions of a block.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.

    Raises:
        PassbandError: when the depth is not 6 n + 4, or ``widen`` is below 1.
    """

    def __init__(
        self,
        depth: int = 34,
        widen: int = 10,
        dropout: float = 0.0,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise PassbandError(f"a wide ResNet's depth is 6 n + 4: 10, 16, 22, 28, 34; got {depth}")
        if widen < 1:
            raise PassbandError(f"a wide ResNet is widened by 1 or more; got {widen}")
        self.num_classes, self.in_chans = num_classes, in_chans
        channels = 16
        self.stem = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        stages, self.feature_info = [], []
        for index in range(3):
            blocks = []
            for position in range(depth // 6):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(WideBlock(channels, 16 * widen * 2**index, stride, dropout))
                channels = 16 * widen * 2**index
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": channels, "reduction": 2**index, "module": f"stages.{index}"})
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.num_features = self.head_hidden_size = channels
        self.head = ClassifierHead(channels, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.act(self.norm(self.stages(self.stem(images))))
        return features


@register_model  # type: ignore[untyped-decorator]
def wide_resnet(
    pretrained: bool = False,
    *,
    depth: int = 34,
    widen: int = 10,
    dropout: float = 0.0,
    drop_rate: float = 0.0,
    **arguments: Any,
) -> nn.Module:
    """Build a wide ResNet through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, widen=widen, dropout=dropout, drop_rate=drop_rate, feature_cfg=feature_cfg(3))
    model: nn.Module = build_model_with_cfg(WideResNet, "wide_resnet", pretrained, **arguments)
    return model
