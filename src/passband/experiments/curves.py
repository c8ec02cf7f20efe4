"""An experiment's rows as the paper's figure: one line for each kind of case, a mean over seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from passband.core.claims import Rows
from passband.core.results import Axis, Cell, Column, Curve, Series


@dataclass(frozen=True)
class _Point:
    """Hold one seed's number: its data set, its line, and where along the axis it lies."""

    data: str
    line: str
    x: float
    y: float


def over(rows: Rows, x: Column, y: Column, *, by: str, name: str, title: str) -> tuple[Curve, ...]:
    """Draw one column over another, such as accuracy over depth.

    Args:
        rows: The table's rows; those without a number in either column are left out.
        x: The column along the axis, with its unit.
        y: The column that is drawn.
        by: The column that tells the lines apart; the rows may hold it without the table showing it.
        name: The result's name, to which the data set's is added.
        title: A line for people, likewise.

    Returns:
        One curve for each data set, none where fewer than two places were measured. A value is the mean over seeds,
        with Student's 95% interval where there are three or more.
    """
    points = (_point(row, row.get(x.name), row.get(y.name), by) for row in rows)
    return tuple(curve for curve in _curves(points, x, y, name, title) if len(curve.x.values) > 1)


def across(
    rows: Rows,
    columns: Mapping[int, str] | Mapping[float, str],
    x: Column,
    y: Column,
    *,
    by: str = "case",
    name: str,
    title: str,
) -> tuple[Curve, ...]:
    """Draw several columns of each row side by side, such as the accuracy at each ε.

    Args:
        rows: The table's rows; numbers that are missing are left out.
        columns: Where along the axis a column lies, to the column's name.
        x: What the axis is called, with its unit.
        y: What the columns hold, with its unit.
        by: As in :func:`over`.
        name: As in :func:`over`.
        title: As in :func:`over`.

    Returns:
        As :func:`over`.
    """
    points = (_point(row, at, row.get(column), by) for row in rows for at, column in columns.items())
    return _curves(points, x, y, name, title)


def _point(row: Mapping[str, Cell], x: Cell, y: Cell, by: str) -> _Point | None:
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return None
    return _Point(str(row.get("data") or ""), str(row.get(by)), x, float(y))


def _curves(points: Iterable[_Point | None], x: Column, y: Column, name: str, title: str) -> tuple[Curve, ...]:
    sets: dict[str, list[_Point]] = defaultdict(list)
    for point in points:
        if point is not None:
            sets[point.data].append(point)
    return tuple(
        _curve(found, x, y, ".".join(filter(None, (name, data))), ", ".join(filter(None, (title, data))))
        for data, found in sets.items()
    )


def _curve(points: list[_Point], x: Column, y: Column, name: str, title: str) -> Curve:
    places = sorted({point.x for point in points})
    lines: dict[str, dict[float, list[float]]] = defaultdict(lambda: {place: [] for place in places})
    for point in points:
        lines[point.line][point.x].append(point.y)
    series = tuple(_series(line, list(values.values())) for line, values in lines.items())
    several = any(line.n for line in series)
    return Curve(
        name=name,
        title=title,
        notes=("Means; Student's 95% interval where there are three or more.",) if several else (),
        x=Axis(name=x.name, unit=x.unit, values=tuple(places)),
        y=Axis(name=y.name, unit=y.unit),
        series=series,
    )


def _series(name: str, values: list[list[float]]) -> Series:
    """Return a line of means; ``n`` counts the seeds, where there is more than one."""
    seeds = max(map(len, values))
    ends = [_student(found) for found in values]
    known = any(low is not None for low, _ in ends)
    return Series(
        name=name,
        values=tuple(fmean(found) if found else None for found in values),
        low=tuple(low for low, _ in ends) if known else None,
        high=tuple(high for _, high in ends) if known else None,
        n=seeds if seeds > 1 else None,
    )


def _student(values: list[float]) -> tuple[float | None, float | None]:
    if len(values) < 3:
        return None, None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
