"""Which orders of interaction SpaRTAN and other networks encode: how many other patches two must be seen with.

The strength is that of the probe ``interactions`` (log-odds of the label, patches taken away by the mean color). The
paper draws it and gives neither settings nor numbers, nor what its "existing approach" is: here networks of three other
families stand for it, of like size below full scale. It says neither where middle orders begin: here those from 0.3 to
0.7 of the other patches, five of the thirteen, so that a flat curve has 38.5% of its strength there. ``middle`` is that
share.

Few contexts lift the middle orders by chance alone, which is the paper's own claim. All networks meet the same pairs
and contexts, and ``corrected`` is the share after what chance adds was taken away: the claims are judged both ways. An
untrained SpaRTAN stands beside. It is stem, patch embeddings and head: its layer scales are 1e-5, so that its mixers
play no part.

Below full scale 40 test images (the more images, the more an interval over them says) with 4 pairs and 10 contexts on
a grid of 8×8, 72,000 answers of each network; at full scale the sizes of MogaNet's authors. Intervals at one seed come
from drawing images anew, with their pairs and contexts; shares are computed anew from each draw.

**Source**: spartan, section I and figure 1a.
**Differs**: the shares, the correction and the control are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import across
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.settings import PEERS, SEEDS, SETS, SPARTAN, UNTRAINED, subject_of
from passband.probes.interaction_players import MIDDLE, RATIOS
from passband.probes.interaction_strength import corrected, middle_share, relative
from passband.sweeps.lab import Lab

GRIDS = {Scale.SMOKE: 5, Scale.SMALL: 8, Scale.FULL: 14}
"""Patches a side; from 5 on no two orders are the same."""
OPTIONS: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {"count": 3, "pairs": 2, "contexts": 2},
    Scale.SMALL: {"count": 40, "pairs": 4, "contexts": 10},
    Scale.FULL: {"preset": "moganet"},
}
READINGS = {"middle": "", "corrected": ", corrected for the floor"}
"""Columns with the share at middle orders, to what is said of them."""
FLAT = sum(MIDDLE[0] <= ratio <= MIDDLE[1] for ratio in RATIOS) / len(RATIOS)
"""The share that a flat curve has at the middle orders."""


def cases(scale: Scale) -> list[Case]:
    """List SpaRTAN, its peers, and SpaRTAN before any training."""
    return [
        {"case": name, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for name in (SPARTAN, *PEERS, UNTRAINED)
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure its interactions."""
    name = case["case"]
    run, asked = subject_of(case, lab)
    found = lab.ask(asked, run, "interactions", OPTIONS[lab.scale] | {"grid": GRIDS[lab.scale]})
    curve = found["interactions.strength"]
    samples = {
        column(of, ratio): scores
        for of in ("strength", "floor")
        for ratio, scores in zip(RATIOS, curve.arrays[of].T, strict=True)
    }
    row: dict[str, Cell] = {key: float(scores.mean()) for key, scores in samples.items()}
    row |= {"parameters": run.metrics["parameters"], "grid": GRIDS[lab.scale], "run": run.digest}
    row["mean"] = float(curve.arrays["strength"].mean())
    for key in READINGS:
        row |= _shown(key, strengths(row, key), GRIDS[lab.scale])
    return Measured(row, (curve.model_copy(update={"title": f"{curve.title}: {name}"}),), samples=samples)


def column(of: str, ratio: float) -> str:
    """Return the name of the column that holds a line's value at an order; the table does not show it."""
    return f"{of} at {ratio:g}"


def strengths(row: dict[str, Cell], key: str) -> np.ndarray:
    """Return the strength at each order as the paper has it (``middle``), or corrected for the floor."""
    strength, floor = (np.array([row[column(of, ratio)] for ratio in RATIOS]) for of in ("strength", "floor"))
    return strength if key == "middle" else corrected(strength, floor)


def _shown(key: str, strength: np.ndarray, grid: int) -> dict[str, Cell]:
    """Return the share at middle orders in percent and the curve, None where there is no interaction at all."""
    share, curve = 100 * float(middle_share(strength, grid)), relative(strength).tolist()
    cells = {key: share} | {column(key, ratio): value for ratio, value in zip(RATIOS, curve, strict=True)}
    return {name: value if np.isfinite(value) else None for name, value in cells.items()}


def share(rows: Rows, case: str, key: str) -> float | None:
    """Return the share at middle orders in percent, computed anew from the strengths, which a bootstrap draws."""
    row = next((row for row in rows if row["case"] == case and column("strength", 1.0) in row), None)
    if row is None:
        return None
    found = 100 * float(middle_share(strengths(row, key), int(str(row["grid"]))))
    return found if np.isfinite(found) else None


def above(rows: Rows, better: str, worse: str, key: str) -> float | None:
    """Return by how many points of the share one case lies above another."""
    left, right = share(rows, better, key), share(rows, worse, key)
    return None if left is None or right is None else left - right


def neglected(rows: Rows, case: str, key: str) -> float | None:
    """Return by how many points the share lies below what a flat curve has at the middle orders."""
    found = share(rows, case, key)
    return None if found is None else 100 * FLAT - found


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw the curves of all networks side by side, as the paper has them and corrected."""
    return tuple(
        curve
        for key, words in READINGS.items()
        for curve in across(
            rows,
            {ratio: column(key, ratio) for ratio in RATIOS},
            Column(name="order", unit="of all other patches"),
            Column(name="strength", unit="of its mean over the orders"),
            name=f"strength.{key}",
            title=f"Interaction strength by order{words}",
        )
    )


_OWN = "Control, not in the paper:"


def _more(rival: str, key: str) -> Claim:
    said = (
        "The network demonstrates a better balance [...] by capturing middle-order interactions between pixels (the "
        f"share of the strength at orders 0.3 to 0.7, SpaRTAN's less {rival}'s)"
    )
    return Claim(
        f"SpaRTAN above {rival}{READINGS[key]}", _sentence(said, key), "spartan, section I and figure 1a",
        lambda rows: above(rows, SPARTAN, rival, key), smallest=2.0,
    )  # fmt: skip


def _neglects(rival: str, key: str) -> Claim:
    said = (
        "Both architectural designs (CNNs and transformers) favor simple features, which are often encoded in "
        f"low-order or high-order interactions, and neglect [...] middle-order interactions ({rival}: its share at "
        "middle orders lies below that of a flat curve)"
    )
    return Claim(
        f"{rival} neglects the middle{READINGS[key]}", _sentence(said, key), "spartan, section I and figure 1a",
        lambda rows: neglected(rows, rival, key), smallest=2.0,
    )  # fmt: skip


def _learned(key: str) -> Claim:
    return Claim(
        f"SpaRTAN above itself untrained{READINGS[key]}",
        _sentence(f"{_OWN} a trained SpaRTAN has more of its strength at middle orders than an untrained one, whose "
                  "mixers play no part (its layer scales are 1e-5)", key),
        "spartan, section I and figure 1a", lambda rows: above(rows, SPARTAN, UNTRAINED, key), smallest=2.0,
    )  # fmt: skip


def _sentence(said: str, key: str) -> str:
    if key == "middle":
        return f"{said}."
    said = said if said.startswith(_OWN) else f"{_OWN} {said}"
    return f"{said}, corrected for what few contexts add."


def _each(make: Callable[[str, str], Claim]) -> tuple[Claim, ...]:
    return tuple(make(rival, key) for key in READINGS for rival in PEERS)


EXPERIMENT = Experiment(
    title="Interaction strength by order, SpaRTAN and networks of other families",
    source="spartan, figure 1a",
    columns=(
        Column(name="parameters"), *(Column(name=key, unit="%") for key in READINGS),
        Column(name="mean", unit="of log-odds"), Column(name="grid"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(*_each(_more), *_each(_neglects), *map(_learned, READINGS)),
    figures=figures,
    limit={scale: options.get("count", 100) for scale, options in OPTIONS.items()},
)  # fmt: skip
