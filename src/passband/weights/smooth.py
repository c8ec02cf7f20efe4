"""Low-pass filter a model's depthwise kernels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.weights.depthwise import depthwise_convolutions


def smooth(model: nn.Module, sigma: float = 1.0, keep_norm: bool = True) -> None:
    """Blur every depthwise kernel with a Gaussian, with zeros outside the kernel.

    **Source**: spatial-mixing, section 4.3.3 (workshop paper), 4.3 (arXiv). **Differs**: the paper leaves σ,
    boundary and scale open; each kernel keeps its L2 norm here unless told otherwise.

    Args:
        model: Any model with depthwise convolutions; changed in place.
        sigma: Standard deviation of the Gaussian in pixels; 0 changes nothing.
        keep_norm: Whether each kernel gets its L2 norm back.

    Raises:
        PassbandError: for a negative or infinite σ, or a model without depthwise convolutions.
    """
    if not 0 <= sigma < math.inf:
        raise PassbandError(f"smoothing needs a sigma of 0 pixels or more; got {sigma}")
    for _, convolution in depthwise_convolutions(model):
        with torch.no_grad():
            convolution.weight.copy_(blurred(convolution.weight, sigma, keep_norm))


def blurred(
    kernels: Float[Tensor, "filters 1 height width"], sigma: float, keep_norm: bool = True
) -> Float[Tensor, "filters 1 height width"]:
    """Return kernels blurred as :func:`smooth` does."""
    if sigma == 0:
        return kernels.clone()
    rows, columns = (_gaussian(side, sigma).to(kernels) for side in kernels.shape[-2:])
    soft = rows @ kernels @ columns
    if keep_norm:
        before, after = (k.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for k in (kernels, soft))
        soft = soft * torch.where(after > 0, before / after, 1.0)
    return soft


def _gaussian(side: int, sigma: float) -> Float[Tensor, "side side"]:
    """Matrix of a 1-D Gaussian convolution on ``side`` pixels, the taps summing to 1 over the whole line."""
    reach = max(side, math.ceil(8 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    taps /= taps.sum()
    pixels = torch.arange(side)
    return taps[pixels[:, None] - pixels[None, :] + reach]
