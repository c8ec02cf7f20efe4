"""A table's rows as they would be on other test images: drawn anew, with replacement, the same ones for every case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passband.core.claims import Rows
from passband.core.results import Cell
from passband.experiments.protocol import Measured

DRAWS = 1000


def redrawn(known: Sequence[tuple[dict[str, Cell], Measured]]) -> list[Rows]:
    """Return the rows of `DRAWS` bootstrap samples, from seed 0.

    Columns of as many scores share their draws, so that cases stay paired. Columns without scores stay as they are.

    Args:
        known: Each row with what was measured for it.
    """
    lengths = dict.fromkeys(len(scores) for _, found in known for _, _, scores in _scored(found))
    generator = np.random.default_rng(0)
    counts = {length: np.empty((DRAWS, length)) for length in lengths}
    for draw in range(DRAWS):
        for length, count in counts.items():
            count[draw] = np.bincount(generator.integers(length, size=length), minlength=length)
    rows: list[list[dict[str, Cell]]] = [[] for _ in range(DRAWS)]
    for row, found in known:
        columns = {
            column: factor * (counts[len(scores)] @ scores / len(scores)) for factor, column, scores in _scored(found)
        }
        for draw in range(DRAWS):
            rows[draw].append(row | {column: float(values[draw]) for column, values in columns.items()})
    return list(rows)


def _scored(found: Measured) -> list[tuple[float, str, np.ndarray]]:
    """Return what turns a mean into the column's unit, the column, and its scores."""
    return [
        (factor, column, np.asarray(scores, dtype=float))
        for factor, columns in ((100.0, found.verdicts), (1.0, found.samples))
        for column, scores in columns.items()
    ]
