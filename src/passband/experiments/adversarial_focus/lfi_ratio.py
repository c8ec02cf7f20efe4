"""How much of the first layer's activations is its mean, through natural and through adversarial training.

R is the norm of the mean of ``hardtanh(bn(conv(x)))`` over the norm of the rest (LFI over HFI), image by image, and the
mean over 512 training images: the first of one fixed seeded permutation of those that the network learns from, neither
cropped nor mirrored. It is measured after each epoch, from the first on, with the model in evaluation mode. The robust
model meets the images that it is trained on, under PGD-7; the natural one clean images.

The paper leaves open what is averaged and how the model stands; each other reading is a control beside:

- ``clean``: the robust model on clean images too;
- ``batch``: batch norms take the statistics of the 512 images instead of the running ones; attacks meet running ones;
- ``channel``: means over channels at each position, which is what the paper's formula says literally; the paper that
  the formula comes from means positions;
- ``channel, batch``: both.

At smoke 100 images.

**Source**: adversarial-focus, section 3.1.3 and figure 5.
**Differs**: the paper takes one draw of each training and judges by eye; here intervals come from drawing the images
anew, which says nothing of other trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.adversarial_focus.settings import COLOR, PGD, SEEDS, trained_run, training
from passband.experiments.curves import across
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.scores import finite
from passband.sweeps.lab import Lab

NATURAL, ROBUST = "natural", "robust"
COUNT = 512
"""Images: the paper's first batch."""

TRAINING_IMAGES = "training images"


@dataclass(frozen=True)
class Reading:
    """Say which R is meant.

    Attributes:
        name: What its columns end with; nothing for the one that the claims of the paper are judged by.
        over: What means are taken over: ``"spatial"`` positions or ``"channel"``.
        statistics: Of batch norms: ``"running"`` or ``"batch"``.
        clean: Whether the robust model meets clean images.
    """

    name: str
    over: str = "spatial"
    statistics: str = "running"
    clean: bool = False

    def column(self, when: str) -> str:
        """Return the column of this R after the first or the last epoch, or after one that is numbered."""
        return f"{when}, {self.name}" if self.name else when

    def key(self, robust: bool) -> str:
        """Return where the probe `activations` has it."""
        return f"{self.over}.{'pgd' if robust and not self.clean else 'clean'}.{self.statistics}"


MAIN = Reading("")
CONTROLS = {
    "on clean images": Reading("clean", clean=True),
    "batch norms taking the batch's statistics": Reading("batch", statistics="batch"),
    "means over channels": Reading("channel", over="channel"),
    "means over channels, batch norms taking the batch's statistics": Reading("channel, batch", "channel", "batch"),
}
READINGS = (MAIN, *CONTROLS.values())


def cases(scale: Scale) -> list[Case]:
    """List both trainings on each set, seed by seed."""
    return [
        {"case": trained, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in COLOR[scale]
        for trained in (NATURAL, ROBUST)
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one model and follow R over its epochs."""
    robust = case["case"] == ROBUST
    recipe = training(lab.scale, data=case["data"], seed=case["seed"], robust=robust)
    options: dict[str, Any] = {"count": COUNT, "statistics": ("running", "batch")}
    if robust:
        options |= {"attack": PGD["name"]} | {name: PGD[name] for name in ("eps", "alpha", "steps")}
    tracked = lab.track(recipe, "activations", options, split="train")
    row: dict[str, Cell] = {"epochs": max(tracked), "run": trained_run(lab, recipe).digest}
    samples: dict[str, np.ndarray] = {}
    for epoch, found in tracked.items():
        ratio = found["activations.ratio"]
        row["layer"] = ratio.how["layers"][0].removeprefix("inner.")
        for reading in READINGS:
            scores = finite(ratio.arrays[reading.key(robust)][0])
            row[reading.column(f"@{epoch}")] = float(scores.mean())
            for when, at in (("first", min(tracked)), ("last", max(tracked))):
                if epoch == at:
                    samples[reading.column(when)] = scores
    # An image whose activation is constant has no HFI, and no R.
    row |= {column: float(scores.mean()) for column, scores in samples.items()}
    return Measured(row, samples=samples, drawn_from=dict.fromkeys(samples, TRAINING_IMAGES))


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw R over epochs, natural and robust, by each reading."""
    last = max((epochs for row in rows if isinstance(epochs := row.get("epochs"), int)), default=0)
    words = {"": MAIN} | CONTROLS
    return tuple(
        curve
        for text, reading in words.items()
        for curve in across(
            rows,
            {epoch: reading.column(f"@{epoch}") for epoch in range(1, last + 1)},
            Column(name="epoch"),
            Column(name="R"),
            name=".".join(filter(None, ("ratio", reading.name.replace(", ", ".")))),
            title=", ".join(filter(None, ("LFI over HFI of the first activation", text))),
        )
    )


def growth(rows: Rows, case: str, reading: Reading = MAIN) -> float | None:
    """Return by how much R grows from the first epoch to the last."""
    ends = [value(rows, case, reading.column(when)) for when in ("first", "last")]
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def grows_more(rows: Rows, reading: Reading = MAIN) -> float | None:
    """Return by how much more R grows in adversarial training than in natural training."""
    robust, natural = growth(rows, ROBUST, reading), growth(rows, NATURAL, reading)
    return None if robust is None or natural is None else robust - natural


_PLACE = "adversarial-focus, section 3.1.3, figure 5"
_MORE = "the LFI proportion increases significantly during adversarial training: by more than in natural training"
_HIGHER = "the adversarially trained model pays more attention to LFI: its R ends higher than the natural one's"


def _claims(reading: Reading, control: str = "") -> tuple[Claim, Claim]:
    def ends_higher(rows: Rows) -> float | None:
        return difference(rows, ROBUST, NATURAL, reading.column("last"))

    name = f", {reading.name}" if reading.name else ""

    def said(sentence: str) -> str:
        return f"Control: {control}, {sentence}." if control else f"{sentence[0].upper()}{sentence[1:]}."

    settings: dict[str, Any] = {"unit": "of R", "drawn": TRAINING_IMAGES, "smallest": 0.1}
    return (
        Claim(f"robust grows more{name}", said(_MORE), _PLACE, lambda rows: grows_more(rows, reading), **settings),
        Claim(f"robust ends higher{name}", said(_HIGHER), _PLACE, ends_higher, **settings),
    )


EXPERIMENT = Experiment(
    title="Low- to high-frequency information of the first activation, through training",
    source="adversarial-focus, figure 5",
    columns=(
        *(Column(name=reading.column(when)) for reading in READINGS for when in ("first", "last")),
        Column(name="layer"), Column(name="epochs"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(
        Claim(
            "natural grows", "R grows through natural training (from 1.01 to 2.03).", _PLACE,
            lambda rows: growth(rows, NATURAL), unit="of R", drawn=TRAINING_IMAGES, smallest=0.1,
        ),
        Claim(
            "robust grows", "The adversarial model gradually increases the focus on LFI (R from 1.00 to 6.36).", _PLACE,
            lambda rows: growth(rows, ROBUST), unit="of R", drawn=TRAINING_IMAGES, smallest=0.1,
        ),
        *_claims(MAIN),
        *(claim for control, reading in CONTROLS.items() for claim in _claims(reading, control)),
    ),
    reported={
        f"{NATURAL}, cifar10": {"first": 1.01, "last": 2.03}, f"{ROBUST}, cifar10": {"first": 1.00, "last": 6.36},
    },
    figures=figures,
    limit={Scale.SMOKE: 100, Scale.SMALL: COUNT, Scale.FULL: COUNT},
)  # fmt: skip
