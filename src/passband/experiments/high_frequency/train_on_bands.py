"""Training on low (LFC) or high frequencies (HFC) alone, tested on whole images.

Each training image is cut at a radius and divided by its own maximum, negative values kept, as the paper's code does
("normalized to have the standard pixel scale"); test images are whole and not rescaled. ``train accuracy`` is on the
copies that were trained on, after training; the paper's is a mean over the last epoch while weights still move.

Controls that the paper lacks, since HFC copies have a mean of 0 and reach -1, so that whole images in [0, 1] are far
from all that an HFC-trained network saw: ``on its band`` tests on test images that are cut and scaled as the training
ones were, and ``on scaled`` on whole test images divided by their own maximum. Beside all stands the network that was
trained on whole images.

Readings, at the smallest radius: the radius itself dropped (``r <``, the paper's code), and copies that are not
rescaled.

The paper calls LFC "much more generalizable" than HFC and draws no line for "much"; the claim is more at all, at every
radius. That HFC-trained networks are near chance on whole images stands in the tables alone, not in the text: near
means nearer to chance than to what the network gets right on its band.

Table 1 has both sides fitted (93.84% at least); table 3 contradicts it for HFC at r = 150, at 24.16%.

At small scale Fashion-MNIST, one seed.

**Source**: high-frequency, section 4.2, table 1 (CIFAR-10), and appendix B.1, table 3 (nine classes of ImageNet).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.high_frequency.settings import SETS, SIZES, band, radii, training
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

LFC, HFC, WHOLE = "LFC", "HFC", "whole images"
SIDES = {LFC: "low", HFC: "high"}
READINGS: dict[str, dict[str, str]] = {"exclusive": {"edge": "exclusive"}, "unscaled": {"rescale": "none"}}
"""Other ways to make the copies, at the smallest radius."""

TRAIN, TEST, ON_BAND, ON_SCALED = "train accuracy", "test accuracy", "on its band", "on scaled"
_TABLES = {
    LFC: {4: (96.68, 61.67), 8: (97.86, 71.54), 12: (97.86, 75.16), 16: (98.39, 77.14),
          25: (93.15, 54.77), 50: (96.81, 64.77), 100: (97.59, 83.00), 150: (97.17, 84.15)},
    HFC: {4: (98.85, 20.02), 8: (97.68, 9.2), 12: (97.97, 9.97), 16: (93.84, 12.81),
          25: (87.30, 19.08), 50: (76.55, 15.15), 100: (64.76, 15.31), 150: (24.16, 11.23)},
}  # fmt: skip
"""The paper's accuracies, in percent, by radius: tables 1 (4 to 16) and 3 (25 to 150)."""


def name(kind: str, radius: int, reading: str = "") -> str:
    """Return a case's name."""
    sign = "<" if reading == "exclusive" else "≤"
    return f"{kind}, r {sign} {radius}" + (", unscaled" if reading == "unscaled" else "")


def printed_for(radius: int) -> str:
    """Return the set of the paper's numbers at a radius: table 1's or table 3's."""
    return "restricted-imagenet" if radius in radii("restricted-imagenet") else "cifar10"


def cases(scale: Scale) -> list[Case]:
    """List training on whole images, on both sides of each cut, and the readings of the smallest one."""
    return [
        {**case, "data": data, "seed": seed}
        for seed in ((0, 1, 2) if scale is Scale.FULL else (0,))
        for data in SETS[scale]
        for case in _of_set(scale, data)
    ]


def _of_set(scale: Scale, data: str) -> list[Case]:
    every = radii(data) if scale is not Scale.SMOKE else (radii(data)[0], radii(data)[2])
    readings: tuple[str, ...] = tuple(READINGS) if scale is not Scale.SMOKE else ()
    cuts = [(radius, "") for radius in every] + [(every[0], reading) for reading in readings]
    return [
        {"case": WHOLE, "kind": WHOLE, "radius": None, "reading": ""},
        *(
            {"case": name(kind, radius, reading), "kind": kind, "radius": radius, "reading": reading}
            for radius, reading in cuts
            for kind in SIDES
        ),
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and test it on whole images, on its band and on rescaled ones."""
    run = lab.train(training(lab.scale, data=case["data"], seed=case["seed"], view=_view(case)))
    # A cut that keeps everything: its low side is the image.
    everything = float(SIZES.get(case["data"], 32))
    options = {"degrees": (), "examples": 0} | READINGS.get(case["reading"], {})
    learned = lab.probe(run, "bands", options | {"radii": (everything,)}, split="train")
    found = lab.probe(run, "bands", options | {"radii": (float(case["radius"] or everything), everything)})
    parts = found["bands.accuracy"].arrays
    right = {TRAIN: learned["bands.clean"].arrays["correct"], TEST: found["bands.clean"].arrays["correct"]}
    if case["kind"] in SIDES:
        right[ON_BAND] = parts[f"{case['kind']}.correct"][0]
    if case["reading"] != "unscaled":
        right[ON_SCALED] = parts["LFC.correct"][-1]
    scores = {column: one.astype(float) for column, one in right.items()}
    row: dict[str, Cell] = {column: 100 * float(score.mean()) for column, score in scores.items()}
    row |= {
        "trained on": ", ".join(filter(None, (case["kind"], case["reading"]))), "kind": case["kind"],
        "radius": case["radius"], "reading": case["reading"], "run": run.digest,
        "chance": 100 / len(np.unique(found["bands.clean"].arrays["targets"])),
    }  # fmt: skip
    return Measured(row, verdicts=scores, drawn_from={TRAIN: "training images"})


def _view(case: Case) -> dict[str, Any] | None:
    if case["radius"] is None:
        return None
    return band(case["radius"], SIDES[case["kind"]], **READINGS.get(case["reading"], {}))


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracy on whole images, and on the band, over the radius by what was trained on."""
    radius = Column(name="radius of the cut", unit="bins")
    lines = [{**row, radius.name: row.get("radius")} for row in rows if row.get("reading") == ""]
    titles = {TEST: "Accuracy on whole test images", ON_BAND: "Control: accuracy on equally cut and scaled test images"}
    return tuple(
        curve
        for column, title in titles.items()
        for curve in over(lines, radius, Column(name=column, unit="%"), by="trained on", name=column, title=title)
    )


def by_radius(rows: Rows, kind: str, column: str) -> list[float]:
    """Return a column's numbers of one side by rising radius, readings left out."""
    found: dict[float, float] = {}
    for row in rows:
        radius, number = row.get("radius"), row.get(column)
        usual = row.get("kind") == kind and row.get("reading") == ""
        if usual and isinstance(radius, int) and isinstance(number, float):
            found[radius] = number
    return [found[radius] for radius in sorted(found)]


def ahead(rows: Rows, column: str) -> float | None:
    """Return how far LFC lies above HFC in a column, in points, at the radius where least."""
    pairs = zip(by_radius(rows, LFC, column), by_radius(rows, HFC, column), strict=False)
    return min((low - high for low, high in pairs), default=None)


def rising(rows: Rows) -> float | None:
    """Return by how many points LFC's accuracy on whole images rises to the next radius, at the step where least."""
    return min((after - before for before, after in pairwise(by_radius(rows, LFC, TEST))), default=None)


def near_chance(rows: Rows) -> float | None:
    """Return how much nearer HFC's accuracy on whole images lies to chance than to that on its band, where least."""
    columns = (by_radius(rows, HFC, column) for column in (TEST, ON_BAND, "chance"))
    found = zip(*columns, strict=False)
    return min((on_band - test - abs(test - chance) for test, on_band, chance in found), default=None)


def fitted(rows: Rows) -> float | None:
    """Return how far the least train accuracy lies above the middle between chance and all, in points."""
    found = [
        accuracy - (100 + chance) / 2
        for kind in SIDES
        for accuracy, chance in zip(by_radius(rows, kind, TRAIN), by_radius(rows, kind, "chance"), strict=False)
    ]
    return min(found, default=None)


def lost(rows: Rows) -> float | None:
    """Return how much more HFC loses from its training copies to whole test images than LFC, where least."""
    before, after = (
        [by_radius(rows, kind, column) for kind in (LFC, HFC)] for column in (TRAIN, TEST)
    )  # each of LFC and of HFC, by radius
    losses = [[a - b for a, b in zip(*pair, strict=False)] for pair in zip(before, after, strict=True)]
    return min((high - low for low, high in zip(*losses, strict=False)), default=None)


def generalizing(rows: Rows) -> float | None:
    """Return how far HFC on HFC of test images lies above chance, in points, at the radius where least."""
    pairs = zip(by_radius(rows, HFC, ON_BAND), by_radius(rows, HFC, "chance"), strict=False)
    return min((accuracy - chance for accuracy, chance in pairs), default=None)


_PLACE = "high-frequency, section 4.2, tables 1 and 3"


def _reading(reading: str, sentence: str) -> Claim:
    def margin(rows: Rows) -> float | None:
        found = [row["radius"] for row in rows if row.get("reading") == reading]
        if not found:
            return None
        radius = int(found[0] or 0)
        return difference(rows, name(LFC, radius, reading), name(HFC, radius, reading), TEST)

    return Claim(f"LFC above HFC, {reading}", sentence, _PLACE, margin, smallest=1.0)


CLAIMS = (
    Claim(
        "LFC above HFC",
        "LFC is much more generalizable than HFC: here trained on either, whole test images are answered rightly more "
        "often after LFC, at the radius where least.",
        _PLACE, lambda rows: ahead(rows, TEST), smallest=1.0,
    ),
    Claim(
        "rises with r",
        "In the tables, not in the text: the more an LFC keeps, the more whole test images are answered rightly after "
        "training on it.",
        _PLACE, rising, smallest=0.5,
    ),
    Claim(
        "HFC near chance",
        "In the tables, not in the text: after training on HFC, accuracy on whole test images is near chance: here "
        "nearer to it than to the accuracy on HFC of test images.",
        _PLACE, near_chance, smallest=1.0,
    ),
    Claim(
        "both fit",
        "In table 1, not in the text: LFC and HFC are both fitted: here each train accuracy is nearer to all than to "
        "chance. Table 3 contradicts it: 24.16% on HFC at r = 150.",
        _PLACE, fitted, smallest=1.0, drawn="training images",
    ),
    Claim(
        "LFC loses less",
        "Control, not in the paper: from training copies to whole test images, accuracy falls less after LFC than "
        "after HFC.",
        _PLACE, lost, smallest=1.0, drawn="training images and the test images",
    ),
    Claim(
        "LFC above HFC, on their bands",
        "Control, not in the paper: the same where each is tested on equally cut and scaled test images.",
        _PLACE, lambda rows: ahead(rows, ON_BAND), smallest=1.0,
    ),
    Claim(
        "HFC generalizes",
        "HFC can contain information that is generalizable across training, validation, and testing sets: here, after "
        "training on HFC, HFC of test images is answered rightly more often than by chance.",
        "high-frequency, section 3.1", generalizing, smallest=1.0,
    ),
    _reading("exclusive", "The same with the radius itself dropped from LFC, as in the paper's code."),
    _reading("unscaled", "Control, not in the paper: the same where copies are not rescaled."),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Trained on low or on high frequencies alone, tested on whole images",
    source="high-frequency, tables 1 and 3",
    columns=(
        *(Column(name=column, unit="%") for column in (TRAIN, TEST, ON_BAND, ON_SCALED, "chance")),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=CLAIMS,
    reported={
        f"{name(kind, radius)}, {printed_for(radius)}": {TRAIN: train, TEST: test}
        for kind, table in _TABLES.items()
        for radius, (train, test) in table.items()
    },
    limit={Scale.SMOKE: 100, Scale.SMALL: 2000},
)  # fmt: skip
