"""Errors that a user can act on: what was needed, what came, what to do."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 120
_repr.maxlevel = 4
LONGEST = 1000
"""Letters of an error's line."""


class PassbandError(Exception):
    """A mistake that the user can mend. The command line prints its text as one line and exits with 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is made again from its arguments, and those of some kinds are not what they were made of.
        return _remade, (type(self), self.args, self.__dict__)


class MissingData(PassbandError):
    """A data set that is not on this machine; the text says where it was looked for and how to get it.

    Attributes:
        name: The set's name.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class NotApplicable(PassbandError):
    """A probe that has nothing to measure in this model; left out, with a note, where nobody asked for it by name."""


def _remade(kind: type[PassbandError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> PassbandError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


def shortened(value: Any) -> str:
    """Return the ``repr`` of what came, for an error: a long or deep one in parts, with dots between."""
    return _repr.repr(value)


def printable(text: str) -> str:
    """Return text with each letter that a terminal would obey, or cannot show, written as an escape; lines stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def one_line(text: str) -> str:
    """Return an error's text as a line for a terminal: no control characters, its middle left out where it is long.

    >>> one_line("a\\nb \\x1b[2J")
    'a b \\\\x1b[2J'
    """
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"


def unknown(kind: str, name: str, choices: Iterable[str], *, hint: str = "") -> PassbandError:
    """Build the error for a name that is not among ``choices``, with the nearest one.

    Args:
        kind: What the name names, such as ``"probe"``.
        name: What came.
        choices: What would have been understood.
        hint: A further way out, put at the end.
    """
    names, name = sorted(choices), name if len(name) <= 120 else f"{name[:100]}…"
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        cure = f"did you mean '{near[0]}'?"
    elif len(names) <= 12:
        cure = "available: " + ", ".join(names)
    else:
        cure = f"there are {len(names)}; `passband list` shows them"
    return PassbandError(f"unknown {kind} '{name}': {cure}" + (f" ({hint})" if hint else ""))
