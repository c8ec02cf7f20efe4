"""ConvMixer at CIFAR's size: patches, depthwise convolutions with a skip, pointwise convolutions."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.headed import HeadedNetwork
from passband.models.layers import DepthwiseConv2d
from passband.models.metadata import own_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"conv_mixer.untrained": own_cfg(first_conv="stem.0")})


class ConvMixerBlock(nn.Module):
    """Mix within channels around a skip, then between channels; activation before norm in both.

    Args:
        width: Channels.
        kernel: Side of the depthwise kernel in pixels.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(DepthwiseConv2d(width, kernel), nn.GELU(), nn.BatchNorm2d(width))
        self.pointwise = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, features: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """Return the block's features."""
        output: Tensor = self.pointwise(features + self.depthwise(features))
        return output


def conv_mixer_body(
    in_chans: int, width: int, depth: int, kernel: int, patch: int
) -> tuple[nn.Sequential, nn.Sequential]:
    """Make a ConvMixer's patch stem and its blocks, drawn in this order.

    Args:
        in_chans: Channels of the images.
        width: Channels (the hidden dimension).
        depth: Blocks.
        kernel: Side of the depthwise kernels in pixels.
        patch: Side of a patch in pixels.

    Raises:
        PassbandError: when a size is below 1.
    """
    if min(width, depth, kernel, patch) < 1:
        raise PassbandError(
            f"a ConvMixer needs sizes of at least 1; got width {width}, depth {depth}, kernel {kernel}, patch {patch}"
        )
    stem = nn.Sequential(nn.Conv2d(in_chans, width, patch, stride=patch), nn.GELU(), nn.BatchNorm2d(width))
    return stem, nn.Sequential(*(ConvMixerBlock(width, kernel) for _ in range(depth)))


class ConvMixer(HeadedNetwork):
    """Classify with patches, equal blocks and a linear head.

    **Source**: spatial-mixing, section 4 (CIFAR: width 128, depth 8, kernel 8, patch 1); Trockman and Kolter,
    "Patches Are All You Need?", 2022.

    Args:
        width: Channels (the hidden dimension).
        depth: Blocks.
        kernel: Side of the depthwise kernels in pixels.
        patch: Side of a patch in pixels.
        num_classes: Outputs; 0 leaves the head off.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling before the head.
        drop_rate: Dropout before the head.

    Raises:
        PassbandError: when a size is below 1.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 8,
        kernel: int = 8,
        patch: int = 1,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = width
        self.stem, self.blocks = conv_mixer_body(in_chans, width, depth, kernel, patch)
        self.head = ClassifierHead(width, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.feature_info = [
            {"num_chs": width, "reduction": patch, "module": f"blocks.{index}"} for index in range(depth)
        ]

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Return the features before pooling."""
        features: Tensor = self.blocks(self.stem(images))
        return features


@register_model  # type: ignore[untyped-decorator]
def conv_mixer(
    pretrained: bool = False,
    *,
    width: int = 128,
    depth: int = 8,
    kernel: int = 8,
    patch: int = 1,
    drop_rate: float = 0.0,
    **arguments: Any,
) -> nn.Module:
    """Build a ConvMixer through timm; ``arguments`` are those that timm passes on."""
    arguments |= dict(width=width, depth=depth, kernel=kernel, patch=patch, drop_rate=drop_rate)
    model: nn.Module = build_model_with_cfg(ConvMixer, "conv_mixer", pretrained, **arguments)
    return model
