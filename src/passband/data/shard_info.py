"""What a place of shards holds: read off its ``_info.json``, else found by going through the shards once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from passband.core.errors import PassbandError
from passband.core.plain import read_json, read_kept
from passband.core.progress import track
from passband.core.store import cache_folder, explain_disk, write_atomic
from passband.data.shard_store import MissingFile, changed, join, list_tars, read_file
from passband.data.shard_tar import TarShard

INFO = "_info.json"
LARGEST_INFO = 256 * 2**20
"""Bytes of the largest ``_info.json`` that is read."""
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "validation")}
"""What a split may be called, the name that counts first."""


@dataclass(frozen=True)
class Shard:
    """Point at a shard.

    Attributes:
        name: Its name inside its place.
        length: How many samples it holds.
    """

    name: str
    length: int


@dataclass(frozen=True)
class ShardInfo:
    """Say what shards a split has.

    Attributes:
        place: The folder or URL that they lie in.
        shards: In their order.
        class_names: One name per class, in the order of the labels.
        fingerprint: SHA-256 in hexadecimal over names, lengths and, where known, contents or sizes; of no path.
    """

    place: str
    shards: tuple[Shard, ...]
    class_names: tuple[str, ...]
    fingerprint: str


def read_info(place: str, split: str) -> ShardInfo:
    """Return the shards of a split.

    Args:
        place: The folder or URL.
        split: ``"train"`` or ``"test"``.

    Raises:
        PassbandError: when the place holds no shards of the split, or its ``_info.json`` is no such file.
    """
    try:
        text = read_file(join(place, INFO), LARGEST_INFO)
    except MissingFile:
        return _surveyed(place, split)
    facts = _parsed(text, place)
    for name in SPLITS[split]:
        if name in facts["splits"]:
            return _of_split(place, facts, facts["splits"][name])
    raise PassbandError(
        f"{join(place, INFO)} names no split {' or '.join(SPLITS[split])} "
        f"(found: {', '.join(map(str, facts['splits'])) or 'none'}); pack that split too"
    )


def _parsed(text: bytes, place: str) -> dict[str, Any]:
    try:
        facts = read_json(text)
    except ValueError as error:
        raise _broken(place, str(error)) from None
    if not isinstance(facts, dict) or not isinstance(facts.get("splits"), dict):
        raise _broken(place, "it has no 'splits'")
    return facts


def _of_split(place: str, facts: dict[str, Any], split: Any) -> ShardInfo:
    split = split if isinstance(split, dict) else {}
    names: Any = split.get("filenames")
    lengths: Any = split.get("shard_lengths")
    if not _are(names, str) or not _are(lengths, int) or len(names) != len(lengths) or not names:
        raise _broken(place, "a split has 'filenames' and as many 'shard_lengths'")
    for name, length in zip(names, lengths, strict=True):
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "://" in name:
            raise _broken(place, f"the shard {name!r} lies outside of its place")
        if length < 1:
            raise _broken(place, f"the shard {name!r} holds {length} samples")
    shards = tuple(Shard(name, length) for name, length in zip(names, lengths, strict=True))
    marks = split.get("shard_digests") if _are(split.get("shard_digests"), str) else []
    classes = facts.get("class_names")
    if not _are(classes, str) or not classes:
        found = _survey(place, shards, "\n".join(map(str, names)))
        classes = found["classes"]
    return ShardInfo(place, shards, tuple(classes), _fingerprint(shards, marks, classes))


def _surveyed(place: str, split: str) -> ShardInfo:
    """Find out what ``_info.json`` would say."""
    sizes = {name: size for name, size in list_tars(place).items() if _split_of(name) == split}
    if not sizes:
        raise PassbandError(
            f"{place} holds no shards of the split {split}: neither _info.json nor tar files with "
            f"{' or '.join(SPLITS[split])} in their names; `passband data shards FOLDER {place}` packs them"
        )
    found = _survey(place, [Shard(name, -1) for name in sizes], json.dumps(sizes))
    shards = tuple(Shard(name, length) for name, length in zip(sizes, found["lengths"], strict=True) if length)
    if not shards:
        raise PassbandError(f"the shards of the split {split} in {place} hold no samples; pack them anew")
    marks = [str(sizes[shard.name]) for shard in shards]
    return ShardInfo(place, shards, tuple(found["classes"]), _fingerprint(shards, marks, found["classes"]))


def _split_of(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    found = [split for word in words for split, called in SPLITS.items() if word in called]
    return found[0] if found else None


def _survey(place: str, shards: Sequence[Shard], mark: str) -> dict[str, Any]:
    """Go through all shards once for their lengths and classes, and keep what was found in the cache folder."""
    times = [changed(join(place, one.name)) for one in shards]
    name = hashlib.sha256(f"{place}\n{mark}\n{times}".encode()).hexdigest()[:32]
    path = cache_folder() / "shards" / f"{name}.json"
    kept = read_kept(path)
    if kept is not None:
        return kept
    lengths, largest = [], -1
    for one in track(shards, f"going through the shards of {place}"):
        opened = TarShard(place, one.name)
        try:
            lengths.append(len(opened))
            largest = max([largest, *(opened.label(index) for index in range(len(opened)))])
        finally:
            opened.close()
    facts = {"lengths": lengths, "classes": [str(label) for label in range(largest + 1)]}
    with explain_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(facts).encode())
    return facts


def _fingerprint(shards: Sequence[Shard], marks: Sequence[str], classes: Sequence[str]) -> str:
    lines = [f"{shard.name}\t{shard.length}" for shard in shards]
    return hashlib.sha256(json.dumps([lines, list(marks), list(classes)]).encode()).hexdigest()


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _broken(place: str, why: str) -> PassbandError:
    return PassbandError(f"{join(place, INFO)} cannot be read ({why}); remove it, or pack the shards anew")
