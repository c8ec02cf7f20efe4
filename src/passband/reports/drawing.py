"""A curve or a map as an SVG file of its own, for pages that have no style sheet of ours."""

from __future__ import annotations

import re
from importlib.resources import files

from markupsafe import Markup

from passband.core.results import Curve, Map
from passband.reports.chart import chart, legend
from passband.reports.heatmap import heat_map, reduced
from passband.reports.svg import tag

_LINE, _GAP, _MARGIN = 20, 24, 12
_LETTER = 7.2
"""Width of a letter of a legend, about."""


def drawing(result: Curve | Map) -> str:
    """Return an SVG document: the drawing of the report in its light colors, its title above, its legend below.

    Args:
        result: A curve, or a map, which is reduced to the size of a page.
    """
    inner = chart(result) if isinstance(result, Curve) else heat_map(reduced(result))
    width, height = _box(inner)
    top = _LINE + _MARGIN
    entries = _legend(legend(result), width, top + height + _LINE) if isinstance(result, Curve) else ([], 0)
    total = top + height + entries[1] + _MARGIN
    placed = inner.replace("<svg", Markup('<svg x="{}" y="{}" width="{}" height="{}"').format(0, top, width, height), 1)
    return str(
        tag(
            "svg",
            tag("style", Markup(_style())),
            tag("rect", width="100%", height="100%", fill="#fdfdfb"),
            tag("text", result.title, x=_MARGIN, y=_LINE, class_="title"),
            placed,
            *entries[0],
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width:g} {total:g}",
            width=width,
            height=total,
            font_family="system-ui, sans-serif",
            font_size=12,
        )
    )


def _box(svg: Markup) -> tuple[float, float]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None, "every drawing of ours has a viewBox"
    return float(found[1]), float(found[2])


def _legend(lines: list[tuple[str, Markup]], width: float, top: float) -> tuple[list[Markup], float]:
    """Lay the entries in rows; return them and the height they take."""
    parts: list[Markup] = []
    x, y = float(_MARGIN), top
    for name, swatch in lines:
        length = _GAP + 8 + _LETTER * len(name) + _GAP
        if x > _MARGIN and x + length > width:
            x, y = float(_MARGIN), y + _LINE
        parts.append(swatch.replace("<svg", Markup('<svg x="{}" y="{}" width="24" height="12"').format(x, y - 10), 1))
        parts.append(tag("text", name, x=x + _GAP + 8, y=y, class_="title"))
        x += length
    return parts, (y - top + _LINE if lines else 0)


def _style() -> str:
    """Return those rules of the report's style sheet that its drawings need."""
    sheet = (files("passband.reports") / "style.css").read_text()
    colors = sheet[: sheet.index("}") + 1]
    rules = [line for line in sheet.splitlines() if re.match(r"\.(chart \.|chart text|series|s\d )", line)]
    return "\n".join([colors, *rules, ".title { fill: var(--ink); } .hit { fill: none; }"])
