"""Where a stream's photographs come from: shards, or class folders taken a few hundred files at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from passband.core.errors import PassbandError
from passband.data.dataset import derive, permutation
from passband.data.decode import BadImage
from passband.data.fitting import Fitting
from passband.data.folders import list_classes
from passband.data.shard_info import Shard, ShardInfo, read_info
from passband.data.shard_tar import TarShard

FILES = 256
"""Files of a folder that are taken together, as those of a shard are."""
View = Callable[[Tensor], Tensor]


class OpenShard(Protocol):
    """A shard whose samples can be had in any order.

    Attributes:
        ignored: Names in it that are no samples and should not be there.
    """

    ignored: tuple[str, ...]

    def image(self, index: int) -> bytes:
        """Return the bytes of a sample's image file, or raise BadImage."""

    def label(self, index: int) -> int:
        """Return a sample's class, or raise BadImage."""

    def key(self, index: int) -> str:
        """Return a sample's name."""

    def called(self, index: int) -> str:
        """Return what to call a sample in an error."""

    def close(self) -> None:
        """Let go of what is held."""


class Source(Protocol):
    """What a stream is read from.

    Attributes:
        shards: What there is, with lengths.
        near: Whether a part of a shard costs no more than its share of the whole.
    """

    @property
    def shards(self) -> tuple[Shard, ...]: ...

    @property
    def near(self) -> bool: ...

    def open(self, shard: int) -> OpenShard:
        """Open one of the shards."""

    def id(self, shard: int, index: int) -> str:
        """Name a sample without opening anything."""


@dataclass(frozen=True)
class Shards:
    """Read the shards of a place."""

    info: ShardInfo

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of the split."""
        return self.info.shards

    @property
    def near(self) -> bool:
        """Whether they lie on this machine."""
        return "://" not in self.info.place

    def open(self, shard: int) -> OpenShard:
        """Open one, and see that it holds what was said.

        Raises:
            PassbandError: when it cannot be read, or holds more or less.
        """
        said = self.shards[shard]
        opened = TarShard(self.info.place, said.name)
        if len(opened) != said.length:
            opened.close()
            raise PassbandError(
                f"shard {said.name} of {self.info.place} holds {len(opened)} samples, and {said.length} were said; "
                "fetch it again, or pack the shards anew"
            )
        return opened

    def id(self, shard: int, index: int) -> str:
        """Name a sample by its shard and its place there, from 0."""
        return f"{self.shards[shard].name}#{index}"


@dataclass(frozen=True)
class Folder:
    """Read class folders, in one fixed order that mixes the classes.

    Attributes:
        root: Where ``files`` lie.
        files: Relative names in UTF-8, one numpy array: so many Python objects would be copied, page by page, into
            each process that looks at them.
        labels: int64, one for each.
    """

    root: Path
    files: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    near = True

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files, `FILES` at a time."""
        count = len(self.files)
        return tuple(
            Shard(f"files {start}-{min(start + FILES, count) - 1}", min(FILES, count - start))
            for start in range(0, count, FILES)
        )

    def open(self, shard: int) -> OpenShard:
        """Return the files of one."""
        return _Files(self, shard * FILES)

    def id(self, shard: int, index: int) -> str:
        """Name a sample by its file."""
        return os.fsdecode(self.files[shard * FILES + index])


class _Files:
    ignored: tuple[str, ...] = ()

    def __init__(self, folder: Folder, start: int) -> None:
        self._folder, self._start = folder, start

    def image(self, index: int) -> bytes:
        path = self._path(index)
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadImage(f"{path} cannot be read ({error.strerror}); restore it") from None

    def label(self, index: int) -> int:
        return int(self._folder.labels[self._start + index])

    def key(self, index: int) -> str:
        return self._folder.id(0, self._start + index)

    def called(self, index: int) -> str:
        return str(self._path(index))

    def close(self) -> None:
        pass

    def _path(self, index: int) -> Path:
        name: bytes = self._folder.files[self._start + index]
        return self._folder.root / os.fsdecode(name)


@dataclass(frozen=True, eq=False)
class StreamSet:
    """Describe photographs that are read anew in each epoch; nothing of them is held.

    Attributes:
        name: As given to ``catalog.load``.
        source: What they are read from.
        class_names: One name per class, in the order of the labels.
        fingerprint: SHA-256 in hexadecimal over names and contents, or sizes.
        fitting: How a photograph comes to the input's size.
        view: As an ``ImageSet``'s.
        notes: Sentences that the reader of a result must know.
    """

    name: str
    source: Source
    class_names: tuple[str, ...]
    fingerprint: str
    fitting: Fitting
    view: View | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(self.lengths)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(shard.length for shard in self.source.shards)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that photographs come to, in pixels."""
        assert self.fitting.size is not None
        return self.fitting.size


def shards(name: str, place: str, split: str, fitting: Fitting) -> StreamSet:
    """Return the stream of a place's shards.

    Raises:
        PassbandError: when there are none, or they cannot be read.
    """
    info = read_info(place, split)
    return StreamSet(name, Shards(info), info.class_names, derive(info.fingerprint, fitting.mark), fitting)


def folder(name: str, path: Path, split: str, fitting: Fitting) -> StreamSet:
    """Return the stream of class folders.

    Raises:
        PassbandError: as ``folders.list_classes``.
    """
    listing = list_classes(path, split)
    order = permutation(len(listing.files), None, 0)
    digest = hashlib.sha256(f"stream of files\n{listing.root.name}\n{fitting.mark}\n".encode())
    for file, size in zip(listing.files, listing.sizes, strict=True):
        digest.update(os.fsencode(file) + f"\t{size}\n".encode())
    files = np.array([os.fsencode(file) for file in listing.files])[order]
    source = Folder(listing.root, files, np.array(listing.labels, dtype=np.int64)[order])
    return StreamSet(name, source, listing.class_names, digest.hexdigest(), fitting)
