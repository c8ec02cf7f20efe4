"""Images read and fitted once into a memory-mapped uint8 file in the user's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.store import cache_folder, explain_disk, write_atomic

THREADS = 4
CHUNK = 256
"""Images read before they are written: what is in memory at a time."""

Kind = str
"""What was done to an image: ``"gray"``, ``"transparent"``, or nothing."""
Read = Callable[[int], tuple[np.ndarray, Kind]]
"""From a position to pixels, uint8 [H, W, 3], and what was done to them."""
DEEP = ("I", "F")
"""Modes of more than 8 bits, which PIL would clip to white."""


LARGEST = 2**28 // 3
"""Pixels of an image, at most: a quarter of a GiB of RGB, where PIL begins to warn; it refuses twice as many itself."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What image files may hold, whatever they are called: PIL knows more, and hands one of them to another program."""


class BadImage(PassbandError):
    """An image file that is missing, corrupt or of a kind that has no 8-bit RGB form."""


@dataclass(frozen=True)
class Decoded:
    """Hold what was decoded.

    Attributes:
        images: uint8 [K, H, W, 3], memory-mapped, read-only.
        kept: Which of the images asked for are there, int64 [K], ascending.
        bad: Messages of those that were left out.
        kinds: How many images were gray or transparent.
    """

    images: np.ndarray
    kept: np.ndarray
    bad: tuple[str, ...]
    kinds: dict[Kind, int]


def decoded(
    key: str,
    names: Sequence[str],
    read: Read,
    *,
    skip_bad: bool = False,
    what: str = "",
) -> Decoded:
    """Return images from the cache, or read them into it.

    The file takes its name when it is whole: what a killed program leaves is written over next time.

    Args:
        key: All that decides the pixels, as text.
        names: What each image is called.
        read: From a position to pixels uint8 [H, W, 3] and what was done; called from several threads.
        skip_bad: Leave images out that cannot be read, in place of raising.
        what: Shown beside the progress bar.

    Raises:
        PassbandError: for an image that cannot be read (unless skipped), several sizes, a full disk.
    """
    folder = cache_folder() / "decoded" / hashlib.sha256(key.encode()).hexdigest()[:32]
    pixels, meta = folder / "pixels.uint8", folder / "images.json"
    with _alone(folder):
        if not _whole(pixels, meta, len(names)):
            facts = _write(pixels, names, read, skip_bad, what)
            write_atomic(meta, json.dumps(facts).encode())
        facts = json.loads(meta.read_text())
    bad = {int(index): message for index, message in facts["bad"].items()}
    if bad and not skip_bad:
        raise BadImage(next(iter(bad.values())))
    images = np.memmap(pixels, np.uint8, "r", shape=tuple(facts["shape"]))
    kept = np.array([index for index in range(len(names)) if index not in bad], dtype=np.int64)
    return Decoded(images, kept, tuple(bad.values()), facts["kinds"])


def _whole(pixels: Path, meta: Path, count: int) -> bool:
    """Tell whether both files are there and fit ``count`` images: a loss of power may have cut the larger one."""
    if not (meta.is_file() and pixels.is_file()):
        return False
    try:
        facts = json.loads(meta.read_bytes())
        shape, bad = facts["shape"], {int(index): str(message) for index, message in facts["bad"].items()}
        whole = len(shape) == 4 and shape[0] + len(bad) == count and isinstance(facts["kinds"], dict)
        return bool(whole and pixels.stat().st_size == math.prod(shape))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # a damaged cache is made again


def _write(path: Path, names: Sequence[str], read: Read, skip_bad: bool, what: str) -> dict[str, object]:
    part, count = path.with_suffix(".part"), len(names)
    bad: dict[int, str] = {}
    kinds: Counter[Kind] = Counter()
    shape: tuple[int, ...] | None = None
    try:
        with explain_disk(path), part.open("wb") as file:
            for index, result in enumerate(track(_results(count, read), f"decoding {what}".strip(), total=count)):
                if isinstance(result, BadImage):
                    if not skip_bad:
                        raise result
                    bad[index] = str(result)
                    continue
                image, kind = result
                shape = shape or image.shape
                if image.shape != shape:
                    raise PassbandError(
                        f"the images differ in size ({names[index]} is {_size(image.shape)}, the first "
                        f"{_size(shape)}); give the size they should come to"
                    )
                kinds[kind] += bool(kind)
                file.write(np.ascontiguousarray(image).data)
        if shape is None:
            raise BadImage(f"none of the {count} images can be read; the first: {bad.get(0, 'there is none')}")
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return {"shape": [count - len(bad), *shape], "bad": bad, "kinds": +kinds}


def _results(count: int, read: Read) -> Iterator[tuple[np.ndarray, Kind] | BadImage]:
    def attempt(index: int) -> tuple[np.ndarray, Kind] | BadImage:
        try:
            return read(index)
        except BadImage as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, count, CHUNK):
            yield from list(pool.map(attempt, range(start, min(start + CHUNK, count))))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process decodes into ``folder``: unlike two trainings, both want the same file."""
    with explain_disk(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def read_file(path: Path, cure: str = "leave it out with --skip-bad") -> tuple[np.ndarray, Kind]:
    """Return an image file's pixels as PIL converts them to RGB, uint8 [H, W, 3], and what that did to them.

    Gray is repeated to three channels and transparency is dropped, as timm's readers do.

    Args:
        path: The file.
        cure: What else to do about one that cannot be read, for the error.

    Raises:
        BadImage: naming the file.
    """
    try:
        with path.open("rb") as file:
            image, kind = _read(file, str(path), cure)
            return np.asarray(image), kind
    except FileNotFoundError:
        raise BadImage(f"{path} is missing; restore it, or {cure}") from None
    except OSError as error:
        raise BadImage(f"{path} cannot be read ({error.strerror or error}); mend it, or {cure}") from None


def read_bytes(data: bytes, name: str, cure: str = "leave it out") -> tuple[Image.Image, Kind]:
    """Return the RGB image of an image file's bytes, as :func:`read_file` does its pixels.

    Args:
        data: What the file holds.
        name: What the image is called, for the error.
        cure: What else to do about one that cannot be read, for the error.

    Raises:
        BadImage: naming the image.
    """
    return _read(io.BytesIO(data), name, cure)


def _read(file: IO[bytes], name: str, cure: str) -> tuple[Image.Image, Kind]:
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels, more than {LARGEST:,}")
            if image.mode.partition(";")[0] in DEEP:
                raise BadImage(f"{name} has {image.mode} pixels of more than 8 bits; convert it to 8 bits")
            kind = "gray" if image.mode in ("1", "L", "LA", "La") else ""
            if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
                kind = "transparent"
            if image.mode != "RGB":
                return image.convert("RGB"), kind
            image.load()
            return image, kind
    except Image.DecompressionBombError as error:
        raise BadImage(f"{name} is too large to be an image ({error}); {cure}") from None
    except BadImage:
        raise
    except Exception as error:  # a damaged file fails in as many ways as its decoder has lines
        # Some of PIL's messages repeat an object's address.
        reason = str(error).partition(" <")[0].splitlines()
        raise BadImage(
            f"{name} cannot be read as an image ({reason[0] if reason else type(error).__name__}); mend it, or {cure}"
        ) from None
