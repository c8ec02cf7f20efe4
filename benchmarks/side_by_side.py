"""Measure ours and theirs side by side: every round runs every variant once, in random order."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from passband.core.environment import hardware, versions
from passband.core.store import write_atomic


@dataclass(frozen=True)
class Pair:
    """Compare two variants; the ratio is theirs over ours, so more than 1 means that ours is faster or smaller.

    Attributes:
        name: What is compared, for people.
        ours: Our variant's name.
        theirs: The rival's.
        target: The least ratio that is asked for.
        note: What the reader must know.
    """

    name: str
    ours: str
    theirs: str
    target: float | None = None
    note: str = ""


def parser(description: str) -> argparse.ArgumentParser:
    """Return a reader of ``--json FILE``, ``--quick`` and ``--threads N``, to which a benchmark may add its own."""
    reader = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--json", type=Path, help="write the comparisons to this file")
    reader.add_argument("--quick", action="store_true", help="few rounds on small inputs: a check, no measurement")
    reader.add_argument("--threads", type=int, default=2, help="threads of torch; 2 unless told otherwise")
    return reader


def options(description: str) -> argparse.Namespace:
    """Read ``--json FILE``, ``--quick`` and ``--threads N`` from the command line."""
    return parser(description).parse_args()


def compare(pair: Pair, measured: Mapping[str, Sequence[float]], unit: str) -> dict[str, Any]:
    """Compare two variants round by round."""
    ours, theirs = measured[pair.ours], measured[pair.theirs]
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    ratio = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {
        "name": pair.name,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "unit": unit,
        "ratio": ratio,
        "target": pair.target,
        "note": pair.note,
        "rounds": len(ratios),
        "versions": versions(),
        "processor": hardware(),
    }


def show_times(title: str, measured: Mapping[str, Sequence[float]], scale: float, unit: str) -> None:
    """Print median, smallest and largest of every variant, multiplied by ``scale``."""
    table = Table("variant", "median", "min", "max", title=f"{title}, {unit}")
    for name, values in measured.items():
        numbers = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{scale * number:.1f}" for number in numbers))
    Console().print(table)


def report(comparisons: Sequence[dict[str, Any]], path: Path | None) -> None:
    """Print the ratios beside their targets and write them to ``path``."""
    table = Table("comparison", "ratio", "min", "max", "target", "", title="theirs / ours, round by round")
    for row in comparisons:
        ratio, target = row["ratio"], row["target"]
        verdict = "" if target is None else "reached" if ratio["median"] >= target else "missed"
        numbers = (f"{ratio[key]:.2f}" for key in ("median", "min", "max"))
        table.add_row(row["name"], *numbers, "" if target is None else f">= {target:.2f}", verdict)
    Console().print(table)
    if path is not None:
        write_atomic(path, json.dumps(list(comparisons), indent=1).encode())
