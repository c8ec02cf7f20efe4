"""A low-pass that stands before a network, as a layer of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.band import preset
from passband.core.errors import PassbandError
from passband.frequency.filters import low


class LowPass(nn.Module):
    """Keep the frequencies of a central square, ``|k| < degree / 2`` in both directions, each channel by itself.

    It is linear and keeps the mean, so that it may stand before a normalization or behind it. Gradients flow through.

    Args:
        degree: Side of the square in bins of the images' spectrum, 1 or more.

    Raises:
        PassbandError: when the degree is below 1.

    **Source**: adversarial-focus, section 4 (low-pass degree). **Differs**: pixels are not clipped to [0, 1]
    afterwards, which would hide gradients.
    """

    def __init__(self, degree: float) -> None:
        super().__init__()
        if not degree >= 1:
            raise PassbandError(f"a low-pass keeps a square of 1 bin or more; got degree {degree:g}")
        self.degree = float(degree)

    def forward(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return the images without their high frequencies."""
        kept = low(images, preset("square", self.degree)).to(images.dtype)
        # In the layout that came: the transform gives planes, which the network after it may not be best at.
        last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        return kept.contiguous(memory_format=torch.channels_last) if last else kept

    def extra_repr(self) -> str:
        """Say how much is kept."""
        return f"degree={self.degree:g}"
