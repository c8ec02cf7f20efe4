"""A place where shards lie: a folder, or a URL that fsspec reads."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import IO, Any

from passband.core.errors import PassbandError

ATTEMPTS = 4
"""How often a file that is far away is asked for before it is given up."""
WAIT = 0.5
"""Seconds before the second attempt; twice as long before each further one."""
LARGEST = 4 * 2**30
"""Bytes of the largest file that is fetched: it is held in memory while its samples are served."""
_CHUNK = 2**20


class MissingFile(PassbandError):
    """A file that is not at its place."""


def local(place: str) -> Path | None:
    """Return the folder or file that a place names on this machine, or None for a URL."""
    if place.startswith("file://"):
        return Path(place.removeprefix("file://"))
    return None if "://" in place else Path(place).expanduser()


def join(place: str, name: str) -> str:
    """Return the place of a file inside a place."""
    return f"{place.rstrip('/')}/{name}" if local(place) is None else str((local(place) or Path()) / name)


def open_file(place: str) -> IO[bytes]:
    """Open a file that can be sought in: a local one itself, one that is far away fetched whole into memory.

    Raises:
        MissingFile: when it is not there.
        PassbandError: when it cannot be read, or is too large to be held.
    """
    path = local(place)
    if path is None:
        return io.BytesIO(_fetched(place))
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{place} is not there; restore it, or pack the shards anew") from None
    except OSError as error:
        raise PassbandError(f"{place} cannot be read ({error.strerror}); mend what bars it") from None


def changed(place: str) -> int:
    """Return when a local file was changed, in nanoseconds; 0 for one that is far away or not there."""
    path = local(place)
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0


def read_file(place: str, most: int) -> bytes:
    """Return what a small file holds.

    Args:
        place: Where it is.
        most: Bytes that it may hold.

    Raises:
        MissingFile: when it is not there.
        PassbandError: when it cannot be read, or holds more.
    """
    with open_file(place) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise PassbandError(f"{place} holds more than {most:,} bytes, and cannot be what its name says")
    return data


def list_tars(place: str) -> dict[str, int]:
    """Return the tar files of a place, by their names inside it, and their sizes in bytes.

    Raises:
        PassbandError: when the place is not there or cannot be listed.
    """
    path = local(place)
    if path is not None:
        if not path.is_dir():
            raise MissingFile(f"{path} is no folder; give a folder of shards, or their URL")
        return {str(tar.relative_to(path)): tar.stat().st_size for tar in sorted(path.rglob("*.tar"))}
    if place.startswith(("http://", "https://")):
        raise PassbandError(
            f"{place} has no _info.json, and a web server lists no folder; put the file beside the shards"
        )
    system, root = _system(place)
    try:
        found: dict[str, Any] = system.find(root, detail=True)
    except Exception as error:  # each file system raises its own library's
        raise PassbandError(f"{place} cannot be listed ({_reason(error)}); see that it can be reached") from error
    return {
        name.removeprefix(root).lstrip("/"): int(facts["size"])
        for name, facts in sorted(found.items())
        if name.endswith(".tar")
    }


def _system(place: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path that it knows the URL by."""
    protocol = place.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(place, **_options(protocol))
    except ImportError as error:
        raise PassbandError(f"{place} needs {error.name or 'fsspec'}: pip install 'passband[data]'") from None
    except ValueError as error:
        raise PassbandError(f"{place} is no place to read from ({_reason(error)}); give s3:// or https://") from None
    return system, str(path)


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    # aiohttp's own limit, five minutes for the whole, is short for a large shard and long for a dead server.
    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


def _fetched(place: str) -> bytes:
    system, path = _system(place)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _whole(system, path, place)
        except (FileNotFoundError, IsADirectoryError):
            raise MissingFile(f"{place} is not there; see that the place is right, or put the file there") from None
        except (PassbandError, PermissionError, MemoryError) as error:
            if isinstance(error, PassbandError):
                raise
            raise PassbandError(f"{place} cannot be read ({_reason(error)}); give access to it") from None
        except Exception as error:  # a cut connection is an error of aiohttp's, botocore's, or another's
            if attempt == ATTEMPTS:
                raise PassbandError(
                    f"{place} could not be read in {ATTEMPTS} attempts ({_reason(error)}); see that it can be reached, "
                    "then give the same command again"
                ) from error
            time.sleep(WAIT * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _whole(system: Any, path: str, place: str) -> bytes:
    chunks, held = [], 0
    # One stream from the first byte to the last: no server has to know how to serve a part.
    with system.open(path, "rb", block_size=0) as file:
        while chunk := file.read(_CHUNK):
            chunks.append(chunk)
            held += len(chunk)
            if held > LARGEST:
                raise PassbandError(f"{place} is larger than {LARGEST / 2**30:.0f} GiB; pack smaller shards")
    return b"".join(chunks)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
