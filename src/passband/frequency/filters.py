"""Cut images at a band: masks, low and high, and a sweep over many cut-offs from one transform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from passband.core.band import Band
from passband.core.errors import unknown

Rescale = Literal["none", "max", "min-max", "clip"]
FLAT = 1e-5
"""Peak at or below which a copy counts as empty: float32 transforms leave some 1e-7 of an image in [0, 1]."""
_TIE = 1e-9
"""Distance, relative to the cut-off, within which a bin lies on the cut-off: 5/28 is not exact in binary."""
_CHUNK = 3 * 2**16
"""Pixels that `copies` cuts at a time: 64 images of 32×32 in three channels."""


def mask(band: Band, size: tuple[int, int], device: torch.device | str | None = None) -> Float[Tensor, "height width"]:
    """Return 1 where the band keeps a bin and 0 elsewhere, in the layout of ``torch.fft.fft2``.

    Args:
        band: What is kept.
        size: Height and width of the spectrum, in bins, odd ones too.
        device: Where the mask lives.

    Returns:
        Zero frequency at (0, 0), which ``fftshift`` moves to ``(H // 2, W // 2)``. A half-open square is not
        symmetric; `response` is what the real part makes of it.

    **Source**: high-frequency, section 3.1; adversarial-focus, section 4 (square).
    """
    return _inside(band, size).to(device=device, dtype=torch.float32)


def response(
    band: Band, size: tuple[int, int], device: torch.device | str | None = None
) -> Float[Tensor, "height width"]:
    """Return by how much each frequency of a real image is multiplied once the real part has been taken.

    The real part of a filtered real image is the image filtered by the mask's even part,
    ``(m(k) + m(-k)) / 2``: 0 or 1 for symmetric masks, and 1/2 on the edge of a half-open square.

    Args:
        band: What is kept.
        size: Height and width of the spectrum, in bins.
        device: Where the response lives.
    """
    kept = mask(band, size, device)
    opposite = kept.flip((0, 1)).roll((1, 1), (0, 1))
    return (kept + opposite) / 2


def keep(images: Float[Tensor, "*batch height width"], band: Band) -> Float[Tensor, "*batch height width"]:
    """Keep what the band keeps, low or high by its side; differentiable.

    Args:
        images: Any scale, channels apart from each other.
        band: What is kept.

    Returns:
        The real part, at the same scale: it overshoots an image's range (low) or is signed (high).
    """
    ((_, inside, outside),) = sweep(images, (band,))
    return inside if band.side == "low" else outside


def low(images: Float[Tensor, "*batch height width"], band: Band) -> Float[Tensor, "*batch height width"]:
    """Keep the low side of the band's cut, whichever side the band names."""
    return keep(images, band.low)


def high(images: Float[Tensor, "*batch height width"], band: Band) -> Float[Tensor, "*batch height width"]:
    """Keep the high side of the band's cut: the image less its low side."""
    return keep(images, band.high)


def split(
    images: Float[Tensor, "*batch height width"], band: Band
) -> tuple[Float[Tensor, "*batch height width"], Float[Tensor, "*batch height width"]]:
    """Return the low and the high side of the band's cut, which sum to the image.

    >>> low_copy, high_copy = split(torch.eye(5), Band.disc(1))
    >>> bool(torch.allclose(low_copy + high_copy, torch.eye(5)))
    True
    """
    ((_, inside, outside),) = sweep(images, (band,))
    return inside, outside


def sweep(
    images: Float[Tensor, "*batch height width"], bands: Sequence[Band]
) -> Iterator[tuple[Band, Float[Tensor, "*batch height width"], Float[Tensor, "*batch height width"]]]:
    """Yield each band with its low and high copy, all from one forward transform of the images.

    Copies are made one band at a time; a caller that drops them before the next needs memory for one pair.

    Args:
        images: Any scale. 16-bit floats are transformed in float32, float64 stays.
        bands: The cuts, in the order in which they come back.

    Yields:
        The band, its low copy and its high copy. The high one is the image less the low one, which is the
        same as filtering with the complement.

    **Source**: high-frequency, section 3.1, each channel by itself.
    **Differs**: transforms once for all radii, in half a spectrum, as both filter and image are real.
    """
    # Planes that lie one after the other transform twice as fast as channels_last ones.
    images = (images if images.dtype == torch.float64 else images.float()).contiguous()
    height, width = images.shape[-2:]
    spectrum = torch.fft.rfft2(images)
    for band in bands:
        weights = _half_response(band.low, (height, width), images.device).to(images.dtype)
        inside = torch.fft.irfft2(spectrum * weights, s=(height, width))
        yield band, inside, images - inside


def copies(
    images: Real[Tensor, "*batch height width"], bands: Sequence[Band]
) -> Float[Tensor, "band 2 *batch height width"]:
    """Return the low (0) and the high copy (1) of every image at every cut, all of them kept.

    They are what `sweep` yields. Images go through it few at a time, so that all that is between them and their copies
    stays in a processor's cache. Nothing is differentiated.

    Args:
        images: Any scale; integers, as pixels are stored, too.
        bands: The cuts, in the order in which they come back.
    """
    stack = images if images.ndim > 2 else images[None]
    kept = _room((len(bands), 2, *stack.shape), stack)
    count = max(1, _CHUNK * len(stack) // max(1, stack.numel()))
    with torch.no_grad():
        for start in range(0, len(stack), count):
            chunk = stack[start : start + count]
            swept = sweep(chunk if chunk.is_floating_point() else chunk.float(), bands)
            for places, (_, inside, outside) in zip(kept[:, :, start : start + count], swept, strict=True):
                places[0], places[1] = inside, outside
    return kept.view(len(bands), 2, *images.shape)


def rescale(
    images: Float[Tensor, "batch channel height width"], how: str
) -> Float[Tensor, "batch channel height width"]:
    """Bring band copies to a pixel scale, each image by itself.

    Args:
        images: Copies from a filter, of any range.
        how: ``"none"``; ``"max"`` divides by the image's maximum over pixels and channels and keeps
            negative values; ``"min-max"`` maps to [0, 1]; ``"clip"`` cuts to [0, 1]. A copy whose peak (or
            range) is at most `FLAT` is empty: it is not divided, or rounding noise would become the picture.

    Raises:
        PassbandError: when ``how`` is none of these.

    **Source**: high-frequency, table 1 ("normalized to have the standard pixel scale"); its code divides by
    the maximum. Adversarial-focus does not say; finished images are clipped.
    """
    if how == "none":
        return images
    if how == "clip":
        return images.clamp(0, 1)
    if how not in get_args(Rescale):
        raise unknown("rescaling", how, get_args(Rescale))
    peak = images.amax((1, 2, 3), keepdim=True)
    if how == "min-max":
        floor = images.amin((1, 2, 3), keepdim=True)
        images, peak = images - floor, peak - floor
    return images / torch.where(peak > FLAT, peak, torch.ones_like(peak))


def _room(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor to be filled, float64 where ``like`` is and else float32, on its device."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=like.device)
    # numpy asks the system for large pages: to hand out small ones takes longer than all transforms do.
    return torch.from_numpy(np.empty(shape, np.float64 if dtype == torch.float64 else np.float32))


def _inside(band: Band, size: tuple[int, int]) -> Tensor:
    """Compare each bin's distance with the cut-off, in float64, so that no bin on it falls to rounding."""
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in size)
    if band.unit == "pixel":
        rows, columns = (rows * size[0]).round(), (columns * size[1]).round()
    tie = _TIE * max(band.cutoff, 1.0)

    def within(distance: Tensor) -> Tensor:
        return distance <= band.cutoff + tie if band.edge == "inclusive" else distance < band.cutoff - tie

    inside: Tensor
    if band.edge == "half_open":
        kept_rows, kept_columns = (
            (line >= -band.cutoff - tie) & (line < band.cutoff - tie) for line in (rows, columns)
        )
        inside = kept_rows[:, None] & kept_columns[None, :]
    elif band.shape == "square":
        inside = within(rows.abs())[:, None] & within(columns.abs())[None, :]
    else:
        inside = within(torch.hypot(rows[:, None], columns[None, :]))
    return inside if band.side == "low" else ~inside


@lru_cache(maxsize=64)
def _half_response(band: Band, size: tuple[int, int], device: torch.device) -> Tensor:
    # Made outside inference mode: a mask first needed there must serve a later gradient too.
    with torch.inference_mode(False):
        half: Tensor = response(band, size, device)[:, : size[1] // 2 + 1].contiguous()
    return half
