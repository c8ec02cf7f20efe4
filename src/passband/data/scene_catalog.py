"""Every set of scenes by its name: ``coco128``, ``coco``, ``coco:PATH``, ``pasted-photos``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from passband.core.errors import MissingData, PassbandError, unknown
from passband.core.store import data_folder
from passband.data import coco
from passband.data.catalog import SCENES, Split
from passband.data.decode import read_file
from passband.data.objects import Objects
from passband.data.pasted_photos import NAME as PASTED
from passband.data.pasted_photos import pasted_photos
from passband.data.scenes import SceneSet

_COCO: dict[Split, tuple[str, str]] = {
    "train": ("train2017", "instances_train2017.json"),
    "test": ("val2017", "instances_val2017.json"),
}
"""COCO 2017's folder of images and file of instances."""
_FLAT = (918, 2206849)
"""Annotations of COCO's own train2017 whose boxes have a height of 0."""


def names(data_dir: Path | None = None) -> tuple[tuple[str, str, str], ...]:
    """List every set: its name, a line about it, and where its data is looked for."""
    root = data_folder() if data_dir is None else data_dir
    return (
        (coco.NAME, "scenes with boxes: 128 photographs of COCO", str(root / coco.NAME)),
        ("coco", "scenes with boxes: COCO 2017, 80 classes, 118,287 + 5,000 photographs", str(root / "coco")),
        ("coco:PATH", "scenes with boxes: yours in COCO's layout", "PATH"),
        (PASTED, "scenes with boxes: photographs pasted on others, 24 + 16", "built in (scikit-image)"),
    )


def load(
    name: str,
    split: Split = "test",
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> SceneSet:
    """Load a set of scenes.

    Args:
        name: ``coco128``; ``coco``, COCO 2017; ``coco:PATH``, a folder with ``annotations/`` and images in COCO's
            layout; ``pasted-photos``.
        split: ``"train"`` or ``"test"``. The 128 of coco128 are both.
        data_dir: Where sets lie; ``$PASSBAND_DATA``, else the user's cache folder, when not given.
        limit: Take the first so many of one fixed permutation.
        seed: Of that permutation.
        skip_bad: Leave out what is wrong in the annotations, and count it in the notes.

    Raises:
        MissingData: when the set is not there.
        PassbandError: for an unknown name, or annotations that are damaged.
    """
    if split not in _COCO:
        raise unknown("split", split, _COCO)
    found = _whole(name, split, data_dir, skip_bad)
    return found if limit is None else found.take(limit, seed)


def _whole(name: str, split: Split, data_dir: Path | None, skip_bad: bool) -> SceneSet:
    root = data_folder() if data_dir is None else Path(data_dir).expanduser()
    kind, colon, path = name.partition(":")
    if name == PASTED:
        return pasted_photos(split)
    if name == coco.NAME:
        coco.check(root)
        note = "coco128: 128 photographs of COCO's training set, the same ones to train and to test on"
        return _set(name, root / name / coco.IMAGES, root / name / coco.ANNOTATIONS, skip_bad, (note,))
    if name == "coco":
        images, instances = _COCO[split]
        if not (root / name / "annotations" / instances).is_file():
            raise MissingData(
                name,
                f"coco is not in {root}: unpack COCO 2017 (cocodataset.org) there, coco/train2017/, coco/val2017/ and "
                "coco/annotations/, or name another folder with --data-dir or PASSBAND_DATA, or as coco:PATH",
            )
        return _set(name, root / name / images, root / name / "annotations" / instances, skip_bad, known_bad=_FLAT)
    if kind == "coco" and colon:
        return _own(name, Path(path).expanduser(), split, skip_bad)
    raise unknown("set of scenes", name, SCENES, hint="a folder of yours in COCO's layout is coco:PATH")


def _own(name: str, folder: Path, split: Split, skip_bad: bool) -> SceneSet:
    """Find the instances of a user's folder: of the split, else of the only one there is."""
    there = {one: _pair(folder, one) for one in _COCO}
    found = there[split] or there["test"] or there["train"]
    if found is None:
        raise PassbandError(
            f"{folder} is not in COCO's layout: annotations/instances_val2017.json beside val2017/ was looked for, and "
            "train2017, and both without the year; give a folder that has one"
        )
    images, instances = found
    alone = there[split] is None
    note = f"{name}: has {images.name} alone, which is taken to train and to test on"
    return _set(name, images, instances, skip_bad, (note,) if alone else ())


def _pair(folder: Path, split: Split) -> tuple[Path, Path] | None:
    year = _COCO[split][0]
    for images in (year, year.removesuffix("2017")):
        instances = folder / "annotations" / f"instances_{images}.json"
        if instances.is_file():
            return folder / images, instances
    return None


def _set(
    name: str,
    images: Path,
    instances: Path,
    skip_bad: bool,
    notes: tuple[str, ...] = (),
    known_bad: Collection[int] = (),
) -> SceneSet:
    found = coco.read(images, instances, skip_bad=skip_bad, known_bad=known_bad)
    place = {kind: index for index, kind in enumerate(found.kinds)}
    objects = tuple(_objects(scene.things, place) for scene in found.scenes)
    sizes = {scene.path.relative_to(images).as_posix(): scene.size for scene in found.scenes}
    if found.left_out:
        notes += (f"{name}: {len(found.left_out)} entries were left out; the first: {found.left_out[0]}",)
    return SceneSet(
        name=name,
        ids=tuple(sizes),
        sizes=tuple(sizes.values()),
        objects=objects,
        read=partial(_pixels, images, sizes),
        class_names=found.kinds,
        fingerprint=_fingerprint(name, sizes, found, objects),
        notes=notes,
    )


def _pixels(images: Path, sizes: Mapping[str, tuple[int, int]], file: str) -> np.ndarray:
    """Read one photograph; a function of the module, so that helpers that are started anew can be sent it."""
    shown, _ = read_file(images / file, cure="take it and its objects out of the annotations")
    height, width = sizes[file]
    if shown.shape[:2] != (height, width):
        raise PassbandError(
            f"{images / file} has {shown.shape[1]}×{shown.shape[0]} pixels, and its annotations say {width}×{height}; "
            "fetch it again, or mend the annotations"
        )
    return shown


def _objects(things: tuple[coco.Thing, ...], place: dict[str, int]) -> Objects:
    return Objects(
        torch.tensor([one.box for one in things], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([place[one.kind] for one in things], dtype=torch.int64),
        torch.tensor([one.crowd for one in things], dtype=torch.bool),
        torch.tensor([one.area for one in things], dtype=torch.float32),
    )


def _fingerprint(name: str, files: Iterable[str], found: coco.Annotations, objects: tuple[Objects, ...]) -> str:
    """Hash names, sizes and annotations; a path takes no part."""
    digest = hashlib.sha256(f"{name.partition(':')[0]}\n{json.dumps(found.kinds)}\n".encode())
    for file, scene, there in zip(files, found.scenes, objects, strict=True):
        height, width = scene.size
        digest.update(f"{file}\t{scene.path.stat().st_size}\t{height}x{width}\n".encode())
        for values in (there.boxes, there.labels, there.crowd, there.areas):
            digest.update(np.ascontiguousarray(values.numpy()).tobytes())
    return digest.hexdigest()
