"""Pictures of images and their low frequencies, with the objects marked that a detector finds otherwise in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from passband.core.band import Band
from passband.core.results import Gallery, Picture
from passband.data.scenes import SceneSet
from passband.frequency.filters import low, rescale
from passband.probes.found_better import FoundBetter

_SIDE = 400
"""Longer side of one of the two images in a picture, at most."""
_NAMED = 3
"""Objects that a caption speaks of."""
_COLORS = {"better": (0, 200, 0), "worse": (230, 30, 30)}


def gallery(
    dataset: SceneSet, compared: FoundBetter, band: Band, rescaling: str, kind: str, count: int, how: dict[str, Any]
) -> Gallery:
    """Show the images with the largest differences of a kind: the image beside its low frequencies.

    Objects of the other kind, and those found equally, are not marked.

    Args:
        dataset: The photographs.
        compared: How well their objects are found; objects in the set's order, without those of a crowd.
        band: The cut.
        rescaling: How low frequencies come to a pixel scale.
        kind: ``"better"`` or ``"worse"``.
        count: Pictures, at most.
        how: How it was made.

    **Source**: high-frequency, figures 8 (worse) and 9 (better).
    """
    marked = compared.better if kind == "better" else compared.worse
    largest = np.zeros(compared.images)
    np.maximum.at(largest, compared.image[marked], np.abs(compared.gain[marked]))
    order = np.argsort(-largest, kind="stable")[: min(count, int((largest > 0).sum()))]
    notes = [
        "Left the image, right its low frequencies as the detector sees them. Marked are the objects found "
        f"{kind} on the right; scores are each object's, on the left and on the right. Largest differences first.",
    ]
    if not len(order):
        notes = [f"No object is found {kind}."]
    return Gallery(
        name=f"detection.{kind}",
        title=f"Objects found {kind} on the low frequencies of their image (LFC, radius {compared.radius:g})",
        how=how,
        notes=tuple(notes),
        pictures=tuple(_picture(dataset, compared, marked, int(at), (band, rescaling, kind)) for at in order),
    )


def _picture(
    dataset: SceneSet, compared: FoundBetter, marked: np.ndarray, at: int, shown: tuple[Band, str, str]
) -> Picture:
    band, rescaling, kind = shown
    image = dataset.image(at).float().div(255)
    copy = rescale(low(image, band)[None], rescaling)[0]
    mine = compared.image == at
    there = dataset.objects[at].single.take(torch.from_numpy(marked[mine]))
    boxes = there.boxes.tolist()
    pixels = np.concatenate([_drawn(one, boxes, _COLORS[kind]) for one in (image, copy)], axis=1)
    places = np.flatnonzero(mine & marked)
    scores = [(float(compared.original[place]), float(compared.low[place])) for place in places]
    names = [dataset.class_names[int(label)] for label in there.labels]
    order = sorted(range(len(names)), key=lambda one: -abs(scores[one][1] - scores[one][0]))
    words = [f"{names[one]} {scores[one][0]:.2f} → {scores[one][1]:.2f}" for one in order[:_NAMED]]
    more = f", {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    # One word for the caption, all of it for the CSV.
    objects = [
        {"class": names[one], "original": scores[one][0], "LFC": scores[one][1], "box": boxes[one]} for one in order
    ]
    return Picture(image=pixels, caption=", ".join(words) + more, data={"image": dataset.ids[at], "objects": objects})


def _drawn(image: Tensor, boxes: list[list[float]], color: tuple[int, int, int]) -> np.ndarray:
    """Return an image as a picture of `_SIDE` pixels at most, boxes drawn on it, uint8 [H, W, 3]."""
    pixels = image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    factor = min(1.0, _SIDE / max(picture.size))
    if factor < 1:
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        left, top, right, bottom = (side * factor for side in box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=2)
    return np.array(picture)
