"""Photographs with boxes around what they show, in COCO's layout: a folder of images and a JSON of instances."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from passband.core.errors import MissingData, PassbandError
from passband.core.store import data_folder

NAME = "coco128"
ANNOTATIONS, IMAGES = Path("annotations") / "instances_val2017.json", "val2017"
BEYOND = 2.0
"""Pixels by which a box may reach over its image's edge, as COCO's own do by rounding; it is cut there."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, counted from the upper left corner of the image."""


@dataclass(frozen=True)
class Thing:
    """Hold one annotated object, or a crowd of them under one box.

    Attributes:
        kind: COCO's name of its class.
        box: Cut at the image's edges.
        crowd: Whether the box is around many.
        area: In pixels, of its outline where that is annotated, else of its box.
    """

    kind: str
    box: Box
    crowd: bool = False
    area: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Hold one photograph's file, its height and width in pixels, and what is annotated in it."""

    path: Path
    size: tuple[int, int]
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Annotations:
    """Hold what a file of instances says.

    Attributes:
        scenes: The photographs, by file name.
        kinds: The names of all classes, by their ids.
        left_out: What was wrong and is not there, a line each.
    """

    scenes: tuple[Scene, ...]
    kinds: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def coco128(data_dir: Path | None = None) -> tuple[Scene, ...]:
    """Return the 128 photographs of coco128 with their objects, by file name.

    Args:
        data_dir: Where sets lie; ``$PASSBAND_DATA``, else the user's cache folder, when not given.

    Raises:
        MissingData: when the set is not there.
        PassbandError: when its annotations are damaged, or speak of an image that is not there.
    """
    root = data_folder() if data_dir is None else Path(data_dir).expanduser()
    check(root)
    return read(root / NAME / IMAGES, root / NAME / ANNOTATIONS).scenes


def check(root: Path) -> None:
    """Refuse a folder of sets in which coco128 is not.

    Raises:
        MissingData: saying where it was looked for and how to get it.
    """
    if not (root / NAME / ANNOTATIONS).is_file():
        raise MissingData(
            NAME,
            f"{NAME} is not in {root}: put the first 128 images of COCO train2017 into {NAME}/{IMAGES}/ there and "
            f"their annotations into {NAME}/{ANNOTATIONS}, or name another folder with --data-dir or PASSBAND_DATA",
        )


def read(images: Path, annotations: Path, *, skip_bad: bool = False, known_bad: Collection[int] = ()) -> Annotations:
    """Read a file of instances and look for its images.

    Photographs without objects stay. Category ids may have gaps.

    Args:
        images: Where the images lie.
        annotations: COCO's JSON of instances.
        skip_bad: Leave out what is wrong, and tell it, in place of refusing the file.
        known_bad: Ids of annotations that are left out and told, whatever is asked, where they are wrong.

    Raises:
        PassbandError: when the file is damaged; naming the first, for an image that is not there or is listed twice,
            and for an annotation of an unknown image or category, or whose box has no area or lies outside its image.
    """
    try:
        found = json.loads(annotations.read_text())
        kinds = _kinds(found["categories"])
        listed = [_listed(one) for one in found["images"]]
        made = [_Annotated.of(one) for one in found["annotations"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PassbandError(
            f"{annotations} cannot be read as COCO's annotations ({type(error).__name__}: {error}); lay it out anew"
        ) from None
    sizes, wrong = _there(images, listed)
    refused = list(wrong)
    gone = {number for number, *_ in listed} - set(sizes)
    things: dict[Any, list[Thing]] = {number: [] for number in sizes}
    for one in made:
        if one.image in gone:
            continue  # told of already, with its image
        said = one.defect(sizes.get(one.image), kinds)
        if said:
            wrong.append(f"annotation {one.name} {said}")
            refused += [] if one.name in known_bad else wrong[-1:]
        else:
            things[one.image].append(one.thing(sizes[one.image][1], kinds))
    if refused and not skip_bad:
        raise PassbandError(
            f"{annotations}: {len(refused)} entries cannot be used, the first: {refused[0]}; mend them, or leave "
            "them out with --skip-bad"
        )
    scenes = [Scene(path, size, tuple(things[number])) for number, (path, size) in sizes.items()]
    names = tuple(name for _, name in sorted(kinds.items()))
    return Annotations(tuple(sorted(scenes, key=lambda scene: scene.path)), names, tuple(wrong))


_Listed = tuple[int | str, str, tuple[int, int]]
"""Id, file name, height and width."""


def _kinds(rows: list[Mapping[str, Any]]) -> dict[int, str]:
    kinds = {int(one["id"]): str(one["name"]) for one in rows}
    if len(kinds) < len(rows):
        raise ValueError("a category id is listed twice")
    return kinds


def _listed(one: Mapping[str, Any]) -> _Listed:
    height, width = int(one["height"]), int(one["width"])
    if height < 1 or width < 1:
        raise ValueError(f"image {one['id']} has {width}×{height} pixels")
    return _id(one["id"]), str(one["file_name"]), (height, width)


def _id(value: Any) -> int | str:
    if not isinstance(value, int | str):
        raise TypeError(f"the id of an image is {value!r}")
    return value


def _there(images: Path, listed: list[_Listed]) -> tuple[dict[int | str, tuple[Path, tuple[int, int]]], list[str]]:
    """Return path and size of each image by its id, and what is wrong with the others."""
    wrong: list[str] = []
    found: dict[int | str, tuple[Path, tuple[int, int]]] = {}
    names: set[str] = set()
    for number, name, size in listed:
        if number in found:
            wrong.append(f"image id {number} ({name}) is listed twice")
        elif name in names:
            wrong.append(f"image {name} is listed twice, once with id {number}")
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            wrong.append(f"image {name} lies outside {images}")
        elif not _is_file(images / name):
            wrong.append(f"image {images / name} is not there")
        else:
            found[number] = images / name, size
            names.add(name)
    return found, wrong


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a name that no disk takes


@dataclass(frozen=True)
class _Annotated:
    """Hold one entry of the file as it stands there."""

    name: int | str
    image: int | str
    category: int
    left: float
    top: float
    width: float
    height: float
    crowd: bool
    area: float | None

    @classmethod
    def of(cls, one: Mapping[str, Any]) -> _Annotated:
        left, top, width, height = (float(value) for value in one["bbox"])
        area = one.get("area")
        crowd = one.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"iscrowd is {crowd!r}")
        own = None if area is None else float(area)
        if own is not None and not (math.isfinite(own) and own >= 0):
            raise ValueError(f"an area is {own}")
        return cls(
            _id(one.get("id", "without id")),
            _id(one["image_id"]),
            int(one["category_id"]),
            left,
            top,
            width,
            height,
            bool(crowd),
            own,
        )

    def defect(self, image: tuple[Path, tuple[int, int]] | None, kinds: Mapping[int, str]) -> str:
        """Say what is wrong with the entry, or nothing."""
        if image is None:
            return f"is of image id {self.image}, which is not listed"
        path, (height, width) = image
        if self.category not in kinds:
            return f"({path.name}) is of category {self.category}, which is not listed"
        box = f"has the box {[self.left, self.top, self.width, self.height]}"
        if not (self.width > 0 and self.height > 0):
            return f"({path.name}) {box}, which has no area"
        over = max(-self.left, -self.top, self.left + self.width - width, self.top + self.height - height)
        right, bottom = self.left + self.width, self.top + self.height
        apart = self.left >= width or self.top >= height or right <= 0 or bottom <= 0
        if not over <= BEYOND or apart:
            return f"({path.name}) {box}, outside its image of {width}×{height} pixels"
        return ""

    def thing(self, size: tuple[int, int], kinds: Mapping[int, str]) -> Thing:
        """Return the object, its box cut at the image's edges."""
        right, bottom = min(self.left + self.width, size[1]), min(self.top + self.height, size[0])
        box = (max(self.left, 0), max(self.top, 0), right, bottom)
        area = self.width * self.height if self.area is None else self.area
        return Thing(kinds[self.category], box, self.crowd, area)
