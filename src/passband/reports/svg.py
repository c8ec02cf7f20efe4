"""The few pieces that every drawing needs: escaped elements, ticks, and a span of numbers on paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from passband.core.results import Axis
from passband.reports.text import decimals, displayed, is_number, number


def tag(element: str, *children: str, **attributes: object) -> Markup:
    """Build an element; text and attribute values are escaped, ``stroke_width`` becomes ``stroke-width``."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"' for name, value in attributes.items()
    )
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{element}{named}>{inner}</{element}>")


def _attribute(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Tick:
    """Hold where on its axis (0 to 1) a tick stands and what it says."""

    place: float
    text: str


@dataclass(frozen=True)
class Span:
    """Lay numbers (or the indices of words) between 0 and 1.

    Attributes:
        low: What lies at 0.
        high: What lies at 1.
        log: Whether equal ratios take equal lengths.
        words: The categories of an axis without numbers.
    """

    low: float
    high: float
    log: bool = False
    words: tuple[str, ...] = ()

    def place(self, value: float) -> float:
        """Return where ``value`` lies; between 0 and 1 when it is inside the span."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, measured: Sequence[float] = ()) -> list[Tick]:
        """Choose ticks: the words, else the measured values where they are few, else round numbers."""
        if self.words:
            return [Tick(self.place(index), word) for index, word in enumerate(self.words)]
        if measured and self._roomy(measured):
            return [Tick(self.place(value), f"{value:.4g}".replace("-", "−")) for value in measured]
        values = _log_ticks(self.low, self.high) if self.log else round_numbers(self.low, self.high)
        places = _tick_decimals(values) if not self.log else None
        return [Tick(self.place(value), number(value, places)) for value in values]

    def _roomy(self, measured: Sequence[float]) -> bool:
        places = sorted(self.place(value) for value in measured)
        gaps = [after - before for before, after in itertools.pairwise(places)]
        return len(places) <= 12 and min(gaps, default=1.0) > 0.045


def round_numbers(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers from ``low`` to ``high``.

    >>> round_numbers(0, 100)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, len(powers) // 6)
    tens = [10.0**power for power in powers if power % every == 0]
    inside = [value for value in tens if low * 0.999 <= value <= high * 1.001]
    if len(inside) >= 3:
        return inside
    more = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [value for value in more if low * 0.999 <= value <= high * 1.001]


def _tick_decimals(values: Sequence[float]) -> int | None:
    if len(values) < 2:
        return decimals(values)
    step = values[1] - values[0]
    if step < 1e-6 or max(abs(value) for value in values) >= 1e6:
        return None
    return next(places for places in range(9) if abs(step * 10**places - round(step * 10**places)) < 1e-6)


def across(axis: Axis) -> tuple[Span, list[float]]:
    """Lay out an x axis, with each point's number (its index, where the axis holds words).

    The scale is logarithmic only where the points themselves are spaced so, over a factor of 50 or more.
    """
    values = [float(value) for value in axis.values if isinstance(value, int | float) and is_number(value)]
    if len(values) < len(axis.values) or not values:
        words = tuple("–" if value is None else str(value) for value in axis.values)
        return Span(-0.5, max(0.5, len(words) - 0.5), words=words or ("",)), [float(at) for at in range(len(words))]
    factor = displayed(axis.unit)[0]
    points = [value * factor for value in values]
    low, high = min(points), max(points)
    if low == high:
        return Span(low - 1, high + 1), points
    if low > 0 and high / low >= 50 and len(points) > 2 and _even_in_ratio(points):
        return Span(low, high, log=True), points
    return Span(low, high), points


def _even_in_ratio(points: list[float]) -> bool:
    ordered = sorted(points)
    steps = [after - before for before, after in itertools.pairwise(ordered)]
    ratios = [math.log(after / before) for before, after in itertools.pairwise(ordered) if after > before]
    return max(steps) / max(min(steps), 1e-300) > max(ratios) / min(ratios)


def upward(values: Sequence[float], unit: str) -> Span:
    """Lay out a y axis around ``values`` (as shown): percent from 0 to 100, from zero where zero is near."""
    if not values:
        return Span(0.0, 100.0 if unit == "%" else 1.0)
    low, high = min(values), max(values)
    if unit == "%" and low >= 0 and high <= 100:
        return Span(0.0, 100.0)
    if low > 0 and high / low > 1e3:
        return Span(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)), log=True)
    if 0 <= low < 0.5 * high:
        low = 0.0
    if low == high:
        low, high = low - max(1.0, abs(low)) / 2, high + max(1.0, abs(high)) / 2
    marks = round_numbers(low, high)
    step = marks[1] - marks[0] if len(marks) > 1 else high - low
    return Span(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)
