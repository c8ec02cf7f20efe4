"""At which frequencies a layer's activations change: the center of gravity of their spectrum."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.packing import chunks, working_size
from passband.core.errors import PassbandError, unknown
from passband.core.results import Axis, Curve, Result, Series
from passband.data.dataset import Batches, permutation
from passband.frequency.centroid import centroid
from passband.models.state import exact, untouched
from passband.models.watch import watched
from passband.probes.activations import first_activation
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.means import mean_of
from passband.probes.registry import PROBES


@PROBES.register("activation-spectrum")
def activation_spectrum(
    model: nn.Module,
    batches: Batches,
    *,
    layers: tuple[str, ...] | None = None,
    count: int = 512,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure the mean frequency of a layer's activations, weighted by power, image by image.

    Where R of the probe `activations` sets a map's mean against all the rest, this says where that rest lies.

    Args:
        model: Images in [0, 1] in; left as it was found.
        batches: The images; targets are not read.
        layers: Names in ``model.named_modules()``, whose output is [batch, channels, height, width], that of the first
            call where a layer is called twice; None is the activation function that is called first after the first
            convolution larger than 1×1.
        count: At most so many images, the first of one fixed permutation.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``activation_spectrum.centroid``: Curve over layers, cycles per pixel of the layer's own map, the mean over
        images with a normal 95% interval. ``arrays`` hold it per image, ``centroid`` [layer, image], NaN where
        an activation is constant, and ``images``, their places in the batches.

    Raises:
        NotApplicable: when no layer is named and no activation module follows a convolution.
        PassbandError: for unknown names, layers that give no maps, NaN, and a ``count`` below 1.
    """
    if count < 1:
        raise PassbandError(f"probe activation-spectrum: count is 1 or more; got {count}")
    order = permutation(batches.count, min(count, batches.count), 0)
    asked = batches.subset(order)
    few, _ = next(iter(asked.cut(2)))
    names = layers or (first_activation(model, few),)
    with untouched(model), torch.no_grad(), exact():
        _centroids(model, few, names)  # a layer that cannot be measured is refused before any work
        pieces = Pieces.of(resume, model, few, ("activation-spectrum", names))
        found = by_part(pieces, "centroid", asked, partial(_of_part, model, names), "activation spectrum", asked.size)
    values = joined(found, axis=1)["centroid"]
    how: dict[str, Any] = {"probe": "activation-spectrum", "layers": list(names), "images": len(order)}
    return (_curve(names, values, order, how),)


def _of_part(model: nn.Module, names: tuple[str, ...], part: Part) -> Arrays:
    return {"centroid": torch.cat([_centroids(model, images, names) for images, _ in part.batches], 1).cpu().numpy()}


def _centroids(model: nn.Module, images: Tensor, names: tuple[str, ...]) -> Tensor:
    """Return the centroid by layer and image, NaN where an activation is constant."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise unknown("layer", name, modules)
    seen: dict[str, Tensor] = {}

    def look(name: str, _inputs: Any, output: Any) -> None:
        if name not in seen:
            seen[name] = centroid(_maps(name, output))

    parts = []
    with watched({name: modules[name] for name in names}, look):
        for chunk in chunks(len(images), working_size(model)):
            seen.clear()
            model(images[chunk])
            if silent := [name for name in names if name not in seen]:
                raise PassbandError(
                    f"probe activation-spectrum: the forward pass does not call {', '.join(silent)}; leave it out"
                )
            parts.append(torch.stack([seen[name] for name in names]))
    return torch.cat(parts, 1)


def _maps(name: str, output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[-1] * output.shape[-2] < 4:
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PassbandError(
            f"probe activation-spectrum: a layer gives maps [batch, channels, height, width] of 4 places or more; "
            f"{name} gives {what}: name another one"
        )
    if not bool(output.isfinite().all()):
        raise PassbandError(
            f"probe activation-spectrum: layer {name} gives NaN or infinity: weights hold NaN, or overflow; load others"
        )
    return output


def _curve(names: tuple[str, ...], values: np.ndarray, order: np.ndarray, how: dict[str, Any]) -> Curve:
    notes = [
        "The mean length of the frequency vectors of a layer's maps, weighted by power, without their means; a pixel "
        "is one of the layer's own map. White noise lies at 0.38 on large maps, at 0.39 on 8×8.",
        f"Measured on {len(order):,} images, the model in evaluation mode.",
    ]
    if constant := int(np.isnan(values).sum()):
        notes.append(f"{constant} of {values.size} activations are constant, and are left out of the means.")
    means, lows, highs = zip(*map(mean_of, values), strict=True)
    return Curve(
        name="activation_spectrum.centroid",
        title="Mean frequency of activations",
        how=how,
        notes=tuple(notes),
        arrays={"centroid": values, "images": order},
        x=Axis(name="layer", values=names),
        y=Axis(name="mean frequency", unit="cycles per pixel"),
        series=(Series(name="mean frequency", values=means, low=lows, high=highs, n=values.shape[1]),),
    )
