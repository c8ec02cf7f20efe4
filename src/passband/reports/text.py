"""How numbers are worded: fractions in percent, equal decimals down a column, a dash where there is none."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from passband.core.results import Cell

MISSING = "–"


def displayed(unit: str) -> tuple[float, str]:
    """Return the factor and the unit in which a stored unit is shown: fractions become percent.

    >>> displayed("fraction"), displayed("pixel")
    ((100.0, '%'), (1.0, 'pixel'))
    """
    return (100.0, "%") if unit == "fraction" else (1.0, unit)


def words(key: str) -> str:
    """Turn a key of JSON into words."""
    return key.replace("_", " ")


def anchor(prefix: str, name: str) -> str:
    """Make an address in the page from any name; the sum at its end keeps like names apart.

    >>> anchor("figure", "bands.accuracy")
    'figure-bands-accuracy-d074'
    """
    plain_letters = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name)
    return f"{prefix}-{plain_letters}-{zlib.crc32(name.encode()) & 0xFFFF:04x}"


def label(name: str, unit: str) -> str:
    """Name a quantity with the unit in which it is shown.

    >>> label("accuracy", "fraction"), label("seed", "")
    ('accuracy (%)', 'seed')
    """
    shown = displayed(unit)[1]
    return f"{name} ({shown})" if shown else name


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a finite number; a bool is not one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def decimals(values: Iterable[float]) -> int | None:
    """Return how many decimals show three digits of the largest of ``values``.

    Returns:
        None where the values span so much that each needs its own digits.
    """
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 0
    if max(sizes) / min(sizes) > 1e4 or max(sizes) < 1e-4 or max(sizes) >= 1e6:
        return None
    return min(6, max(0, 2 - math.floor(math.log10(max(sizes)))))


def number(value: float, places: int | None = None, *, signed: bool = False) -> str:
    """Write a number with ``places`` decimals, or with three digits where that is None.

    >>> number(1234.5, 1), number(-0.00001234), number(3.21, 1, signed=True)
    ('1,234.5', '−1.23·10⁻⁵', '+3.2')
    """
    sign = "+" if signed else ""
    text = f"{value:{sign}.3g}" if places is None else f"{value:{sign},.{places}f}"
    return _powers(text).replace("-", "−")


def _powers(text: str) -> str:
    """Write ``1.2e-05`` as people do."""
    digits, found, power = text.partition("e")
    if not found:
        return text
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


def column(values: Sequence[Cell], unit: str) -> list[str]:
    """Write the cells of one column alike: fractions in percent, floats with equal decimals."""
    factor, shown = displayed(unit)
    floats = [value * factor for value in values if isinstance(value, float) and is_number(value)]
    places = 1 if shown in ("%", "points") else decimals(floats)
    return [_cell(value, factor, places) for value in values]


def _cell(value: Cell, factor: float, places: int | None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and factor == 1:
        return f"{value:,}".replace("-", "−")
    return number(value * factor, places)


def quantity(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Write one number with its unit.

    >>> quantity(0.7134, "fraction"), quantity(3.2, "points", signed=True), quantity(None, "points")
    ('71.3%', '+3.2 points', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    factor, shown = displayed(unit)
    places = 1 if shown in ("%", "points") else None if isinstance(value, float) else 0
    text = number(value * factor, places, signed=signed)
    return text + ("%" if shown == "%" else f" {shown}" if shown else "")


def interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    """Write a 95% interval without repeating its unit, or nothing where there is none.

    >>> interval(0.68, 0.74, "fraction")
    '68.0 to 74.0'
    """
    if low is None or high is None:
        return ""
    factor, shown = displayed(unit)
    places = 1 if shown in ("%", "points") else None
    return " to ".join(number(end * factor, places, signed=signed) for end in (low, high))


def plain(value: Any) -> str:
    """Write any JSON value for people: mappings and lists in one line, floats with at most six digits.

    >>> plain({"torch": "2.15", "timm": "1.0"}), plain([0.5, 0.25]), plain(None)
    ('torch 2.15, timm 1.0', '0.5, 0.25', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
