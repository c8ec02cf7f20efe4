"""Where in an image a class is seen: Grad-CAM, for one class or for several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.packing import chunks, working_size
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Column, Gallery, Picture, Result, Table
from passband.data.dataset import Batches
from passband.models.outputs import check_logits, check_targets
from passband.models.state import exact, frozen, untouched, uses_batch_statistics
from passband.probes.bands import class_names
from passband.probes.cam_layer import layer_named, spatial
from passband.probes.copies import first_images
from passband.probes.kept import Arrays, Part, Pieces, by_part
from passband.probes.registry import PROBES
from passband.reports.heatmap import RISING, colors
from passband.weights.roles import bare

TARGET, PREDICTED = "target", "predicted"
TOP = 0.1
"""Share of an image's pixels whose part of the map's energy is its concentration."""
_PIXELS = 160
"""Smallest side of a picture."""
_ENLARGED = 256
"""Maps that are enlarged to the images' size at a time."""

Choose = Callable[[Tensor], Tensor]
"""Logits [batch, class] to the classes whose maps are made, int64 [row, batch]."""


class Cams(NamedTuple):
    """Hold what Grad-CAM gives for a batch.

    Attributes:
        maps: Not negative, at the layer's own resolution.
        classes: Whose maps they are.
        logits: What the model says.
    """

    maps: Float[Tensor, "row batch height width"]
    classes: Int[Tensor, "row batch"]
    logits: Float[Tensor, "batch class"]


@PROBES.register("saliency")
def saliency(
    model: nn.Module,
    batches: Batches,
    *,
    classes: tuple[str, ...] = (TARGET, PREDICTED),
    layer: str | None = None,
    examples: int = 12,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Draw where a model sees a class, or several at once, by Grad-CAM.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images and their targets.
        classes: ``target``, ``predicted``, a class by its name or by its number; each gives a map of every image.
        layer: Whose activations are weighed, by its name in ``named_modules()``; None looks for the last that says
            where (:func:`passband.probes.cam_layer.layer_named`).
        examples: How many images the gallery shows, the first ones of the batches; 0 for no gallery.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``saliency.concentration``: Table, by class the share of a map's energy in the strongest tenth of the image's
        pixels (a tenth for an even map), the mean over images, and how many maps are empty. Its ``arrays`` hold by
        class the maps at the layer's resolution, float32 [image, height, width], and after ``.class`` whose they
        are, int64 [image]; ``predicted.answer`` is what the model says.
        ``saliency.examples``: Gallery, each image beside its maps.

    Raises:
        NotApplicable: for a model that gives no logits, normalizes by each batch, or has no layer that says where.
        PassbandError: for an unknown class or layer, and for targets that are missing or out of range.

    **Source**: spartan, section IV-A3 and figures 5 and 6; Selvaraju et al., *Grad-CAM*, 2017, equations 1 and 2.
    """
    if uses_batch_statistics(model):
        raise NotApplicable("saliency needs answers that do not depend on the batch; this model normalizes by each")
    if not classes or examples < 0:
        raise PassbandError("probe saliency: classes names one or more and examples is 0 or more")
    asked = tuple(dict.fromkeys(classes))
    if TARGET in asked:
        _ = batches.measure  # refuses targets that say nothing, before any work
    few, _ = next(iter(batches.cut(2)))
    name = layer_named(model, layer, few)
    with untouched(model):
        pieces = Pieces.of(resume, model, few, ("saliency", asked, name, batches.class_names))
    cut = batches.cut(working_size(model))
    found = _joined(by_part(pieces, "Grad-CAM", cut, partial(_of_part, model, asked, name), "saliency"))
    how: dict[str, Any] = {
        "probe": "saliency", "layer": name, "classes": list(asked), "grid": list(found.maps.shape[2:]),
        "examples": examples,
    }  # fmt: skip
    size = int(few.shape[-2]), int(few.shape[-1])
    results: list[Result] = [_concentration(found, asked, size, how)]
    if examples:
        shown = first_images(batches, examples).cpu()
        results.append(_gallery(found, asked, shown, class_names(model, batches, found.logits.shape[1]), how))
    return tuple(results)


def _of_part(model: nn.Module, asked: tuple[str, ...], layer: str, part: Part) -> Arrays:
    said = []
    for images, targets in track(part.batches, "saliency"):
        # The names are known once the model has said how many classes there are.
        said.append(grad_cam(model, images, _choice(asked, targets, model, part.whole), layer=layer))
    maps, classes, logits = zip(*said, strict=True)
    return {
        "maps": torch.cat(maps, 1).cpu().numpy(), "classes": torch.cat(classes, 1).cpu().numpy(),
        "logits": torch.cat(logits).cpu().numpy(),
    }  # fmt: skip


def _joined(found: Sequence[Arrays]) -> Cams:
    axes = {"maps": 1, "classes": 1, "logits": 0}
    whole = {name: np.concatenate([one[name] for one in found], axis) for name, axis in axes.items()}
    return Cams(*(torch.from_numpy(whole[name]) for name in axes))


def grad_cam(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], choose: Choose, *, layer: str
) -> Cams:
    """Return the Grad-CAM of classes that are chosen when the model has answered, all from one pass.

    A map is the rectified sum of the layer's channels, each weighed by the mean over all places of the gradient of
    the class's logit.

    Args:
        model: Images in [0, 1] in, logits out; lent out in evaluation mode, and left as it was found.
        images: A batch.
        choose: The classes.
        layer: A name in ``named_modules()`` of the network or of the model around it. Where it is called twice, the
            last call counts.

    Raises:
        NotApplicable: for a model that gives no logits.
        PassbandError: when the layer's output does not say where, or the logits do not depend on it.

    **Source**: Selvaraju et al., *Grad-CAM*, 2017, equations 1 and 2.
    """
    network, size = bare(model), (int(images.shape[-2]), int(images.shape[-1]))
    module = (dict(network.named_modules()) | dict(model.named_modules()))[layer]
    with exact(), frozen(model), torch.enable_grad(), _caught(module) as caught:
        logits = check_logits(model(images), len(images))
        classes = choose(logits.detach())
        if not logits.requires_grad:
            raise PassbandError(f"probe saliency: the logits do not depend on layer {layer}: name another one")
        maps = []
        for row, wanted in enumerate(classes):
            score = logits.gather(1, wanted[:, None]).sum()
            (slope,) = torch.autograd.grad(score, caught, retain_graph=row + 1 < len(classes))
            maps.append(_weighed(caught[-1].detach(), slope, size, network, layer))
    return Cams(torch.stack(maps), classes, logits.detach())


def enlarged(maps: Float[Tensor, "*rows height width"], size: tuple[int, int]) -> Float[Tensor, "*rows h w"]:
    """Return maps at the images' size, bilinearly, between the centers of their places."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    larger = functional.interpolate(flat, size, mode="bilinear", align_corners=False)
    return larger.reshape(*maps.shape[:-2], *size)


def painted(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Lay a map over an image that is made gray.

    Args:
        image: uint8 [H, W, 3].
        place: Not negative, [H, W]; it is drawn from 0 to its own largest value.

    Returns:
        uint8 [H, W, 3].
    """
    gray = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    peak = float(place.max())
    laid = colors(place / peak if peak > 0 else place, RISING).astype(np.float64)
    mixed: np.ndarray = np.rint(0.45 * gray + 0.55 * laid).astype(np.uint8)
    return mixed


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures of one size, uint8 [H, W, 3], side by side, each pixel repeated where they are small."""
    factor = max(1, -(-_PIXELS // min(pictures[0].shape[:2])))
    return np.concatenate([one.repeat(factor, axis=0).repeat(factor, axis=1) for one in pictures], axis=1)


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """Begin the graph at a layer's output, and hold it; a later layer may write into what it is handed."""
    caught: list[Tensor] = []

    def hold(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        caught[:] = [output.detach().requires_grad_()]
        return caught[0].clone()

    handle = module.register_forward_hook(hold)
    try:
        yield caught
    finally:
        handle.remove()


def _weighed(output: Tensor, slope: Tensor, size: tuple[int, int], network: nn.Module, layer: str) -> Tensor:
    features, slopes = spatial(output, size, network), spatial(slope, size, network)
    if features is None or slopes is None:
        raise PassbandError(f"probe saliency: layer {layer} gives {list(output.shape)}, which does not say where")
    weights = slopes.float().mean((2, 3), keepdim=True)
    return (weights * features.float()).sum(1).relu()


def _choice(asked: tuple[str, ...], targets: Tensor, model: nn.Module, batches: Batches) -> Choose:
    def choose(logits: Tensor) -> Tensor:
        names = class_names(model, batches, logits.shape[1])
        rows = []
        for one in asked:
            if one == TARGET:
                check_targets(targets, logits.shape[1])
                rows.append(targets)
            elif one == PREDICTED:
                rows.append(logits.argmax(1))
            else:
                rows.append(torch.full_like(targets, _index(one, names)))
        return torch.stack(rows)

    return choose


def _index(name: str, names: Sequence[str]) -> int:
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise unknown("class", name, [TARGET, PREDICTED, *names], hint=f"or its number, 0 to {len(names) - 1}")


def _concentration(found: Cams, asked: tuple[str, ...], size: tuple[int, int], how: dict[str, Any]) -> Table:
    rows, arrays = [], {"predicted.answer": found.logits.argmax(1).numpy()}
    for row, one in enumerate(asked):
        maps = found.maps[row]
        shares = torch.cat([concentration(enlarged(maps[at], size)) for at in chunks(len(maps), _ENLARGED)])
        filled = shares[shares.isfinite()]
        rows.append((one, float(filled.mean()) if len(filled) else None, len(shares) - len(filled), len(shares)))
        arrays |= {one: maps.numpy(), f"{one}.class": found.classes[row].numpy()}
    return Table(
        name="saliency.concentration",
        title=f"How concentrated the Grad-CAM of {how['layer']} is",
        how=how,
        notes=(
            f"Share of a map's energy (its sum) in the strongest {TOP:.0%} of the image's pixels; an even map has "
            f"{TOP:.0%}. Maps of {how['grid'][0]}×{how['grid'][1]} places are enlarged bilinearly to the images. An "
            "empty map, where nothing speaks for the class, has no share.",
        ),
        arrays=arrays,
        columns=(
            Column(name="class"), Column(name="in the strongest tenth", unit="fraction"),
            Column(name="empty", unit="maps"), Column(name="images"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def concentration(maps: Float[Tensor, "map height width"]) -> Float[Tensor, " map"]:
    """Return the share of each map's sum that its strongest tenth of places has; NaN for an empty map."""
    flat = maps.flatten(1)
    most = max(1, round(TOP * flat.shape[1]))
    return flat.topk(most, dim=1).values.sum(1) / flat.sum(1)


def _gallery(
    found: Cams, asked: tuple[str, ...], images: Tensor, names: tuple[str, ...], how: dict[str, Any]
) -> Gallery:
    sure = found.logits.softmax(1)
    pixels = images.mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    large = enlarged(found.maps[:, : len(images)], (int(images.shape[-2]), int(images.shape[-1]))).numpy()
    pictures = []
    for at, image in enumerate(pixels):
        whose = [int(one) for one in found.classes[:, at]]
        data = {
            one: {"class": names[index], "confidence": float(sure[at, index])}
            for one, index in zip(asked, whose, strict=True)
        }
        words = [
            f"{names[index]} ({sure[at, index]:.0%})"
            if one == names[index]
            else f"{one} {names[index]} ({sure[at, index]:.0%})"
            for one, index in zip(asked, whose, strict=True)
        ]
        overlays = [painted(image, one) for one in large[:, at]]
        pictures.append(Picture(image=strip([image, *overlays]), caption=", ".join(words), data=data))
    return Gallery(
        name="saliency.examples",
        title=f"Grad-CAM: the image, and where {' and '.join(asked)} is seen",
        how=how,
        notes=("Each map is drawn from 0 (dark) to its own largest value (yellow); percentages are softmax.",),
        pictures=tuple(pictures),
    )
