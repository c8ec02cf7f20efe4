"""What the page shows of each of the five kinds of result: a drawing or a table, its CSV, how it was made."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from markupsafe import Markup

from passband.core.results import Cell, Column, Curve, Gallery, Map, Picture, Result, Scalar, Table
from passband.reports.chart import chart, legend
from passband.reports.heatmap import data_uri, heat_map, reduced
from passband.reports.text import MISSING, anchor, column, interval, label, plain, quantity, words

Rows = Sequence[Sequence[object]]


@dataclass(frozen=True)
class Grid:
    """Hold a table as text: each column's head and whether it holds numbers, and the rows."""

    heads: list[tuple[str, bool]]
    rows: list[list[str]]


@dataclass(frozen=True)
class Thumbnail:
    """Hold a picture of a gallery as the page shows it; ``width`` is in CSS pixels."""

    uri: str
    caption: str
    facts: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True)
class Figure:
    """Hold what the page shows of one result; which parts are there depends on the result's kind."""

    result: Result
    anchor: str
    how: list[tuple[str, str]]
    command: str
    csv: str
    drawing: Markup | None = None
    legend: tuple[tuple[str, Markup], ...] = ()
    grid: Grid | None = None
    value: tuple[str, str] | None = None
    pictures: tuple[Thumbnail, ...] = ()
    slider: dict[str, Any] | None = None


def figure(result: Result, command: str, prefix: str = "figure") -> Figure:
    """Prepare a result for the page.

    Args:
        result: The result.
        command: The command that makes it again, unless the result names its own.
        prefix: How the figure's address in the page begins.
    """
    parts: dict[str, Any]
    if isinstance(result, Map):
        result = reduced(result)
    if isinstance(result, Scalar):
        parts = {"value": (quantity(result.value, result.unit), _interval_line(result))}
    elif isinstance(result, Curve):
        parts = {"drawing": chart(result), "legend": tuple(legend(result)), "grid": _curve_grid(result)}
    elif isinstance(result, Map):
        parts = {"drawing": heat_map(result)}
    elif isinstance(result, Table):
        parts = {"grid": _table_grid(result.columns, result.rows)}
    else:
        parts = {"pictures": tuple(_thumbnail(picture, result.view) for picture in result.pictures)}
        if result.view == "bands" and result.pictures:
            parts["slider"] = result.data | {"pictures": [picture.data for picture in result.pictures]}
    return Figure(
        result=result,
        anchor=anchor(prefix, result.name),
        how=[(words(key), plain(value)) for key, value in result.how.items() if key != "command"],
        command=str(result.how.get("command") or command),
        csv=_csv_uri(csv_rows(result)),
        **parts,
    )


def csv_rows(result: Result) -> Rows:
    """Return a result's numbers as rows with a head, unrounded and in their stored units."""
    if isinstance(result, Scalar):
        values = (result.value, result.low, result.high, result.n, result.unit)
        return [("value", "low", "high", "n", "unit"), values]
    if isinstance(result, Curve):
        return _curve_rows(result)
    if isinstance(result, Map):
        height, width = result.values.shape
        along = result.x.values if len(result.x.values) == width else range(width)
        down = result.y.values if len(result.y.values) == height else range(height)
        # As text, each number has just the digits that its own precision needs.
        texts = np.where(np.isfinite(result.values), result.values.astype(str), "")
        body = [(name, *row) for name, row in zip(down, texts.tolist(), strict=True)]
        return [(f"{result.y.name} \\ {result.x.name}", *along), *body]
    if isinstance(result, Table):
        return [tuple(_stored(item.name, item.unit) for item in result.columns), *result.rows]
    return _gallery_rows(result)


def _curve_rows(curve: Curve) -> Rows:
    head = (
        "series",
        _stored(curve.x.name, curve.x.unit),
        _stored(curve.y.name, curve.y.unit),
        "low",
        "high",
        "n",
    )
    empty = (None,) * len(curve.x.values)
    body = [
        (line.name, at, value, low, high, line.n)
        for line in curve.series
        for at, value, low, high in zip(curve.x.values, line.values, line.low or empty, line.high or empty, strict=True)
    ]
    return [head, *body]


def _gallery_rows(gallery: Gallery) -> Rows:
    if gallery.view != "bands":
        keys = list(dict.fromkeys(key for picture in gallery.pictures for key in picture.data))
        return [("caption", *keys), *((item.caption, *map(item.data.get, keys)) for item in gallery.pictures)]
    rows: list[Sequence[object]] = [("caption", "truth", "side", "radius", "prediction", "confidence")]
    for picture in gallery.pictures:
        said = [("full", None, picture.data.get("full"))]
        for side in ("low", "high"):
            radii, measured = gallery.data.get("radii", ()), picture.data.get(side) or ()
            said += [(side, radius, item) for radius, item in zip_longest(radii, measured)]
        for side, radius, item in said:
            item = item if isinstance(item, dict) else {"prediction": item}
            found = (side, radius, item.get("prediction"), item.get("confidence"))
            rows.append((picture.caption, picture.data.get("truth"), *found))
    return rows


def _stored(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _csv_uri(rows: Rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.getvalue().encode()).decode()


def _interval_line(result: Scalar) -> str:
    ends = interval(result.low, result.high, result.unit)
    parts = [f"95% interval {ends}"] if ends else []
    return ", ".join(parts + ([f"n = {result.n:,}"] if result.n else []))


def _table_grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Grid:
    cells = [[row[at] for row in rows] for at in range(len(columns))]
    texts = [column(values, item.unit) for values, item in zip(cells, columns, strict=True)]
    heads = [(label(item.name, item.unit), _numeric(values)) for item, values in zip(columns, cells, strict=True)]
    return Grid(heads, [list(row) for row in zip(*texts, strict=True)] if texts else [])


def _numeric(values: Sequence[Cell]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present)


def _curve_grid(curve: Curve) -> Grid:
    """Return a curve's values as a table, intervals in brackets: the drawing for those who cannot see it."""
    heads = [(label(curve.x.name, curve.x.unit), _numeric(curve.x.values))]
    columns = [column(curve.x.values, curve.x.unit)]
    for line in curve.series:
        heads.append((label(line.name, curve.y.unit), True))
        texts = column(line.values, curve.y.unit)
        if line.low is not None and line.high is not None:
            ends = [interval(low, high, curve.y.unit) for low, high in zip(line.low, line.high, strict=True)]
            texts = [
                f"{text} [{end}]" if end and text != MISSING else text for text, end in zip(texts, ends, strict=True)
            ]
        columns.append(texts)
    return Grid(heads, [list(row) for row in zip(*columns, strict=True)])


def _thumbnail(picture: Picture, view: str) -> Thumbnail:
    height, width = picture.image.shape[:2]
    # Small pictures grow by whole numbers, so that each of their pixels stays a square.
    # The height decides, so that a strip of several pictures side by side stays as large as one of them.
    shown = width * max(1, round(96 / height)) if height < 128 else min(width, 224 * width // height)
    facts = "" if view == "bands" else _facts(picture.data)
    return Thumbnail(
        uri=data_uri(picture.image),
        caption=picture.caption,
        facts=facts,
        width=shown,
        height=round(shown * height / width),
        pixelated=height < 128,
    )


def _facts(data: dict[str, Any]) -> str:
    """Say what was measured on a picture in a few words; what has parts of its own stands in the CSV."""
    short = {key: item for key, item in data.items() if not isinstance(item, dict | list)}
    texts = ((words(key), f"{item:.3g}" if isinstance(item, float) else plain(item)) for key, item in short.items())
    return ", ".join(" ".join(pair) for pair in texts)
