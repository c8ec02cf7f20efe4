"""What was found of each piece of a data set, kept so that a killed evaluation goes on and several share one."""

from __future__ import annotations

import fcntl
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.shards import Found
from passband.core.environment import versions
from passband.core.errors import PassbandError
from passband.core.store import explain_disk, make_folder, write_atomic
from passband.models.digest import digest

Job = tuple[object, Callable[[], Found]]
"""A piece, printable (its images' fingerprint, and what is asked of them), and what measures it."""


class Unfinished(PassbandError):
    """A piece that another process had in hand and did not finish; that process knows why."""


@dataclass(frozen=True)
class Pieces:
    """Measure pieces, or take those that were kept for the same model, options, program and device.

    Processes that are given the same folder share the work: each takes the next piece that none of them has in hand,
    and in the end all of them have all pieces.

    Attributes:
        folder: Where they are kept; None keeps nothing.
        identity: All that numbers depend on, but the piece itself.
    """

    folder: Path | None = None
    identity: str = ""

    @classmethod
    def of(cls, folder: Path | None, model: nn.Module, sample: Tensor, asked: object) -> Pieces:
        """Name what numbers depend on, as :func:`identity_of` does.

        Args:
            folder: As above; made where it is not there.
            model: In the state in which it is asked.
            sample: A few images that it takes.
            asked: The options, printable.

        Raises:
            PassbandError: when the folder cannot be written.
        """
        if folder is None:
            return cls()
        with torch.no_grad():
            answers = model(sample)
        return cls(make_folder(folder), identity_of(model, asked, answers))

    def all(self, jobs: Iterable[Job]) -> list[Found]:
        """Return what is found of every piece, in their order.

        Args:
            jobs: Read one by one, so that a generator needs to hold the images of one piece alone.

        Raises:
            Unfinished: when another process had a piece in hand, and ended without it.
            PassbandError: when a kept one is damaged.
        """
        if self.folder is None:
            return [make() for _, make in jobs]
        keys: list[str] = []
        found: dict[str, Found | None] = {}
        for what, make in jobs:
            keys.append(hashlib.sha256(f"{self.identity}{what!r}".encode()).hexdigest()[:32])
            if keys[-1] not in found:
                found[keys[-1]] = _taken(self.folder, keys[-1], make)
        whole = {key: _awaited(self.folder, key) if part is None else part for key, part in found.items()}
        return [whole[key] for key in keys]


def identity_of(model: nn.Module, asked: object, answers: Tensor) -> str:
    """Name all that a number depends on, but the images: the model, what is asked of it, program, device.

    What a model does beside its weights shows in its answers, here to a few images, rounded.
    """
    does = hashlib.sha256(answers.detach().cpu().bfloat16().view(torch.int16).numpy().tobytes()).hexdigest()
    # Where an object lies in memory is no part of what it is.
    made_of = re.sub(r" at 0x[0-9a-f]+", "", str(model))
    return repr((digest(model), made_of, does, asked, versions(), answers.device.type, torch.get_num_threads()))


def _taken(folder: Path, key: str, make: Callable[[], Found]) -> Found | None:
    """Return a piece, from the folder or made now; None where another process has it in hand."""
    part = _recalled(folder, key)
    if part is not None:
        return part
    with _claimed(folder / f"{key}.lock", wait=False) as mine:
        if not mine:
            return None
        part = _recalled(folder, key)  # it may have been finished meanwhile
        if part is None:
            part = make()
            _keep(folder, key, part)
    return part


def _awaited(folder: Path, key: str) -> Found:
    """Return a piece once the process that has it in hand lets go of it."""
    part = _recalled(folder, key)
    if part is None:
        with _claimed(folder / f"{key}.lock", wait=True):
            part = _recalled(folder, key)
            if part is None:
                raise Unfinished(
                    "another process had a part of this in hand and ended without it; what was finished is kept: "
                    "give the same command again"
                )
    return part


@contextmanager
def _claimed(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a piece for this process; the kernel lets go of it when the process ends, however it ends."""
    with explain_disk(path):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # Before it is let go of: whoever comes later looks for the piece first, then makes a file of its own.
            path.unlink(missing_ok=True)


def _recalled(folder: Path, key: str) -> Found | None:
    """Return what was kept under a key, or None where nothing was.

    Raises:
        PassbandError: when the file is damaged.
    """
    path = folder / f"{key}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, dict[str, Any]] = {"arrays": {}, "counts": {}}
            for name in file.files:
                kind, _, rest = name.partition(".")
                found[kind][rest] = file[name]
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
        raise PassbandError(f"a kept part of the evaluation is damaged; remove {path} and start again") from None
    return Found(**found)


def _keep(folder: Path, key: str, found: Found) -> None:
    data = io.BytesIO()
    named: dict[str, Any] = {f"arrays.{name}": value for name, value in found.arrays.items()}
    named |= {f"counts.{name}": value for name, value in found.counts.items()}
    np.savez(data, **named)
    write_atomic(make_folder(folder) / f"{key}.npz", data.getvalue())
