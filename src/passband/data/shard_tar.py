"""A shard as WebDataset writes it: a tar whose neighboring members of one key are a sample."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from passband.core.errors import PassbandError
from passband.data.decode import BadImage
from passband.data.folders import EXTENSIONS
from passband.data.shard_store import join, open_file

LARGEST_IMAGE = 256 * 2**20
"""Bytes of the largest image file that is read."""
LARGEST_LABEL = 32
"""Bytes of the longest label."""
_CURE = "mend the shard, or leave bad samples out with --skip-bad"

Place = tuple[int, int]
"""Where a member's bytes begin in a shard, and how many there are."""


@dataclass(frozen=True)
class Sample:
    """Hold what a shard says of a sample, unread.

    Attributes:
        key: What it is called: its members' common name.
        parts: Where its members lie, by their extensions.
        wrong: Why it cannot be a sample; empty when it can.
    """

    key: str
    parts: dict[str, Place] = field(default_factory=dict)
    wrong: str = ""


class TarShard:
    """Serve the samples of an open shard in any order; nothing of it is ever written to disk.

    Attributes:
        name: What the shard is called.
        samples: Its samples, in its order.
        ignored: Names of members that are no plain files or lie outside of it: links, absolute paths, ``..``.
    """

    def __init__(self, place: str, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._file = open_file(join(place, name))
        try:
            self.samples, self.ignored = _index(self._file, name)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> bytes:
        """Return the bytes of a sample's image file.

        Raises:
            BadImage: when it has none, or one that no image is as large as.
        """
        sample = self.samples[index]
        for extension, at in sample.parts.items():
            if f".{extension}" in EXTENSIONS:
                if at[1] > LARGEST_IMAGE:
                    raise BadImage(f"{self.called(index)} is no image: it holds {at[1]:,} bytes; {_CURE}")
                return self._read(at)
        raise BadImage(f"{self.called(index)} {sample.wrong or 'has no image'}; {_CURE}")

    def label(self, index: int) -> int:
        """Return a sample's class.

        Raises:
            BadImage: when it has none, or one that is no number from 0 on.
        """
        at = self.samples[index].parts.get("cls")
        text = b"" if at is None or at[1] > LARGEST_LABEL else self._read(at).strip()
        if not text.isdigit():
            raise BadImage(f"{self.called(index)} has no class: its .cls holds no number from 0 on; {_CURE}")
        return int(text)

    def key(self, index: int) -> str:
        """Return a sample's name: its members' common one."""
        return self.samples[index].key

    def called(self, index: int) -> str:
        """Return what to call a sample in an error."""
        return f"sample {self.samples[index].key} of shard {self.name}"

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _read(self, at: Place) -> bytes:
        with self._lock:
            self._file.seek(at[0])
            return self._file.read(at[1])


def _index(file: IO[bytes], name: str) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Go through a tar's headers alone."""
    try:
        from webdataset.tariterators import base_plus_ext
    except ImportError:
        raise PassbandError("shards need webdataset: pip install 'passband[data]'") from None
    samples: list[Sample] = []
    ignored: list[str] = []
    for member in _members(file, name):
        if _plain(member):
            key, extension = base_plus_ext(member.name)
            if key is None or (member.name.startswith("__") and "/" not in member.name):
                continue
            if not samples or samples[-1].key != key:
                samples.append(Sample(key))
            parts, extension = samples[-1].parts, extension.lower()
            if extension in parts:
                samples[-1] = Sample(key, {}, f"has two files .{extension}")
            elif not samples[-1].wrong:
                parts[extension] = (member.offset_data, member.size)
        elif not member.isdir():
            ignored.append(member.name)
    return tuple(samples), tuple(ignored)


def _plain(member: tarfile.TarInfo) -> bool:
    outside = member.name.startswith("/") or ".." in member.name.split("/")
    return member.isreg() and not member.issparse() and not outside


def _members(file: IO[bytes], name: str) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                yield member
                tar.members = []  # type: ignore[attr-defined]  # or it keeps every header
            end = tar.offset
        file.seek(end)
        # tarfile takes a damaged header for the end of the archive.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"the archive does not end where it breaks off, at byte {end:,}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PassbandError(
            f"shard {name} is damaged or no plain tar ({reason}); fetch it again, or pack the shards anew"
        ) from None
