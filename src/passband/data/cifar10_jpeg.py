"""CIFAR-10 as JPEG files in class folders, made from the original."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.store import data_folder, explain_disk
from passband.data.readers import read

QUALITY, SUBSAMPLING = 75, "4:2:0"
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""Pixels uint8 [N, 32, 32, 3], labels int64 [N], names of the classes."""


def make(data_dir: Path | None = None) -> Path:
    """Write ``cifar10-jpeg/{train,test}/CLASS/NUMBER.jpg`` from CIFAR-10, and return that folder.

    ``made.json`` beside the splits records quality, subsampling, counts and a fingerprint of all files.

    Args:
        data_dir: Where CIFAR-10 lies (or is downloaded to) and the set goes; as in ``catalog.load``.

    Raises:
        PassbandError: when CIFAR-10 cannot be had, the set is already there, or the disk is full.
    """
    root = data_folder() if data_dir is None else data_dir
    _refuse_existing(root)
    return write({split: read("cifar10", split, root) for split in ("train", "test")}, root)


def write(splits: dict[str, Arrays], root: Path) -> Path:
    """Write the set from arrays; the folder takes its name when it is whole.

    Raises:
        PassbandError: when the set is already there, or the disk is full.
    """
    folder = _refuse_existing(root)
    with explain_disk(folder):
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}."))
        try:
            digest = hashlib.sha256()
            for split, arrays in splits.items():
                _write_split(temporary, split, arrays, digest)
            facts = {
                "quality": QUALITY,
                "subsampling": SUBSAMPLING,
                "count": {split: len(arrays[1]) for split, arrays in splits.items()},
                "fingerprint": digest.hexdigest(),
            }
            (temporary / "made.json").write_text(json.dumps(facts, indent=2) + "\n")
            temporary.chmod(0o755)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder


def _write_split(folder: Path, split: str, arrays: Arrays, digest: hashlib._Hash) -> None:
    pixels, labels, classes = arrays
    for name in classes:
        (folder / split / name).mkdir(parents=True)
    numbers = [0] * len(classes)
    for image, label in track(zip(pixels, labels, strict=True), f"writing cifar10-jpeg {split}", len(labels)):
        name = f"{split}/{classes[label]}/{numbers[label]:04d}.jpg"
        numbers[label] += 1
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
        digest.update(name.encode() + b"\0" + buffer.getvalue())
        (folder / name).write_bytes(buffer.getvalue())


def _refuse_existing(root: Path) -> Path:
    folder = root / "cifar10-jpeg"
    if folder.exists():
        raise PassbandError(f"{folder} is already there; use it, or remove it to make it again")
    return folder
