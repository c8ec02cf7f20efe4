"""A curve as inline SVG: lines with their 95% bands, and markers that say their values when pointed at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from passband.core.results import Curve, Series
from passband.reports.svg import Span, across, tag, upward
from passband.reports.text import displayed, interval, is_number, label, plain, quantity

WIDTH, HEIGHT = 680, 350
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 30, 50
COLORS = 8
MARKED = 40
HOVERED = 300
# One shape per line as well as one color: the lines stay apart in gray and for the color-blind.
SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "M-3.6,-3.6h7.2v7.2h-7.2Z",
    "M0,-5l4.7,8h-9.4Z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
    "M0,5l4.7,-8h-9.4Z",
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
)


@dataclass(frozen=True)
class _Paper:
    """Place the points of one curve on the drawing."""

    curve: Curve
    across: Span
    points: list[float]
    up: Span
    factor: float

    def x(self, index: int) -> float:
        return LEFT + self.across.place(self.points[index]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.up.place(value * self.factor) * (HEIGHT - TOP - BOTTOM)


def chart(curve: Curve) -> Markup:
    """Draw a curve. Values that were not measured are gaps."""
    factor, unit = displayed(curve.y.unit)
    span, points = across(curve.x)
    ends = [value * factor for line in curve.series for value in _everything(line)]
    paper = _Paper(curve, span, points, upward(ends, unit), factor)
    lines = [_line(paper, line, index) for index, line in enumerate(curve.series)]
    described = f"{curve.title}: {label(curve.y.name, curve.y.unit)} over {label(curve.x.name, curve.x.unit)}"
    return tag(
        "svg",
        *_axes(paper),
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="chart",
        role="img",
        aria_label=described,
    )


def legend(curve: Curve) -> list[tuple[str, Markup]]:
    """Return each line's name and a swatch; nothing for a single line without a name of its own."""
    if len(curve.series) == 1 and curve.series[0].name in ("", curve.y.name):
        return []
    return [(line.name, _swatch(index)) for index, line in enumerate(curve.series)]


def _everything(line: Series) -> Iterator[float]:
    for values in (line.values, line.low, line.high):
        yield from (value for value in values or () if value is not None and is_number(value))


def _axes(paper: _Paper) -> Iterator[Markup]:
    curve, right, base = paper.curve, WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in paper.up.ticks():
        y = base - tick.place * (base - TOP)
        yield tag("path", d=f"M{LEFT},{y:.1f}H{right}", class_="grid")
        yield tag("text", tick.text, x=LEFT - 8, y=y + 4, class_="tick end")
    for tick in paper.across.ticks(sorted(set(paper.points))):
        x = LEFT + tick.place * (right - LEFT)
        yield tag("path", d=f"M{x:.1f},{base}v5", class_="axis")
        yield tag("text", tick.text[:24], x=x, y=base + 19, class_="tick middle")
    yield tag("path", d=f"M{LEFT},{base}H{right}", class_="axis")
    scales = (" · log scale" if span.log else "" for span in (paper.up, paper.across))
    up, along = (label(axis.name, axis.unit) + next(scales) for axis in (curve.y, curve.x))
    yield tag("text", up, x=2, y=14, class_="name")
    yield tag("text", along, x=(LEFT + right) / 2, y=HEIGHT - 8, class_="name middle")


def _line(paper: _Paper, line: Series, index: int) -> Markup:
    runs = list(_runs(line.values))
    joined = not paper.across.words
    parts: list[Markup] = []
    if line.low is not None and line.high is not None:
        for run in runs:
            parts += _intervals(paper, line, run) if joined and len(run) > 1 else _whiskers(paper, line, run)
    if joined:
        parts += [tag("path", d=_path(paper, line.values, run), class_="line") for run in runs if len(run) > 1]
    parts += _marks(paper, line, index)
    dashed = " dashed" if index >= COLORS else ""
    return tag("g", *parts, class_=f"series s{index % COLORS}{dashed}")


def _runs(values: Sequence[float | None]) -> Iterator[list[int]]:
    """Yield the stretches of neighboring points that were measured."""
    run: list[int] = []
    for index, value in enumerate(values):
        if value is not None and is_number(value):
            run.append(index)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _path(paper: _Paper, values: Sequence[float | None], run: Sequence[int]) -> str:
    spots = (f"{paper.x(at):.1f},{paper.y(value):.1f}" for at in run if (value := values[at]) is not None)
    return "M" + "L".join(spots)


def _intervals(paper: _Paper, line: Series, run: Sequence[int]) -> list[Markup]:
    low, high = line.low or (), line.high or ()
    whole = [at for at in run if low[at] is not None and high[at] is not None]
    if len(whole) < 2:
        return _whiskers(paper, line, run)
    outline = _path(paper, high, whole) + "L" + _path(paper, low, whole[::-1])[1:] + "Z"
    return [tag("path", d=outline, class_="band")]


def _whiskers(paper: _Paper, line: Series, run: Sequence[int]) -> list[Markup]:
    ends = [(at, (line.low or ())[at], (line.high or ())[at]) for at in run]
    return [
        tag("path", d=f"M{paper.x(at):.1f},{paper.y(low):.1f}V{paper.y(high):.1f}", class_="whisker")
        for at, low, high in ends
        if low is not None and high is not None
    ]


def _marks(paper: _Paper, line: Series, index: int) -> Iterator[Markup]:
    """Yield the markers; long lines have none, but every (or every n-th) point still says its value."""
    shown = len(line.values) <= MARKED
    every = max(1, len(line.values) // HOVERED)
    for at, value in enumerate(line.values):
        if value is None or not is_number(value) or at % every:
            continue
        spot = f"translate({paper.x(at):.1f} {paper.y(value):.1f})"
        title = tag("title", _spoken(paper.curve, line, at, value))
        mark = [tag("path", d=SHAPES[index % len(SHAPES)], class_="mark")] if shown else []
        yield tag("g", title, tag("circle", r=9, class_="hit"), *mark, transform=spot)


def _spoken(curve: Curve, line: Series, at: int, value: float) -> str:
    where = curve.x.values[at]
    factor, unit = displayed(curve.x.unit)
    place = f"{where * factor:.4g}" if isinstance(where, int | float) and is_number(where) else plain(where)
    text = f"{line.name} · {curve.x.name} {place}{' ' + unit if unit else ''}: {quantity(value, curve.y.unit)}"
    if line.low is not None and line.high is not None:
        ends = interval(line.low[at], line.high[at], curve.y.unit)
        text += f" (95%: {ends})" if ends else ""
    return text + (f", n = {line.n:,}" if line.n else "")


def _swatch(index: int) -> Markup:
    dashed = " dashed" if index >= COLORS else ""
    parts = (
        tag("path", d="M0,6H24", class_="line"),
        tag("path", d=SHAPES[index % len(SHAPES)], transform="translate(12 6)", class_="mark"),
    )
    group = tag("g", *parts, class_=f"series s{index % COLORS}{dashed}")
    return tag("svg", group, viewBox="0 0 24 12", class_="swatch", aria_hidden="true")
