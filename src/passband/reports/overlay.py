"""The same curve of several cases on one drawing, a line for each case."""

from __future__ import annotations

from collections.abc import Sequence

from passband.core.results import Curve, Result, Series

MOST = 4


def overlays(results: Sequence[Result]) -> list[Curve]:
    """Lay the curves that differ only in their case over each other, one drawing for each of their lines.

    Args:
        results: Results named ``case/probe.figure``; those without a case, and curves with more than four
            lines or with other axes than their namesakes, are left alone.

    Returns:
        Curves named ``probe.figure.line``, whose lines bear the names of the cases.
    """
    groups: dict[str, dict[str, Curve]] = {}
    for result in results:
        case, _, name = result.name.rpartition("/")
        if case and isinstance(result, Curve):
            groups.setdefault(name, {})[case] = result
    return [drawing for name, curves in groups.items() if _alike(curves) for drawing in _laid(name, curves)]


def _alike(curves: dict[str, Curve]) -> bool:
    first, *rest = curves.values()
    names = [line.name for line in first.series]
    same = (
        (curve.x, curve.y) == (first.x, first.y) and [line.name for line in curve.series] == names for curve in rest
    )
    return bool(rest) and all(same) and len(names) <= MOST


def _laid(name: str, curves: dict[str, Curve]) -> list[Curve]:
    first = next(iter(curves.values()))
    drawings = []
    for at, line in enumerate(first.series):
        lines = tuple(_renamed(curve.series[at], case) for case, curve in curves.items())
        title = first.title if line.name in ("", first.y.name) else f"{first.title}: {line.name}"
        laid = {"name": f"{name}.{line.name}", "title": title, "series": lines, "arrays": {}}
        drawings.append(first.model_copy(update=laid | {"how": {"cases": list(curves), "probe": name}}))
    return drawings


def _renamed(line: Series, case: str) -> Series:
    return line.model_copy(update={"name": case})
