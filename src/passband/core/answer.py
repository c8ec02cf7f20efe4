"""An answer's folder: results as JSON, arrays and pictures beside it, all written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from passband.core.claims import Judged
from passband.core.errors import PassbandError
from passband.core.results import AnyResult, Result
from passband.core.store import make_folder, write_atomic

SCHEMA = 1
_results: TypeAdapter[tuple[Result, ...]] = TypeAdapter(tuple[AnyResult, ...])
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
            document = json.loads(path.read_text())
        except FileNotFoundError:
            raise PassbandError(f"no results.json in {folder}: name the folder of an answer or of a run") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PassbandError(f"{path} is not valid JSON ({error}); make the answer again") from None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise PassbandError(f"{path} is not an answer of schema {SCHEMA}; make the answer again")
        try:
            results = _results.validate_python(_load(document["results"], folder))
            claims = _judged.validate_python(document.get("claims", []))
        except (ValidationError, KeyError) as error:
            line = str(error).splitlines()[0]
            raise PassbandError(f"{path} does not hold valid results ({line}); make the answer again") from None
        return cls(document.get("head", {}), results, claims)


def _plain(value: Any) -> Any:
    """Turn floats that JSON cannot hold into null, and tuples and numpy numbers into JSON's own."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
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
    import io

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
    relative = Path(place) / f"{safe.removesuffix('.image')}.{digest[:12]}.{kind}"
    make_folder(folder / place)
    write_atomic(folder / relative, data)
    return {
        "file": relative.as_posix(),
        "sha256": digest,
        "shape": list(array.shape),
        "dtype": str(array.dtype),
    }


def _load(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        if set(value) == {"file", "sha256", "shape", "dtype"}:
            return _load_array(value, folder)
        return {key: _load(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_load(item, folder) for item in value)
    return value


def _load_array(reference: dict[str, Any], folder: Path) -> np.ndarray:
    import io

    path = (folder / reference["file"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PassbandError(f"{reference['file']} lies outside the answer's folder {folder}; it is not read")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PassbandError(f"{path} is missing from the answer; make the answer again") from None
    if hashlib.sha256(data).hexdigest() != reference["sha256"]:
        raise PassbandError(f"{path} is not the file that results.json names (its hash differs); make the answer again")
    if path.suffix == ".png":
        return np.asarray(Image.open(io.BytesIO(data)))
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return np.asarray(archive["values"])
