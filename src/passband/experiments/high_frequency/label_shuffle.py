"""Natural and shuffled labels: what of the training images is learned when, and from which frequencies.

One network learns Fashion-MNIST or another set with its own labels, its twin with labels that one fixed permutation
dealt anew, three times as long. Both are measured on their training images, against the labels that they learned: whole
images, LFC and HFC at each radius.

Below full scale 1,000 training images, since memorizing is what costs; an epoch of theirs is 10 steps (small) where
the paper's is 500, so that its "first epoch" comes earlier here.

``first epoch`` is LFC at the smallest radius after the first epoch. HFC of training images, which the paper does not
plot, stands beside LFC, so that a preference can be measured: it is the distance of LFC's accuracy from HFC's, averaged
over radii. Copies are divided by their own maximum, as in all experiments of this paper.

**Source**: high-frequency, section 4.2 and figures 3, 10, 15 and 16.
**Differs**: training accuracy is measured after an epoch (``tracking``).
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Column
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import SETS, training
from passband.experiments.high_frequency.tracking import (
    COLUMNS,
    LIMIT,
    SEEDS,
    SHORT,
    followed,
    measured,
    reaches,
    trajectory,
)
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

LABELS = ("natural", "shuffled")
LONGER = 3
"""Shuffled labels take 300 epochs for 100, on ImageNet 150 for 50."""

_FEW: dict[Scale, dict[str, Any]] = SHORT | {Scale.SMALL: {"part": 1000, "epochs": 50}}
_FIRST = "first epoch"
_HIDDEN = ("test", "gap")


def cases(scale: Scale) -> list[Case]:
    """List both labelings of each set."""
    return [
        {"case": labels, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for labels in LABELS
    ]


def recipe(scale: Scale, case: Case) -> Recipe:
    """Return the training of one case."""
    few = _FEW.get(scale, {})
    natural = training(scale, data=case["data"], seed=case["seed"], **few)
    if case["case"] == "natural":
        return natural
    longer = few | {"epochs": LONGER * natural.epochs}
    return training(scale, data=case["data"], seed=case["seed"], shuffle_labels=True, **longer)


def measure(case: Case, lab: Lab) -> Measured:
    """Train with one labeling and follow it on its training images."""
    course = followed(recipe(lab.scale, case), lab, copies="train")
    first = course.epochs[min(course.epochs)]
    found = measured(course, case, more=course.by_epoch("train", "LFC r1") | {_FIRST: first["LFC r1"]})
    classes = lab.subject(course.run).model.spec.classes
    found.row.update({"epochs": course.run.recipe.epochs, "chance": 100 / classes})
    return found


def later(rows: Rows) -> float | None:
    """Return how many epochs later shuffled labels reach the highest training accuracy that both reach."""
    natural, shuffled = (trajectory(rows, labels, "train") for labels in LABELS)
    if not natural or not shuffled:
        return None
    common = min(max(number for _, number in points) for points in (natural, shuffled))
    sooner, longer = reaches(natural, common), reaches(shuffled, common)
    return None if sooner is None or longer is None else longer - sooner


def barely(rows: Rows) -> float | None:
    """Return how much nearer shuffled labels' LFC at the smallest radius lies to chance than to natural labels'."""
    natural, shuffled = (value(rows, labels, "LFC r1") for labels in LABELS)
    chance = value(rows, "shuffled", "chance")
    if natural is None or shuffled is None or chance is None:
        return None
    return natural - 2 * shuffled + chance


def early(rows: Rows) -> float | None:
    """Return by how much natural labels' LFC after the first epoch lies above shuffled labels' and above chance."""
    natural, shuffled = (value(rows, labels, _FIRST) for labels in LABELS)
    chance = value(rows, "natural", "chance")
    if natural is None or shuffled is None or chance is None:
        return None
    return natural - max(shuffled, chance)


def low_first(rows: Rows) -> float | None:
    """Return how many epochs sooner LFC at the smallest radius has most of what it will have than whole images.

    Most is nine tenths of the way from chance to the highest accuracy.
    """
    chance = value(rows, "natural", "chance")
    low, whole = (trajectory(rows, "natural", line) for line in ("LFC r1", "train"))
    if chance is None or not low or not whole:
        return None
    at = [reaches(points, chance + 0.9 * (max(number for _, number in points) - chance)) for points in (low, whole)]
    return None if at[0] is None or at[1] is None else at[1] - at[0]


def preference(rows: Rows, labels: str) -> float | None:
    """Return how far accuracy on LFC lies from that on HFC, the mean over radii, in points."""
    sides = [[value(rows, labels, f"{side} r{rank}") for rank in range(1, 5)] for side in ("LFC", "HFC")]
    apart = [abs(low - high) for low, high in zip(*sides, strict=True) if low is not None and high is not None]
    return fmean(apart) if apart else None


def indifferent(rows: Rows) -> float | None:
    """Return by how much the preference of natural labels exceeds that of shuffled ones, in points."""
    natural, shuffled = (preference(rows, labels) for labels in LABELS)
    return None if natural is None or shuffled is None else natural - shuffled


_PLACE = "high-frequency, section 4.2, figure 3"
_DRAWN = "training images"


def _more_low(rank: int) -> Claim:
    return Claim(
        f"natural learns more of LFC, r{rank}",
        f"M_natural learns more of the low-frequency patterns (r is 4 or 8; here r{rank}) than M_shuffle.", _PLACE,
        lambda rows: difference(rows, "natural", "shuffled", f"LFC r{rank}"), smallest=1.0, drawn=_DRAWN,
    )  # fmt: skip


CLAIMS = (
    Claim(
        "shuffled takes longer",
        "M_shuffle takes a longer training time than M_natural to reach the same training accuracy (here the highest "
        "that both reach).",
        _PLACE, later, unit="epochs", smallest=1.0, drawn=_DRAWN,
    ),
    *(_more_low(rank) for rank in (1, 2)),
    Claim(
        "shuffled barely learns LFC, r1",
        "M_shuffle barely learns any LFC when r = 4 (here its accuracy there is nearer to chance than to M_natural's).",
        _PLACE, barely, smallest=1.0, drawn=_DRAWN,
    ),
    Claim(
        "LFC at the first epoch",
        "Even at the first epoch, M_natural already learns around 40% of the correct LFC when r = 4 (here above chance "
        "and above M_shuffle's).",
        _PLACE, early, smallest=1.0, drawn=_DRAWN,
    ),
    Claim(
        "LFC first",
        "In the original label case, the model will first pick up LFC, then gradually pick up the HFC to achieve "
        "higher training accuracy (here accuracy on LFC, r1, has nine tenths of its rise before that on whole images "
        "has).",
        "high-frequency, section 4.1, figure 3", low_first, unit="epochs", smallest=1.0, drawn=_DRAWN,
    ),
    Claim(
        "shuffled has no preference",
        "M_natural prefers to pick up the LFC, M_shuffle does not have a preference between LFC vs. HFC (here LFC's "
        "and HFC's accuracies lie less far apart).",
        _PLACE, indifferent, smallest=1.0, drawn=_DRAWN,
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Natural and shuffled labels, on whole training images, their LFC and their HFC",
    source="high-frequency, figures 3, 10, 15 and 16",
    columns=(
        Column(name="epochs"), Column(name=_FIRST, unit="%"), Column(name="chance", unit="%"),
        *(column for column in COLUMNS if column.name not in _HIDDEN),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    reported={"natural": {"epochs": 100, _FIRST: 40.0}, "shuffled": {"epochs": 300}},
    limit=LIMIT,
)  # fmt: skip
