"""Files that are whole or not there, and folders that one process at a time fills."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from passband.core.errors import PassbandError

DONE = "DONE"
PART = ".part"
"""Ends the name of a file that is not whole yet."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` under a temporary name, flush it to disk, and rename it to ``path``.

    Raises:
        PassbandError: when the disk is full or the folder cannot be written; no part of ``path`` is changed then.
    """
    with explain_disk(path):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp keeps its file to the user alone; an answer is as readable as any other new file.
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder without write permission into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PassbandError(
                f"the disk is full: {path} could not be written; free some space and give the same command again"
            ) from error
        if error.errno == errno.EFBIG:
            raise PassbandError(
                f"{path} may not grow so large: a limit on file sizes holds (ulimit -f); lift it and give the same "
                "command again"
            ) from error
        if error.errno == errno.ENOENT and not path.parent.exists():
            raise PassbandError(
                f"{path} could not be written: its folder is gone; give the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise PassbandError(f"{path.parent} cannot be written; choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise PassbandError(f"{path} cannot be made: a file is in its way; choose another folder") from error
        raise


def make_folder(folder: Path) -> Path:
    """Make a folder that can be written, or say at once, before long work, that it can't be.

    Raises:
        PassbandError: when it cannot be made or written.
    """
    with explain_disk(folder / "answer"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def file_name(*parts: str) -> str:
    """Return a file's name for people: ``file_name("a/b", "c:d")`` is ``a-b-c-d``."""
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``folder`` for this process alone; the kernel lets go of it when the process ends, however it ends.

    Args:
        folder: Made where it is not there.
        wait: Wait for another process that holds it, in place of refusing.

    Raises:
        PassbandError: when another process holds it.
    """
    with explain_disk(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PassbandError(
                f"another process works in {folder}; wait for it, then give the same command again"
            ) from None
        for left in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
            # Only this process writes here now: whoever began it is dead.
            left.unlink(missing_ok=True)
        yield


def cache_folder() -> Path:
    """Return the user's cache folder for passband: ``$XDG_CACHE_HOME/passband``, else ``~/.cache/passband``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "passband"


def runs_folder() -> Path:
    """Return the folder of all runs: ``$PASSBAND_RUNS``, else ``./runs``."""
    return Path(os.environ.get("PASSBAND_RUNS") or "runs")


def data_folder() -> Path:
    """Return the folder of all data sets: ``$PASSBAND_DATA``, else the user's cache folder."""
    return Path(os.environ.get("PASSBAND_DATA") or cache_folder() / "data")
