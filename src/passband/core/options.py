"""Options of a part, read off its signature: names checked, strings turned into what the annotation asks for."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from passband.core.band import Band
from passband.core.errors import PassbandError, shortened, unknown

GIVEN = ("resume", "precision")
"""Arguments that whoever runs a probe gives it: where to keep what is finished until all is, and in which precision
the model runs."""
_FRACTION = re.compile(r"\s*([0-9.eE+-]+)\s*/\s*([0-9.eE+-]+)\s*")


def defaults(part: Callable[..., Any]) -> dict[str, Any]:
    """Return the options that ``part`` takes by keyword, with their defaults.

    What the program itself gives (`GIVEN`) is no option.
    """
    parameters = inspect.signature(part).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name not in GIVEN}


def parse_options(part: Callable[..., Any], given: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Turn options as they came (strings from a command line, values from YAML) into ``part``'s arguments.

    Strings are read by the option's annotation: ``"4,8"`` for a tuple, ``"8/255"`` for a number.

    Args:
        part: A function or a class whose arguments with defaults are its options.
        given: Option names and values.
        owner: What the options belong to, for the error: ``"probe bands"``.

    Raises:
        PassbandError: for a name that ``part`` does not take, or a value that its annotation refuses.
    """
    known = defaults(part)
    hints = get_type_hints(part.__init__ if inspect.isclass(part) else inspect.unwrap(part))
    parsed = {}
    for name, value in given.items():
        if name not in known:
            raise unknown(f"option of {owner}", name, known)
        parsed[name] = parse_value(hints.get(name, type(known[name])), value, owner=f"{owner}: {name}")
    return parsed


def parse_value(annotation: Any, value: Any, *, owner: str) -> Any:
    """Read one value by its annotation.

    Raises:
        PassbandError: when the annotation refuses it.
    """
    try:
        return TypeAdapter(annotation).validate_python(_read(annotation, value))
    except (ValidationError, ZeroDivisionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise PassbandError(f"{owner} cannot be {shortened(value)}: {reason}") from None


def fraction(text: Any) -> Any:
    """Return ``"8/255"`` as a number and anything else as it came."""
    match = _FRACTION.fullmatch(text) if isinstance(text, str) else None
    try:
        return float(match[1]) / float(match[2]) if match else text
    except (ValueError, ZeroDivisionError):
        return text


def _read(annotation: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return tuple(_read(_item(annotation), v) for v in value) if isinstance(value, list) else value
    choices = get_args(annotation) if get_origin(annotation) is not tuple else ()
    if type(None) in choices and value.lower() in ("", "null", "none"):
        return None
    if Band in (annotation, *choices):
        return Band.parse(value)
    sequence = next((a for a in (annotation, *choices) if get_origin(a) is tuple), None)
    if sequence is not None:
        parts = [part.strip() for part in value.strip("[]() ").split(",")]
        return tuple(_read(_item(sequence), part) for part in parts if part)
    return fraction(value)


def _item(annotation: Any) -> Any:
    return next(iter(get_args(annotation)), Any)


def split_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Split ``["a.b=1", …]`` at the first equals sign.

    Raises:
        PassbandError: when one has none.
    """
    found = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise PassbandError(f"--set takes NAME=VALUE; got '{text}'")
        found[name.strip()] = value
    return found
