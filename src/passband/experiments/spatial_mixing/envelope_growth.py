"""How much of the frequency plane a bank of random filters covers as filters are added to it.

A bank's spectral envelope is the largest amplitude of any of its filters at each frequency, each padded to 512×512.
The paper shows it as pictures; here coverage is a number, measured in two ways:

- the share of frequencies at which the envelope exceeds 1/√3. That is the root mean square amplitude of a random
  filter, at any frequency and for any size k (k² weights of variance 1/(3k²) each), one level for all banks. More
  filters can only add to what is covered: the question is whether they do.
- ``relative``, the control: the share at which it exceeds half of its own maximum. A filter with a higher peak than
  all before it lowers this coverage, so it can fall.

Banks are nested: the two filters contain the one. Beside ``different`` random filters stand two controls:
``correlated`` ones, which share nine tenths of their variance with the bank's first, and the ``box``, whose envelope
cannot grow. A seed is a draw of the bank. Nothing is trained; smoke has two draws, the other scales ten.

The choices where the paper is silent: weights uniform within ±1/k, as these networks draw them; 3×3 filters as in its
ResNets and 8×8 ones as in its ConvMixers; up to 64 filters.

**Source**: spatial-mixing, workshop version, section 3.1, figure 1 and footnote 1. The figure has no numbers.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Map, Result
from passband.core.scale import Scale
from passband.experiments.curves import across
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.frequency.spectrum import coverage, envelope
from passband.probes.kernels import plane_axes
from passband.sweeps.lab import Lab
from passband.weights.banks import draw_filters

COUNTS = (1, 2, 4, 8, 16, 32, 64)
"""Filters in a bank."""
GROWING = (1, 2, 4, 8)
"""The banks whose coverage is asked to grow each time: with 16 filters next to nothing of the plane is left."""
SHOWN = (1, 2, 4, 16, 64)
"""The banks whose envelope is drawn."""
SIDES = (3, 8)
BANKS = ("different", "correlated", "box")
SHARED = 0.9
"""Share of a correlated filter's variance that comes from the bank's first."""
LEVEL = 3**-0.5
SEEDS = {Scale.SMOKE: 2, Scale.SMALL: 10, Scale.FULL: 10}
SIZE, DRAWN = 512, 64
"""Bins to a side at which coverage is measured, and at which an envelope is drawn."""


def cases(scale: Scale) -> list[Case]:
    """List the banks by size of filter, draw by draw."""
    return [
        {"case": _name(bank, side), "data": None, "seed": seed, "bank": bank, "side": side}
        for seed in range(SEEDS[scale])
        for side in SIDES
        for bank in BANKS
    ]


def _name(bank: str, side: int) -> str:
    return f"{bank}, {side}×{side}"


def measure(case: Case, lab: Lab) -> Measured:
    """Return one bank's coverage with more and more of its filters, and, for the first draw, the envelopes."""
    filters = draw(case["bank"], case["side"], case["seed"])
    row: dict[str, Cell] = {"line": case["case"]}
    plane = torch.zeros(SIZE, SIZE)
    for before, count in pairwise((0, *COUNTS)):
        plane = torch.maximum(plane, envelope(filters[before:count], SIZE))
        row[_column(count)] = 100 * float((plane > LEVEL).double().mean())
        row[_column(count, relative=True)] = 100 * coverage(plane)
    shown = case["seed"] == 0 and case["bank"] == "different"
    return Measured(row, tuple(_map(filters[:count], case["side"]) for count in SHOWN) if shown else ())


def draw(bank: str, side: int, seed: int) -> Float[Tensor, "filters side side"]:
    """Draw a bank of as many filters as the largest has.

    Args:
        bank: ``"different"``, ``"correlated"`` or ``"box"``.
        side: Of the square filters.
        seed: Of the draw; the correlated bank begins with the same filter as the different one.
    """
    with torch.random.fork_rng():
        convolution = nn.Conv2d(1, max(COUNTS), side, bias=False)
    draw_filters(convolution, "box" if bank == "box" else "different", seed)
    filters = convolution.weight.detach()[:, 0]
    if bank == "correlated":
        first, others = filters[:1], filters[1:]
        filters = torch.cat([first, SHARED**0.5 * first + (1 - SHARED) ** 0.5 * others])
    return filters


def _column(count: int, *, relative: bool = False) -> str:
    return f"{count} filter{'s' if count > 1 else ''}" + (", relative" if relative else "")


def _map(filters: Tensor, side: int) -> Map:
    x, y = plane_axes(DRAWN)
    bank = f"{len(filters)} random {side}×{side} filter{'s' if len(filters) > 1 else ''}"
    return Map(
        name=f"envelope.{len(filters)}", title=f"Spectral envelope of {bank}",
        notes=(f"Drawn with {DRAWN}×{DRAWN} bins; zero frequency is in the center.",), x=x, y=y,
        values=envelope(filters, DRAWN).numpy(), unit="amplitude",
    )  # fmt: skip


def _growth(rows: Rows, case: str, first: int, last: int, *, relative: bool = False) -> float | None:
    """Return by how many points coverage grows from one number of filters to another."""
    ends = [value(rows, case, _column(count, relative=relative)) for count in (first, last)]
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def least_growth(rows: Rows, case: str) -> float | None:
    """Return the least growth of coverage, in points, over the doublings of a bank."""
    steps = [_growth(rows, case, first, last) for first, last in pairwise(GROWING)]
    found = [step for step in steps if step is not None]
    return min(found) if len(found) == len(steps) else None


def nears(rows: Rows, case: str) -> float | None:
    """Return how much nearer the largest bank comes to the whole plane than to what one filter covers, in points.

    By the relative measure: above the rms of one filter, 64 of any kind cover nearly all.
    """
    grown = _growth(rows, case, 1, COUNTS[-1], relative=True)
    reached = value(rows, case, _column(COUNTS[-1], relative=True))
    return None if grown is None or reached is None else grown - (100 - reached)


def _beyond(rows: Rows, case: str, other: str) -> float | None:
    """Return by how many points more a bank's coverage grows than another's."""
    ours, theirs = (_growth(rows, name, 1, COUNTS[-1]) for name in (case, other))
    return None if ours is None or theirs is None else ours - theirs


def _claims(side: int) -> list[Claim]:
    place = f"spatial-mixing (workshop), section 3.1, figure 1, {side}×{side}"
    case, correlated = _name("different", side), _name("correlated", side)
    rapid = "Increasing the number of filters rapidly increases the bank's coverage in frequency space."
    return [
        Claim(
            f"coverage grows with each doubling, {side}×{side}", rapid, place,
            lambda rows: least_growth(rows, case), smallest=1.0,
        ),
        Claim(
            f"coverage nears the whole plane, {side}×{side}",
            "Random filters form a dense spectral envelope.", place, lambda rows: nears(rows, case),
        ),
        Claim(
            f"uncorrelated filters cover more, {side}×{side}",
            "The envelope rapidly grows as we add more uncorrelated filters to the set.", place,
            lambda rows: _beyond(rows, case, correlated), smallest=1.0,
        ),
        Claim(
            f"coverage relative to the peak grows too, {side}×{side}", rapid, f"{place}, by the control's measure",
            lambda rows: _growth(rows, case, 1, COUNTS[-1], relative=True), smallest=1.0,
        ),
    ]  # fmt: skip


def figures(rows: Rows) -> tuple[Result, ...]:
    """Return coverage over the number of filters by bank, by both measures and for both sizes of filter."""
    drawn: list[Result] = []
    for side in SIDES:
        found = [row for row in rows if str(row["line"]).endswith(f"{side}×{side}")]
        for relative, measured in ((False, "above 1/√3"), (True, "above half of the maximum")):
            drawn += across(
                found, {count: _column(count, relative=relative) for count in COUNTS}, Column(name="filters"),
                Column(name=f"coverage, {measured}", unit="%"), by="line",
                name=f"coverage.{side}" + (".relative" if relative else ""),
                title=f"Coverage of random {side}×{side} filters, {measured}",
            )  # fmt: skip
    return tuple(drawn)


EXPERIMENT = Experiment(
    title="Spectral coverage of random filters, over their number",
    source="spatial-mixing, workshop version, figure 1",
    columns=tuple(
        Column(name=_column(count, relative=relative), unit="%") for relative in (False, True) for count in COUNTS
    ),
    cases=cases,
    measure=measure,
    claims=[claim for side in SIDES for claim in _claims(side)],
    figures=figures,
)
