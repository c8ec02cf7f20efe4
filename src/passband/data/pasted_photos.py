"""The built-in scenes: crops of photographs inside scikit-image's wheel, pasted on others, so that boxes are known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from passband.data.catalog import Split
from passband.data.objects import Objects
from passband.data.photos import photograph
from passband.data.scenes import SceneSet

NAME = "pasted-photos"
CLASSES = ("brick.png", "chelsea.png", "coins.png", "coffee.png")
"""What is pasted: a crop of a photograph is an object of its class."""
BEHIND = ("grass.png", "gravel.png", "camera.png", "rocket.jpg")
"""What it is pasted on."""
SIZES = ((64, 96), (96, 64), (96, 96))
"""Height and width of the scenes, in turns."""
SIDES = (20, 28, 36)
"""Height and width of a crop, each drawn from these."""
COUNTS: dict[Split, int] = {"train": 24, "test": 16}
EMPTY, CROWDED = 5, 7
"""Of so many scenes, the one in the place of the first has no object, and of that of the second a crowd."""

Draw = Callable[[int], int]
"""A number of ways to one of them, counted from 0."""


@cache
def pasted_photos(split: Split) -> SceneSet:
    """Return the built-in scenes, the same on every machine.

    A scene of 64 to 96 pixels a side shows one to three crops of 20 to 36, which do not overlap, of four classes. Train
    scenes are cut from the left halves of photographs, test scenes from the right halves. One scene has no object, and
    one a crowd: two crops of one class side by side under one box.

    Args:
        split: ``"train"`` (24 scenes) or ``"test"`` (16).

    Raises:
        PassbandError: when scikit-image is there without its photographs.
    """
    raw = np.random.PCG64({"train": 0, "test": 1}[split])

    def draw(ways: int) -> int:
        # The raw bits, which numpy keeps from version to version.
        return int(raw.random_raw() % ways)

    made = [_scene(number, split, draw) for number in range(COUNTS[split])]
    ids = tuple(f"{split}-{number:02d}" for number in range(len(made)))
    pixels = {name: one.pixels for name, one in zip(ids, made, strict=True)}
    digest = hashlib.sha256(f"{NAME}/{split}\n".encode())
    for one in made:
        there = (one.objects.boxes, one.objects.labels, one.objects.crowd)
        digest.update(one.pixels.tobytes() + b"".join(values.numpy().tobytes() for values in there))
    return SceneSet(
        name=NAME,
        ids=ids,
        sizes=tuple(one.pixels.shape[:2] for one in made),
        objects=tuple(one.objects for one in made),
        read=pixels.__getitem__,
        class_names=tuple(Path(name).stem for name in CLASSES),
        fingerprint=digest.hexdigest(),
        notes=(f"{NAME}: crops of four photographs pasted on four others",),
    )


@dataclass(frozen=True)
class _Made:
    pixels: np.ndarray
    objects: Objects


def _scene(number: int, split: Split, draw: Draw) -> _Made:
    height, width = SIZES[number % len(SIZES)]
    canvas = _cut(BEHIND[draw(len(BEHIND))], (height, width), split, draw).copy()
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    crowd: list[bool] = []
    for _ in range(0 if number == EMPTY else 1 + draw(3)):
        label, many = draw(len(CLASSES)), number == CROWDED and not boxes
        tall, wide = SIDES[draw(len(SIDES))], SIDES[draw(len(SIDES))]
        wide = 2 * wide if many and 2 * wide <= width else wide
        left, top = draw(width - wide + 1), draw(height - tall + 1)
        box = (left, top, left + wide, top + tall)
        if any(_meet(box, other) for other in boxes):
            continue
        halves = 2 if many else 1
        for half in range(halves):
            part = wide // halves
            crop = _cut(CLASSES[label], (tall, part), split, draw)
            canvas[top : top + tall, left + half * part : left + (half + 1) * part] = crop
        boxes.append(box)
        labels.append(label)
        crowd.append(many)
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    objects = Objects(corners, torch.tensor(labels, dtype=torch.int64), torch.tensor(crowd, dtype=torch.bool), areas)
    canvas.flags.writeable = False
    return _Made(canvas, objects)


def _meet(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _cut(name: str, size: tuple[int, int], split: Split, draw: Draw) -> np.ndarray:
    photo = _photo(name)
    middle = photo.shape[1] // 2
    half = photo[:, :middle] if split == "train" else photo[:, middle:]
    top, left = draw(half.shape[0] - size[0] + 1), draw(half.shape[1] - size[1] + 1)
    return half[top : top + size[0], left : left + size[1]]


@cache
def _photo(name: str) -> np.ndarray:
    with Image.open(photograph(name)) as image:
        return np.asarray(image.convert("RGB"))
