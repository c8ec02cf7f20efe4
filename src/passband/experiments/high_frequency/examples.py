"""Images whose right answer rests on high frequencies (figure 2), and answers that change without them (corollary 1).

Figure 2's images are right whole and on HFC and wrong on LFC, cut at r = 12; all of them are counted, by cut-off, and
eight are shown: those whose right class loses most confidence on LFC. Both copies are divided by their own maximum, as
the paper's code does, which makes HFC stronger, on CIFAR-10 by a median of about 8 times at r = 12 and of 24 at r = 16.
The control leaves them as they are (``unscaled``).

A network that answers every HFC alike is right on some of them. ``beyond chance`` is what is left of the share less
what would be right were the answers to HFC dealt anew among the images that are right whole and wrong on LFC; ``HFC
beyond chance`` is the same of all images.

Corollary 1 speaks of the LFC itself, so there it is not rescaled. It overshoots [0, 1], which the corollary allows and
attacks do not. ``otherwise`` is the share of all images with f(x) ≠ f(x_l) (assumption A2); ``L∞`` and ``L2`` are the
means of these images' distance to their LFC. ``of right`` is the share among the images answered rightly untouched: at
those no ε of at least the distance lets the model be accurate and robust, and ``L∞ of right`` and ``L2 of right`` are
the means of theirs. That LFC looks alike to a human (assumption A1) is not measured; the distances say how far from
alike it is.

Readings beside the paper's text: the radius itself dropped (``r <``, its code), and ResNet-18, which figure 2 names,
beside the network of its code, which has no norm. ResNet-18's batch norms take running statistics. At 224 pixels,
where the paper shows no such images, the cut is at r = 100; there ResNet-50 with batch norms, likewise running, stands
in for both networks, under its own name.

At small scale ResNet-18 is measured on Fashion-MNIST alone, and cifar10-jpeg, on which color matters, is no CIFAR-10:
JPEG altered its high frequencies.

**Source**: high-frequency, sections 1, 3.1 and 3.2, figure 2, corollary 1. No numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.high_frequency.settings import COLOR, radii, training
from passband.experiments.protocol import Case, Experiment, Measured
from passband.probes.disagreement import RIGHT
from passband.probes.reliance import by_chance
from passband.sweeps.lab import Lab
from passband.train.run import Run

CODE, TEXT, LARGE = "hfc_resnet32", "small_resnet18", "resnet50"
"""The networks of the paper's code, of figure 2, and of 224 pixels."""
MAIN = (CODE, LARGE)
"""The first network of a set, which is the one with controls."""
EDGES = {"inclusive": "≤", "exclusive": "<"}
ADDED = "HFC adds"
ANYWHERE = ("otherwise", "beyond chance")
JUDGED = (*ANYWHERE, ADDED, "beyond chance unscaled", "HFC beyond chance", "HFC beyond chance unscaled")
"""What claims read of every reading, and of the main network under the paper's cut; drawn anew for intervals."""
SHOWN = {
    "inclusive": ("disagreement.share", "disagreement.linf", "disagreement.l2", "reliance.share", "reliance.verdicts",
                  "reliance.examples"),
    "exclusive": ("disagreement.share", "reliance.share"),
}  # fmt: skip
"""What is shown of each reading below the table, at figure 2's radius."""
LIMIT: dict[Scale, int | None] = {Scale.SMOKE: 100, Scale.SMALL: 2000}


def networks(scale: Scale, data: str) -> tuple[str, ...]:
    """Return the networks that are measured on a set."""
    if data == "restricted-imagenet":
        return (LARGE,)
    return (CODE,) if scale is Scale.SMALL and data == "cifar10-jpeg" else (CODE, TEXT)


def seeds(scale: Scale) -> tuple[int, ...]:
    """Return the seeds of a scale."""
    return (0, 1, 2) if scale is Scale.FULL else (0,)


def shown(data: str) -> int:
    """Return figure 2's radius."""
    return radii(data)[2]


def cuts(scale: Scale, data: str, network: str) -> tuple[int, ...]:
    """Return the radii that are measured: at smoke scale figure 2's, and of the code's network the first."""
    if scale is not Scale.SMOKE:
        return radii(data)
    return (radii(data)[0], shown(data)) if network == CODE else (shown(data),)


def cases(scale: Scale) -> list[Case]:
    """List each network under both readings of the cut, by radius."""
    return [
        {"case": f"{network}, r {sign} {radius}", "network": network, "edge": edge, "radius": radius, "data": data,
         "seed": seed}
        for seed in seeds(scale)
        for data in COLOR[scale]
        for network in networks(scale, data)
        for edge, sign in EDGES.items()
        for radius in cuts(scale, data, network)
    ]  # fmt: skip


def trained(case: Case, lab: Lab) -> Run:
    """Train a case's network as the paper's vanilla one."""
    return lab.train(training(lab.scale, data=case["data"], seed=case["seed"], network=case["network"]))


def relying(run: Run, lab: Lab, case: Case, **options: Any) -> dict[str, Result]:
    """Ask which images rest on what a case's cut leaves out."""
    return lab.probe(run, "reliance", {"radius": float(case["radius"]), **options})


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure one cut of its images."""
    run = trained(case, lab)
    edge, radius = case["edge"], float(case["radius"])
    every = tuple(map(float, cuts(lab.scale, case["data"], case["network"])))
    low = lab.probe(run, "disagreement", {"radii": every, "edge": edge})
    found = relying(run, lab, case, edge=edge)
    unscaled = relying(run, lab, case, edge=edge, rescale="none")
    scores = _moved(low, every.index(radius)) | _rests(found)
    scores |= {f"{column} unscaled": one for column, one in _rests(unscaled).items()}
    row: dict[str, Cell] = {column: 100 * float(score.mean()) for column, score in scores.items()}
    row |= _distances(low, every.index(radius))
    row |= {
        "network": case["network"], "edge": edge, "radius": case["radius"],
        "line": f"{case['network']}, {EDGES[edge]}", "at figure 2": case["radius"] == shown(case["data"]),
        "found": int(found["reliance.share"].arrays["found"].sum()), "run": run.digest,
    }  # fmt: skip
    results = [result for name, result in (low | found).items() if row["at figure 2"] and name in SHOWN[edge]]
    judged = JUDGED if case["network"] in MAIN and edge == "inclusive" else ANYWHERE
    return Measured(row, tuple(results), {column: scores[column] for column in judged})


def _moved(low: dict[str, Result], at: int) -> dict[str, np.ndarray]:
    """Return per image what LFC itself does to the answer, at one radius."""
    arrays = low["disagreement.share"].arrays
    right, on_low = arrays["correct"].astype(float), arrays["LFC.predicted"][at] == arrays["targets"]
    return {
        "accuracy": right,
        "LFC accuracy": on_low.astype(float),
        ADDED: right - on_low,
        "otherwise": arrays["differs"][at].astype(float),
    }


def _rests(found: dict[str, Result]) -> dict[str, np.ndarray]:
    """Return per image whether it is one of figure 2's, and whether HFC is right, each also less its chance."""
    arrays = found["reliance.share"].arrays
    images, right = arrays["found"].astype(float), arrays["high.correct"].astype(float)
    everywhere = np.ones(len(images), dtype=bool)
    return {
        "fig. 2": images,
        "beyond chance": images - found["reliance.by_chance"].arrays["scores"],
        "HFC": right,
        "HFC beyond chance": right - by_chance(arrays["high.predicted"], arrays["targets"], everywhere),
    }


def _distances(low: dict[str, Result], at: int) -> dict[str, Cell]:
    """Return the mean distances of the images answered otherwise, of all such and of those right untouched."""
    share = _line(low["disagreement.share"], RIGHT)[at]
    row: dict[str, Cell] = {"of right": None if share is None else 100 * share}
    differs = low["disagreement.share"].arrays["differs"][at]
    for name, key in (("L∞", "linf"), ("L2", "l2")):
        curve = low[f"disagreement.{key}"]
        far = curve.arrays["distance"][at][differs]
        row |= {name: float(far.mean(dtype=np.float64)) if len(far) else None}
        row |= {f"{name} of right": _line(curve, "mean")[at]}
    return row


def _line(curve: Result, name: str) -> tuple[float | None, ...]:
    return next(series.values for series in curve.series if series.name == name)  # type: ignore[union-attr]


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw over the radius how many answers change without high frequencies, and how many images rest on these."""
    radius = Column(name="radius of the cut", unit="bins")
    lines = [{**row, radius.name: row.get("radius")} for row in rows]
    titles = {
        "otherwise": "Images answered otherwise on LFC", "of right": "Of those answered rightly untouched, the same",
        "fig. 2": "Images right whole and on HFC, wrong on LFC",
        "L∞": "Mean L∞ distance to LFC, of images answered otherwise on it",
    }  # fmt: skip
    return tuple(
        curve
        for column, title in titles.items()
        for curve in over(
            lines, radius, Column(name=column, unit="" if column == "L∞" else "%"), by="line", name=column, title=title
        )
    )


def _chosen(rows: Rows, network: str, edge: str) -> list[dict[str, Cell]]:
    """Return the measured rows of one reading, by rising radius."""
    found = [row for row in rows if row.get("network") == network and row.get("edge") == edge]
    return sorted(found, key=lambda row: float(row["radius"] or 0))


def _at_figure_2(rows: Rows, network: str, edge: str, column: str) -> float | None:
    """Return a number of one reading at figure 2's radius."""
    found = [row for row in _chosen(rows, network, edge) if row["at figure 2"]]
    return _number(found[0][column]) if found else None


def _number(cell: Cell) -> float:
    assert isinstance(cell, int | float)
    return float(cell)


def existing(rows: Rows, network: str, edge: str) -> float | None:
    """Return how many of figure 2's images there are at its radius beyond the one that must be."""
    found = _at_figure_2(rows, network, edge, "found")
    return None if found is None else found - 1


def unmoved(rows: Rows) -> float | None:
    """Return minus the number of cuts after which no image at all is answered otherwise."""
    found = [_number(row["otherwise"]) for row in rows if "otherwise" in row]
    return -float(sum(share == 0 for share in found)) if found else None


def falling(rows: Rows, network: str) -> float | None:
    """Return by how many points fewer answers change at the next radius, at the step where least."""
    found = [_number(row["otherwise"]) for row in _chosen(rows, network, "inclusive")]
    return min((before - after for before, after in pairwise(found)), default=None)


def added(rows: Rows, network: str) -> float | None:
    """Return how many points of accuracy high frequencies add to LFC, at the radius where least."""
    found = _chosen(rows, network, "inclusive")
    return min((_number(row[ADDED]) for row in found), default=None)


def _of_reading(network: str, edge: str) -> tuple[Claim, ...]:
    reading = f"{network}, r {EDGES[edge]}"
    return (
        Claim(
            f"such images exist: {reading}",
            "There are test images that the model predicts correctly whole and on HFC, and incorrectly on LFC "
            f"({reading} {100 if network == LARGE else '12 or its equal'}; here how many beyond the one that shows "
            "it).",
            "high-frequency, section 1, figure 2", lambda rows: existing(rows, network, edge), unit="images",
            exact=True,
        ),
        Claim(
            f"HFC decides: {reading}",
            "For these examples, the prediction outcomes are almost entirely determined by HFC: here, among images "
            "right whole and wrong on LFC, HFC is right more often than the same answers dealt at random.",
            "high-frequency, section 1, figure 2",
            lambda rows: _at_figure_2(rows, network, edge, "beyond chance"), smallest=0.5,
        ),
    )  # fmt: skip


def _of_main(network: str) -> tuple[Claim, ...]:
    def at_figure_2(column: str) -> Callable[[Rows], float | None]:
        return lambda rows: _at_figure_2(rows, network, "inclusive", column)

    return (
        Claim(
            f"HFC decides, unscaled: {network}",
            "Control, not in the paper: HFC decides where neither copy is rescaled, and HFC is as weak as it is.",
            "high-frequency, section 1, figure 2", at_figure_2("beyond chance unscaled"), smallest=0.5,
        ),
        Claim(
            f"HFC generalizes: {network}",
            "HFC can contain more information than sample-specific idiosyncrasy, generalizable across training, "
            "validation, and testing sets: here test images' HFC is right more often than by chance.",
            "high-frequency, section 3.1", at_figure_2("HFC beyond chance"), smallest=1.0,
        ),
        Claim(
            f"HFC generalizes, unscaled: {network}",
            "Control, not in the paper: HFC generalizes where it is not rescaled, too.", "high-frequency, section 3.1",
            at_figure_2("HFC beyond chance unscaled"), smallest=1.0,
        ),
        Claim(
            f"HFC adds accuracy: {network}",
            "CNN exploits the high-frequency components of images to trade robustness for accuracy: here accuracy "
            "whole above that on LFC, at the radius where least.", "high-frequency, sections 1 and 3.2",
            lambda rows: added(rows, network), smallest=0.5,
        ),
        Claim(
            f"fewer answers change as r grows: {network}",
            "Control, not in the paper: the more an LFC keeps, the fewer images are answered otherwise on it.",
            "high-frequency, section 3.2", lambda rows: falling(rows, network), smallest=0.5,
        ),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Images whose right answer rests on high frequencies, and answers that change without them",
    source="high-frequency, figure 2 and corollary 1",
    columns=(
        *(Column(name=name, unit="%") for name in ("accuracy", "LFC accuracy", ADDED, "otherwise", "of right")),
        *(Column(name=f"{norm}{suffix}") for suffix in ("", " of right") for norm in ("L∞", "L2")),
        Column(name="found", unit="images"),
        *(
            Column(name=f"{name}{suffix}", unit="%")
            for suffix in ("", " unscaled")
            for name in ("fig. 2", "beyond chance", "HFC", "HFC beyond chance")
        ),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        *(claim for network in (CODE, TEXT, LARGE) for edge in EDGES for claim in _of_reading(network, edge)),
        Claim(
            "A2",
            "For a model there exists a sample with f(x) ≠ f(x_l): here for each network, edge and radius (minus the "
            "number of those without).", "high-frequency, section 3.2", unmoved, unit="cuts", exact=True,
        ),
        *(claim for network in MAIN for claim in _of_main(network)),
    ),
    limit=LIMIT,
)  # fmt: skip
