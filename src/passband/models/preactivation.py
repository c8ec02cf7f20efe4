"""The pre-activation ResNet of CIFAR's size and of ImageNet's, with the kind of convolution as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from jaxtyping import Float
from timm.layers import ClassifierHead
from torch import Tensor, nn

from passband.core.errors import PassbandError, unknown
from passband.models.headed import HeadedNetwork
from passband.models.layers import parameter_free_shortcut

Convolution = Callable[..., nn.Module]
"""Makes a size-keeping 3×3 convolution from input channels, output channels and stride; for ImageNet's stem, a 7×7
one when ``kernel_size=7`` is said too."""

Stem = Literal["cifar", "imagenet"]


def feature_cfg(stages: int) -> dict[str, Any]:
    """Return what timm must know to give each stage's features (``features_only=True``)."""
    return {"flatten_sequential": True, "out_indices": tuple(range(stages))}


class PreActivationBlock(nn.Module):
    """Add two convolutions, each after batch norm and ReLU, to the input.

    Args:
        convolution: Makes the convolutions.
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least as many.
        stride: Step of the first convolution in pixels.
    """

    def __init__(self, convolution: Convolution, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.out_channels = stride, out_channels
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU()
        self.conv1 = convolution(in_channels, out_channels, stride)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.conv2 = convolution(out_channels, out_channels, 1)

    def forward(self, features: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c2 height2 width2"]:
        """Return the block's features."""
        residual = self.conv1(self.act1(self.norm1(features)))
        residual = self.conv2(self.act2(self.norm2(residual)))
        output: Tensor = residual + parameter_free_shortcut(features, self.stride, self.out_channels)
        return output


class PreActivationResNet(HeadedNetwork):
    """Classify with a stem, stages of pre-activation blocks and a linear head: 2 · stages · depth + 2 layers.

    CIFAR's networks have three stages, 6 · depth + 2 layers; ImageNet's have four, 8 · depth + 2, behind a stem that
    leaves a quarter of the side: a 7×7 convolution of stride 2 and max pooling. Neither norm nor activation stands in
    the stem, as the first block begins with both.

    **Source**: spatial-mixing, sections 3 and 4.1.1; the residual units are those of He et al. 2016, ImageNet's stem
    that of He et al. 2015. **Differs**: the paper's shortcuts and the stem of its ImageNet networks are not described.

    Args:
        convolution: Makes the convolutions, the stem's too.
        depth: Blocks per stage.
        width: Channels of the first stage; each further stage has twice as many as the one before.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.
        stages: Three for CIFAR, four for ImageNet.
        stem: ``"cifar"`` keeps the side, ``"imagenet"`` leaves a quarter of it.

    Raises:
        PassbandError: when depth, width or stages is below 1, or the stem has another name.
    """

    def __init__(
        self,
        convolution: Convolution,
        depth: int = 3,
        width: int = 16,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        stages: int = 3,
        stem: str = "cifar",
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise PassbandError(f"a ResNet needs a depth and a width of at least 1; got {depth} and {width}")
        if stages < 1:
            raise PassbandError(f"a ResNet needs at least 1 stage (CIFAR's have 3, ImageNet's 4); got {stages}")
        if stem not in get_args(Stem):
            raise unknown("stem", stem, get_args(Stem))
        self.num_classes, self.in_chans = num_classes, in_chans
        large = stem == "imagenet"
        self.stem = convolution(in_chans, width, 2, kernel_size=7) if large else convolution(in_chans, width, 1)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else None
        made, channels, self.feature_info = [], width, []
        for index in range(stages):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(PreActivationBlock(convolution, channels, width * 2**index, stride))
                channels = width * 2**index
            made.append(nn.Sequential(*blocks))
            reduction = 2**index * (4 if large else 1)
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{index}"})
        self.stages = nn.Sequential(*made)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.num_features = self.head_hidden_size = channels
        self.head = ClassifierHead(channels, num_classes, pool_type=global_pool, drop_rate=drop_rate)

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.stem(images)
        if self.pool is not None:
            features = self.pool(features)
        features = self.act(self.norm(self.stages(features)))
        return features
