"""ConvMixer with images out: patches of one pixel, and a linear head at each."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from passband.models.conv_mixer import conv_mixer_body
from passband.models.metadata import own_cfg

# timm reads this while `register_model` runs, so it stands above the entry point.
default_cfgs = generate_default_cfgs({"conv_mixer_pixels.untrained": own_cfg(first_conv="stem.0", classifier="head")})


class ConvMixerPixels(nn.Module):
    """Turn images into images of the same size with a ConvMixer of patch 1.

    In place of pooling and classifier, one linear map takes the features at each position to the image's channels; it
    is the head, and learns whatever else does.

    **Source**: spatial-mixing, section 4.4.

    Args:
        width: Channels (the hidden dimension).
        depth: Blocks.
        kernel: Side of the depthwise kernels in pixels.
        in_chans: Channels of the images, in and out.

    Raises:
        PassbandError: when a size is below 1.
    """

    def __init__(self, width: int = 256, depth: int = 8, kernel: int = 7, in_chans: int = 3) -> None:
        super().__init__()
        self.in_chans, self.num_features = in_chans, width
        self.stem, self.blocks = conv_mixer_body(in_chans, width, depth, kernel, patch=1)
        self.head = nn.Conv2d(width, in_chans, 1)

    def get_classifier(self) -> nn.Module:
        """Return the linear head, as timm asks for it."""
        return self.head

    def forward_features(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h w"]:
        """Return the features before the head."""
        features: Tensor = self.blocks(self.stem(images))
        return features

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
        """Return images; nothing keeps them in [0, 1]."""
        output: Tensor = self.head(self.forward_features(images))
        return output


@register_model  # type: ignore[untyped-decorator]
def conv_mixer_pixels(
    pretrained: bool = False, *, width: int = 256, depth: int = 8, kernel: int = 7, **arguments: Any
) -> nn.Module:
    """Build a ConvMixer with images out through timm, which also offers what only a classifier takes."""
    arguments |= dict(width=width, depth=depth, kernel=kernel)
    model: nn.Module = build_model_with_cfg(
        ConvMixerPixels, "conv_mixer_pixels", pretrained, kwargs_filter=("num_classes", "global_pool"), **arguments
    )
    return model
