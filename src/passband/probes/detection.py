"""What a detector finds on the low and on the high frequencies of its images, and which objects it finds better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.pieces import identity_of
from passband.core.band import Band, Edge, Shape
from passband.core.errors import NotApplicable, PassbandError
from passband.core.progress import track
from passband.core.results import Result, Table
from passband.core.store import make_folder
from passband.data.scene_classes import match
from passband.data.scenes import SceneBatches
from passband.frequency.filters import Rescale, sweep
from passband.frequency.filters import rescale as rescaled
from passband.models.detector import Detector
from passband.models.found import Found
from passband.models.state import exact, untouched
from passband.probes.detection_precision import (
    CENTERED,
    HFC,
    LFC,
    ORIGINAL,
    Copy,
    Measured,
    by_radius,
    packed,
    table,
    unpacked,
)
from passband.probes.found_better import FoundBetter, images_better
from passband.probes.found_better import table as objects_table
from passband.probes.kept import Arrays, Pieces, kept
from passband.probes.marked_objects import gallery
from passband.probes.registry import PROBES
from passband.tasks.box_matching import MOST, match_boxes
from passband.tasks.detection import find


@dataclass(frozen=True)
class _Cuts:
    """Hold how images are cut, and what becomes of the copies."""

    bands: tuple[Band, ...]
    rescaling: str
    centered: bool

    @property
    def copies(self) -> tuple[Copy, ...]:
        kinds = (LFC, HFC, CENTERED) if self.centered else (LFC, HFC)
        return (ORIGINAL, *((kind, band.cutoff) for kind in kinds for band in self.bands))


@PROBES.register("detection")
def detection(
    model: nn.Module,
    batches: SceneBatches,
    *,
    radii: tuple[float, ...] = (128.0,),
    shape: Shape = "disc",
    edge: Edge = "inclusive",
    rescale: Rescale = "clip",
    centered: bool = True,
    threshold: float = 0.05,
    margin: float = 0.0,
    draws: int = 1000,
    examples: int = 12,
    resume: Path | None = None,
    precision: str = "float32",
) -> tuple[Result, ...]:
    """Measure a detector on images and on their low (LFC) and high (HFC) frequencies, and object by object.

    Each image is cut at its own size, before the detector resizes it, all its copies from one transform. Images are
    asked one by one, so that no answer depends on those beside it.

    An object's score on a copy is its average precision within the image: the mean over IoU 0.50, 0.55 to 0.95 of the
    precision among the detections of its image and class down to the one that found it, 0 where none did
    (:func:`passband.tasks.box_matching.match_boxes`). It turns on the order of detections alone: where a copy changes
    their certainty and neither order nor overlap class, the object is found equally.

    Args:
        model: A detector: a list of images in [0, 1] in, what is found in each out; left as it was found.
        batches: The photographs and their objects. Detections of classes that they do not know are dropped.
        radii: Cut-offs in bins of the spectrum of each image at its own size.
        shape: The cut's shape, a disc on images that are not square too; of a square, the radius is half the side.
        edge: Whether the cut-off itself is kept.
        rescale: How copies come to a pixel scale; ``"clip"`` cuts them to [0, 1] and changes nothing else.
        centered: Whether HFC are measured around 0.5 too, clipped, where no sign is lost.
        threshold: An object found with less certainty has score 0; 0.05 is what torchvision's RetinaNet keeps. Average
            precision takes all that is found.
        margin: Scores of an object that differ by no more than this are equal, 0 to 1. With 0 each of the ten IoU
            thresholds counts.
        draws: Bootstrap samples of the images for the intervals; 0 for none.
        examples: Pictures of each gallery; 0 for no gallery.
        resume: Folder for what is finished, batch by batch, so that a killed program goes on.
        precision: ``"float32"``.

    Returns:
        ``detection.precision``: Table of COCO's numbers by copy. Its ``arrays`` hold, by copy (``original``,
        ``LFC.128``), what was found, one image after the other: ``.boxes``, ``.scores``, ``.labels`` (the set's
        classes), ``.counts`` by image, and ``.redrawn``: the average precision on each bootstrap sample, the same
        samples for all copies.
        ``detection.radius``: Curve of average precision by radius, where there are two radii or more.
        ``detection.images_better``: Scalar, images with an object found better on LFC, at the first radius.
        ``detection.objects``: Table of objects found better, equally and worse on LFC, by radius and size. ``arrays``
        hold each object that is none of a crowd: ``photograph`` (its place), ``label``, ``area``, ``box``, its score
        on the ``original`` [object] and on ``LFC`` [radius, object].
        ``detection.better`` and ``detection.worse``: Galleries at the first radius.

    Raises:
        NotApplicable: when the model is no detector, or the images come without boxes.
        PassbandError: for options out of range, or where a kept part is damaged.

    **Source**: high-frequency, section 7 and figures 8 and 9, with r = 128. It states neither where the cut is made,
    nor how copies come to [0, 1], nor what an object's "MAP score" is: the choices above are ours.
    """
    _check(radii, threshold, margin, draws, examples)
    if precision != "float32":
        raise PassbandError(f"probe detection runs in float32, as boxes need their digits; got precision {precision}")
    if not isinstance(model, Detector):
        raise NotApplicable("probe detection needs a detector, such as torchvision:retinanet_resnet50_fpn")
    if not isinstance(batches, SceneBatches):
        raise NotApplicable("probe detection needs images with boxes around their objects, such as coco128")
    bands = tuple(Band(float(radius), shape, "pixel", edge) for radius in sorted(set(radii)))
    cuts = _Cuts(bands, rescale, centered)
    found = _find(model, batches, cuts, resume)
    how: dict[str, Any] = {
        "probe": "detection", "band": ", ".join(map(str, bands)), "radii": [band.cutoff for band in bands],
        "rescale": rescale, "centered": centered, "threshold": threshold, "margin": margin, "draws": draws,
    }  # fmt: skip
    dataset = batches.dataset
    measured = Measured.of(found, dataset.objects, dataset.class_names, draws)
    results: list[Result] = [table(measured, how, _notes(model, batches, cuts))]
    if len(bands) > 1:
        results.append(by_radius(measured, how))
    compared = _compare(found, batches, bands, threshold, margin)
    first = next(one for one in compared if one.radius == float(radii[0]))
    results += [images_better(first, how), _objects(compared, batches, how)]
    if examples:
        band = next(band for band in bands if band.cutoff == first.radius)
        results += [gallery(dataset, first, band, rescale, kind, examples, how) for kind in ("better", "worse")]
    return tuple(results)


def _check(radii: Sequence[float], threshold: float, margin: float, draws: int, examples: int) -> None:
    if not radii:
        raise PassbandError("probe detection: radii needs at least one number, such as radii=128; got none")
    for name, value in (("threshold", threshold), ("margin", margin)):
        if not 0 <= value <= 1:
            raise PassbandError(f"probe detection: {name} lies from 0 to 1; got {value:g}")
    for name, count in (("draws", draws), ("examples", examples)):
        if count < 0:
            raise PassbandError(f"probe detection: {name} is 0 or more; got {count}")


def _find(model: Detector, batches: SceneBatches, cuts: _Cuts, resume: Path | None) -> dict[Copy, list[Found]]:
    """Return what a detector finds in each image and its copies, labels in the set's classes, on the CPU."""
    classes = match(model.spec, batches.dataset)
    said: dict[Copy, list[Found]] = {copy: [] for copy in cuts.copies}
    with untouched(model), torch.no_grad(), exact():
        pieces = _pieces(model, batches, classes, (cuts, model.spec), resume)
        ask, fingerprint = partial(_ask, model, batches, classes, cuts), batches.dataset.fingerprint
        starts = track(range(0, batches.count, batches.size), "detection")
        for arrays in kept(pieces, (((fingerprint, batches.size, at), partial(ask, at)) for at in starts)):
            for number, copy in enumerate(cuts.copies):
                said[copy] += unpacked(arrays, f"{number}.")
    return said


def _pieces(model: Detector, batches: SceneBatches, classes: Tensor, asked: object, folder: Path | None) -> Pieces:
    """Name what answers depend on; what a detector does beside its weights shows in what it finds in an image."""
    if folder is None:
        return Pieces()
    images, _ = next(iter(_from(batches, 0, 1)))
    (found,) = find(model, images, classes)
    return Pieces(make_folder(folder), identity_of(model, asked, torch.cat((found.boxes.flatten(), found.scores))))


def _from(batches: SceneBatches, start: int, count: int) -> SceneBatches:
    """Return so many images as one batch; the others are not read."""
    places = np.arange(start, min(start + count, batches.count))
    return batches.dataset.subset(places).batches(count, batches.device)


def _ask(model: Detector, batches: SceneBatches, classes: Tensor, cuts: _Cuts, start: int) -> Arrays:
    """Return what is found in each copy of a batch's images, by the copy's number."""
    said: dict[Copy, list[Found]] = {copy: [] for copy in cuts.copies}
    images, _ = next(iter(_from(batches, start, batches.size)))
    for image in images:
        for copy, pixels in _copies(image, cuts):
            # One by one: torchvision pads the images of a batch to one size, and what is found then depends on it.
            said[copy] += find(model, [pixels], classes)
    parts = (packed(found, f"{number}.") for number, found in enumerate(said.values()))
    return {name: values for part in parts for name, values in part.items()}


def _copies(image: Tensor, cuts: _Cuts) -> Iterator[tuple[Copy, Tensor]]:
    """Yield every copy of an image, all from one transform."""
    yield ORIGINAL, image
    for band, low, high in sweep(image, cuts.bands):
        yield (LFC, band.cutoff), rescaled(low[None], cuts.rescaling)[0]
        yield (HFC, band.cutoff), rescaled(high[None], cuts.rescaling)[0]
        if cuts.centered:
            yield (CENTERED, band.cutoff), (high + 0.5).clamp(0, 1)


def _notes(model: Detector, batches: SceneBatches, cuts: _Cuts) -> tuple[str, ...]:
    band, names = cuts.bands[0], batches.dataset.class_names
    scale = {"none": "as they are", "clip": "clipped to [0, 1], not rescaled"}.get(
        cuts.rescaling, f"rescaled each by itself ({cuts.rescaling})"
    )
    notes = [
        f"LFC keeps a {band.shape} around zero frequency of each image at its own size, before any resizing, edge "
        f"{band.edge} ({band} and so on), each channel by itself; HFC is the image less LFC. The detector sees them "
        f"{scale}" + ("; centered HFC have 0.5 added before they are clipped." if cuts.centered else "."),
        f"COCO's measure: the mean over classes and IoU 0.50, 0.55 to 0.95; sizes by annotated area. At most {MOST} "
        "detections of each image and class count.",
    ]
    known = set(match(model.spec, batches.dataset).tolist())
    unknown = [name for label, name in enumerate(names) if label not in known]
    if unknown:
        notes.append(f"The detector does not know {', '.join(unknown)}: such objects count as not found.")
    return tuple(notes)


def _compare(
    found: dict[Copy, list[Found]], batches: SceneBatches, bands: Sequence[Band], threshold: float, margin: float
) -> tuple[FoundBetter, ...]:
    there = batches.dataset.objects
    original = match_boxes(found[ORIGINAL], there, threshold)
    area = torch.cat([one.single.areas for one in there]).numpy()
    return tuple(
        FoundBetter(
            band.cutoff, original.object_score, match_boxes(found[LFC, band.cutoff], there, threshold).object_score,
            original.object_image, area, len(there), margin,
        )
        for band in bands
    )  # fmt: skip


def _objects(compared: tuple[FoundBetter, ...], batches: SceneBatches, how: dict[str, Any]) -> Table:
    singles = [one.single for one in batches.dataset.objects]
    first = compared[0]
    arrays = {
        "photograph": first.image, "area": first.area, "original": first.original,
        "label": torch.cat([one.labels for one in singles]).numpy(),
        "box": torch.cat([one.boxes for one in singles]).numpy(),
        "LFC": np.stack([one.low for one in compared]),
    }  # fmt: skip
    crowds = sum(int(one.crowd.sum()) for one in batches.dataset.objects)
    notes = (
        "An object's score is the mean over IoU 0.50, 0.55 to 0.95 of the precision among the detections of its image "
        "and class down to the one that found it, 0 where none did or with less certainty than "
        f"{how['threshold']:g}. Scores that differ by no more than {how['margin']:g} are equal.",
        f"Small is below 32² pixels of annotated area, large from 96² on. Boxes around crowds ({crowds}) have no "
        "score.",
    )
    return objects_table(compared, arrays, how, notes)
