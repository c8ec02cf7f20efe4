"""Class folders packed into the shards that a stream reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from passband.core.errors import PassbandError
from passband.core.plain import read_kept
from passband.core.progress import track
from passband.core.store import explain_disk, lock, write_atomic
from passband.data.dataset import permutation
from passband.data.folders import Listing, list_classes
from passband.data.shard_info import INFO

SIZE_MB = 32.0
"""Megabytes of a shard: small, since a stream mixes the samples of a few shards at a time, and holds those of a shard
that is far away."""
_PROGRESS = "packed.json"
_FOLDERS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True)
class Packed:
    """Name a shard that is to be written.

    Attributes:
        name: Its file name.
        files: Places of its images in the split's listing.
    """

    name: str
    files: tuple[int, ...]


def pack(folder: Path, to: Path, *, size_mb: float = SIZE_MB, per_shard: int | None = None) -> Path:
    """Write the class folders in ``train/`` and in ``test/`` or ``val/`` as shards, and return their folder.

    Images of ``train/`` are put in one fixed order that mixes the classes; those of ``test/`` stay in theirs. The
    folder takes its name when it is whole; what a killed packing leaves beside it is continued.

    Args:
        folder: What to pack; one of the splits may be missing.
        to: The folder of shards.
        size_mb: Megabytes of images after which a shard ends, above 0.
        per_shard: Samples after which a shard ends, in place of ``size_mb``.

    Raises:
        PassbandError: when there is nothing to pack, ``to`` holds other things, or a file cannot be read or written.
    """
    if size_mb <= 0 or (per_shard is not None and per_shard < 1):
        raise PassbandError(f"a shard holds above 0 MB and at least 1 sample; got {size_mb} MB and {per_shard} samples")
    listings = _listings(folder)
    plans = {split: _plan(split, listing, size_mb, per_shard) for split, listing in listings.items()}
    mark = _mark(listings, plans)
    if to.exists():
        return _same(to, mark)
    part = to.parent / f".{to.name}.packing"
    with explain_disk(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    with lock(part):
        if to.exists():  # another process packed while this one came to the lock
            return _same(to, mark)
        _write_all(part, listings, plans, mark)
        (part / _PROGRESS).unlink()
        (part / ".lock").unlink()
        with explain_disk(to):
            part.rename(to)
    return to


def _listings(folder: Path) -> dict[str, Listing]:
    if not folder.is_dir():
        raise PassbandError(f"{folder} is no folder; give one with class folders in train/, test/ or val/")
    found = {
        split: list_classes(folder, split)
        for split, names in _FOLDERS.items()
        if any((folder / name).is_dir() for name in names)
    }
    return found or {"train": list_classes(folder, "train")}  # which says what is missing


def _plan(split: str, listing: Listing, size_mb: float, per_shard: int | None) -> list[Packed]:
    count = len(listing.files)
    order = permutation(count, None, 0) if split == "train" else np.arange(count)
    shards: list[list[int]] = [[]]
    held = 0
    for place in map(int, order):
        size = listing.sizes[place]
        full = len(shards[-1]) == per_shard if per_shard else held + size > size_mb * 1e6
        if full and shards[-1]:
            shards.append([])
            held = 0
        shards[-1].append(place)
        held += size
    return [Packed(f"{split}-{number:06d}.tar", tuple(files)) for number, files in enumerate(shards)]


def _mark(listings: dict[str, Listing], plans: dict[str, list[Packed]]) -> str:
    digest = hashlib.sha256()
    for split, listing in listings.items():
        facts = zip(listing.files, listing.sizes, listing.times, listing.labels, strict=True)
        digest.update(json.dumps([split, list(facts), listing.class_names]).encode())
        digest.update(json.dumps([[one.name, one.files] for one in plans[split]]).encode())
    return digest.hexdigest()


def _same(to: Path, mark: str) -> Path:
    if (read_kept(to / INFO) or {}).get("made_of") != mark:
        raise PassbandError(f"{to} is there already and holds other things; remove it, or name another folder")
    return to


def _write_all(part: Path, listings: dict[str, Listing], plans: dict[str, list[Packed]], mark: str) -> None:
    progress = part / _PROGRESS
    done = _continued(part, mark)
    splits: dict[str, Any] = {}
    for split, listing in listings.items():
        keys = _keys(listing)
        for shard in track(plans[split], f"packing {split}"):
            if shard.name not in done:
                done[shard.name] = _write(part / shard.name, shard, listing, keys)
                write_atomic(progress, json.dumps({"made_of": mark, "digests": done}).encode())
        splits[split] = {
            "name": split,
            "num_samples": len(listing.files),
            "filenames": [shard.name for shard in plans[split]],
            "shard_lengths": [len(shard.files) for shard in plans[split]],
            "shard_digests": [done[shard.name] for shard in plans[split]],
        }
    names = next(iter(listings.values())).class_names
    info = {"splits": splits, "num_classes": len(names), "class_names": names, "made_of": mark}
    write_atomic(part / INFO, json.dumps(info, indent=1).encode())


def _continued(part: Path, mark: str) -> dict[str, str]:
    """Return the digests of the shards that are written already; those of other images are removed."""
    facts = read_kept(part / _PROGRESS) or {}
    if facts.get("made_of") == mark:
        digests: dict[str, str] = facts["digests"]
        return digests
    for left in part.iterdir():
        if left.name != ".lock":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return {}


def _write(path: Path, shard: Packed, listing: Listing, keys: Sequence[str]) -> str:
    """Write a shard under a temporary name, rename it when it is whole, and return its SHA-256."""
    try:
        from webdataset import TarWriter
    except ImportError:
        raise PassbandError("packing shards needs webdataset: pip install 'passband[data]'") from None
    temporary = path.with_suffix(".part")
    with explain_disk(path):
        with temporary.open("wb") as file:
            # One time for all: equal images make equal shards.
            writer = TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT")
            for place in shard.files:
                image = _image(listing.root / listing.files[place])
                label = str(listing.labels[place]).encode()
                writer.write({"__key__": keys[place], _extension(listing.files[place]): image, "cls": label})
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(path)
    return digest


def _image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PassbandError(f"{path} cannot be read ({error.strerror}); restore it, or remove it") from None


def _extension(file: str) -> str:
    extension = PurePosixPath(file).suffix.lower().removeprefix(".")
    return "jpg" if extension == "jpeg" else extension  # timm looks for jpg, png and webp


def _keys(listing: Listing) -> list[str]:
    """Name each sample by its file: WebDataset ends a name at its first dot, so that the others are replaced."""
    keys, seen = [], set()
    for file in listing.files:
        path = PurePosixPath(file)
        if path.parts[0].startswith("__") and path.parts[0].endswith("__"):
            raise PassbandError(f"WebDataset passes over folders such as {path.parts[0]}; rename the class folder")
        key = plain = f"{path.parent}/{path.stem.replace('.', '_')}"
        number = 1
        while key in seen:
            number += 1
            key = f"{plain}_{number}"
        seen.add(key)
        keys.append(key)
    return keys
