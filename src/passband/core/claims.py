"""A paper's sentence as a margin that can hold or fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from passband.core.results import Cell
from passband.core.scale import Scale

Verdict = Literal["holds", "fails", "undecided", "not judged at this scale", "not measured"]
Rows = Sequence[dict[str, Cell]]


@dataclass(frozen=True)
class Claim:
    """State a sentence of a paper so that numbers can speak to it.

    Attributes:
        name: Short and unique within its experiment.
        sentence: What the paper says, in its own words where they are short.
        place: Where it says so: paper, section, figure or table.
        margin: One seed's rows to a margin; positive means that the paper is right; None when a row is missing.
        unit: The margin's unit.
        smallest: The smallest margin of interest, for the reader; it takes no part in the verdict.
        judged_from: The scale from which the claim is judged; None where no scale is enough.
        over: What the rows' seeds are, for the reader: ``"seeds"``, or ``"rounds"`` of a measurement.
        drawn: What a bootstrap draws anew, for the reader: ``"test images"``, ``"training images"``, both, or
            ``"kernels"`` or ``"filters"`` of a network. The draws themselves go by what each column was measured on.
        exact: Whether the margin is counted, not measured: minus the number of things that differ. It has no spread;
            the claim holds where nothing differs, at 0, and fails below.
    """

    name: str
    sentence: str
    place: str
    margin: Callable[[Rows], float | None]
    unit: str = "points"
    smallest: float = 0.0
    judged_from: Scale | None = Scale.SMALL
    over: str = "seeds"
    drawn: str = "test images"
    exact: bool = False


class Judged(BaseModel):
    """Hold a claim's verdict with the margin behind it."""

    model_config = ConfigDict(frozen=True)

    name: str
    sentence: str
    place: str
    verdict: Verdict
    margin: float | None
    low: float | None
    high: float | None
    unit: str
    smallest: float
    seeds: int
    interval: str


def judge(claim: Claim, rows: Rows, scale: Scale, redrawn: Callable[[], Sequence[Rows]] | None = None) -> Judged:
    """Judge one claim over all seeds of a table.

    The 95% interval is Student's t over three seeds or more; with fewer, a bootstrap over the stored per-sample
    verdicts when ``redrawn`` gives the rows on resampled test images, the same images for every case. An
    exact claim has no interval and is judged by its worst margin.

    Args:
        claim: The claim.
        rows: The table's rows; the column ``seed`` pairs the cases.
        scale: The scale at which the rows were measured.
        redrawn: Gives the rows as they are on test images drawn anew, draw by draw; None where no scores were stored.
    """
    margins = _margins(claim, rows)
    margin = None if not margins else min(margins) if claim.exact else fmean(margins)
    low, high, interval = (None, None, "exact") if claim.exact else _interval(claim, margins, redrawn)
    if margin is None:
        verdict: Verdict = "not measured"
    elif claim.judged_from is None or not scale.reaches(claim.judged_from):
        verdict = "not judged at this scale"
    elif claim.exact:
        verdict = "holds" if margin >= 0 else "fails"
    else:
        verdict = _verdict(low, high)
    return Judged(
        name=claim.name, sentence=claim.sentence, place=claim.place, verdict=verdict, margin=margin, low=low,
        high=high, unit=claim.unit, smallest=claim.smallest, seeds=len(margins), interval=interval,
    )  # fmt: skip


def _verdict(low: float | None, high: float | None) -> Verdict:
    """Judge by where an interval lies."""
    if low is None or high is None:
        return "undecided"
    return "holds" if low > 0 else "fails" if high < 0 else "undecided"


def _margins(claim: Claim, rows: Rows) -> list[float]:
    seeds = sorted({row["seed"] for row in rows}, key=str)
    margins = (claim.margin([row for row in rows if row["seed"] == seed]) for seed in seeds)
    return [margin for margin in margins if margin is not None]


def _interval(
    claim: Claim, margins: list[float], redrawn: Callable[[], Sequence[Rows]] | None
) -> tuple[float | None, float | None, str]:
    if len(margins) >= 3:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(margins) - 1)) * stdev(margins) / math.sqrt(len(margins))
        return fmean(margins) - half, fmean(margins) + half, f"t over {len(margins)} {claim.over}"
    if margins and redrawn is not None:
        draws = [fmean(found) for rows in redrawn() if (found := _margins(claim, rows))]
        # A margin of columns that were not drawn anew is the same in every draw: that says nothing of its spread.
        if draws and min(draws) < max(draws):
            low, high = np.quantile(draws, [0.025, 0.975])
            of = f"{len(margins)} seed{'s' if len(margins) > 1 else ''}, which says nothing of others"
            return float(low), float(high), f"paired bootstrap over the {claim.drawn}, {of}"
    return None, None, "no interval: fewer than three seeds and no per-sample verdicts that vary"
