"""The shards of a split decoded into a set that is held, as a folder's images are."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from passband.core.plain import read_kept
from passband.core.progress import track
from passband.core.store import cache_folder, explain_disk, write_atomic
from passband.data.dataset import ImageSet, derive, permutation
from passband.data.decode import BadImage, Kind, decoded, read_bytes
from passband.data.fitting import Fitting
from passband.data.shard_info import read_info
from passband.data.stream_source import OpenShard, Shards

OPEN = 2
"""Shards that are open at a time: one that is far away is held whole."""


@dataclass(frozen=True)
class ShardImages:
    """Hold a split's images.

    Attributes:
        images: What the catalog serves; its notes say nothing yet of what was done to images.
        kinds: How many images were gray or transparent.
        bad: Messages of those that were left out.
        asked: How many were asked for.
    """

    images: ImageSet
    kinds: dict[Kind, int]
    bad: tuple[str, ...]
    asked: int


def load(
    name: str, place: str, split: str, fitting: Fitting, limit: int | None, seed: int, skip_bad: bool
) -> ShardImages:
    """Decode a split's images, once, into the cache folder.

    Args:
        name: What the set is called.
        place: The folder or URL of the shards.
        split: ``"train"`` or ``"test"``.
        fitting: How images come to their size.
        limit: Take the first so many of one fixed permutation; only these are decoded.
        seed: Of that permutation.
        skip_bad: Leave images out that cannot be read.

    Raises:
        PassbandError: when the shards cannot be read; BadImage for an image that cannot be, unless such are skipped.
    """
    info = read_info(place, split)
    source, fit = Shards(info), fitting.maker()
    keys, labels = _listed(source)
    order = np.arange(len(keys)) if limit is None else permutation(len(keys), limit, seed)
    # Shards are gone through from the first to the last, whatever the order is that the images are wanted in.
    sorted_ = np.sort(order)
    reader = _Reader(source)

    def one(at: int) -> tuple[np.ndarray, Kind]:
        pixels, done = reader.image(int(sorted_[at]))
        return fit(pixels), done

    key = "\n".join([place, info.fingerprint, fitting.mark, sorted_.astype(np.int64).tobytes().hex()])
    try:
        ready = decoded(key, [keys[at] for at in sorted_], one, skip_bad=skip_bad, what=name)
    finally:
        reader.close()
    kept = sorted_[ready.kept]
    mark = derive(info.fingerprint, f"images {fitting.mark}")
    if not np.array_equal(kept, np.arange(len(keys))):
        mark = derive(mark, "subset", kept.astype(np.int64).tobytes())
    found = ImageSet(name, ready.images, labels[kept], info.class_names, mark, ids=tuple(keys[at] for at in kept))
    if limit is not None:
        places = {int(at): number for number, at in enumerate(kept)}
        # A mark of its own would be of places among the kept ones: the permutation is of the whole set.
        wanted = [at for at in map(int, order) if at in places]
        mark = derive(derive(info.fingerprint, f"images {fitting.mark}"), "subset", np.array(wanted).tobytes())
        found = replace(found.subset([places[at] for at in wanted]), fingerprint=mark)
    return ShardImages(found, ready.kinds, ready.bad, len(order))


def _listed(source: Shards) -> tuple[list[str], np.ndarray]:
    """Return every sample's key and label, found by going through the shards once."""
    mark = hashlib.sha256(f"{source.info.place}\n{source.info.fingerprint}".encode()).hexdigest()[:32]
    path = cache_folder() / "shards" / f"{mark}-samples.json"
    facts = read_kept(path)
    if facts is None:
        facts = {"keys": [], "labels": []}
        for shard in track(range(len(source.shards)), f"going through the shards of {source.info.place}"):
            opened = source.open(shard)
            for index in range(source.shards[shard].length):
                facts["keys"].append(opened.key(index))
                facts["labels"].append(_label(opened, index, len(source.info.class_names)))
            opened.close()
        with explain_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(facts).encode())
    return facts["keys"], np.array(facts["labels"], dtype=np.int64)


def _label(opened: OpenShard, index: int, classes: int) -> int:
    label = opened.label(index)
    if label >= classes:
        raise BadImage(f"{opened.called(index)} has the class {label}, and there are {classes} from 0 on; pack it anew")
    return label


class _Reader:
    """Serve images by their places in the split, to several threads, with few shards open."""

    def __init__(self, source: Shards) -> None:
        self._source, self._lock = source, threading.Lock()
        self._ends = np.cumsum([shard.length for shard in source.shards])
        self._open: OrderedDict[int, OpenShard] = OrderedDict()

    def image(self, place: int) -> tuple[np.ndarray, Kind]:
        shard = int(np.searchsorted(self._ends, place, side="right"))
        index = int(place - self._ends[shard] + self._source.shards[shard].length)
        with self._lock:
            if shard not in self._open:
                while len(self._open) >= OPEN:
                    self._open.popitem(last=False)[1].close()
                self._open[shard] = self._source.open(shard)
            called, data = self._open[shard].called(index), self._open[shard].image(index)
        photograph, done = read_bytes(data, called, "leave it out with --skip-bad")
        return np.asarray(photograph), done

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()
