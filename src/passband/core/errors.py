"""Errors that a user can act on: what was needed, what came, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PassbandError(Exception):
    """A mistake that the user can mend. The command line prints its text as one line and exits with 2."""


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


def unknown(kind: str, name: str, choices: Iterable[str], *, hint: str = "") -> PassbandError:
    """Build the error for a name that is not among ``choices``, with the nearest one.

    Args:
        kind: What the name names, such as ``"probe"``.
        name: What came.
        choices: What would have been understood.
        hint: A further way out, put at the end.
    """
    names = sorted(choices)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        cure = f"did you mean '{near[0]}'?"
    elif len(names) <= 12:
        cure = "available: " + ", ".join(names)
    else:
        cure = f"there are {len(names)}; `passband list` shows them"
    return PassbandError(f"unknown {kind} '{name}': {cure}" + (f" ({hint})" if hint else ""))
