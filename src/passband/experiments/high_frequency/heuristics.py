"""Dropout, mixup, batch norm and adversarial training beside the vanilla network, along the epochs.

What each does, where the paper and its code leave or have a choice:

- dropout of 0.5 before the linear layer, off at test, as the paper says; its code drops convolution features.
- mixup with α = 0.5, one weight for a batch, as the paper says; its code draws from Beta(1, 1).
- batch norm normalizes by the statistics of each batch, at test too (batches of 100, of one kind of copy), as the
  code does; the same network by its running statistics is a case of its own.
- adversarial training is PGD-10 at ε = 0.03 with steps of 0.003 from the image itself, on images moved by up to 2
  pixels and mirrored, as the code does. Its ``train`` is on plain training images. No other network learns from moved
  images, so that a control that the paper lacks, ``moved``, does so without an adversary; claims are read beside it
  too.

The code divides each band copy by its maximum, but not where it trains adversarially: so a second reading leaves
copies as they are, of this network and, since otherwise nothing compares, of the vanilla one. Claims about adversarial
training are read thrice: both scaled, both unscaled, and as the paper's panels are, vanilla scaled, adversarial not.

On the nine merged classes of ImageNet the vanilla ResNet-50 is timm's, with its batch norms. There a ResNet-50 with
batch norms is compared with its twin ``without batch norm`` (``hfc_resnet50``), not with the vanilla one, and is none
of the heuristics that dropout is compared with.

At full scale ``vanilla, images scaled`` learns from images that are divided by their maximum, as the code's natural
trainings do; no claim is about it.

**Source**: high-frequency, section 5.1, figures 5, 12, 19 and 20. The figures have no numbers.
**Differs**: training accuracy is measured after an epoch (``tracking``).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import MOVED, SETS, switched, training
from passband.experiments.high_frequency.tracking import (
    BOTH,
    COLUMNS,
    LIMIT,
    SEEDS,
    SHORT,
    TENDENCIES,
    followed,
    gap,
    measured,
)
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

HEURISTICS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "dropout": {"model": {"drop_rate": 0.5}},
    "mixup": {"scheme": {"name": "mixup", "alpha": 0.5}},
    "batch norm": {"model": {"norm": "batch"}},
    "adversarial": {"adversarial": True},
    "moved": {"augment": list(MOVED)},
    "images scaled": {"view": {"name": "rescaled"}},
    "without batch norm": {},
}
"""What a training has that the vanilla one has not."""

READ: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("vanilla", {}),
    "dropout": ("dropout", {}),
    "mixup": ("mixup", {}),
    "batch norm, batch statistics": ("batch norm", {"statistics": "batch"}),
    "batch norm, running statistics": ("batch norm", {}),
    "adversarial": ("adversarial", {}),
    "vanilla, copies unscaled": ("vanilla", {"rescale": "none"}),
    "adversarial, copies unscaled": ("adversarial", {"rescale": "none"}),
    "moved": ("moved", {}),
    "vanilla, images scaled": ("images scaled", {}),
    "without batch norm": ("without batch norm", {}),
}
"""A case to its heuristic and to how its network is read."""

Pair = tuple[str, str]
"""A network without adversarial training and one with it, cases."""
PAIRS: dict[str, Pair] = {
    "copies scaled": ("vanilla", "adversarial"),
    "copies unscaled": ("vanilla, copies unscaled", "adversarial, copies unscaled"),
    "panels as drawn": ("vanilla", "adversarial, copies unscaled"),
}
"""Three readings of what adversarial training changes."""
MOVED_PAIR: Pair = ("moved", "adversarial")
"""The same beside a network that learns from images moved alike."""
NORMS = ("batch statistics", "running statistics")


def cases(scale: Scale) -> list[Case]:
    """List the heuristics of each set, and their second readings."""
    return [
        {"case": case, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for case, (heuristic, _) in READ.items()
        if _there(heuristic, scale, data)
    ]


def _there(heuristic: str, scale: Scale, data: str) -> bool:
    """Tell whether a set has a heuristic: elsewhere the vanilla network is the one without batch norm."""
    if heuristic == "without batch norm":
        return data == "restricted-imagenet"
    return heuristic != "images scaled" or scale is Scale.FULL


def recipe(scale: Scale, case: Case) -> Recipe:
    """Return the training of one case."""
    heuristic, _ = READ[case["case"]]
    settings = HEURISTICS[heuristic] | SHORT.get(scale, {})
    if heuristic in ("batch norm", "without batch norm"):
        settings |= {"network": switched(case["data"])}
    return training(scale, data=case["data"], seed=case["seed"], **settings)


def measure(case: Case, lab: Lab) -> Measured:
    """Train with one heuristic and follow it."""
    _, reading = READ[case["case"]]
    return measured(followed(recipe(lab.scale, case), lab, **reading), case)


def mean_difference(rows: Rows, better: str, worse: str, columns: Sequence[str]) -> float | None:
    """Return by how much one case lies above another, the mean over those columns that both have."""
    found = [difference(rows, better, worse, column) for column in columns]
    known = [number for number in found if number is not None]
    return fmean(known) if known else None


def distance(rows: Rows, case: str, columns: Sequence[str]) -> float | None:
    """Return how far a case lies from the vanilla one: the mean over columns, in points, whatever the sign."""
    found = [difference(rows, case, "vanilla", column) for column in columns]
    known = [abs(number) for number in found if number is not None]
    return fmean(known) if known else None


_COPIES = tuple(f"{side} r{rank}" for side in ("LFC", "HFC") for rank in range(1, 5))
_RIVALS = ("mixup", "batch norm, batch statistics", "adversarial")


def normless(rows: Rows) -> str:
    """Return the case that a batch norm is compared with: its twin without it where there is one, else vanilla."""
    return "without batch norm" if any(row["case"] == "without batch norm" for row in rows) else "vanilla"


def like_vanilla(rows: Rows) -> float | None:
    """Return how much nearer dropout lies to vanilla than the nearest other heuristic does, over all lines."""
    columns = ("train", "test", *_COPIES)
    dropout = distance(rows, "dropout", columns)
    rivals = [rival for rival in _RIVALS if normless(rows) == "vanilla" or not rival.startswith("batch norm")]
    others = [found for rival in rivals if (found := distance(rows, rival, columns)) is not None]
    return None if dropout is None or not others else min(others) - dropout


def similar_accuracy(rows: Rows) -> float | None:
    """Return how much nearer mixup's test accuracy lies to vanilla's than adversarial training's does, in points."""
    mixup, adversarial = (distance(rows, case, ("test",)) for case in ("mixup", "adversarial"))
    return None if mixup is None or adversarial is None else adversarial - mixup


def smaller_gap(rows: Rows, pair: Pair) -> float | None:
    """Return by how much the generalization gap is smaller with adversarial training, in points."""
    without, adversarial = (gap(rows, case) for case in pair)
    return None if without is None or adversarial is None else without - adversarial


def loses_less(rows: Rows, pair: Pair) -> float | None:
    """Return by how much less accuracy is lost on LFC at r3 and r4 with adversarial training, in points."""
    without, adversarial = pair
    whole = difference(rows, without, adversarial, "test")
    low = mean_difference(rows, adversarial, without, ("LFC r3", "LFC r4"))
    return None if whole is None or low is None else whole + low


def knows_less(rows: Rows, pair: Pair) -> float | None:
    """Return by how much less is got right of HFC at r3 and r4 with adversarial training, in points."""
    return mean_difference(rows, *pair, ("HFC r3", "HFC r4"))


def knows_r1(rows: Rows, pair: Pair) -> float | None:
    """Return by how much more is got right of HFC at r1 with adversarial training, in points."""
    without, adversarial = pair
    return difference(rows, adversarial, without, "HFC r1")


def ignored(rows: Rows) -> float | None:
    """Return how much nearer vanilla's accuracy on HFC at r1 lies to chance than to that on whole images, in points."""
    whole, high, chance = (value(rows, "vanilla", column) for column in ("test", "HFC r1", "chance"))
    return None if whole is None or high is None or chance is None else (whole - high) - (high - chance)


def picks_more(rows: Rows, statistics: str, sides: Sequence[str], ranks: Sequence[int]) -> float | None:
    """Return by how much more of copies is got right with batch norm than without, the mean over them, in points."""
    columns = [f"{side} r{rank}" for side in sides for rank in ranks]
    return mean_difference(rows, f"batch norm, {statistics}", normless(rows), columns)


def especially(rows: Rows, statistics: str) -> float | None:
    """Return by how much batch norm's lead is larger at r1 and r2 than at r3 and r4, in points."""
    near, far = (picks_more(rows, statistics, ("LFC", "HFC"), ranks) for ranks in ((1, 2), (3, 4)))
    return None if near is None or far is None else near - far


_PLACE = "high-frequency, section 5.1, figure 5"


def _adversarial(reading: str) -> tuple[Claim, ...]:
    invariant = "Adversarial training shows invariance towards HFC (e.g., r = 12 or r = 16; here r3 and r4: it"
    return (
        Claim(
            f"adversarial knows less of HFC, r3 and r4, {reading}",
            f"{invariant} gets less right on HFC than vanilla; {reading}).", _PLACE,
            lambda rows: knows_less(rows, PAIRS[reading]), smallest=1.0,
        ),
        Claim(
            f"adversarial loses less without HFC, r3 and r4, {reading}",
            f"{invariant} loses less than vanilla when HFC is taken away; {reading}).", _PLACE,
            lambda rows: loses_less(rows, PAIRS[reading]), smallest=1.0,
        ),
        Claim(
            f"adversarial sensitive to HFC, r1, {reading}",
            "Adversarial training seems to be sensitive to the HFC when r = 4, which is ignored even by the vanilla "
            f"set-up (here r1: it gets more right on it; {reading}).",
            _PLACE, lambda rows: knows_r1(rows, PAIRS[reading]), smallest=1.0,
        ),
    )  # fmt: skip


_CONTROL = "Control, not in the paper: beside a network that learns from images moved alike, adversarial training"
_BESIDE_MOVED = (
    Claim(
        "adversarial less accurate, beside moved", f"{_CONTROL} reports a lower prediction accuracy.", _PLACE,
        lambda rows: difference(rows, *MOVED_PAIR, "test"), smallest=1.0,
    ),
    Claim(
        "adversarial of smaller gap, beside moved", f"{_CONTROL} reports a smaller generalization gap.", _PLACE,
        lambda rows: smaller_gap(rows, MOVED_PAIR), smallest=1.0, drawn=BOTH,
    ),
    Claim(
        "adversarial knows less of HFC, r3 and r4, beside moved", f"{_CONTROL} gets less right on HFC.", _PLACE,
        lambda rows: knows_less(rows, MOVED_PAIR), smallest=1.0,
    ),
    Claim(
        "adversarial loses less without HFC, r3 and r4, beside moved",
        f"{_CONTROL} loses less when HFC is taken away.", _PLACE,
        lambda rows: loses_less(rows, MOVED_PAIR), smallest=1.0,
    ),
)  # fmt: skip


_PICKS = "Compared to the vanilla set-up, BatchNorm picks more information in both LFC and HFC"


def _picks(statistics: str, side: str) -> Claim:
    return Claim(
        f"batch norm picks more {side}, r1 and r2, {statistics}",
        f"{_PICKS}, especially when r = 4 and r = 8 (here {side} at r1 and r2; {statistics}).", _PLACE,
        lambda rows: picks_more(rows, statistics, (side,), (1, 2)), smallest=1.0,
    )  # fmt: skip


def _batch_norm(statistics: str) -> tuple[Claim, ...]:
    return (
        *(_picks(statistics, side) for side in ("LFC", "HFC")),
        Claim(
            f"batch norm, r1 and r2 especially, {statistics}",
            f"{_PICKS}, especially when r = 4 and r = 8 (here its lead is larger there than at r3 and r4; "
            f"{statistics}).",
            _PLACE, lambda rows: especially(rows, statistics), smallest=1.0,
        ),
    )  # fmt: skip


def _more_of_hfc(column: str, how: str) -> Claim:
    return Claim(
        f"mixup catches more HFC, {how}", f"Mix-up catches much more HFC ({how}).", _PLACE,
        lambda rows: difference(rows, "mixup", "vanilla", column), smallest=1.0,
    )  # fmt: skip


CLAIMS = (
    Claim(
        "dropout like vanilla",
        "Dropout roughly behaves similarly to the vanilla setup (here over all lines it lies nearer to it than any "
        "other heuristic).",
        _PLACE, like_vanilla, drawn=BOTH,
    ),
    Claim(
        "mixup of similar accuracy",
        "Mix-up delivers a similar prediction accuracy (here nearer to vanilla's than that of adversarial training).",
        _PLACE, similar_accuracy,
    ),
    *(_more_of_hfc(column, how) for column, how in TENDENCIES.items()),
    Claim(
        "adversarial less accurate", "Adversarial training reports a lower prediction accuracy.", _PLACE,
        lambda rows: difference(rows, "vanilla", "adversarial", "test"), smallest=1.0,
    ),
    Claim(
        "adversarial of smaller gap", "Adversarial training also reports a smaller generalization gap.", _PLACE,
        lambda rows: smaller_gap(rows, PAIRS["copies scaled"]), smallest=1.0, drawn=BOTH,
    ),
    Claim(
        "vanilla ignores HFC, r1",
        "The HFC when r = 4 is ignored even by the vanilla set-up (here r1: its accuracy on it is nearer to chance "
        "than to that on whole images).",
        _PLACE, ignored, smallest=1.0,
    ),
    *(claim for reading in PAIRS for claim in _adversarial(reading)),
    *_BESIDE_MOVED,
    *(claim for statistics in NORMS for claim in _batch_norm(statistics)),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Training heuristics, on whole images, their LFC and their HFC",
    source="high-frequency, figures 5, 12, 19 and 20",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    limit=LIMIT,
)  # fmt: skip
