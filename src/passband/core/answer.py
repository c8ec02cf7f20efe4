"""An answer's folder: results as JSON, arrays and pictures beside it, all written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from passband.core.claims import Judged
from passband.core.errors import PassbandError
from passband.core.plain import read_json
from passband.core.results import AnyResult, Result
from passband.core.store import make_folder, write_atomic

SCHEMA = 1
LARGEST = 2**30
"""Bytes that an array unpacks to, and pixels times four that a picture has, at most: no answer comes near."""
_REFERENCE = {"file", "sha256", "shape", "dtype"}
_PLAIN = ("how", "data")
"""Fields that hold plain JSON, never an array."""
_results: TypeAdapter[tuple[Result, ...]] = TypeAdapter(tuple[AnyResult, ...])
_head: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_judged: TypeAdapter[tuple[Judged, ...]] = TypeAdapter(tuple[Judged, ...])


class Answer:
    """Hold what a command answered: its head, its results and its judged claims.

    Attributes:
        head: Plain JSON: ``title``, ``command``, ``digest`` and whatever describes the whole answer.
    """

    def __init__(self, head: dict[str, Any], results: Sequence[Result], claims: Sequence[Judged] = ()) -> None:
        self.head = head
        self.results = tuple(results)
        self.claims = tuple(claims)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def save(self, folder: Path) -> Path:
        """Write ``results.json``, ``arrays/`` and ``images/`` under ``folder`` and return the JSON's path.

        The JSON comes last, by rename, and names every other file, whose name holds its SHA-256's head: a killed
        write leaves the answer that was there before as it was.
        """
        make_folder(folder)
        results = [_store(result.model_dump(), folder, result.name) for result in self.results]
        document = {
            "schema": SCHEMA,
            "head": _plain(self.head),
            "results": results,
            "claims": _judged.dump_python(self.claims, mode="json"),
        }
        path = folder / "results.json"
        text = json.dumps(document, indent=1, allow_nan=False)
        write_atomic(path, text.encode())
        for old in (*folder.glob("arrays/*.npz"), *folder.glob("images/*.png")):
            # What an answer before this one left; its name, with its hash, stands nowhere now.
            if old.name not in text:
                old.unlink()
        return path

    @classmethod
    def load(cls, folder: Path) -> Answer:
        """Read an answer back.

        Raises:
            PassbandError: when there is none, or a file of it is missing, changed or of another schema.
        """
        path = folder / "results.json"
        try:
            document = read_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise PassbandError(f"no results.json in {folder}: name the folder of an answer or of a run") from None
        except OSError as error:
            raise PassbandError(f"{path} cannot be read ({error.strerror}); make the answer again") from None
        except ValueError as error:
            raise PassbandError(f"{path} is not valid JSON ({error}); make the answer again") from None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise PassbandError(f"{path} is not an answer of schema {SCHEMA}; make the answer again")
        try:
            results = _results.validate_python(_load(document["results"], folder))
            claims = _judged.validate_python(document.get("claims", []))
            head = _head.validate_python(document.get("head", {}))
        except (ValidationError, KeyError, RecursionError) as error:
            raise PassbandError(f"{path} does not hold valid results ({_said(error)}); make the answer again") from None
        return cls(head, results, claims)


def _plain(value: Any) -> Any:
    """Turn floats that JSON cannot hold into null, tuples and numpy numbers into JSON's own, and bytes of a file's
    name that are no letters into escapes."""
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _store(value: Any, folder: Path, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _store(item, folder, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_store(item, folder, f"{name}.{index}") for index, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        return _store_array(value, folder, name)
    return _plain(value)


def _store_array(array: np.ndarray, folder: Path, name: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    # ASCII alone: the JSON, which files that are to stay are looked up in, writes other letters as escapes.
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    picture = name.endswith(".image")
    if picture:
        Image.fromarray(array).save(buffer, format="PNG")
    else:
        np.savez_compressed(buffer, values=array)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    place, kind = ("images", "png") if picture else ("arrays", "npz")
    # A disk takes names of 255 bytes, and a temporary one is longer; the hash keeps those apart that are cut.
    relative = Path(place) / f"{safe.removesuffix('.image')[:150]}.{digest[:12]}.{kind}"
    make_folder(folder / place)
    write_atomic(folder / relative, data)
    return {
        "file": relative.as_posix(),
        "sha256": digest,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
    }


def _said(error: Exception) -> str:
    """Say what is wrong and where, in a line, of pydantic's many."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split()) or type(error).__name__


def _load(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        if set(value) == _REFERENCE:
            return _load_array(value, folder)
        return {key: _load(item, folder) if key not in _PLAIN else item for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_load(item, folder) for item in value)
    return value


def _load_array(reference: dict[str, Any], folder: Path) -> np.ndarray:
    path = _inside(folder, reference["file"])
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PassbandError(f"{path} is missing from the answer; make the answer again") from None
    if hashlib.sha256(data).hexdigest() != reference["sha256"]:
        raise PassbandError(f"{path} is not the file that results.json names (its hash differs); make the answer again")
    try:
        return _picture(data) if path.suffix == ".png" else _array(data)
    except Exception as error:  # a damaged file fails in as many ways as its reader has lines
        raise PassbandError(f"{path} cannot be read ({_said(error)}); make the answer again") from None


def _inside(folder: Path, name: Any) -> Path:
    """Return the file of that name in ``folder``, wherever links lead, or refuse it."""
    wrong = f"'{name!s:.100}' lies outside the answer's folder {folder}, or is no file there; it is not read"
    if not isinstance(name, str):
        raise PassbandError(wrong)
    try:
        path = (folder / name).resolve()
        # A pipe would be waited for; a missing file has an error of its own.
        fits = path.is_relative_to(folder.resolve()) and (path.is_file() or not path.exists())
    except (OSError, ValueError, RuntimeError):
        raise PassbandError(wrong) from None
    if not fits:
        raise PassbandError(wrong)
    return path


def _picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.width * image.height > LARGEST // 4:
            raise ValueError(f"{image.width}×{image.height} pixels are too many")
        return np.asarray(image)


def _array(data: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if (size := archive.getinfo("values.npy").file_size) > LARGEST:
            raise ValueError(f"it unpacks to {size:,} bytes")
        with archive.open("values.npy") as member:
            unpacked = member.read(LARGEST + 1)
    # No pickle: an array of objects is refused.
    return np.lib.format.read_array(io.BytesIO(unpacked), allow_pickle=False)
