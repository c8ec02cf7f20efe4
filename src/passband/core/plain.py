"""Plain data out of YAML and JSON that somebody else may have written: read within bounds, or refused in a line."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

LONGEST = 2**18
"""Letters of a YAML text; a recipe has some hundred."""
DEEPEST = 32
"""Levels of lists and mappings in each other."""
MOST = 100_000
"""Values of a YAML document, each counted as often as it is referred to."""
LARGEST = 2**63
"""What a whole number stays below; nothing here counts further."""
FARTHEST = 1e300
"""What a number's size stays within, so that differences and percents of it are numbers too."""
_DEEP = f"it has more than {DEEPEST} levels of lists and mappings"


class _Loader(yaml.SafeLoader):
    """Read plain data, and keys as the words that they are: YAML 1.1 takes the name ``on`` for true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Read YAML as mappings with names as keys, lists, text, finite numbers, true, false and null.

    Raises:
        ValueError: for anything else (no tag is ever followed to code), a text or a number that is too long, and
            aliases that multiply; its text is one line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} letters, more than {LONGEST:,}")
    try:
        value = yaml.load(text, Loader=_Loader)
    except Exception as error:  # beside its own errors, it raises whatever a malformed number or date makes of it
        raise ValueError(f"it is not YAML: {_line(error)}") from None
    check_plain(value)
    return value


def read_json(text: str | bytes) -> Any:
    """Read JSON whose numbers are finite, as its standard has them, and some way from where they end.

    Raises:
        ValueError: for anything else; its text is one line.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
        if "\\ud" in text.lower():  # halves of a letter may stand there, which can never be written
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(_DEEP) from None
    except ValueError as error:
        raise ValueError(_line(error)) from None
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _items(one)]
        if not level:
            return value
    raise ValueError(_DEEP)


def read_kept(path: Path) -> dict[str, Any] | None:
    """Return what a file keeps that can be made again; None where it is not there, or damaged."""
    try:
        kept = read_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def check_plain(value: Any) -> None:
    """Refuse what a recipe cannot hold.

    Raises:
        ValueError: for a value of another kind, keys that are no text, numbers that are not finite or too large, and
            more values or more levels than a recipe has.
    """
    open_, seen = [(value, 0)], 0
    while open_:
        one, depth = open_.pop()
        seen += 1
        if seen > MOST:
            raise ValueError(f"it has more than {MOST:,} values")
        if isinstance(one, dict | list | tuple):
            if depth == DEEPEST:
                raise ValueError(_DEEP)
            # Keys are one level down too, so that each of them is checked as any other value is.
            keys = list(one) if isinstance(one, dict) else []
            if odd := [key for key in keys if not isinstance(key, str)]:
                raise ValueError(f"it has the key {odd[0]!r:.40}, which is no text")
            open_ += [(item, depth + 1) for item in (*keys, *_items(one))]
        else:
            _check_single(one)


def _items(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_single(value: Any) -> None:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("it holds text that is no Unicode")
    elif isinstance(value, int):
        if abs(value) >= LARGEST:
            raise ValueError("it holds a whole number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it holds the number {value}")
    else:
        raise ValueError(f"it holds a value of the kind {type(value).__name__}")


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) > FARTHEST:
        raise ValueError(f"it holds the number {text[:40]}, which is beyond {FARTHEST:g}")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= LARGEST:
        raise ValueError(f"it holds the number {text[:40]}, which has more than 64 bits")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"it holds {text}, which JSON does not have")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
