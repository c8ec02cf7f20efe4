"""What an experiment's file holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.sweeps.lab import Lab

Case = dict[str, Any]
"""One row's settings, plain data; ``case`` and ``seed`` name it, ``data`` the set that it needs."""

TEST_IMAGES = "test images"
"""What scores belong to where nothing else is said."""


@dataclass(frozen=True)
class Measured:
    """Hold what one case gave.

    Attributes:
        row: Numbers by column.
        results: Curves, maps and galleries, shown below the table.
        verdicts: Per-sample scores, floating [N], by the column whose value is 100 times their mean; they let one
            seed be judged by a bootstrap over the samples.
        samples: As ``verdicts``, in the column's own unit: its value is their mean, such as a PSNR in dB.
        redrawn: By column its value on each of the bootstrap's samples, where it is no mean of scores: the samples are
            :func:`passband.tasks.precision_interval.redraw`'s of as many images, drawn from one population alone.
        drawn_from: By column what its scores belong to, such as ``"training images"``; `TEST_IMAGES` for a column that
            is not there. Columns of the same population and length are drawn alike, all others independently.
    """

    row: dict[str, Cell]
    results: tuple[Result, ...] = ()
    verdicts: dict[str, np.ndarray] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    redrawn: dict[str, np.ndarray] = field(default_factory=dict)
    drawn_from: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """State one table or figure of a paper; an experiment's file holds one as ``EXPERIMENT``.

    Attributes:
        title: A line for people.
        source: The paper and its table or figure.
        columns: The table's measured columns, behind case, data and seed.
        cases: A scale to the cases in the table's order.
        measure: One case to its numbers, training through the lab.
        claims: The paper's sentences.
        reported: The paper's own numbers, by ``"case, data"`` with the set that they are of, or by the case alone where
            the paper names no set; empty where it draws them without saying them.
        limit: Test images per probe at each scale; None takes all.
        figures: All rows to the paper's figure, its cases side by side (``experiments/curves.py``); None draws none.
        timed: Whether it takes times: its cases then run one after another in one process, whatever was asked for.
    """

    title: str
    source: str
    columns: Sequence[Column]
    cases: Callable[[Scale], list[Case]]
    measure: Callable[[Case, Lab], Measured]
    claims: Sequence[Claim]
    reported: dict[str, dict[str, float]] = field(default_factory=dict)
    limit: dict[Scale, int | None] = field(default_factory=dict)
    figures: Callable[[Rows], tuple[Result, ...]] | None = None
    timed: bool = False
