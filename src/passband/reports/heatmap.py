"""A map as a picture with axes and a color bar, and pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from passband.core.results import Axis, Cell, Map
from passband.reports.svg import Span, Tick, tag
from passband.reports.text import displayed, is_number, label, quantity

LEFT, RIGHT, TOP, BOTTOM, SIDE = 64, 104, 30, 50, 400
HOVERED = 1024
MOST = 128
# Anchors between which colors are mixed: dark to light in even steps of lightness, through blue and green;
# and for values of both signs, blue and orange around a middle that is nearly white.
RISING = ("#2b0a45", "#3b3a7d", "#2f6690", "#228f8c", "#4db56f", "#a3d046", "#f7e83b")
AROUND_ZERO = ("#0b4f8a", "#4d94c9", "#b4d3e8", "#f4f3f0", "#f3c49b", "#de8243", "#a0410d")


def data_uri(picture: np.ndarray) -> str:
    """Return an image, uint8 [H, W] or [H, W, 3], as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return _uri(buffer)


def _uri(buffer: io.BytesIO) -> str:
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def colored(places: np.ndarray, anchors: Sequence[str]) -> str:
    """Return places between 0 and 1 as a PNG data URI of 255 colors; what is not finite is transparent."""
    finite = np.isfinite(places)
    steps = np.where(finite, np.clip(np.where(finite, places, 0), 0, 1) * 254, 255).round().astype(np.uint8)
    picture = Image.fromarray(steps)
    picture.putpalette(np.vstack([colors(np.linspace(0, 1, 255), anchors), np.zeros((1, 3), np.uint8)]).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, transparency=255)
    return _uri(buffer)


def colors(places: np.ndarray, anchors: Sequence[str]) -> np.ndarray:
    """Color places between 0 and 1.

    Returns:
        uint8 of the shape of ``places`` with a last axis of red, green and blue.
    """
    table = np.array([[int(anchor[at : at + 2], 16) for at in (1, 3, 5)] for anchor in anchors], float)
    at, stops = places * (len(table) - 1), np.arange(len(table))
    mixed = [np.interp(at, stops, table[:, channel]) for channel in range(3)]
    return np.stack(mixed, axis=-1).round().astype(np.uint8)


def reduced(result: Map) -> Map:
    """Return a map small enough for a page: means over blocks where it has more than 128 cells a side.

    The note that it gains says so; the whole map stays in the answer's arrays.
    """
    block = -(-max(result.values.shape) // MOST)
    if block <= 1:
        return result
    values = np.asarray(result.values, float)
    rows, columns = values.shape
    padded = np.pad(values, ((0, -rows % block), (0, -columns % block)), constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block)
    finite = np.isfinite(cells)
    count = finite.sum((1, 3))
    means = np.where(count > 0, np.where(finite, cells, 0).sum((1, 3)) / np.maximum(count, 1), np.nan)
    note = f"Shown as means of {block}×{block} cells; the answer's arrays hold all {rows}×{columns} values."
    axes = {"x": _thinned(result.x, columns, block), "y": _thinned(result.y, rows, block)}
    return result.model_copy(update={"values": means.astype(np.float32), "notes": (*result.notes, note), **axes})


def _numbers(cells: Sequence[Cell], factor: float = 1.0) -> list[float]:
    return [float(value) * factor for value in cells if isinstance(value, int | float) and is_number(value)]


def _thinned(axis: Axis, count: int, block: int) -> Axis:
    """Name each block by the middle of its cells' numbers, or by its first cell's word."""
    named = axis.values if len(axis.values) == count else tuple(range(count))
    blocks = [named[at : at + block] for at in range(0, count, block)]
    values: list[Cell] = []
    for cells in blocks:
        numbers = _numbers(cells)
        values.append(sum(numbers) / len(numbers) if len(numbers) == len(cells) else cells[0])
    return axis.model_copy(update={"values": tuple(values)})


def heat_map(result: Map) -> Markup:
    """Draw a map, row 0 at the top. Colors part at zero where the values have both signs."""
    factor, _ = displayed(result.unit)
    values = np.asarray(result.values, float) * factor
    span, anchors = _span(values)
    rows, columns = values.shape
    width, height = _size(rows, columns)
    places = (values - span.low) / (span.high - span.low)
    image = tag(
        "image", href=colored(places, anchors), x=LEFT, y=TOP, width=width, height=height,
        preserveAspectRatio="none", class_="pixels",
    )  # fmt: skip
    parts = [
        image,
        *_axis(result.x, columns, width, TOP + height, level=True),
        *_axis(result.y, rows, height, LEFT, level=False),
        *_color_bar(span, anchors, LEFT + width + 22, height, displayed(result.unit)[1]),
        *_cells(result, values.shape, width, height),
    ]
    box = f"0 0 {LEFT + width + RIGHT:.0f} {TOP + height + BOTTOM:.0f}"
    named = tag("text", label(result.y.name, result.y.unit), x=2, y=14, class_="name")
    style = f"max-width:{(LEFT + width + RIGHT) / 16:.1f}rem"
    return tag("svg", *parts, named, viewBox=box, class_="chart", role="img", aria_label=result.title, style=style)


def _span(values: np.ndarray) -> tuple[Span, Sequence[str]]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        end = max(-low, high)
        return Span(-end, end), AROUND_ZERO
    return Span(low, high if high > low else low + max(1.0, abs(low))), RISING


def _size(rows: int, columns: int) -> tuple[float, float]:
    """Return the width and height of the picture: square cells unless that makes a ribbon of it."""
    ratio = min(3.0, max(1 / 1.5, columns / rows))
    return (SIDE * min(1.2, ratio), SIDE * min(1.2, ratio) / ratio)


def _axis(axis: Axis, count: int, length: float, edge: float, *, level: bool) -> Iterator[Markup]:
    factor, _ = displayed(axis.unit)
    for tick in _cell_ticks(axis, count, factor):
        if level:
            x = LEFT + tick.place * length
            yield tag("path", d=f"M{x:.1f},{edge:.1f}v5", class_="axis")
            yield tag("text", tick.text, x=x, y=edge + 19, class_="tick middle")
        else:
            y = TOP + tick.place * length
            yield tag("path", d=f"M{edge - 5:.1f},{y:.1f}h5", class_="axis")
            yield tag("text", tick.text, x=edge - 8, y=y + 4, class_="tick end")
    if level:
        named = label(axis.name, axis.unit)
        yield tag("text", named, x=LEFT + length / 2, y=edge + 42, class_="name middle")


def _cell_ticks(axis: Axis, count: int, factor: float) -> Iterator[Tick]:
    """Yield a tick at the center of each cell where they are few, else at round numbers or every n-th cell."""
    named = axis.values if len(axis.values) == count else tuple(range(count))
    every = -(-count // 9)
    numbers = [float(value) * factor for value in named if isinstance(value, int | float) and is_number(value)]
    if every > 1 and len(numbers) == count and np.allclose(np.diff(numbers), numbers[1] - numbers[0]):
        low, high = sorted((numbers[0], numbers[-1]))
        for tick in Span(low, high).ticks():
            along = tick.place if numbers[0] == low else 1 - tick.place
            yield Tick((along * (count - 1) + 0.5) / count, tick.text)
        return
    for at in range(0, count, every):
        value = named[at]
        counted = isinstance(value, int | float) and is_number(value)
        text = f"{float(value or 0) * factor:.4g}" if counted else str(value)
        yield Tick((at + 0.5) / count, text[:10].replace("-", "−"))


def _color_bar(span: Span, anchors: Sequence[str], x: float, height: float, unit: str) -> Iterator[Markup]:
    bar = colored(np.linspace(1, 0, 128)[:, None], anchors)
    yield tag(
        "image",
        href=bar,
        x=x,
        y=TOP,
        width=14,
        height=height,
        preserveAspectRatio="none",
        class_="smooth",
    )
    for tick in Span(span.low, span.high).ticks():
        y = TOP + (1 - tick.place) * height
        yield tag("path", d=f"M{x + 14:.1f},{y:.1f}h5", class_="axis")
        yield tag("text", tick.text, x=x + 23, y=y + 4, class_="tick")
    yield tag("text", unit, x=x, y=14, class_="name")


def _cells(result: Map, shape: tuple[int, ...], width: float, height: float) -> Iterator[Markup]:
    """Yield what each cell says when pointed at; a map of very many cells says nothing."""
    rows, columns = shape
    if rows * columns > HOVERED:
        return
    down, along = (
        axis.values if len(axis.values) == count else range(count)
        for axis, count in ((result.y, rows), (result.x, columns))
    )
    for row in range(rows):
        for at in range(columns):
            said = quantity(float(result.values[row, at]), result.unit)
            title = tag("title", f"{result.x.name} {along[at]}, {result.y.name} {down[row]}: {said}")
            x, y = LEFT + at * width / columns, TOP + row * height / rows
            size = {"width": width / columns, "height": height / rows}
            yield tag("rect", title, x=x, y=y, class_="hit", **size)
