"""Results on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from passband.core.claims import Judged
from passband.core.errors import printable
from passband.core.results import Cell, Curve, Gallery, Map, Result, Scalar, Series, Table
from passband.reports.text import interval, quantity


class _Terminal(Console):
    """A console whose reader may go away, as `head` does: nothing is left to say then, and nothing has failed."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Terminal(highlight=False, soft_wrap=False)


def head(fields: dict[str, Any]) -> None:
    """Print what an answer is about."""
    for name, value in fields.items():
        if isinstance(value, list):
            for line in value:
                console.print(f"[dim]{name}[/dim]  {_plain(line)}", soft_wrap=True)
        else:
            console.print(f"[bold]{name}[/bold]  {_plain(value)}", soft_wrap=True)


def results(found: Sequence[Result]) -> None:
    """Print every result that has a form in text."""
    for result in found:
        if isinstance(result, Scalar):
            console.print(f"[bold]{_plain(result.title)}[/bold]  {_scalar(result)}", soft_wrap=True)
        elif isinstance(result, Curve):
            _curve(result)
        elif isinstance(result, Table):
            table(result)
        elif isinstance(result, Map | Gallery):
            console.print(f"[bold]{_plain(result.title)}[/bold]  [dim]a picture, in the report[/dim]", soft_wrap=True)


_BROKEN = 24
"""Letters from which on a cell may be broken over lines."""


def table(result: Table) -> None:
    """Print a table; a wide one of few rows stands on its side, and of many, only the columns that fit are printed."""
    heads = [f"{c.name} ({c.unit})" if c.unit and c.unit != "fraction" else c.name for c in result.columns]
    cells = [[number(cell, c.unit) for cell, c in zip(row, result.columns, strict=True)] for row in result.rows]
    grid = Grid(title=_plain(result.title), title_justify="left")
    turned = len(heads) > 6 and len(cells) <= 4
    if turned:
        lines = [[head, *column] for head, *column in zip(heads, *cells, strict=True)]
        heads, cells = lines[0], lines[1:]
        right = [False] + [True] * (len(heads) - 1)
    else:
        right = [
            all(isinstance(row[i], int | float) or row[i] is None for row in result.rows) for i in range(len(heads))
        ]
    shown = len(heads) if turned else _fitting(heads, cells)
    for head, side in list(zip(heads, right, strict=True))[:shown]:
        grid.add_column(_plain(head), justify="right" if side else "left", overflow="fold")
    for row in cells:
        grid.add_row(*map(_plain, row[:shown]))
    console.print(grid)
    if shown < len(heads):
        console.print(f"[dim]{len(heads) - shown} more columns stand in the report[/dim]", soft_wrap=True)


def _fitting(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Return how many columns fit the terminal when no cell is broken; heads break between words."""
    taken = 1
    for index, head in enumerate(heads):
        longest = max(map(len, [*head.split(), *(row[index] for row in cells)]), default=0)
        taken += min(longest, _BROKEN) + 3
        if taken > console.width:
            return max(index, 2)
    return len(heads)


def claims(judged: Sequence[Judged]) -> None:
    """Print each claim with its verdict and its margin."""
    if not judged:
        return
    console.print("[bold]Claims[/bold]")
    for claim in judged:
        ends = interval(claim.low, claim.high, claim.unit, signed=True)
        spread = f"[{ends}], {claim.interval}" if ends else claim.interval
        written = quantity(claim.margin, claim.unit, signed=True)
        margin = "no margin" if claim.margin is None else f"margin {written} {spread}"
        console.print(f"  [bold]{claim.verdict}[/bold]: {_plain(margin)}", soft_wrap=True)
        console.print(f"    {_plain(claim.sentence)} [dim]({_plain(claim.place)})[/dim]", soft_wrap=True)


def path(label: str, where: Path) -> None:
    """Print a path by itself, never cut."""
    console.print(f"[bold]{label}[/bold]  {_plain(str(where))}", soft_wrap=True)


def line(text: str) -> None:
    """Print a line."""
    console.print(_plain(text), soft_wrap=True)


def number(cell: Cell, unit: str = "") -> str:
    """Write a cell as a person would: fractions as percent, counts whole, others with their leading digits."""
    if cell is None:
        return "–"
    if isinstance(cell, bool | str):
        return str(cell)
    if unit == "fraction":
        return f"{100 * cell:.1f}%"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.1f}" if unit in ("%", "points", "s") else f"{cell:.4g}"


def _scalar(result: Scalar) -> str:
    text = number(result.value, result.unit)
    if result.low is not None and result.high is not None:
        text += f" [{number(result.low, result.unit)} to {number(result.high, result.unit)}]"
    text += "" if result.unit in ("fraction", "") else f" {result.unit}"
    if result.n is not None:
        text += f", n = {result.n:,}"
    return _plain(text)


def _curve(result: Curve) -> None:
    if len(result.x.values) > 40:
        console.print(f"[bold]{_plain(result.title)}[/bold]  [dim]a curve, in the report[/dim]", soft_wrap=True)
        return
    grid = Grid(title=_plain(result.title), title_justify="left")
    grid.add_column(_plain(f"{result.x.name} ({result.x.unit})" if result.x.unit else result.x.name), justify="right")
    for series in result.series:
        grid.add_column(_plain(series.name), justify="right")
    for index, at in enumerate(result.x.values):
        cells = [_point(series, index, result.y.unit) for series in result.series]
        grid.add_row(number(at), *map(_plain, cells))
    console.print(grid)


def _point(series: Series, index: int, unit: str) -> str:
    text = number(series.values[index], unit)
    low = series.low[index] if series.low is not None else None
    high = series.high[index] if series.high is not None else None
    if low is None or high is None:
        return text
    return f"{text} [{number(low, unit).removesuffix('%')}, {number(high, unit).removesuffix('%')}]"


def _plain(text: Any) -> str:
    """Keep the user's brackets from being read as markup, and control characters from the terminal."""
    return printable(str(text)).replace("[", "\\[")
