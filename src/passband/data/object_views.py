"""Square pictures of objects whose place is known, and the same with the object's middle hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from passband.core.errors import PassbandError
from passband.data.coco import Box, Scene, Thing
from passband.data.decode import read_file
from passband.data.photos import photos

GRAY = 128
SHARE = 0.35
"""Share of a crop's area that its object's box covers, where its shape and the image allow it."""
LEAST, MOST = 0.2, 0.5
"""Shares that are left out below and above; between them they hold what is about a quarter to a half."""
CROWDED = 0.7
"""Largest share of a picture that all boxes of one class may cover together."""
_MARGIN = 0.05
_LEAST_PIXELS = 16


@dataclass(frozen=True, eq=False)
class ObjectViews:
    """Hold pictures, each of one class of objects, several of one object next to each other.

    Attributes:
        what: What they are, for people.
        images: uint8 [N, side, side, 3].
        inside: float32 [N, side, side], the share of each pixel that lies in a box of that class.
        hidden: float32 [N, side, side], the share of each pixel that the occluder covers.
        kinds: The class of each.
        absent: Of each a class that is not annotated in its photograph.
        objects: Which object each shows, int64 [N], from 0 on.
        photographs: Which photograph each comes from, int64 [N], from 0 on; objects in one are not independent.
    """

    what: str
    images: np.ndarray
    inside: np.ndarray
    hidden: np.ndarray
    kinds: tuple[str, ...]
    absent: tuple[str, ...]
    objects: np.ndarray
    photographs: np.ndarray

    @property
    def occluded(self) -> np.ndarray:
        """The pictures with a gray rectangle over the middle of the object, a quarter of its box."""
        weight = self.hidden[..., None]
        mixed: np.ndarray = np.rint(self.images * (1 - weight) + GRAY * weight).astype(np.uint8)
        return mixed

    @property
    def visible(self) -> np.ndarray:
        """The share of each pixel that lies in a box and not under the occluder, float32 [N, side, side]."""
        seen: np.ndarray = self.inside * (1 - self.hidden)
        return seen

    def shared(self) -> ObjectViews | None:
        """Return the pictures of photographs with two classes, the first two of each, or None where there are none."""
        places = [np.flatnonzero(self.photographs == one) for one in np.unique(self.photographs)]
        chosen = [place for found in places if len(found) > 1 for place in found[:2]]
        return self.take(chosen) if chosen else None

    def take(self, places: Sequence[int]) -> ObjectViews:
        """Return some of the pictures."""
        at = np.asarray(places)
        return replace(
            self,
            images=self.images[at], inside=self.inside[at], hidden=self.hidden[at],
            kinds=tuple(self.kinds[one] for one in at), absent=tuple(self.absent[one] for one in at),
            objects=self.objects[at], photographs=self.photographs[at],
        )  # fmt: skip


@dataclass(frozen=True)
class _View:
    image: np.ndarray
    inside: np.ndarray
    hidden: np.ndarray
    kind: str
    absent: str
    key: tuple[str, object]


def crops(scenes: Sequence[Scene], kinds: Sequence[str], side: int) -> ObjectViews:
    """Cut squares out of photographs, with one object near a corner each, in up to four ways for an object.

    The object lies near each of the square's corners in turn, so that a network which looks at one place whatever it
    sees gains nothing; at the photograph's border some of the four are the same, and one is kept. Left out are crowds,
    objects of less than 16 pixels, too long or too large ones (`LEAST`, `MOST`), and squares that objects of the class
    nearly fill (`CROWDED`).

    Args:
        scenes: The photographs.
        kinds: Classes of objects, in the order in which an absent one is looked for.
        side: To come to, in pixels, with antialiasing.
    """
    views = []
    for scene in scenes:
        for number, thing in enumerate(scene.things):
            places = _places(thing, scene.size) if thing.kind in kinds and not thing.crowd else []
            for place in places:
                views.append(_seen(scene, thing, place, side, kinds, (scene.path.name, number)))
    what = f"crops of coco128 at {side} pixels, with one object near a corner"
    return _together(what, [view for view in views if view.inside.mean() <= CROWDED])


def squashed(scenes: Sequence[Scene], kinds: Sequence[str], side: int) -> ObjectViews:
    """Squash whole photographs into squares, once for each class of objects in them, their aspect not kept.

    Left out are classes whose boxes together cover less than a fiftieth or more than `CROWDED` of the photograph.

    Args:
        scenes: As for :func:`crops`.
        kinds: As for :func:`crops`.
        side: To come to, in pixels, with antialiasing.
    """
    views = []
    for scene in scenes:
        whole: Box = (0, 0, scene.size[1], scene.size[0])
        for kind in dict.fromkeys(thing.kind for thing in scene.things if thing.kind in kinds):
            largest = max((thing for thing in scene.things if thing.kind == kind), key=_area)
            views.append(_seen(scene, largest, whole, side, kinds, (scene.path.name, kind)))
    what = f"photographs of coco128, squashed to {side} pixels"
    return _together(what, [view for view in views if 0.02 <= view.inside.mean() <= CROWDED])


def pasted(count: int) -> ObjectViews:
    """Paste a smaller built-in photograph near each corner of another one, so that its box is known.

    Args:
        count: Pastings, each in four ways.
    """
    whole = photos("test")
    names = whole.class_names
    labels = np.asarray(whole.labels)
    size = whole.size[0]
    half = size // 2
    views = []
    for number in range(count):
        # Any two classes; the step of 2 visits all fifteen, the background is five classes on.
        kind, behind = number * 2 % len(names), (number * 2 + 5) % len(names)
        front, back = (whole.images[np.flatnonzero(labels == one)[number]] for one in (kind, behind))
        patch = np.asarray(Image.fromarray(front).resize((half, half), Image.Resampling.BOX))
        for top in (1, half - 1):
            for left in (1, half - 1):
                image = back.copy()
                image[top : top + half, left : left + half] = patch
                box: Box = (left, top, left + half, top + half)
                hidden = _cover(_middle(box), size)
                absent = names[(number * 2 + 1) % len(names)]
                views.append(_View(image, _cover(box, size), hidden, names[kind], absent, (str(number), 0)))
    return _together(f"built-in photographs of {half} pixels pasted into others", views)


def _area(thing: Thing) -> float:
    return (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])


def _places(thing: Thing, size: tuple[int, int]) -> list[Box]:
    """Return the squares around an object that lie in the photograph, the object near each of their corners."""
    left, top, right, bottom = thing.box
    width, height = right - left, bottom - top
    if min(width, height) < _LEAST_PIXELS or max(width, height) > min(size):
        return []
    side = min(max((width * height / SHARE) ** 0.5, max(width, height)), min(size))
    if not LEAST <= width * height / side**2 <= MOST:
        return []
    across = _starts(left, right, side, size[1])
    down = _starts(top, bottom, side, size[0])
    return [(x, y, x + side, y + side) for y in down for x in across]


def _starts(low: float, high: float, side: float, length: int) -> list[float]:
    """Return where a crop begins so that ``low`` to ``high`` lies near its beginning, and near its end."""
    margin = min(_MARGIN * side, (side - (high - low)) / 2)
    wanted = (low - margin, high + margin - side)
    starts = [min(max(start, 0.0), length - side) for start in wanted]
    return starts if abs(starts[0] - starts[1]) >= 1 else starts[:1]


def _seen(scene: Scene, thing: Thing, place: Box, side: int, kinds: Sequence[str], key: tuple[str, object]) -> _View:
    """Return the part of a photograph at ``place``, brought to ``side`` pixels."""
    pixels, _ = read_file(scene.path)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=place)
    boxes = [_moved(one.box, place, side) for one in scene.things if one.kind == thing.kind]
    inside = np.max([_cover(box, side) for box in boxes], axis=0)
    hidden = _cover(_middle(_moved(thing.box, place, side)), side)
    return _View(np.asarray(image), inside, hidden, thing.kind, _absent(scene, thing.kind, kinds), key)


def _absent(scene: Scene, kind: str, kinds: Sequence[str]) -> str:
    """Return the first class after ``kind`` that the photograph does not show."""
    shown = {thing.kind for thing in scene.things}
    first = list(kinds).index(kind)
    order = [*kinds[first:], *kinds[:first]]
    return next((one for one in order if one not in shown), kind)


def _moved(box: Box, place: Box, side: int) -> Box:
    x, y = side / (place[2] - place[0]), side / (place[3] - place[1])
    return (box[0] - place[0]) * x, (box[1] - place[1]) * y, (box[2] - place[0]) * x, (box[3] - place[1]) * y


def _middle(box: Box) -> Box:
    """Return the middle half of a box in both directions."""
    x, y = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    return box[0] + x, box[1] + y, box[2] - x, box[3] - y


def _cover(box: Box, side: int) -> np.ndarray:
    """Return the share of each pixel that a box covers, float32 [side, side]."""
    edges = np.arange(side)
    across, down = (
        np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0, 1)
        for low, high in ((box[0], box[2]), (box[1], box[3]))
    )
    return np.outer(down, across).astype(np.float32)


def _together(what: str, views: Sequence[_View]) -> ObjectViews:
    if not views:
        raise PassbandError(f"{what}: needs an object of the classes asked for, neither small nor large; there is none")
    keys = list(dict.fromkeys(view.key for view in views))
    sources = list(dict.fromkeys(photograph for photograph, _ in keys))
    return ObjectViews(
        what=what,
        images=np.stack([view.image for view in views]),
        inside=np.stack([view.inside for view in views]),
        hidden=np.stack([view.hidden for view in views]),
        kinds=tuple(view.kind for view in views),
        absent=tuple(view.absent for view in views),
        objects=np.array([keys.index(view.key) for view in views]),
        photographs=np.array([sources.index(view.key[0]) for view in views]),
    )
