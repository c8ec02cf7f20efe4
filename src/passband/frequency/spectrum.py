"""Spectra of images, kernels and activations: amplitude, rings, envelope and coverage, smoothness, low energy."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from passband.core.errors import PassbandError

_CHUNK = 2**19
"""Bins computed at once, few enough to stay in the cache: four filters at 512×512."""


def amplitude(images: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Return the modulus of the unnormalized two-dimensional spectrum, zero at bin ``(H // 2, W // 2)``."""
    images = images if images.dtype == torch.float64 else images.float()
    shifted: Tensor = torch.fft.fftshift(torch.fft.fft2(images).abs(), dim=(-2, -1))
    return shifted


def radial_mean(
    spectrum: Float[Tensor, "*batch height width"],
) -> tuple[Float[Tensor, " radius"], Float[Tensor, "*batch radius"]]:
    """Average a shifted spectrum over rings one bin wide.

    Args:
        spectrum: Zero frequency at ``(H // 2, W // 2)``, as `amplitude` gives it.

    Returns:
        The rings' radii in bins, 0 to ``min(H, W) // 2``, and the mean over the bins whose distance rounds to
        that radius. Corners beyond the last ring are left out.
    """
    height, width = spectrum.shape[-2:]
    ring = _rings(height, width, spectrum.device)
    count = min(height, width) // 2 + 1
    inside = ring < count
    values = spectrum.flatten(-2)[..., inside].double()
    sums = values.new_zeros(*values.shape[:-1], count).index_add_(-1, ring[inside], values)
    means = sums / torch.bincount(ring[inside], minlength=count)
    radii = torch.arange(count, device=spectrum.device, dtype=spectrum.dtype)
    return radii, means.to(spectrum.dtype)


def ring_sums(
    spectrum: Float[Tensor, "*batch height width"],
) -> tuple[Float[Tensor, " radius"], Float[Tensor, "*batch radius"]]:
    """Sum a shifted spectrum over the rings of `radial_mean`, and over those beyond, up to the corners.

    Args:
        spectrum: Zero frequency at ``(H // 2, W // 2)``.

    Returns:
        How many bins each ring has, and their sums, float64; every bin is in one ring.
    """
    height, width = spectrum.shape[-2:]
    ring = _rings(height, width, spectrum.device)
    bins = torch.bincount(ring).double()
    values = spectrum.flatten(-2).double()
    return bins, values.new_zeros(*values.shape[:-1], len(bins)).index_add_(-1, ring, values)


def low_to_high(signals: Float[Tensor, "*batch position channel"]) -> Float[Tensor, "*batch"]:
    """Return the norm of a signal's mean over positions (LFI) over the norm of the rest (HFI).

    LFI is ``(1/n)·11ᵀx``, the mean of each channel at every position, and HFI is ``x`` less that; norms are
    Frobenius'. Scaling a signal changes nothing.

    Args:
        signals: ``n`` positions of so many channels.

    Returns:
        float64; infinity where every channel is constant, zeros too, and NaN where a number is not finite.

    **Source**: adversarial-focus, section 3.1.3, R; Wang et al., *Anti-oversmoothing in deep vision transformers via
    the Fourier domain analysis*, section 2.

    >>> float(low_to_high(torch.tensor([[0.8], [0.4]])).round(decimals=6))
    3.0
    """
    signals = signals.double()  # in which the mean of equal float32 values is that value, so that nothing is left
    means = signals.mean(-2, keepdim=True)
    low = (signals.shape[-2] * means.square().sum((-2, -1))).sqrt()
    high = (signals - means).square().sum((-2, -1)).sqrt()
    return (low / high).where(high != 0, torch.inf)


def envelope(filters: Float[Tensor, "kernel height width"], size: int = 512) -> Float[Tensor, "bins bins"]:
    """Return the spectral envelope of a filter bank: the largest amplitude of any filter, per frequency.

    Args:
        filters: The bank; which filter belongs to which channel does not matter.
        size: To how many bins each filter is zero-padded.

    Returns:
        ``size`` × ``size``, zero frequency at bin ``size // 2``; a bin is ``1 / size`` cycles per pixel.

    Raises:
        PassbandError: when the bank is empty or a filter does not fit into ``size``.

    **Source**: spatial-mixing (workshop version), section 3.1 and footnote 1.
    """
    powers = _half_powers(_reaching(filters, size), size)
    return _mirror(functools.reduce(torch.maximum, (power.amax(0) for power in powers)).sqrt(), size)


def mean_amplitude(filters: Float[Tensor, "kernel height width"], size: int) -> Float[Tensor, "bins bins"]:
    """Return the mean of the filters' amplitude spectra, zero-padded and laid out as in `envelope`."""
    total = functools.reduce(torch.add, (power.sqrt().sum(0) for power in _half_powers(filters, size)))
    return _mirror(total / len(filters), size)


def coverage(envelope: Float[Tensor, "height width"], threshold: float = 0.5) -> float:
    """Return the share of the frequency plane on which an envelope exceeds a share of its own maximum.

    Args:
        envelope: As `envelope` gives it; its scale does not matter.
        threshold: Share of the maximum, 0 to 1; 0.5 is half amplitude.

    Returns:
        Between 0 and 1; 0 for an envelope that is zero everywhere.

    **Source**: spatial-mixing (workshop version), section 3.1, has "spectral coverage" in words.
    **Differs**: the number is ours; the paper shows pictures.
    """
    return float((envelope > threshold * envelope.max()).double().mean())


def smoothness(kernels: Float[Tensor, "kernel height width"]) -> Float[Tensor, " kernel"]:
    """Return one minus half the mean squared difference of adjacent weights over the mean squared weight.

    1 for a constant kernel, 0 on average for independent normal weights, -1 for a checkerboard of ±1.
    Adjacent means next to each other in a row or in a column. Scaling a kernel changes nothing.

    Args:
        kernels: 1×2 or larger.

    Returns:
        One number per kernel, at most 1; NaN for a kernel of zeros.

    Raises:
        PassbandError: when a kernel has a single weight, which has no neighbor.

    **Source**: high-frequency, section 6.1, calls a kernel smooth that has "no dramatics fluctuations between
    adjacent weights".
    **Differs**: the number is ours; the paper compares colors by eye.
    """
    height, width = kernels.shape[-2:]
    pairs = height * (width - 1) + width * (height - 1)
    if not pairs:
        raise PassbandError("smoothness compares adjacent weights; a 1×1 kernel has none: name a larger layer")
    differences = kernels.diff(dim=-1).square().sum((-2, -1)) + kernels.diff(dim=-2).square().sum((-2, -1))
    energy = kernels.square().sum((-2, -1))
    ratio: Tensor = (differences / pairs) / (energy / (height * width))
    return 1 - ratio / 2


def energy_below(filters: Float[Tensor, "kernel height width"], cutoff: float = 0.25) -> Float[Tensor, " kernel"]:
    """Return the share of each filter's energy at frequencies below a cut-off, in all directions.

    The energy spectrum is that of the filter with zeros around it, for ever: integrated over the disc of the cut-off,
    the waves of two weights a distance ``d`` apart give ``cutoff · J₁(2π · cutoff · d) / d``, so no bins are needed.
    Independent random weights have the disc's share of the plane, ``π · cutoff²``, on average; a single weight has
    exactly that.

    Args:
        filters: The bank; scaling a filter changes nothing.
        cutoff: Radius of the disc in cycles per pixel, above 0 and at most 0.5.

    Returns:
        One number per filter, 0 to 1, float64; NaN for a filter of zeros.

    Raises:
        PassbandError: when the cut-off is out of range.

    **Source**: spatial-mixing (workshop version), figure 9, has "dense coverage of the lower frequencies" in words.
    **Differs**: the number is ours; the paper shows pictures.
    """
    if not 0 < cutoff <= 0.5:
        raise PassbandError(f"a cut-off lies above 0 and at most at 0.5 cycles per pixel, such as 0.25; got {cutoff}")
    height, width = filters.shape[-2:]
    rows, columns = (torch.arange(side, dtype=torch.float64, device=filters.device) for side in (height, width))
    places = torch.cartesian_prod(rows, columns)
    apart = torch.cdist(places, places)
    shared = torch.where(
        apart > 0, cutoff * torch.special.bessel_j1(2 * math.pi * cutoff * apart) / apart, math.pi * cutoff**2
    )
    weights = filters.flatten(-2).double()
    below: Tensor = ((weights @ shared) * weights).sum(-1)
    return below / weights.square().sum(-1)


def _rings(height: int, width: int, device: torch.device) -> Tensor:
    """Return the ring of every bin of a shifted spectrum, row by row: its distance from zero frequency, rounded."""
    rows = torch.arange(height, device=device, dtype=torch.float64) - height // 2
    columns = torch.arange(width, device=device, dtype=torch.float64) - width // 2
    return torch.hypot(rows[:, None], columns[None, :]).round().long().flatten()


def _half_powers(filters: Tensor, size: int) -> Iterator[Tensor]:
    """Yield squared amplitudes [a few filters, size, size // 2 + 1] at the non-negative column frequencies.

    A filter has few weights and the plane many bins: two thin real products, a few filters at a time so that
    the planes stay in the cache, take a seventh of the time of padded FFTs.
    """
    height, width = filters.shape[-2:]
    if not len(filters):
        raise PassbandError("a spectrum of a filter bank needs at least one filter; this bank is empty")
    if max(height, width) > size:
        raise PassbandError(f"filters of {height}×{width} do not fit into {size} bins; raise the size")
    filters = filters if filters.dtype == torch.float64 else filters.float()
    tall, wide = _waves(size, size, height, filters), _waves(size, size // 2 + 1, width, filters)
    rows = torch.cat([torch.cat([tall.real, -tall.imag], 1), torch.cat([tall.imag, tall.real], 1)])
    chunk = max(1, _CHUNK // (size * (size // 2 + 1)))
    for start in range(0, len(filters), chunk):
        columns = filters[start : start + chunk].to(wide.dtype) @ wide.T
        plane = rows @ torch.cat([columns.real, columns.imag], 1)
        yield plane[:, :size].square() + plane[:, size:].square()


def _reaching(filters: Tensor, size: int) -> Tensor:
    """Leave out filters of a large bank that nowhere reach its envelope; exact, and most of a dense layer.

    Taken from a filter's center, its spectrum changes by at most ``Σ |w|·(|row| + |column|)`` per radian. So a
    coarse grid bounds each filter above and the envelope below, up to half way to the next node.
    """
    taps = filters.shape[-2:]
    rows, columns = ((torch.arange(count, device=filters.device) - (count - 1) / 2).abs() for count in taps)
    for nodes in (12 * max(taps), 24 * max(taps), 48 * max(taps)):
        if len(filters) < 64 or 2 * nodes > size:
            break
        filters = filters[filters.abs().sum((1, 2)).argsort(descending=True)]
        slack = (filters.abs() * (rows[:, None] + columns)).sum((1, 2)) * (math.pi / nodes)
        floor, kept, start = filters.new_zeros(()), [], 0
        for power in _half_powers(filters, nodes):
            amplitudes, margin = power.sqrt(), slack[start : start + len(power), None, None]
            floor = torch.maximum(floor, (amplitudes - margin).amax(0))
            kept.append((amplitudes + margin >= floor).flatten(1).any(1))
            start += len(power)
        filters = filters[torch.cat(kept)]
    return filters


def _waves(size: int, bins: int, taps: int, like: Tensor) -> Tensor:
    # Phases in float64 and reduced first: a float32 phase of 512 turns would lose four digits.
    turns = torch.outer(torch.arange(bins), torch.arange(taps)).remainder(size).double() / size
    phase = -2 * math.pi * turns.to(like.device)
    waves = torch.polar(torch.ones_like(phase), phase)
    return waves.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)


def _mirror(half: Tensor, size: int) -> Tensor:
    """Complete the plane by ``|F(-u, -v)| = |F(u, v)|`` and shift zero frequency to the center."""
    rest = half[..., 1 : (size + 1) // 2].flip((-2, -1)).roll(1, -2)
    shifted: Tensor = torch.fft.fftshift(torch.cat([half, rest], dim=-1), dim=(-2, -1))
    return shifted
