"""Targets that take an answer's folder: its JSON, its arrays, and the page that is made of what loads."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_run import Target
from fuzz_text import FOLDER
from fuzz_values import damaged, junk, near
from hypothesis import strategies as st
from rich.console import Console

from passband.cli import show
from passband.core.answer import Answer
from passband.core.claims import Judged
from passband.core.results import Axis, Column, Curve, Gallery, Map, Picture, Scalar, Series, Table
from passband.reports.drawing import drawing
from passband.reports.page import render

PLACE = FOLDER / "answer"


def small() -> Answer:
    """Return an answer with one result of each kind."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    line = Series(name="a", values=(0.1, None, 0.3), low=(0.0, None, 0.2), high=(0.2, None, 0.5), n=7)
    said = {"prediction": "cat", "confidence": 0.5}
    shown = {"truth": "cat", "full": said, "low": [said], "high": [said]}
    claim = Judged(
        name="c",
        sentence="s",
        place="p",
        verdict="holds",
        margin=1.0,
        low=0.5,
        high=1.5,
        unit="points",
        smallest=0.1,
        seeds=3,
        interval="t over 3 seeds",
    )
    return Answer(
        {"title": "t", "command": "passband", "digest": "d", "notes": ["n"], "model": {"name": "m", "list": [1, 0.5]}},
        (
            Scalar(name="p.scalar", title="s", value=0.5, low=0.4, high=0.6, n=10, unit="fraction", how={"seed": 1}),
            Curve(
                name="x/p.curve",
                title="c",
                x=Axis(name="r", unit="bins", values=(1, 8.5, 100)),
                y=Axis(name="y", unit="fraction"),
                series=(line,),
                arrays={"one": np.eye(2, dtype=bool)},
            ),
            Curve(
                name="z/p.curve",
                title="c",
                x=Axis(name="r", unit="bins", values=(1, 8.5, 100)),
                y=Axis(name="y", unit="fraction"),
                series=(line,),
                notes=("said",),
            ),
            Map(name="p.map", title="m", x=Axis(name="x", values=(1, 2)), y=Axis(name="y"), values=np.eye(2)),
            Table(
                name="p.table",
                title="t",
                columns=(Column(name="a"), Column(name="b", unit="fraction")),
                rows=(("x", 1.5), (None, 2), (True, -0.0)),
            ),
            Gallery(
                name="p.plain", title="g", pictures=(Picture(image=image, caption="c", data={"k": [1], "v": 2.5}),)
            ),
            Gallery(
                name="p.bands",
                title="g",
                view="bands",
                pictures=(Picture(image=image, data=shown),),
                data={"radii": [4], "shape": "disc", "edge": "inclusive", "unit": "pixel"},
            ),
        ),
        (claim,),
    )


small().save(PLACE)
DOCUMENT = json.loads((PLACE / "results.json").read_text())


def reference(data: bytes, name: str, shape: Any, dtype: str) -> dict[str, Any]:
    """Put a file into the answer's folder and return what its JSON says of it."""
    (PLACE / name).write_bytes(data)
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest(), "shape": shape, "dtype": dtype}


def packed(array: np.ndarray, key: str = "values") -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **{key: array})
    return buffer.getvalue()


_ARRAYS = (
    np.zeros(()),
    np.zeros(0),
    np.zeros((0, 4)),
    np.zeros((3, 0)),
    np.ones(5),
    np.ones((2, 2, 3)),
    np.array([["a", "b"]]),
    np.array([[1j, 2]]),
    np.array([[None, {}]], dtype=object),
    np.full((2, 3), np.nan),
    np.full((1, 1), np.inf),
    np.array([[1e308, -1e308], [5e-324, 0]]),
    np.array([["2020-01-01"]], dtype="M8[D]"),
    np.eye(2, dtype=bool),
    np.array([[1, 2**62]]),
    np.zeros((1, 2), dtype=[("a", "f4")]),
    np.linspace(-1, 1, 300)[None],
    np.float16([[6e4, 1]]),
    np.zeros((300, 1)),
    np.zeros((2, 2, 4), np.uint8),
    np.zeros((2, 2, 2), np.uint8),
    np.arange(6, dtype=np.uint8)[None],
)
_references = [
    reference(packed(array), f"odd{at}.npz", list(array.shape), str(array.dtype)) for at, array in enumerate(_ARRAYS)
]
_references += [
    reference(packed(np.eye(2), "others"), "others.npz", [2, 2], "float64"),
    reference(b"", "empty.npz", [2], "float64"),
    reference(b"\x89PNG\r\n", "short.png", [2, 2], "uint8"),
    {"file": "../answer", "sha256": "", "shape": [], "dtype": ""},
    {"file": ".", "sha256": "", "shape": [], "dtype": ""},
]


def page_holds(document: Any) -> None:
    """Whatever loads is shown: as a page, as text in a terminal, as drawings."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode("utf-8", "surrogatepass")
    (PLACE / "results.json").write_bytes(text)
    answer = Answer.load(PLACE)
    html = render(answer)
    assert "<script>alert" not in html and html.isprintable() is not None
    html.encode()
    before, show.console = show.console, Console(file=io.StringIO(), width=80)
    try:
        show.head(answer.head)
        show.results(answer.results)
        show.claims(answer.claims)
    finally:
        show.console = before
    for result in answer.results:
        if isinstance(result, Curve | Map):
            drawing(result)


def _parted(at: int) -> Any:
    """Return the document with one of its results alone, which is drawn sooner."""
    document = copy.deepcopy(DOCUMENT)
    document["results"] = document["results"][at : at + 1]
    document["claims"] = document["claims"] if at == 0 else []
    return document


_files = st.sampled_from(_references)
_documents = st.one_of(
    *[near(_parted(at), st.one_of(junk, _files), 2) for at in range(7)],
    near({**DOCUMENT, "claims": []}, junk, 2),
    damaged([json.dumps(_parted(at)).encode() for at in range(7)], 2),
    junk,
)


def array_holds(data: bytes) -> None:
    """An array file of any bytes, with the right hash beside it, is read or refused."""
    document = copy.deepcopy(_parted(3))
    document["results"][0]["values"] = reference(data, "fuzzed.npz", [2, 2], "float64")
    page_holds(document)


def picture_holds(data: bytes) -> None:
    """As :func:`array_holds`, of a picture."""
    document = copy.deepcopy(_parted(5))
    document["results"][0]["pictures"][0]["image"] = reference(data, "fuzzed.png", [4, 4, 3], "uint8")
    page_holds(document)


def _of(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(PLACE).glob(pattern))]


TARGETS = (
    Target("answers and their pages", _documents, page_holds, 6, few=60),
    Target("arrays of answers", damaged(_of("arrays/*.npz")), array_holds, 5),
    Target("pictures of answers", damaged(_of("images/*.png")), picture_holds, 4),
)
