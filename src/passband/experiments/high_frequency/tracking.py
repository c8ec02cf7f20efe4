"""Trainings as the paper plots them: what they get right of whole images, of LFC and of HFC, epoch by epoch.

A set's radii are told by their rank, ``r1`` to ``r4``: 4, 8, 12 and 16 bins at 32 pixels, 4, 8 and 12 at 28, 25, 50,
100 and 150 at 224. Two numbers stand for a network's tendency to capture HFC:

- ``HFC mean``: its accuracy on HFC alone, the mean over radii. Chance is the same for all networks of a set.
- ``lost``: by how much its accuracy falls when HFC is taken away: on whole images less that on LFC, the mean over
  radii. LFC is divided by its maximum where the case says nothing else, and whole images are not, so that a change of
  brightness is mixed in a little: a network that ignores HFC is near 0, not at 0.

**Source**: high-frequency, sections 4.2 and 5.
**Differs**: ``train`` is measured after the epoch, on training images as they are learned from, without augmentation.
The paper's code takes the running mean while the weights move, which a run's ``log.csv`` has; where images are mixed or
attacked, that counts other images. At small scale 2,000 training and 2,000 test images are measured (``label-shuffle``
has 1,000 training images), at smoke 100 of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from passband.core.claims import Rows
from passband.core.recipe import Recipe
from passband.core.results import Axis, Cell, Column, Curve, Result, Series
from passband.core.scale import Scale
from passband.core.statistics import wilson
from passband.data.catalog import Split
from passband.experiments.high_frequency.settings import radii as radii_of
from passband.experiments.high_frequency.settings import tracked
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Measured
from passband.sweeps.lab import Lab
from passband.train.run import Run

Verdicts = dict[str, np.ndarray]
"""Per image whether it is right, floating [N], by column; a mean over radii lies between 0 and 1."""

LIMIT: dict[Scale, int | None] = {Scale.SMOKE: 100, Scale.SMALL: 2000}
SEEDS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
SHORT: dict[Scale, dict[str, Any]] = {Scale.SMOKE: {"part": 128, "epochs": 1}}
"""What trainings have in place of the vanilla one's at smoke, where there are dozens of them."""

TRAINING_IMAGES = "training images"
BOTH = "training and test images"
"""What a bootstrap draws anew for a claim about training accuracy, and about both."""

TENDENCIES = {"HFC mean": "by accuracy on HFC", "lost": "by what is lost without HFC"}
"""The columns that tell of a tendency to capture HFC, and how they do."""

_RANKS = range(1, 5)
COLUMNS = (
    Column(name="train", unit="%"),
    Column(name="test", unit="%"),
    Column(name="gap", unit="points"),
    *(Column(name=f"{side} r{rank}", unit="%") for side in ("LFC", "HFC") for rank in _RANKS),
    Column(name="LFC mean", unit="%"),
    Column(name="HFC mean", unit="%"),
    Column(name="lost", unit="points"),
    Column(name="chance", unit="%"),
    Column(name="run"),
)


@dataclass(frozen=True)
class Followed:
    """Hold what one training got right.

    Attributes:
        run: It.
        radii: Of the band copies, ascending.
        epochs: Verdicts after each epoch that was measured, ascending.
        how: What a result says of itself.
        classes: What the network chooses from.
    """

    run: Run
    radii: tuple[float, ...]
    epochs: dict[int, Verdicts]
    how: dict[str, Any]
    classes: int

    @property
    def last(self) -> Verdicts:
        """What the trained network gets right."""
        return self.epochs[max(self.epochs)]

    def by_epoch(self, *lines: str) -> Verdicts:
        """Return lines as columns of their own, such as ``train @5``: right after the fifth epoch."""
        return {f"{line} @{epoch}": found[line] for epoch, found in self.epochs.items() for line in lines}

    def mean_over_epochs(self, line: str) -> np.ndarray:
        """Return per image the area under its line, straight between measured epochs, over the epochs' number."""
        epochs = np.array(list(self.epochs), dtype=float)
        right = np.stack([found[line] for found in self.epochs.values()])
        if len(epochs) == 1:
            return np.asarray(right[0])
        widths = np.diff(epochs)[:, None]
        area = (widths * (right[1:] + right[:-1]) / 2).sum(0)
        return np.asarray(area / (epochs[-1] - epochs[0]))

    def curve(self, title: str) -> Curve:
        """Draw a panel of the paper's figures: accuracy over epochs of whole images and of each copy."""
        names = {"train": "train", "test": "test"}
        for rank, radius in enumerate(self.radii, 1):
            names |= {f"LFC r{rank}": f"r = {radius:g} low", f"HFC r{rank}": f"r = {radius:g} high"}
        return Curve(
            name="epochs",
            title=title,
            how=self.how,
            notes=(
                f"Measured after the epochs that are marked, on {len(self.last['train']):,} training images"
                + (f" and {len(self.last['test']):,} test images." if "test" in self.last else " alone."),
            ),
            x=Axis(name="epoch", values=tuple(self.epochs)),
            y=Axis(name="accuracy", unit="%"),
            series=tuple(
                _series(name, [found[line] for found in self.epochs.values()])
                for line, name in names.items()
                if line in self.last
            ),
        )


def _series(name: str, verdicts: Sequence[np.ndarray]) -> Series:
    ends = [wilson(int(right.sum()), len(right)) for right in verdicts]
    return Series(
        name=name,
        values=tuple(100 * float(right.mean()) for right in verdicts),
        low=tuple(100 * low for low, _ in ends),
        high=tuple(100 * high for _, high in ends),
        n=len(verdicts[0]),
    )


def followed(
    recipe: Recipe, lab: Lab, *, radii: Sequence[float] | None = None, copies: Split = "test", **reading: Any
) -> Followed:
    """Train a recipe and measure it after its epochs: all at full scale, below it ever fewer.

    Args:
        recipe: What is trained.
        lab: Where.
        radii: Of the band copies; None for those of the recipe's set.
        copies: Whether band copies are made of test images, beside which training images are measured whole, or of
            ``"train"``ing images alone.
        **reading: Options of the probe ``bands``: ``statistics``, ``rescale``.
    """
    chosen = tuple(radii or radii_of(recipe.data.name))
    epochs = tracked(lab.scale, recipe.epochs)
    found = lab.track(recipe, "bands", _options(chosen, reading), epochs=epochs, split=copies)
    verdicts = {epoch: _verdicts(results, copies) for epoch, results in found.items()}
    if copies == "test":
        for epoch, results in lab.track(recipe, "bands", _whole(chosen, reading), epochs=epochs, split="train").items():
            verdicts[epoch]["train"] = _right(results)
    how = found[max(found)]["bands.accuracy"].how
    return _followed(lab.train(recipe, keep_epochs=True), lab, chosen, verdicts, how | {"epochs": list(verdicts)})


def ended(recipe: Recipe, lab: Lab, **reading: Any) -> Followed:
    """Train a recipe and measure the trained network alone; arguments as in :func:`followed`."""
    run = lab.train(recipe)
    chosen = radii_of(recipe.data.name)
    found = lab.probe(run, "bands", _options(chosen, reading))
    learned = lab.probe(run, "bands", _whole(chosen, reading), split="train")
    verdicts = {run.metrics["epochs"]: _verdicts(found, "test") | {"train": _right(learned)}}
    return _followed(run, lab, chosen, verdicts, found["bands.accuracy"].how)


def _followed(
    run: Run, lab: Lab, radii: tuple[float, ...], verdicts: dict[int, Verdicts], how: dict[str, Any]
) -> Followed:
    classes = lab.subject(run).model.spec.classes
    return Followed(run, radii, verdicts, how | {"run": run.digest}, classes)


def _options(radii: tuple[float, ...], reading: Mapping[str, Any]) -> dict[str, Any]:
    return {"radii": radii, "degrees": (), "examples": 0, **reading}


def _whole(radii: tuple[float, ...], reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for whole images, which no rescaling touches; the probe wants a cut, and one costs least."""
    return _options(radii[:1], {name: given for name, given in reading.items() if name == "statistics"})


def _right(found: Mapping[str, Result]) -> np.ndarray:
    return np.asarray(found["bands.clean"].arrays["correct"].astype(float))


def _verdicts(found: Mapping[str, Result], whole: str) -> Verdicts:
    right = _right(found)
    verdicts = {whole: right}
    for side in ("LFC", "HFC"):
        by_radius = found["bands.accuracy"].arrays[f"{side}.correct"].astype(float)
        verdicts |= {f"{side} r{rank}": copy for rank, copy in enumerate(by_radius, 1)}
        verdicts[f"{side} mean"] = by_radius.mean(0)
    verdicts["lost"] = right - verdicts["LFC mean"]
    return verdicts


def measured(
    course: Followed, case: Case, *, drawn: bool = True, more: Verdicts | None = None, learned: Sequence[str] = ()
) -> Measured:
    """Return one case's row, its panel where it was followed, and its verdicts.

    Args:
        course: What was got right.
        case: Whose; names the panel.
        drawn: Whether there is a panel.
        more: Further columns.
        learned: Those of them that speak of training images, beside ``train`` and all of a course without test images.
    """
    verdicts = course.last | (more or {})
    row: dict[str, Cell] = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    row |= {"chance": 100 / course.classes, "run": course.run.digest}
    if "test" in verdicts:
        row["gap"] = 100 * float(verdicts["train"].mean() - verdicts["test"].mean())
    title = f"{case['case']}, {case['data']}, seed {case['seed']}: accuracy over epochs"
    results = (course.curve(title),) if drawn else ()
    of_training = [
        column for column in verdicts if "test" not in course.last or column.partition(" @")[0] in ("train", *learned)
    ]
    return Measured(row, results, verdicts, drawn_from=dict.fromkeys(of_training, TRAINING_IMAGES))


def gap(rows: Rows, case: str) -> float | None:
    """Return the generalization gap of a case, training less test accuracy, in points."""
    train, test = value(rows, case, "train"), value(rows, case, "test")
    return None if train is None or test is None else train - test


def trajectory(rows: Rows, case: str, line: str) -> list[tuple[int, float]]:
    """Return the epochs and the numbers of a line that :meth:`Followed.by_epoch` made columns of."""
    row = next((row for row in rows if row["case"] == case), {})
    found = [(name.removeprefix(f"{line} @"), cell) for name, cell in row.items() if name.startswith(f"{line} @")]
    return sorted((int(epoch), float(cell)) for epoch, cell in found if isinstance(cell, int | float))


def between(points: Sequence[tuple[int, float]], epoch: float) -> float:
    """Return a line's number at an epoch, straight between its points; one point or more, ascending."""
    epochs, numbers = zip(*points, strict=True)
    return float(np.interp(epoch, epochs, numbers))


def reaches(points: Sequence[tuple[int, float]], target: float) -> float | None:
    """Return the epoch at which a line first reaches a target, straight between its points; None if it never does.

    A line that starts above the target reaches it at its first point.
    """
    before: tuple[int, float] | None = None
    for epoch, number in points:
        if number >= target:
            if before is None:
                return float(epoch)
            return before[0] + (epoch - before[0]) * (target - before[1]) / (number - before[1])
        before = (epoch, number)
    return None
