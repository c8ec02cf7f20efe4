"""The CIFAR ResNet of high-frequency: pre-activation, without normalization unless it is asked for."""

from __future__ import annotations

from typing import Any, Literal, get_args

from jaxtyping import Float
from timm.layers import ClassifierHead, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from passband.core.errors import PassbandError, unknown
from passband.models.headed import HeadedNetwork
from passband.models.metadata import own_cfg
from passband.models.preactivation import feature_cfg

Norm = Literal["none", "batch"]
EPSILON = 1e-3
"""Added to a variance by the paper's batch norm."""

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"hfc_resnet32.untrained": own_cfg(first_conv="stem")})


class HfcBlock(nn.Module):
    """Add two convolutions, each after a ReLU, to the input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output: as many, or twice as many.
        stride: Step of the first convolution in pixels.
        norm: What stands before each ReLU: ``"batch"``, or ``"none"``.
        first: Whether it is the network's first block, whose input has been through a ReLU: it leaves its own out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm, first: bool) -> None:
        super().__init__()
        self.stride, self.missing = stride, out_channels - in_channels
        self.norm1 = nn.Identity() if first else _norm(norm, in_channels)
        self.act1 = nn.Identity() if first else nn.ReLU()
        self.conv1 = _convolution(in_channels, out_channels, stride)
        self.norm2 = _norm(norm, out_channels)
        self.act2 = nn.ReLU()
        self.conv2 = _convolution(out_channels, out_channels, 1)

    def forward(self, features: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c2 height2 width2"]:
        """Return the block's features."""
        residual = self.conv1(self.act1(self.norm1(features)))
        residual = self.conv2(self.act2(self.norm2(residual)))
        if self.stride > 1:
            features = F.avg_pool2d(features, self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        if self.missing:
            features = F.pad(features, (0, 0, 0, 0, self.missing // 2, self.missing - self.missing // 2))
        output: Tensor = residual + features
        return output


class HfcResNet(HeadedNetwork):
    """Classify with a stem, three stages of pre-activation blocks and a linear head: 6 · depth + 2 layers.

    ``"batch"`` puts a batch norm before every ReLU but the last. In training it takes the batch's statistics and
    keeps a running mean of them; whose statistics it takes afterwards is the caller's choice
    (:func:`passband.models.state.batch_statistics`), as the paper's code took each test batch's own.

    **Source**: high-frequency, section 4.2, whose authors' code builds this one, not the ResNet-18 that the text
    names; figure 7 (16 kernels at the first layer) fits it alone. Convolutions are drawn by Glorot's uniform rule, the
    head within ±√(3/features). Steps of two pixels pad 0 in front and 1 behind, as TensorFlow's ``SAME`` does.
    **Differs**: dropout acts before the linear head, as the text says; the code has it before the last ReLU.

    Args:
        depth: Blocks per stage; 5 makes ResNet-32.
        width: Channels of the first stage; the second has twice, the third four times as many.
        norm: ``"none"``, which the paper calls vanilla, or ``"batch"``.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.

    Raises:
        PassbandError: when depth or width is below 1, or the norm is unknown.
    """

    def __init__(
        self,
        depth: int = 5,
        width: int = 16,
        norm: str = "none",
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise PassbandError(f"a ResNet needs a depth and a width of at least 1; got {depth} and {width}")
        if norm not in get_args(Norm):
            raise unknown("norm", norm, get_args(Norm))
        kind: Norm = "batch" if norm == "batch" else "none"
        self.num_classes, self.in_chans = num_classes, in_chans
        self.stem = _convolution(in_chans, width, 1)
        self.stem_norm = _norm(kind, width)
        self.stem_act = nn.ReLU()
        stages, channels, self.feature_info = [], width, []
        for index in range(3):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                first = index == 0 and position == 0
                blocks.append(HfcBlock(channels, width * 2**index, stride, kind, first))
                channels = width * 2**index
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": channels, "reduction": 2**index, "module": f"stages.{index}"})
        self.stages = nn.Sequential(*stages)
        self.act = nn.ReLU()
        self.num_features = self.head_hidden_size = channels
        self.head = ClassifierHead(channels, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        self._draw_head()

    def _draw_head(self) -> None:
        if isinstance(self.head.fc, nn.Linear):
            limit = (3 / self.num_features) ** 0.5
            nn.init.uniform_(self.head.fc.weight, -limit, limit)
            nn.init.zeros_(self.head.fc.bias)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place."""
        super().reset_classifier(num_classes, global_pool)
        self._draw_head()

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.act(self.stages(self.stem_act(self.stem_norm(self.stem(images)))))
        return features


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Module:
    # Without a step, SAME is an even padding, which needs no padded copy.
    made: nn.Module = create_conv2d(inputs, outputs, 3, stride=stride, padding="same" if stride > 1 else 1, bias=False)
    return made


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON) if kind == "batch" else nn.Identity()


@register_model  # type: ignore[untyped-decorator]
def hfc_resnet32(
    pretrained: bool = False,
    *,
    depth: int = 5,
    width: int = 16,
    norm: str = "none",
    drop_rate: float = 0.0,
    **arguments: Any,
) -> nn.Module:
    """Build the ResNet of high-frequency through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(depth=depth, width=width, norm=norm, drop_rate=drop_rate, feature_cfg=feature_cfg(3))
    model: nn.Module = build_model_with_cfg(HfcResNet, "hfc_resnet32", pretrained, **arguments)
    return model
