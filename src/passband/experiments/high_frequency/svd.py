"""Figure 2's images by truncated singular value decomposition: how many remain.

Each channel of each image is cut into what its largest singular values make and the rest, in place of LFC and HFC; the
networks are those of ``examples``. The paper states no rank: it is the smallest that keeps as much energy as LFC does,
at each radius (r = 12 is figure 2's), so that both low parts are equally far from the image, or that of the
decomposition is nearer. Both parts are divided by their own maximum; the control leaves them (``unscaled``).
ResNet-50 at 224 pixels has its own name, as in ``examples``.

``Fourier`` and ``SVD`` are the shares of images that are right whole and on the high part, and wrong on the low part;
``both`` those that are so under either cut, so that what remains of figure 2's images is ``both`` of ``Fourier``.
``LFC wrong`` and ``SVD low wrong`` count what is right whole and wrong on the low part, whatever the high one says:
where these differ, the low part says so, and not the signal in the rest. ``beyond chance`` is as in ``examples``, a
share of all images. As the decomposition's low part is the nearer one, fewer images are wrong on it, and that share
shrinks for this alone. So signal is compared per image that is wrong on the low part: each ``beyond chance`` over its
own ``wrong``.

**Source**: high-frequency, section 8. No numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.high_frequency.examples import (
    CODE,
    LARGE,
    LIMIT,
    TEXT,
    cuts,
    networks,
    relying,
    seeds,
    shown,
    trained,
)
from passband.experiments.high_frequency.settings import COLOR
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab
from passband.train.run import Run

SPLITS = {"Fourier": "fourier", "SVD": "svd"}
LOW = {"Fourier": "LFC wrong", "SVD": "SVD low wrong"}
"""Columns of the images that are right whole and wrong on a cut's low part."""
BEYOND = {name: f"{name} beyond chance" for name in SPLITS}
JUDGED = (*SPLITS, "both", *(f"{name} unscaled" for name in SPLITS), *BEYOND.values(), *LOW.values())
"""What claims read: drawn anew for their intervals."""


def cases(scale: Scale) -> list[Case]:
    """List each network by the radius whose energy both cuts keep."""
    return [
        {"case": f"{network}, r ≤ {radius}", "network": network, "radius": radius, "data": data, "seed": seed}
        for seed in seeds(scale)
        for data in COLOR[scale]
        for network in networks(scale, data)
        for radius in cuts(scale, data, network)
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and cut its images both ways."""
    run = trained(case, lab)
    found = {name: relying(run, lab, case, by=by) for name, by in SPLITS.items()}
    scores = _scores(found) | _unscaled(run, lab, case)
    row: dict[str, Cell] = {column: 100 * float(score.mean()) for column, score in scores.items()}
    at_figure_2 = case["radius"] == shown(case["data"])
    row |= {
        "network": case["network"], "radius": case["radius"], "at figure 2": at_figure_2,
        "rank": float(found["SVD"]["reliance.share"].arrays["ranks"].mean()), "run": run.digest,
        "Fourier found": int(scores["Fourier"].sum()), "SVD found": int(scores["SVD"].sum()),
    }  # fmt: skip
    wanted = ("reliance.share", "reliance.verdicts", "reliance.examples")
    results = [one for name, one in found["SVD"].items() if at_figure_2 and name in wanted]
    return Measured(row, tuple(results), {column: scores[column] for column in JUDGED})


def _scores(found: dict[str, dict[str, Result]]) -> dict[str, np.ndarray]:
    scores: dict[str, np.ndarray] = {}
    for name, results in found.items():
        chance = results["reliance.by_chance"]
        images = results["reliance.share"].arrays["found"].astype(float)
        scores |= {
            name: images,
            LOW[name]: chance.arrays["among"].astype(float),
            BEYOND[name]: images - chance.arrays["scores"],
        }
    return scores | {"both": scores["Fourier"] * scores["SVD"]}


def _unscaled(run: Run, lab: Lab, case: Case) -> dict[str, np.ndarray]:
    def images(by: str) -> Any:
        return relying(run, lab, case, by=by, rescale="none")["reliance.share"].arrays["found"]

    return {f"{name} unscaled": images(by).astype(float) for name, by in SPLITS.items()}


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw the share of such images over the radius whose energy is kept, by cut."""
    radius, share = Column(name="radius of the cut", unit="bins"), Column(name="images", unit="%")
    lines = [
        {**row, radius.name: row.get("radius"), share.name: row.get(name), "line": f"{row.get('network')}, {name}"}
        for row in rows
        for name in SPLITS
    ]
    title = "Images right whole and on the high part, wrong on the low part"
    return over(lines, radius, share, by="line", name="images", title=title)


def fewer(rows: Rows, network: str, column: str, *, than: str, times: float = 1.0) -> float | None:
    """Return how far a column, taken so many times, lies below another at figure 2's radius, in points."""
    row = _at_figure_2(rows, network)
    return None if row is None else _number(row[than]) - times * _number(row[column])


def more_signal(rows: Rows, network: str) -> float | None:
    """Return how much more often HFC is right beyond chance than the rest of the decomposition, in points.

    Each is taken over the images that are right whole and wrong on its own low part; without any, nothing is known.
    """
    row = _at_figure_2(rows, network)
    if row is None or not all(_number(row[wrong]) for wrong in LOW.values()):
        return None
    shares = {name: 100 * _number(row[BEYOND[name]]) / _number(row[LOW[name]]) for name in SPLITS}
    return shares["Fourier"] - shares["SVD"]


def _at_figure_2(rows: Rows, network: str) -> dict[str, Cell] | None:
    return next((row for row in rows if row.get("network") == network and row.get("at figure 2")), None)


def _number(cell: Cell) -> float:
    assert isinstance(cell, float)
    return cell


_PLACE = "high-frequency, section 8"


def _of_network(network: str) -> tuple[Claim, ...]:
    return (
        Claim(
            f"fewer by SVD: {network}",
            "With truncated SVD we find fewer images supporting the story in figure 2 than with the Fourier split.",
            _PLACE, lambda rows: fewer(rows, network, "SVD", than="Fourier"), smallest=0.5,
        ),
        Claim(
            f"much fewer by SVD: {network}", "We find much fewer images (here: less than half as many).", _PLACE,
            lambda rows: fewer(rows, network, "SVD", than="Fourier", times=2), smallest=0.5,
        ),
        Claim(
            f"most do not remain: {network}",
            "Control, not in the paper: of the images that the Fourier split finds, less than half are found by "
            "truncated SVD too.", _PLACE, lambda rows: fewer(rows, network, "both", than="Fourier", times=2),
            smallest=0.5,
        ),
        Claim(
            f"more than noise: {network}",
            "The signal CNN exploits is more than just random noises: here HFC is right beyond chance more often than "
            "the rest of the truncated SVD, each per image right whole and wrong on its low part.", _PLACE,
            lambda rows: more_signal(rows, network), smallest=1.0,
        ),
        Claim(
            f"fewer by SVD, unscaled: {network}",
            "Control, not in the paper: fewer by truncated SVD where neither part is rescaled.", _PLACE,
            lambda rows: fewer(rows, network, "SVD unscaled", than="Fourier unscaled"), smallest=0.5,
        ),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Images whose right answer rests on the rest, cut by Fourier transform and by truncated SVD",
    source="high-frequency, section 8",
    columns=(
        Column(name="rank"), Column(name="Fourier found", unit="images"), Column(name="SVD found", unit="images"),
        *(
            Column(name=name, unit="%")
            for name in (
                *SPLITS, "both", *LOW.values(), *BEYOND.values(), *(f"{name} unscaled" for name in SPLITS),
            )
        ),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=tuple(claim for network in (CODE, TEXT, LARGE) for claim in _of_network(network)),
    limit=LIMIT,
)  # fmt: skip
