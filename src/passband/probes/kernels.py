"""What a model's first convolution looks for: its kernels as pictures, their spectrum, their smoothness."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.results import Axis, Gallery, Map, Picture, Result, Scalar
from passband.data.dataset import Batches
from passband.frequency.spectrum import mean_amplitude, smoothness
from passband.probes.banks import first_kernels, slices
from passband.probes.registry import PROBES

_PIXELS = 64
"""Smallest side of a picture; a weight is at least 8 pixels wide."""


@PROBES.register("kernels")
def kernels(
    model: nn.Module,
    batches: Batches | None,
    *,
    layer: str | None = None,
    count: int = 64,
    size: int = 64,
    flattened: bool = False,
) -> tuple[Result, ...]:
    """Show the kernels of a model's first spatial convolution, and say how smooth they are.

    Args:
        model: Any module with a convolution larger than 1×1; its weights are read, nothing else.
        batches: Not read: kernels are the same for any image.
        layer: Another convolution, by its name in ``model.named_modules()``.
        count: How many kernels the gallery shows, in the order of the layer.
        size: To how many bins each kernel is zero-padded for the spectrum, its own side or more.
        flattened: Whether to add the one-dimensional spectrum of each output channel's weights in a row.

    Returns:
        ``kernels.pictures``, ``kernels.spectrum`` (mean amplitude over all slices) and ``kernels.smoothness``
        (mean over all slices; each slice's in ``arrays``). With ``flattened`` the Map ``kernels.flattened``, the
        amplitude by output channel and bin, low frequencies at both ends, and the Scalar ``kernels.flattened_low``, the
        share of the energy at or below a quarter of a cycle per weight, half of the highest frequency (mean over
        output channels; each one's in ``arrays``). Such a frequency mixes the order of channels, rows and columns.

    Raises:
        PassbandError: when there is no such convolution, or ``size`` is smaller than a kernel.

    **Source**: high-frequency, section 6.1 and figure 7; adversarial-focus, section 3.1.2 and figure 4 (flattened).
    **Differs**: the papers look at the pictures; the numbers are ours (`passband.frequency.spectrum.smoothness`).
    """
    name, kind, weight = first_kernels(model, layer)
    if count < 1:
        raise PassbandError(f"probe kernels: count is 1 or more; got {count}")
    height, width = weight.shape[-2:]
    how = {"probe": "kernels", "layer": name, "kernel": list(weight.shape), "count": count, "size": size}
    shape = f"{weight.shape[0]} of {height}×{width} over {weight.shape[1]} input channels"
    found: tuple[Result, ...] = (
        _pictures(weight[:count], f"Layer {name}: {kind}, {shape}.", how),
        _spectrum(slices(weight), name, size, how),
        _smoothness(slices(weight), name, how),
    )
    return (*found, *_flattened(weight, name, how | {"flattened": True})) if flattened else found


def plane_axes(size: int) -> tuple[Axis, Axis]:
    """Return the axes of a shifted spectrum of ``size`` bins, in cycles per pixel."""
    values = tuple((index - size // 2) / size for index in range(size))
    return (
        Axis(name="horizontal frequency", unit="cycles/pixel", values=values),
        Axis(name="vertical frequency", unit="cycles/pixel", values=values),
    )


def _pictures(weight: Float[Tensor, "out in height width"], layer_note: str, how: dict[str, Any]) -> Gallery:
    colored = weight.shape[1] == 3
    drawn = {
        1: "Gray is 0, white positive, black negative.",
        3: "The three input channels are red, green and blue; gray is 0.",
    }.get(weight.shape[1], "Of each kernel, the slice of the input channel with the most energy; gray is 0.")
    pictures = []
    for index, kernel in enumerate(weight):
        chosen = 0 if colored else int(kernel.square().sum((1, 2)).argmax())
        values = kernel.permute(1, 2, 0) if colored else kernel[chosen]
        peak = float(values.abs().max())
        data = {"peak": peak, "norm": float(kernel.norm())}
        pictures.append(Picture(image=_paint(values, peak), caption=f"{index}", data=data))
    return Gallery(
        name="kernels.pictures",
        title=f"Kernels of {how['layer']}",
        how=how,
        notes=(layer_note, f"{drawn} Each kernel is scaled by its own largest weight."),
        pictures=tuple(pictures),
        arrays={"weight": weight.numpy()},
    )


def _paint(values: Tensor, peak: float) -> np.ndarray:
    """Map -peak … peak to 0 … 255, and repeat each weight in a square of pixels."""
    factor = max(8, -(-_PIXELS // max(values.shape[0], values.shape[1])))
    pixels = (127.5 + 127.5 * values / (peak or 1.0)).round().byte().numpy()
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _spectrum(filters: Float[Tensor, "slice height width"], name: str, size: int, how: dict[str, Any]) -> Map:
    x, y = plane_axes(size)
    return Map(
        name="kernels.spectrum",
        title=f"Mean amplitude spectrum of the kernels of {name}",
        how=how,
        notes=(f"Mean over {len(filters)} slices of |FFT|, zero-padded to {size}×{size}, zero in the center.",),
        x=x,
        y=y,
        values=mean_amplitude(filters, size).numpy(),
        unit="amplitude",
    )


def _smoothness(filters: Float[Tensor, "slice height width"], name: str, how: dict[str, Any]) -> Scalar:
    each = smoothness(filters)
    alive = each[torch.isfinite(each)]
    notes = [
        "1 less half the mean squared difference of adjacent weights over the mean squared weight: 1 for a "
        "constant kernel, 0 on average for independent random weights, -1 for a checkerboard.",
    ]
    if len(alive) < len(each):
        notes.append(f"{len(each) - len(alive)} slices are zero and left out.")
    return Scalar(
        name="kernels.smoothness",
        title=f"Smoothness of the kernels of {name}",
        how=how,
        notes=tuple(notes),
        arrays={"smoothness": each.numpy()},
        value=float(alive.double().mean()) if len(alive) else None,
        n=len(alive),
    )


def _flattened(weight: Float[Tensor, "out in height width"], name: str, how: dict[str, Any]) -> tuple[Map, Scalar]:
    amplitudes, low = torch.fft.fft(weight.flatten(1)).abs(), flattened_low(weight)
    alive = low[torch.isfinite(low)]
    bins = amplitudes.shape[1]
    expected = float(flattened_low(torch.eye(1, bins)[:, :, None, None])[0])
    of = f"{weight.shape[1]} input channels of {weight.shape[2]}×{weight.shape[3]}"
    notes = [f"The weights of an output channel in a row: {of}."]
    if len(alive) < len(low):
        notes.append(f"{len(low) - len(alive)} output channels are zero and left out.")
    return (
        Map(
            name="kernels.flattened",
            title=f"Spectrum of the flattened kernels of {name}",
            how=how,
            notes=(notes[0], "Not shifted: zero frequency at the left, low frequencies at both ends."),
            x=Axis(name="frequency", unit="cycles/weight", values=tuple(index / bins for index in range(bins))),
            y=Axis(name="output channel", values=tuple(range(len(weight)))),
            values=amplitudes.numpy(),
            unit="amplitude",
        ),
        Scalar(
            name="kernels.flattened_low",
            title=f"Energy of the flattened kernels of {name} at or below 1/4 cycle per weight",
            how=how,
            notes=(*notes, f"Independent random weights have {100 * expected:.1f}% there on average."),
            arrays={"low": low.numpy()},
            value=float(alive.mean()) if len(alive) else None,
            n=len(alive),
            unit="fraction",
        ),
    )


def flattened_low(weight: Float[Tensor, "out in height width"]) -> Float[Tensor, " out"]:
    """Return, of each output channel's weights in a row, the share of the energy in the lower half of the frequencies.

    These are bins at or below a quarter of a cycle per weight, at both ends of the spectrum, zero among them.

    Returns:
        float64, 0 to 1; NaN for an output channel of zeros.

    **Source**: adversarial-focus, figure 4, has "bright spots in the low-frequency region" in words.
    **Differs**: the number is ours.
    """
    energy = torch.fft.fft(weight.flatten(1).double()).abs().square()
    kept = torch.fft.fftfreq(energy.shape[1], dtype=torch.float64).abs() <= 0.25
    low: Tensor = energy[:, kept].sum(1) / energy.sum(1)
    return low
