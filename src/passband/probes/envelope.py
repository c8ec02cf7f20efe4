"""Which frequencies a model's filter banks can pass at all: their spectral envelopes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.results import Axis, Column, Curve, Map, Result, Series, Table
from passband.data.dataset import Batches
from passband.frequency import spectrum
from passband.frequency.filters import mask
from passband.probes.banks import Bank, filter_banks
from passband.probes.kernels import plane_axes
from passband.probes.registry import PROBES

_LINES = 6
"""Layers drawn in the curve, spread from the first to the last; all of them are in the table and arrays."""


@PROBES.register("envelope")
def envelope(
    model: nn.Module,
    batches: Batches | None,
    *,
    size: int = 512,
    threshold: float = 0.5,
    cutoff: float = 0.25,
    every: bool = False,
) -> tuple[Result, ...]:
    """Measure the spectral envelope of each filter bank: the largest amplitude of any filter, per frequency.

    Args:
        model: Any module with a convolution larger than 1×1; its weights are read, nothing else.
        batches: Not read: filters are the same for any image.
        size: To how many bins each filter is zero-padded, the largest filter's side or more.
        threshold: A frequency is covered where the envelope exceeds this share of its maximum, 0 to 1.
        cutoff: Frequencies below it are low, cycles per pixel, above 0 and at most 0.5.
        every: Whether the answer has a map of every layer, not of the first and the last alone, and the low energy of
            every filter.

    Returns:
        ``envelope.all`` (all banks together), ``envelope.first`` and ``envelope.last`` (Map), or with ``every`` an
        ``envelope.layer.NAME`` of each bank, the radial means ``envelope.radial`` (Curve), and of each bank its
        coverage and the share of its energy at low frequencies ``envelope.coverage`` (Table; with ``every`` each
        filter's share in ``arrays``, by layer).

    Raises:
        PassbandError: when there is no such convolution, or an option is out of range.

    **Source**: spatial-mixing (workshop version), section 3.1, footnote 1, figures 1, 8 and 9.
    **Differs**: the coverage and the shares are numbers; the paper shows pictures.
    """
    if not 0 <= threshold < 1:
        raise PassbandError(f"probe envelope: threshold lies from 0 to below 1, such as 0.5; got {threshold}")
    banks, what = filter_banks(model)
    shares = {bank.name: spectrum.energy_below(bank.filters, cutoff) for bank in banks}
    planes = {bank.name: spectrum.envelope(bank.filters, size) for bank in track(banks, "envelopes", total=len(banks))}
    whole = torch.stack(list(planes.values())).amax(0)
    filters = sum(len(bank.filters) for bank in banks)
    how = {
        "probe": "envelope", "filters": what, "size": size, "threshold": threshold, "cutoff": cutoff,
        "layers": list(planes),
    }  # fmt: skip
    note = f"{filters} {what} in {len(banks)} layers, zero-padded to {size}×{size}, zero frequency centered."
    shown = [("all", "all layers", whole)]
    if every:
        shown += [(f"layer.{name}", name, plane) for name, plane in planes.items()]
    elif len(banks) > 1:
        first, last = banks[0].name, banks[-1].name
        shown += [("first", first, planes[first]), ("last", last, planes[last])]
    coverage = _coverage(banks, planes, whole, shares, note, how)
    if every:
        coverage = coverage.model_copy(update={"arrays": {name: share.numpy() for name, share in shares.items()}})
    return (
        *(_map(name, layer, plane, note, how) for name, layer, plane in shown),
        _radial(planes, whole, note, how),
        coverage,
    )


def _map(name: str, layer: str, plane: Tensor, note: str, how: dict[str, Any]) -> Map:
    x, y = plane_axes(len(plane))
    return Map(
        name=f"envelope.{name}",
        title=f"Spectral envelope: {layer}",
        how=how,
        notes=(note,),
        x=x,
        y=y,
        values=plane.numpy(),
        unit="amplitude",
    )


def _radial(planes: dict[str, Tensor], whole: Tensor, note: str, how: dict[str, Any]) -> Curve:
    radii, means = spectrum.radial_mean(torch.stack([whole, *planes.values()]))
    names = ["all layers", *planes]
    # Five hundred bins would draw the same line as a few dozen.
    every = max(1, (len(radii) - 1) // 64)
    places = np.linspace(1, len(planes), min(_LINES, len(planes))).round().astype(int)
    drawn = [0, *places.tolist()] if len(planes) > 1 else [1]
    return Curve(
        name="envelope.radial",
        title="Spectral envelope by frequency, mean over directions",
        how=how,
        notes=(
            note,
            f"{len(drawn)} of {len(names)} lines are drawn; the arrays hold all, in the order of `layers`.",
        ),
        arrays={"all": means[0].numpy(), "layers": means[1:].numpy()},
        x=Axis(name="frequency", unit="cycles/pixel", values=tuple((radii[::every] / len(whole)).tolist())),
        y=Axis(name="envelope", unit="amplitude"),
        series=tuple(Series(name=names[at], values=tuple(means[at][::every].tolist())) for at in drawn),
    )


def _coverage(
    banks: tuple[Bank, ...],
    planes: dict[str, Tensor],
    whole: Tensor,
    shares: dict[str, Tensor],
    note: str,
    how: dict[str, Any],
) -> Table:
    rows = [
        (
            bank.name,
            "×".join(map(str, bank.filters.shape[1:])),
            len(bank.filters),
            *_numbers(planes[bank.name], shares[bank.name], how),
        )
        for bank in banks
    ]
    together = torch.cat(list(shares.values()))
    total = ("all layers", "", len(together), *_numbers(whole, together, how))
    return Table(
        name="envelope.coverage",
        title="Spectral coverage by layer",
        how=how,
        notes=(
            note,
            f"Covered: the envelope exceeds {how['threshold']:g} of its own maximum.",
            f"Low energy: below {how['cutoff']:g} cycles/pixel, of the squared envelope, and of each filter by itself "
            f"on average. A flat spectrum has {100 * math.pi * how['cutoff'] ** 2:.1f}% there.",
        ),
        columns=(
            Column(name="layer"),
            Column(name="kernel", unit="pixel"),
            Column(name="filters"),
            Column(name="coverage of the plane", unit="fraction"),
            Column(name="largest amplitude"),
            Column(name="low energy of the envelope", unit="fraction"),
            Column(name="low energy of a filter", unit="fraction"),
        ),
        rows=(*rows, total),
    )


def _numbers(plane: Tensor, shares: Tensor, how: dict[str, Any]) -> tuple[float, float, float | None, float | None]:
    power = plane.double().square()
    kept = torch.fft.fftshift(mask(Band.disc(how["cutoff"], unit="cycles"), (len(plane), len(plane))))
    alive = shares[torch.isfinite(shares)]
    return (
        spectrum.coverage(plane, how["threshold"]),
        float(plane.max()),
        float((power * kept).sum() / power.sum()) if power.any() else None,
        float(alive.mean()) if len(alive) else None,
    )
