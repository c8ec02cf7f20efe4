"""Mixup, cutout and cutmix inside adversarial training, on adversarial examples (A-) and on clean images (C-).

A- attacks first and mixes the finished images; C- mixes first and attacks the mixtures, up the loss of their mixed
labels. Mixup and cutmix learn by the binary cross-entropy of mixed labels, cutout by the cross-entropy; see
:func:`passband.train.steps.mixed` for what the paper leaves open. Crops and mirrored images stay as elsewhere.

Controls that the paper lacks:

- ``BCE``: nothing is mixed, but learned, and attacked in training, by the binary cross-entropy. Mixup and cutmix change
  the loss along with the images, and CW-20 is the attack that most depends on the logits' size, which the loss sets.
- The test's attacks climb the cross-entropy of hard labels for every row, so only the C- rows with mixed labels were
  trained against another loss than PGD-20 climbs.

At small scale three epochs, half as many as the other tables take, and 1,000 test images.

**Source**: adversarial-focus, section 3.2 and table 3. Of its claims on clean images, its own numbers contradict two:
C-cutout is more accurate than A-cutout, and under FGSM and TPGD-20 C-mixup and C-cutmix are less robust than A-.
"""

from __future__ import annotations

from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.adversarial_focus.attacked import ABOUT, COLUMNS, about, attacked
from passband.experiments.adversarial_focus.settings import FEWER_IMAGES, SEEDS, SETS, trained_run, training
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

WAYS = ("mixup", "cutout", "cutmix")
KINDS = {"A": "adversarial", "C": "clean"}
"""The paper's letter to the images that are mixed."""

SCHEMES: dict[str, dict[str, Any] | None] = {
    "None": None,
    **{f"{letter}-{how}": {"name": "mixed", "how": how, "on": on} for how in WAYS for letter, on in KINDS.items()},
    "BCE": {"name": "mixed", "how": "none", "on": "clean"},
}
"""By case, what a recipe's scheme is."""

SHORT: dict[Scale, dict[str, Any]] = {Scale.SMOKE: {"part": 16, "epochs": 1, "batch": 8}, Scale.SMALL: {"epochs": 3}}
"""How trainings differ from those of the other tables; at small scale "None" is the ResNet of `architectures`."""


def cases(scale: Scale) -> list[Case]:
    """List the augmentations."""
    return [
        {"case": case, "data": data, "seed": seed} for seed in SEEDS[scale] for data in SETS[scale] for case in SCHEMES
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train with one augmentation and attack the network."""
    fields: dict[str, Any] = dict(SHORT.get(lab.scale, {}))
    if (scheme := SCHEMES[case["case"]]) is not None:
        fields["scheme"] = scheme
    run = trained_run(lab, training(lab.scale, data=case["data"], seed=case["seed"], **fields))
    row, verdicts = attacked(lab.subject(run), run, lab)
    learned: dict[str, Cell] = about(run) | {
        "loss": "cross-entropy" if scheme is None or "cutout" in case["case"] else "binary"
    }
    return Measured(learned | row | {"run": run.digest}, verdicts=verdicts)


def poorest(rows: Rows, letter: str, column: str) -> float | None:
    """Return by how much cutout's number lies below the lower of mixup's and cutmix's, in points."""
    found = [value(rows, f"{letter}-{how}", column) for how in WAYS]
    mixup, cutout, cutmix = found
    return None if mixup is None or cutout is None or cutmix is None else min(mixup, cutmix) - cutout


def similar(rows: Rows, letter: str, column: str) -> float | None:
    """Return by how much less mixup and cutmix lie apart than cutout lies below the lower of them, in points."""
    below = poorest(rows, letter, column)
    apart = difference(rows, f"{letter}-mixup", f"{letter}-cutmix", column)
    return None if below is None or apart is None else below - abs(apart)


def improves_none(rows: Rows, column: str) -> float | None:
    """Return by how much the plain training's number lies above the best of all augmentations', in points."""
    plain = value(rows, "None", column)
    found = [value(rows, f"{letter}-{how}", column) for letter in KINDS for how in WAYS]
    known = [number for number in found if number is not None]
    return None if plain is None or len(known) < len(found) else plain - max(known)


_PLACE = "adversarial-focus, section 3.2, table 3"


def _clean_more_robust(how: str, column: str) -> Claim:
    return Claim(
        f"C-{how} above A-{how} under {column}",
        f"Data augmentation on clean data is more robust than applying it to adversarial examples ({how}, {column}).",
        _PLACE, lambda rows: difference(rows, f"C-{how}", f"A-{how}", column), smallest=1.0,
    )  # fmt: skip


def _clean_degrades(how: str) -> Claim:
    return Claim(
        f"C-{how} below A-{how}, clean",
        f"Data augmentation on clean data degrades the accuracy of clean data (here below that of the same on "
        f"adversarial examples; {how}).",
        _PLACE, lambda rows: difference(rows, f"A-{how}", f"C-{how}", "clean"), smallest=1.0,
    )  # fmt: skip


def _cutout_poor(letter: str) -> Claim:
    return Claim(
        f"cutout poor, {letter}-",
        f"Mix-up and Cutmix have similar performance, but Cutout performed poorly (PGD-20, on {KINDS[letter]} images; "
        "here Cutout lies further below the lower of the two than they lie apart).",
        _PLACE, lambda rows: similar(rows, letter, "PGD-20"), smallest=1.0,
    )  # fmt: skip


def _beyond_the_loss(how: str) -> Claim:
    return Claim(
        f"C-{how} above BCE under CW-20",
        f"Control, not in the paper: C-{how} is more robust under CW-20 than the binary cross-entropy makes a network "
        "without any mixture.",
        _PLACE, lambda rows: difference(rows, f"C-{how}", "BCE", "CW-20"), smallest=1.0,
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Mixup, cutout and cutmix inside adversarial training",
    source="adversarial-focus, table 3",
    columns=(*ABOUT, Column(name="loss"), *COLUMNS, Column(name="run")),
    cases=cases,
    measure=measure,
    claims=(
        *(_clean_more_robust(how, column) for how in WAYS for column in ("PGD-20", "CW-20")),
        *(_clean_degrades(how) for how in WAYS),
        *(_cutout_poor(letter) for letter in KINDS),
        Claim(
            "none improves robustness",
            "The direct usage of these methods cannot improve the robustness (PGD-20; here none of the six lies above "
            "the training without).", _PLACE, lambda rows: improves_none(rows, "PGD-20"), smallest=1.0,
        ),
        *(_beyond_the_loss(how) for how in ("mixup", "cutmix")),
    ),
    reported={
        f"{case}, cifar10": dict(zip([column.name for column in COLUMNS], numbers, strict=True))
        for case, numbers in {
            "None": (74.91, 70.44, 47.93, 42.13, 42.15, 62.32, 40.64),
            "A-mixup": (73.98, 69.73, 45.65, 39.87, 39.90, 58.46, 40.31),
            "C-mixup": (62.66, 61.10, 43.23, 40.89, 40.87, 56.11, 46.29),
            "A-cutout": (69.72, 68.07, 35.92, 27.61, 27.56, 52.88, 28.46),
            "C-cutout": (70.10, 66.04, 41.86, 36.49, 36.46, 57.00, 40.84),
            "A-cutmix": (72.15, 67.17, 45.84, 40.61, 40.55, 59.38, 44.14),
            "C-cutmix": (62.63, 59.37, 42.95, 40.72, 40.75, 56.59, 48.35),
        }.items()
    },
    limit=FEWER_IMAGES | {Scale.SMOKE: 8},
)  # fmt: skip
