"""Photographs with boxes around what they show: coco128, or any folder in COCO's layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from passband.core.errors import MissingData, PassbandError
from passband.core.store import data_folder

NAME = "coco128"
ANNOTATIONS, IMAGES = Path("annotations") / "instances_val2017.json", "val2017"

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, counted from the upper left corner of the image."""

_IMAGENET: dict[str, tuple[int, ...]] = {
    "airplane": (404, 895),
    "banana": (954,),
    "bear": tuple(range(294, 298)),
    "bench": (703,),
    "bicycle": (444, 671),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "boat": (472, 484, 554, 576, 625, 814, 871, 914),
    "broccoli": (937,),
    "bus": (654, 779, 874),
    "car": (436, 468, 511, 609, 627, 656, 661, 751, 817),
    "cat": tuple(range(281, 286)),
    "cell phone": (487,),
    "dog": tuple(range(151, 269)),
    "elephant": (101, 385, 386),
    "horse": (339,),
    "hot dog": (934,),
    "laptop": (620, 681),
    "microwave": (651,),
    "motorcycle": (665, 670),
    "orange": (950,),
    "pizza": (963,),
    "refrigerator": (760,),
    "teddy bear": (850,),
    "toilet": (861,),
    "traffic light": (920,),
    "train": (466, 547, 820),
    "truck": (555, 569, 675, 717, 864, 867),
    "umbrella": (879,),
    "vase": (883,),
    "zebra": (340,),
}
"""Indices, among ImageNet's 1,000 classes, of those that lie in one of COCO's classes, for COCO's that have some."""

CIFAR10 = {
    "airplane": "airplane", "bird": "bird", "boat": "ship", "car": "automobile", "cat": "cat", "dog": "dog",
    "horse": "horse", "truck": "truck",
}  # fmt: skip
"""COCO's classes that CIFAR-10 has too, with its names; deer and frog are not annotated in COCO."""


@dataclass(frozen=True)
class Thing:
    """Hold one annotated object, or a crowd of them under one box.

    Attributes:
        kind: COCO's name of its class.
    """

    kind: str
    box: Box
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """Hold one photograph's file, its height and width in pixels, and what is annotated in it."""

    path: Path
    size: tuple[int, int]
    things: tuple[Thing, ...]


def coco128(data_dir: Path | None = None) -> tuple[Scene, ...]:
    """Return the 128 photographs of coco128 with their objects, by file name.

    Args:
        data_dir: Where sets lie; ``$PASSBAND_DATA``, else the user's cache folder, when not given.

    Raises:
        MissingData: when the set is not there.
        PassbandError: when its annotations are damaged, or speak of an image that is not there.
    """
    root = data_folder() if data_dir is None else Path(data_dir).expanduser()
    if not (root / NAME / ANNOTATIONS).is_file():
        raise MissingData(
            NAME,
            f"{NAME} is not in {root}: put the first 128 images of COCO train2017 into {NAME}/{IMAGES}/ there and "
            f"their annotations into {NAME}/{ANNOTATIONS}, or name another folder with --data-dir or PASSBAND_DATA",
        )
    return scenes(root / NAME)


def scenes(folder: Path) -> tuple[Scene, ...]:
    """Return the photographs of a folder in COCO's layout with their objects, by file name.

    Args:
        folder: With ``annotations/instances_val2017.json`` and the images in ``val2017/``.

    Raises:
        PassbandError: when the annotations are damaged, or speak of an image that is not there.
    """
    path = folder / ANNOTATIONS
    try:
        found = json.loads(path.read_text())
        things: dict[int, list[Thing]] = {image["id"]: [] for image in found["images"]}
        kinds = {one["id"]: one["name"] for one in found["categories"]}
        for one in found["annotations"]:
            things[one["image_id"]].append(_thing(one, kinds))
        made = [
            Scene(folder / IMAGES / one["file_name"], (one["height"], one["width"]), tuple(things[one["id"]]))
            for one in found["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PassbandError(
            f"{path} cannot be read as COCO's annotations ({type(error).__name__}: {error}); lay the set out anew"
        ) from None
    missing = [scene.path for scene in made if not scene.path.is_file()]
    if missing:
        raise PassbandError(f"{len(missing)} images of {path} are not there, the first {missing[0]}; restore them")
    return tuple(sorted(made, key=lambda scene: scene.path.name))


def _thing(one: dict[str, Any], kinds: dict[int, str]) -> Thing:
    left, top, width, height = one["bbox"]
    return Thing(kinds[one["category_id"]], (left, top, left + width, top + height), bool(one.get("iscrowd", 0)))


@cache
def imagenet() -> dict[str, tuple[str, ...]]:
    """Return the WordNet ids, the names of ImageNet's class folders, that some of COCO's classes take in."""
    from timm.data import ImageNetInfo

    ids = ImageNetInfo().label_names()
    return {kind: tuple(ids[index] for index in indices) for kind, indices in _IMAGENET.items()}
