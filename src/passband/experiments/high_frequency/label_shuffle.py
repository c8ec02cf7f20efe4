"""Natural and shuffled labels: what of the training images is learned when, and from which frequencies.

One network learns Fashion-MNIST or another set with its own labels, its twin with labels that one fixed permutation
dealt anew, three times as long. Both are measured on their training images, against the labels that they learned: whole
images, LFC and HFC at each radius.

Below full scale 1,000 training images, since memorizing is what costs; an epoch of theirs is 10 steps (small) where
the paper's is 500, so that its "first epoch" comes earlier here.

``first epoch`` is LFC at the smallest radius after the first epoch. HFC of training images, which the paper does not
plot, stands beside LFC, so that a preference can be measured: LFC's accuracy less HFC's, means over radii, after an
epoch or at the end. Copies are divided by their own maximum, as in all experiments of this paper.

LFC at a large radius is close to the whole image, and HFC divided by its maximum is unlike all that was learned from,
so that LFC's lead by itself says little of an order: shuffled labels' lead stands beside it.

**Source**: high-frequency, section 4.2 and figures 3, 10, 15 and 16.
**Differs**: training accuracy is measured after an epoch (``tracking``).
"""

from __future__ import annotations

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
    TRAINING_IMAGES,
    between,
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
    more = course.by_epoch("train", "LFC mean", "HFC mean") | {_FIRST: first["LFC r1"]}
    found = measured(course, case, more=more)
    found.row["epochs"] = course.run.recipe.epochs
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


def comparable(rows: Rows) -> float | None:
    """Return how much nearer shuffled labels' last training accuracy lies to natural labels' than to chance."""
    natural, shuffled = (value(rows, labels, "train") for labels in LABELS)
    chance = value(rows, "shuffled", "chance")
    if natural is None or shuffled is None or chance is None:
        return None
    return (shuffled - chance) - (natural - shuffled)


def lead(rows: Rows, labels: str, epoch: float | None = None) -> float | None:
    """Return by how much accuracy on LFC lies above that on HFC after an epoch, means over radii, in points.

    Args:
        rows: The rows.
        labels: Which case.
        epoch: Straight between measured ones; None for the first.
    """
    low, high = (trajectory(rows, labels, f"{side} mean") for side in ("LFC", "HFC"))
    if not low or not high:
        return None
    at = low[0][0] if epoch is None else epoch
    return between(low, at) - between(high, at)


def order(rows: Rows) -> float | None:
    """Return by how much natural labels' lead of LFC after the first epoch exceeds shuffled labels', in points.

    Shuffled labels' is read where they first fit as many training images: after one epoch they fit hardly any.
    """
    first = lead(rows, "natural")
    natural, shuffled = (trajectory(rows, labels, "train") for labels in LABELS)
    if first is None or not natural:
        return None
    epoch = reaches(shuffled, natural[0][1])
    other = None if epoch is None else lead(rows, "shuffled", epoch)
    return None if other is None else first - other


def preference(rows: Rows, labels: str) -> float | None:
    """Return by how much a trained network's accuracy on LFC lies above that on HFC, means over radii, in points."""
    low, high = (value(rows, labels, f"{side} mean") for side in ("LFC", "HFC"))
    return None if low is None or high is None else low - high


def indifferent(rows: Rows) -> float | None:
    """Return by how much natural labels' preference for LFC exceeds shuffled labels' for either, in points."""
    natural, shuffled = (preference(rows, labels) for labels in LABELS)
    return None if natural is None or shuffled is None else natural - abs(shuffled)


_PLACE = "high-frequency, section 4.2, figure 3"
_EARLIER = "high-frequency, section 4.1, figure 3"


def _more_low(rank: int) -> Claim:
    return Claim(
        f"natural learns more of LFC, r{rank}",
        f"M_natural learns more of the low-frequency patterns (r is 4 or 8; here r{rank}) than M_shuffle.", _PLACE,
        lambda rows: difference(rows, "natural", "shuffled", f"LFC r{rank}"), smallest=1.0, drawn=TRAINING_IMAGES,
    )  # fmt: skip


CLAIMS = (
    Claim(
        "shuffled takes longer",
        "M_shuffle takes a longer training time than M_natural to reach the same training accuracy (here the highest "
        "that both reach).",
        _PLACE, later, unit="epochs", smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "shuffled fits as well",
        "M_shuffle reaches a comparative training accuracy in three times the epochs (here its last training accuracy "
        "lies nearer to M_natural's than to chance).",
        _PLACE, comparable, smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    *(_more_low(rank) for rank in (1, 2)),
    Claim(
        "shuffled barely learns LFC, r1",
        "M_shuffle barely learns any LFC when r = 4 (here its accuracy there is nearer to chance than to M_natural's).",
        _PLACE, barely, smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "LFC at the first epoch",
        "Even at the first epoch, M_natural already learns around 40% of the correct LFC when r = 4 (here above chance "
        "and above M_shuffle's).",
        _PLACE, early, smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "LFC first",
        "In the original label case, the model will first pick up LFC, then gradually pick up the HFC (here, of the "
        "first half: after the first epoch it gets more right on LFC than on HFC, means over radii).",
        _EARLIER, lambda rows: lead(rows, "natural"), smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "no such order when shuffled",
        "In the shuffled label case, the model memorizes the images when the LFC and HFC are treated equally (here "
        "less unequally: its lead of LFC over HFC is smaller, where it first fits as many training images as "
        "M_natural does after the first epoch).",
        _EARLIER, order, smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "natural prefers LFC",
        "M_natural prefers to pick up the LFC (here, once trained, it gets more right on LFC than on HFC, means over "
        "radii).",
        _PLACE, lambda rows: preference(rows, "natural"), smallest=1.0, drawn=TRAINING_IMAGES,
    ),
    Claim(
        "shuffled has less of a preference",
        "M_shuffle does not have a preference between LFC vs. HFC (here, once trained, its accuracies on LFC and on "
        "HFC lie less far apart, whichever is higher, than M_natural's on LFC lies above that on HFC).",
        _PLACE, indifferent, smallest=1.0, drawn=TRAINING_IMAGES,
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Natural and shuffled labels, on whole training images, their LFC and their HFC",
    source="high-frequency, figures 3, 10, 15 and 16",
    columns=(
        Column(name="epochs"), Column(name=_FIRST, unit="%"),
        *(column for column in COLUMNS if column.name not in _HIDDEN),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    reported={
        "natural, cifar10": {"epochs": 100, _FIRST: 40.0}, "shuffled, cifar10": {"epochs": 300},
        "natural, restricted-imagenet": {"epochs": 50}, "shuffled, restricted-imagenet": {"epochs": 150},
    },
    limit=LIMIT,
)  # fmt: skip
