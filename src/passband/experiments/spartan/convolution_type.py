"""Full, depthwise or hybrid convolutions: accuracy, size and speed.

F is full in all stages, D depthwise, H full in stages 1 and 2 and depthwise in 3 and 4: in the spatial mixers. The
channel mixers follow the released code (groups as large as the channels where the spatial mixer is full, as many as the
input's channels where it is depthwise), whose parameters, MACs and FLOPs are the table's. The paper's text has H's
choice in the channel mixers too: ``H, text`` is that network, five times as much work.

Three kinds of rows. Counted: SpaRTAN-XT at 224 pixels. Trained: accuracy. Timed: ``seed`` is the round of a measurement
in turns, in which each network answers one batch (float32, channels last, batch norms not folded), SpaRTAN-XT at 224
pixels from small scale on. The paper's throughput is that of an A100 with a batch of 1,024 in an unstated precision;
here it belongs to the hardware that the answer names, and its intervals are over rounds.

"The best balance" is read as: quicker than both others, and nearer in accuracy to F than to D.

**Source**: spartan, section IV-C3 and table VIII; sections III-B and III-C.
"""

from __future__ import annotations

import math
from functools import partial
from statistics import median
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.results import Column, Result, Table
from passband.core.scale import Scale
from passband.experiments.margins import difference, nearer, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import (
    COLUMNS,
    COUNTED,
    ablated,
    above,
    as_reported,
    counted,
    exactly,
    trainings,
    untied,
)
from passband.experiments.spartan.settings import LIMIT, network
from passband.experiments.timing import forward_rounds
from passband.sweeps.lab import Lab

TYPES: dict[str, dict[str, Any]] = {
    "F": {"convolution": "F"},
    "D": {"convolution": "D"},
    "H": {},
    "H, text": {"groups": "paper"},
}
COUNTS = {f"{name}, XT at 224": name for name in TYPES}
TIMES = {f"{name}, throughput": name for name in TYPES}
ROUNDS = {Scale.SMOKE: 2, Scale.SMALL: 7, Scale.FULL: 20}
BATCH = {Scale.SMOKE: 4, Scale.SMALL: 16, Scale.FULL: 1024}


def cases(scale: Scale) -> list[Case]:
    """List the types: counted, timed round by round, and trained."""
    counts: list[Case] = [{"case": name, "data": None, "seed": None} for name in COUNTS]
    times: list[Case] = [{"case": name, "data": None, "seed": at} for at in range(ROUNDS[scale]) for name in TIMES]
    return [*counts, *times, *trainings(scale, TYPES)]


def measure(case: Case, lab: Lab) -> Measured:
    """Count, time or train one network."""
    name = case["case"]
    if name in COUNTS:
        return counted("spartan_xt", **TYPES[COUNTS[name]])
    if name in TIMES:
        return _timed(TIMES[name], case["seed"], lab)
    return ablated(case, lab, TYPES[name])


def _timed(name: str, at: int, lab: Lab) -> Measured:
    """Return one round's images per second; all rounds of all types are measured together, once."""
    small = lab.scale is Scale.SMOKE
    networks = {
        one: network(lab.scale, **given) if small else {"name": "spartan_xt", **given} for one, given in TYPES.items()
    }
    size, batch = 32 if small else 224, BATCH[lab.scale]
    seconds = forward_rounds(networks, lab, size=size, batch=batch, rounds=ROUNDS[lab.scale])[name][at]
    return Measured({"throughput": batch / seconds, "batch": batch, "input": size})


def quicker(rows: Rows, name: str, than: str) -> float | None:
    """Return by how much a type is quicker than another: 100 · ln of their ratio, which is near percent."""
    left, right = (value(rows, f"{one}, throughput", "throughput") for one in (name, than))
    return None if left is None or right is None else 100 * math.log(left / right)


def highest(rows: Rows) -> float | None:
    """Return by how much full convolutions are more accurate than the better of D and H, in points."""
    found = [difference(rows, "F", other, "accuracy") for other in ("D", "H")]
    return None if found[0] is None or found[1] is None else min(found[0], found[1])


def fewer(rows: Rows, column: str) -> float | None:
    """Return how many fewer of a column depthwise convolutions have than full ones, -1 for as many."""
    return untied(difference(rows, "F, XT at 224", "D, XT at 224", column))


def changed(rows: Rows) -> float | None:
    """Return minus the counts that the text's groups change."""
    gaps = [difference(rows, "H, text, XT at 224", "H, XT at 224", column.name) for column in COUNTED]
    return None if None in gaps else 0.0 - sum(gap != 0 for gap in gaps)


def figures(rows: Rows) -> tuple[Result, ...]:
    """Return each type's throughput: median, least and most over rounds."""
    cells = []
    for name in TIMES:
        found = [row["throughput"] for row in rows if row["case"] == name and row.get("throughput") is not None]
        speeds = [float(one) for one in found if isinstance(one, float)]
        if speeds:
            cells.append((TIMES[name], median(speeds), min(speeds), max(speeds), len(speeds)))
    columns = [Column(name="type"), *(Column(name=name, unit="images/s") for name in ("throughput", "least", "most"))]
    table = Table(
        name="throughput", title="Throughput: median, least and most over rounds",
        columns=(*columns, Column(name="rounds")), rows=tuple(cells),
    )  # fmt: skip
    return (table,) if cells else ()


_PLACE = "spartan, section IV-C3, table VIII"


def _quicker(name: str, than: str, sentence: str) -> Claim:
    return Claim(f"{name} quicker than {than}", sentence, _PLACE, lambda rows: quicker(rows, name, than), unit="%",
                 smallest=3.0, over="rounds")  # fmt: skip


EXPERIMENT = Experiment(
    title="Full, depthwise and hybrid convolutions (seed of a timed row: the round of the measurement)",
    source="spartan, table VIII",
    columns=(COLUMNS[0], *COUNTED, Column(name="throughput", unit="images/s"), Column(name="batch"), *COLUMNS[4:]),
    cases=cases,
    measure=measure,
    timed=True,
    figures=figures,
    claims=(
        as_reported("F, XT at 224", {"parameters": (3.3, 1), "FLOPs": (0.78, 2), "MACs": (754.2, 1)}, _PLACE),
        as_reported("D, XT at 224", {"parameters": (2.2, 1), "FLOPs": (0.57, 2), "MACs": (539.2, 1)}, _PLACE),
        as_reported("H, XT at 224", {"parameters": (2.2, 1), "FLOPs": (0.64, 2), "MACs": (614.4, 1)}, _PLACE),
        *(
            exactly(f"depthwise has fewer {column}", "Depthwise convolution has fewer parameters and FLOPs compared to "
                    f"full convolution ({column}; margin: how many, -1 where equal).", _PLACE,
                    partial(fewer, column=column), unit=unit)
            for column, unit in (("parameters", "M"), ("FLOPs", "G"))
        ),
        exactly("the text's groups", "Similar to SMixer, a mixture of full convolution and depthwise convolution is "
                "used in CMixer: here the counts of that network against the table's (margin: minus the counts that "
                "differ).", "spartan, section III-C", changed),
        _quicker("H", "D", "Its throughput (depthwise) suffers because it cannot fully utilize modern accelerators "
                 "(here: H is quicker than D on the hardware that the answer names)."),
        _quicker("H", "F", "Full convolution in all stages also results in reduced throughput (here: H is quicker "
                 "than F on the hardware that the answer names)."),
        Claim("F most accurate", "Full convolution achieves the highest accuracy.", _PLACE, highest, smallest=0.2),
        Claim("H nearer to F than to D", "The hybrid setting achieves the best balance: in accuracy, here nearer to F "
              "than to D.", _PLACE, lambda rows: nearer(rows, "H", to="F", than="D", column="accuracy"), smallest=0.3),
        above("the text's groups, accuracy", "Control, not in the paper: H with the text's groups in the channel mixer "
              "is more accurate than with the released code's.", _PLACE, "H, text", "H"),
    ),
    reported={
        f"{name}, XT at 224": {"parameters": parameters, "FLOPs": flops, "MACs": macs}
        for name, parameters, flops, macs in (
            ("F", 3.3, 0.78, 754.2), ("D", 2.2, 0.57, 539.2), ("H", 2.2, 0.64, 614.4),
        )
    } | {f"{name}, throughput": {"throughput": speed} for name, speed in (("F", 3008), ("D", 3640), ("H", 3730))}
    | {f"{name}, imagenet": {"accuracy": right} for name, right in (("F", 74.1), ("D", 73.2), ("H", 73.9))},
    limit=LIMIT,
)  # fmt: skip
