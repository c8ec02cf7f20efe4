"""A table's rows as they would be on other images: drawn anew, with replacement, the same ones for every case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from passband.core.claims import Rows
from passband.core.results import Cell
from passband.experiments.protocol import TEST_IMAGES, Measured

DRAWS = 1000


class _Scores(NamedTuple):
    """Hold a column's scores, what turns their mean into its unit, and what is drawn: a population and its size."""

    column: str
    scores: np.ndarray
    factor: float
    drawn: tuple[str, int]


def redrawn(known: Sequence[tuple[dict[str, Cell], Measured]]) -> list[Rows]:
    """Return the rows of `DRAWS` bootstrap samples, from seed 0.

    What comes drawn (``Measured.redrawn``) is put in as it is.

    Columns of as many scores of the same population share their draws, so that cases stay paired; test and training
    images are drawn independently, however many they are. Columns without scores stay as they are.

    Args:
        known: Each row with what was measured for it.
    """
    drawn = dict.fromkeys(one.drawn for _, found in known for one in _scored(found))
    generator = np.random.default_rng(0)
    counts = {(population, length): np.empty((DRAWS, length)) for population, length in drawn}
    for draw in range(DRAWS):
        for (_, length), count in counts.items():
            count[draw] = np.bincount(generator.integers(length, size=length), minlength=length)
    rows: list[list[dict[str, Cell]]] = [[] for _ in range(DRAWS)]
    for row, found in known:
        columns = {
            one.column: one.factor * (counts[one.drawn] @ one.scores / len(one.scores)) for one in _scored(found)
        }
        columns |= found.redrawn
        for draw in range(DRAWS):
            rows[draw].append(row | {column: float(values[draw]) for column, values in columns.items()})
    return list(rows)


def _scored(found: Measured) -> list[_Scores]:
    return [
        _Scores(
            column,
            np.asarray(scores, dtype=float),
            factor,
            (found.drawn_from.get(column, TEST_IMAGES), len(scores)),
        )
        for factor, columns in ((100.0, found.verdicts), (1.0, found.samples))
        for column, scores in columns.items()
    ]
