"""Values, texts and files as nobody means them, and right ones with something wrong in them."""

from __future__ import annotations

import copy
import string
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    "8/255",
    "1/0",
    "none",
    "null",
    "true",
    "on",
    "~",
    "*a",
    "&a [*a]",
    "!!float ''",
    "!!python/object/apply:os.system ['true']",
    "2001-99-99",
    "{a: {a: {",
    "<script>alert(1)</script>",
    "</script>",
    "\u202ename",
    "../../etc/passwd",
    "/etc/passwd",
    "a\nb",
    "a\tb",
    "\x1b[2J",
    "pgd",
    "fgsm",
    "adam",
    "low 8",
    "high square 16",
    "low nan",
    "\ud800",
    "é" * 300,
    "=1+1",
    "a,b",
    "4,8",
)
LONG = ("9" * 5000, "0x" + "f" * 5000, "[" * 3000, "x" * 3000, "{a: " * 500)
NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    2**31,
    2**63,
    -(2**63),
    10**400,
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e308,
    -1e308,
    1.7e308,
    1e16,
    float("nan"),
    float("inf"),
    float("-inf"),
)


def deep(levels: int, kind: str) -> Any:
    """Return a list, or a mapping, of so many levels."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


texts = st.one_of(st.sampled_from(TEXTS * 4 + LONG), st.text(max_size=12))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), texts)
junk = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(texts, scalars, max_size=3),
    st.builds(deep, st.sampled_from([2, 5, 5, 40, 900]), st.sampled_from(["list", "dict"])),
)
"""Plain data that is seldom what was asked for."""
words = st.text(string.ascii_lowercase + "_.:=,-/", min_size=1, max_size=10)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value inside plain data."""
    found = [path] if path else []
    if len(path) > 12:
        return found
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], how: str, new: Any) -> Any:
    """Return plain data with one of its values replaced, removed, doubled or renamed."""
    value = inner = copy.copy(value)
    *way, last = path
    for key in way:
        inner[key] = inner = copy.copy(inner[key])
    if how == "put":
        inner[last] = new
    elif how == "remove":
        del inner[last]
    elif isinstance(inner, list):
        inner.insert(last, inner[last])
    else:
        inner[str(new)[:40]] = inner.pop(last) if how == "rename" else inner[last]
    return value


def near(base: Any, news: st.SearchStrategy[Any] = junk, most: int = 3) -> st.SearchStrategy[Any]:
    """Draw plain data near ``base``: with up to ``most`` changes."""

    def build(changes: list[tuple[int, str, Any]]) -> Any:
        value = base
        for place, how, new in changes:
            ways = places(value)
            if ways:
                value = changed(value, ways[place % len(ways)], how, new)
        return value

    one = st.tuples(st.integers(0, 10_000), st.sampled_from(["put", "put", "remove", "double", "rename"]), news)
    return st.lists(one, max_size=most).map(build)


def damaged(bases: list[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    """Draw a file with some bytes changed, and perhaps cut short or with more at its end."""

    def build(base: bytes, edits: list[tuple[float, int]], cut: float | None, more: bytes) -> bytes:
        data = bytearray(base)
        for where, byte in edits:
            # Half of the edits fall on the head, where a format says what it is.
            data[int(where * min(len(data), 256)) if byte % 2 else int(where * len(data))] = byte
        return bytes(data[: int(cut * len(data))] if cut is not None else data) + more

    part = st.floats(0, 1, exclude_max=True)
    return st.builds(
        build,
        st.sampled_from(bases),
        st.lists(st.tuples(part, st.integers(0, 255)), max_size=most),
        st.one_of(st.none(), st.none(), part),
        st.one_of(st.just(b""), st.binary(max_size=8)),
    )
