"""FAT's transformation of a kernel: its spectrum times a learned mask, along all that one output channel reads."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import unknown

Scores = Literal["published", "rescaled"]


class FrequencyMask(nn.Module):
    """Multiply the spectrum of each output channel's weights by a mask that a linear layer learns from amplitudes.

    A kernel [out, in, kh, kw] is flattened to [out, N]; |F| is the amplitude of its discrete Fourier transform along
    N. The mask is sigmoid(A · |F|) with A [out, out], which mixes output channels at each frequency and begins at
    1/out everywhere; F times the mask is transformed back. The phase stays. Frequency here runs along the flattened
    order, so it mixes channels and positions; it is no frequency of images.

    What the mask does as published: scores begin near 0.886·√N for independent weights of variance 1, which is
    above 10 for 16 input channels and 3×3 kernels. The sigmoid of that is 1 to four digits and its slope is near 0
    (in float32 exactly 0 above a score of 17), so the mask begins as good as absent and has hardly a gradient to
    become anything else. ``"rescaled"`` divides amplitudes by √N, which begins near 0.7 and can learn.

    **Source**: FAT (Tao et al. 2021), section 3; adversarial-focus, section 3.3.2.
    **Differs**: half of the spectrum is computed, since the other half is its mirror; ``"rescaled"`` is ours.

    Args:
        channels: Output channels.
        scores: ``"published"`` or ``"rescaled"``.

    Raises:
        PassbandError: for other scores.
    """

    def __init__(self, channels: int, scores: Scores = "published") -> None:
        super().__init__()
        if scores not in get_args(Scores):
            raise unknown("form of the frequency mask", str(scores), get_args(Scores))
        self.scores = scores
        self.mixing = nn.Parameter(torch.full((channels, channels), 1 / channels))

    def mask(self, spectrum: Tensor, length: int) -> Float[Tensor, "out frequencies"]:
        """Return the mask of a spectrum [out, frequencies] of weights of that length."""
        amplitude = spectrum.abs()
        if self.scores == "rescaled":
            amplitude = amplitude / math.sqrt(length)
        # Spectra are computed in float32 whatever the training's precision: bf16 would round a mask near 1 to 1.
        with torch.autocast(amplitude.device.type, enabled=False):
            mask: Tensor = torch.sigmoid(self.mixing @ amplitude)
        return mask

    def forward(self, weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out ..."]:
        """Return the transformed weights."""
        flat = weight.flatten(1)
        spectrum = torch.fft.rfft(flat)
        masked: Tensor = torch.fft.irfft(spectrum * self.mask(spectrum, flat.shape[1]), n=flat.shape[1])
        return masked.reshape(weight.shape)

    @torch.no_grad()
    def range(self, weight: Float[Tensor, "out ..."]) -> dict[str, float]:
        """Return the mask's smallest value and its mean, for the weights that it meets."""
        flat = weight.flatten(1)
        found = self.mask(torch.fft.rfft(flat), flat.shape[1])
        return {"min": float(found.min()), "mean": float(found.mean())}

    def extra_repr(self) -> str:
        """Say which scores."""
        return f"channels={len(self.mixing)}, scores={self.scores}"
