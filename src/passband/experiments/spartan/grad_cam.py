"""Does SpaRTAN see whole objects, hidden ones too, and each kind by itself? Grad-CAM measured against boxes.

The paper shows heat maps of single images and names no peer. Here they are measured, on objects whose boxes are known,
against three networks of about as many parameters, at full scale of more. All numbers are of the class of the object:

- ``inside``: the share of a map's energy (its sum) in the boxes of its class; ``beyond area`` is what that exceeds the
  boxes' share of the picture by, and ``beyond others`` what it exceeds the share by that the network's maps of other
  photographs have in the same boxes. The first is chance for a network that looks anywhere, the second for one that
  looks at the same places whatever it sees. An empty map counts as an even one.
- ``occluded``: as ``beyond area`` with the middle half of the object in both directions hidden under gray, of what is
  left of it: energy on the occluder counts as outside.
- ``extent``: how evenly a map fills the boxes, 1 where it is even there, 1/n where one of n places has it all; of
  ``occluded extent`` what is left of them. It tells "full semantics" from a part, without a threshold, but a map that
  is even everywhere has 1 too: it is read beside ``inside``.
- ``absent``: as ``beyond area``, of the map of a class that the photograph does not show; ``own less absent`` is by how
  much the object's own class has more.

The last stages of the networks differ in resolution (2×2 places for 32 pixels, ResNet 4×4; ConvNeXt's has one place
there, and its map is that of the stage before, ``stages.2``, of 2×2: ``layer`` says whose a map is), and coarse maps
reach over boxes. So ``one grid`` is ``beyond area`` with all maps averaged to the same places, and extents are always
measured there. ``finer`` is ``beyond area`` at the last stage of four places a side or more (14 at full scale).

A SpaRTAN that was not trained stands beside. It is stem, patch embeddings and head: its layer scales are 1e-5, so that
its mixers play no part.

Below full scale there are no weights of ImageNet: the networks are those that learned cifar10-jpeg (at smoke the
built-in photographs), and the pictures are **crops of coco128 at 32 pixels**, not its photographs: squares around
objects of the eight classes that CIFAR-10 and COCO share, in which the box covers about a quarter to a half of the area
and lies near each corner in turn. At smoke, built-in photographs are pasted into others. At full scale the networks
learned ImageNet and the photographs are squashed to 224 pixels as the paper's are (aspect not kept); of COCO's classes
that take in several of ImageNet's, the class with the largest logit is explained.

Intervals draw photographs anew, as objects in one are not independent; there are about twenty below full scale, so
that only large differences show.

**Source**: spartan, section IV-A3, figures 1b, 5 and 6. No numbers. The layer, the last block of stage 4, as in its
released code; of the peers their last stage of more than one place (:func:`passband.probes.cam_layer.layer_named`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passband.core.claims import Claim, Rows
from passband.core.errors import PassbandError
from passband.core.results import Cell, Column, Gallery, Picture, Result
from passband.core.scale import Scale
from passband.data import catalog
from passband.data.coco import coco128
from passband.data.coco_names import CIFAR10, imagenet
from passband.data.object_views import ObjectViews, crops, pasted, squashed
from passband.data.photos import photos
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.camera import Camera, Groups, outputs
from passband.experiments.spartan.settings import PEERS, SEEDS, SETS, SPARTAN, UNTRAINED, subject_of
from passband.models.wrap import Classifier
from passband.probes.pointing import energy_elsewhere, energy_inside, extent, on_grid
from passband.probes.saliency import enlarged, painted, strip
from passband.sweeps.lab import Lab

GRID = {Scale.SMOKE: 2, Scale.SMALL: 2, Scale.FULL: 7}
"""Places a side of the coarsest map at each scale, to which all are averaged for ``one grid``."""
COARSEST = {Scale.SMOKE: 8, Scale.SMALL: 8, Scale.FULL: 16}
"""Pixels per place, at most, of the stage that ``finer`` is read from."""
INSIDE, BEYOND, OTHERS, ONE_GRID, HIDDEN = "inside", "beyond area", "beyond others", "one grid", "occluded"
FINER = "finer"
EXTENT, HIDDEN_EXTENT, ABSENT, OWN = "extent", "occluded extent", "absent", "own less absent"
PHOTOGRAPHS = "photographs"
_SHOWN = 8


@dataclass(frozen=True)
class Set:
    """Hold what a scale is measured on.

    Attributes:
        single: Pictures of one class each, of two photographs at least.
        double: Pictures of figure 6: each photograph with two classes follows itself, once for each.
        groups: What the network calls the classes.
    """

    single: ObjectViews
    double: ObjectViews | None
    groups: Groups

    @property
    def kinds(self) -> tuple[str, ...]:
        """All classes whose maps are made."""
        more = self.double.kinds if self.double else ()
        return tuple(dict.fromkeys((*self.single.kinds, *self.single.absent, *more)))


def cases(scale: Scale) -> list[Case]:
    """List SpaRTAN, trained and not, and its peers, at smoke the first."""
    return [
        {"case": name, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for name in (SPARTAN, UNTRAINED, *(PEERS[:1] if scale is Scale.SMOKE else PEERS))
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure its maps of the objects."""
    pictures = objects(lab)
    names = catalog.load(case["data"], data_dir=lab.data_dir, limit=1).class_names
    for kind in pictures.kinds:  # refused before any training
        outputs(names, pictures.groups[kind], case["data"])
    run, subject = subject_of(case, lab)
    camera = Camera(subject, run, lab, pictures.groups)
    single = pictures.single
    own, answers, layer = camera.maps(single.images, single.kinds)
    hidden, *_ = camera.maps(single.occluded, single.kinds)
    absent, *_ = camera.maps(single.images, single.absent)
    scores = _scores(single, own, hidden, absent, GRID[lab.scale])
    finer, *_ = camera.maps(single.images, single.kinds, layer=finer_stage(subject.model, lab.scale))
    scores[FINER] = _beyond(finer, single.inside)
    right = [answers[at] in camera.indices(kind) for at, kind in enumerate(single.kinds)]
    samples = {column: _by_photograph(one, single) for column, one in scores.items()}
    verdicts = {"accuracy": _by_photograph(np.array(right, float), single)}
    row: dict[str, Cell] = {"accuracy": 100 * float(verdicts["accuracy"].mean())}
    row |= {column: float(one.mean()) for column, one in samples.items()}
    row |= {
        "area": 100 * float(_by_photograph(single.inside.mean((1, 2)), single).mean()),
        "empty": 100 * float((own.sum((1, 2)) == 0).float().mean()),
        "layer": layer, "grid": f"{own.shape[1]}×{own.shape[2]}", "objects": int(single.objects.max()) + 1,
        "photographs": int(single.photographs.max()) + 1, "pictures": single.what, "run": run.digest,
    }  # fmt: skip
    shown: list[Result] = [] if case["case"] == UNTRAINED else _galleries(pictures, own, hidden, camera, row)
    drawn = dict.fromkeys((*samples, *verdicts), PHOTOGRAPHS)
    return Measured(row, tuple(shown), verdicts=verdicts, samples=samples, drawn_from=drawn)


def objects(lab: Lab) -> Set:
    """Return the pictures of a scale.

    Raises:
        MissingData: when coco128 is not there, above smoke.
        PassbandError: when fewer than two of its photographs show objects that can be used.
    """
    if lab.scale is Scale.SMOKE:
        return Set(pasted(8), None, {kind: (kind,) for kind in photos("test").class_names})
    scenes = coco128(lab.data_dir)
    full = lab.scale is Scale.FULL
    groups: Groups = imagenet() if full else {kind: (name,) for kind, name in CIFAR10.items()}
    whole = squashed(scenes, list(groups), 224 if full else 32)
    single = whole if full else crops(scenes, list(groups), 32)
    if (count := int(single.photographs.max()) + 1) < 2:
        raise PassbandError(f"grad-cam needs two photographs with objects, and coco128 gives {count}: lay it out anew")
    return Set(single, whole.shared(), groups)


def finer_stage(model: Classifier, scale: Scale) -> str:
    """Return the last stage of a network with enough places for its maps."""
    stages: Any = model.inner.feature_info
    name: str = [one["module"] for one in stages if one["reduction"] <= COARSEST[scale]][-1]
    return name


def _scores(single: ObjectViews, own: Tensor, hidden: Tensor, absent: Tensor, places: int) -> dict[str, np.ndarray]:
    """Return what each picture's maps give, by column, in points, extents as they are."""
    size = (single.inside.shape[1], single.inside.shape[2])
    inside, visible = torch.from_numpy(single.inside), torch.from_numpy(single.visible)
    large, large_absent = enlarged(own, size), enlarged(absent, size)
    coarse, coarse_hidden = (on_grid(maps, places) for maps in (own, hidden))
    share = energy_inside(large, inside)
    points = {
        INSIDE: share,
        OTHERS: share - energy_elsewhere(large, inside, torch.from_numpy(single.photographs)),
        OWN: share - energy_inside(large_absent, inside),
    }
    extents = {
        EXTENT: extent(enlarged(coarse, size), inside),
        HIDDEN_EXTENT: extent(enlarged(coarse_hidden, size), visible),
    }
    return {
        **{column: 100 * one.double().numpy() for column, one in points.items()},
        **{column: one.double().numpy() for column, one in extents.items()},
        BEYOND: _beyond(own, single.inside),
        ONE_GRID: _beyond(coarse, single.inside),
        HIDDEN: _beyond(hidden, single.visible),
        ABSENT: _beyond(absent, single.inside),
    }


def _beyond(maps: Tensor, boxes: np.ndarray) -> np.ndarray:
    """Return by how many points more of each map lies inside than the boxes' share of the picture."""
    inside = torch.from_numpy(boxes)
    share = energy_inside(enlarged(maps, (boxes.shape[1], boxes.shape[2])), inside)
    more: np.ndarray = 100 * (share - inside.mean((1, 2))).double().numpy()
    return more


def _by_photograph(scores: np.ndarray, single: ObjectViews) -> np.ndarray:
    """Return the mean over the pictures of each photograph."""
    counts = np.bincount(single.photographs)
    means: np.ndarray = np.bincount(single.photographs, weights=scores) / counts
    return means


def _galleries(pictures: Set, own: Tensor, hidden: Tensor, camera: Camera, row: dict[str, Cell]) -> list[Result]:
    """Show the first picture of some objects, whole and occluded, and photographs with two kinds of objects."""
    single = pictures.single
    first = np.unique(single.objects, return_index=True)[1]
    chosen = first[np.linspace(0, len(first) - 1, min(_SHOWN, len(first))).round().astype(int)]
    shown = [
        Picture(
            image=strip(
                [_outlined(single.images[at], single.inside[at]), _laid(single.images[at], own[at]),
                 single.occluded[at], _laid(single.occluded[at], hidden[at])]
            ),
            caption=single.kinds[at],
        )
        for at in chosen
    ]  # fmt: skip
    notes = (
        f"The pictures are {single.what}. Each map is drawn from 0 (dark) to its own largest value (yellow); it has "
        f"{row['grid']} places, enlarged bilinearly.",
    )
    title = "Grad-CAM of the object's class: its box, the map, the object's middle hidden, the map"
    found: list[Result] = [Gallery(name="objects", title=title, notes=notes, pictures=tuple(shown))]
    return found if pictures.double is None else [*found, _double(pictures.double, camera)]


def _double(views: ObjectViews, camera: Camera) -> Gallery:
    """Show photographs with two kinds of objects beside the map of each."""
    maps, *_ = camera.maps(views.images, views.kinds)
    shown = []
    for at in range(0, len(views.kinds), 2):
        laid = [_laid(views.images[one], maps[one]) for one in (at, at + 1)]
        caption = f"{views.kinds[at]}, {views.kinds[at + 1]}"
        shown.append(Picture(image=strip([views.images[at], *laid]), caption=caption))
    note = f"The pictures are {views.what}, with two kinds of objects; the maps are in the caption's order."
    title = "Grad-CAM of two kinds of objects in one photograph"
    return Gallery(name="two_kinds", title=title, notes=(note,), pictures=tuple(shown[:_SHOWN]))


def _laid(image: np.ndarray, place: Tensor) -> np.ndarray:
    return painted(image, enlarged(place[None], (image.shape[0], image.shape[1]))[0].numpy())


def _outlined(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Darken what lies outside of the boxes."""
    dimmed: np.ndarray = (image * (0.4 + 0.6 * inside[..., None])).astype(np.uint8)
    return dimmed


_FIGURE_1 = "spartan, section I, figure 1b"
_SECTION = "spartan, section IV-A3, figure 5"
_FULL = (
    "The proposed method successfully captures the full semantics of a panda, even in the presence of occlusions, "
    "whereas the existing method only identifies partial semantics"
)
_SHARP = "Our model effectively captures all the semantic information while maintaining a sharp focus"
_ALONG = "Control, not in the paper"


def _claim(name: str, sentence: str, place: str, margin: Callable[[Rows], float | None], **settings: Any) -> Claim:
    return Claim(name, sentence, place, margin, **{"drawn": PHOTOGRAPHS, "smallest": 2.0, **settings})


def _own(name: str, column: str, sentence: str, place: str = _SECTION) -> Claim:
    return _claim(name, sentence, place, lambda rows: value(rows, SPARTAN, column))


def _against(peer: str) -> tuple[Claim, ...]:
    def more(column: str) -> Callable[[Rows], float | None]:
        return lambda rows: difference(rows, SPARTAN, peer, column)

    extents: dict[str, Any] = {"unit": "of extent", "smallest": 0.05}
    return (
        _claim(
            f"more on what is left of a hidden object than {peer}",
            f"{_FULL}: here by how much more of the map's energy lies on what is left of the object than {peer}'s.",
            _FIGURE_1, more(HIDDEN),
        ),
        _claim(
            f"fills what is left of a hidden object more than {peer}",
            f"{_FULL}: here how evenly the map fills what is left of the object, against {peer}'s on the same grid.",
            _FIGURE_1, more(HIDDEN_EXTENT), **extents,
        ),
        _claim(
            f"more inside than {peer}", f"{_SHARP}: here by how much more of the map's energy lies inside the object's "
            f"boxes than of {peer}'s.", _SECTION, more(BEYOND),
        ),
        _claim(
            f"fills more than {peer}", f"{_SHARP}: here how evenly the map fills the boxes, against {peer}'s on the "
            "same grid.", _SECTION, more(EXTENT), **extents,
        ),
        _claim(
            f"more inside than {peer}, one grid", f"{_ALONG}: the same with all maps averaged to one grid.", _SECTION,
            more(ONE_GRID),
        ),
    )  # fmt: skip


_RECOGNIZES = (
    "These showcase the capability of the model to retain a high level of accuracy and clarity in recognizing the "
    "objects' key features"
)
_APART = "The model demonstrated its ability to accurately distinguish and interpret the semantics of different objects"

EXPERIMENT = Experiment(
    title="Grad-CAM against the objects' boxes",
    source="spartan, figures 1b, 5 and 6",
    columns=(
        Column(name="accuracy", unit="%"), Column(name=INSIDE, unit="%"), Column(name="area", unit="%"),
        *(Column(name=name, unit="points") for name in (BEYOND, OTHERS, ONE_GRID, FINER, HIDDEN)),
        Column(name=EXTENT), Column(name=HIDDEN_EXTENT),
        *(Column(name=name, unit="points") for name in (ABSENT, OWN)),
        Column(name="empty", unit="%"),
        *(Column(name=name) for name in ("layer", "grid", "objects", "photographs", "pictures", "run")),
    ),
    cases=cases,
    measure=measure,
    claims=(
        *(claim for peer in PEERS for claim in _against(peer)),
        _own(
            "inside beyond chance", BEYOND,
            f"{_RECOGNIZES}: here more of the map's energy lies inside than the boxes' share of the picture.",
        ),
        _own(
            "hidden objects beyond chance", HIDDEN, "It accurately extracts semantic features even in the presence of "
            "occlusions: here more energy lies on what is left of the object than its share of the picture.",
        ),
        _own(
            "tells kinds of objects apart", OWN, f"{_APART}: here the object's own class has more energy inside its "
            "boxes than a class that the photograph does not show.", "spartan, section IV-A3, figure 6",
        ),
        _own("inside beyond other maps", OTHERS, f"{_ALONG}: more energy than of its maps of other photographs."),
        _own("inside beyond chance, finer", FINER, f"{_ALONG}: beyond the boxes' share, at the finer stage."),
        _claim(
            "training puts it there",
            f"{_ALONG}: a trained SpaRTAN has more energy inside than one that was not trained (its layer scales are "
            "1e-5, so that its mixers play no part).",
            _SECTION, lambda rows: difference(rows, SPARTAN, UNTRAINED, BEYOND),
        ),
    ),
)  # fmt: skip
