"""The papers' training-free edits of a model, each attacked through itself: the frontier of clean and robust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from passband.attacks.auto_pgd import APGD
from passband.attacks.doubts import of_black_box
from passband.attacks.evaluate import RobustAccuracy, robust_accuracy
from passband.attacks.gradient_sign import PGD, PRESETS
from passband.attacks.square import Square
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Axis, Cell, Column, Curve, Result, Series, Table
from passband.data.dataset import Batches, permutation
from passband.models.fast import Precision
from passband.models.state import uses_batch_statistics
from passband.models.wrap import Classifier
from passband.probes.gradients import kept_gradients
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.probes.tried import HIDES, UNEDITED, Tried, frontier, judged
from passband.tasks.classification import correct, predict, untouched
from passband.weights.edits import EDITS, Choice, choice, edited


@PROBES.register("harden")
def harden(
    model: Classifier,
    batches: Batches,
    *,
    eps: float = 1 / 255,
    edits: tuple[str, ...] | None = None,
    strengths: tuple[float, ...] | None = None,
    also: tuple[str, ...] = (),
    attacked: int = 1000,
    queried: int = 200,
    queries: int = 1000,
    seed: int = 0,
    resume: Path | None = None,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Edit a model in each of the papers' training-free ways, and attack each edited model through its edit.

    The edits (`passband.weights.edits.EDITS`) are swept over their strengths on copies. Gradients go through the edit:
    PGD-20 climbs the cross-entropy, and what stands is attacked by 20 steps of APGD on the DLR, which no scale of the
    logits hides (for models of three classes or more). What of the first images stands is attacked by Square, which
    needs no gradient. Each edit is compared with the model as it is on the same images (`passband.probes.tried`).

    Args:
        model: A classifier of images in [0, 1]; left as it was found.
        batches: The images: all for the clean accuracy.
        eps: Radius of the L∞ ball, pixels in [0, 1].
        edits: Names of edits; None takes all that the model has something for.
        strengths: In place of an edit's own sweep; one edit must be named then.
        also: Further edits to try, such as ``"smooth-first=0.05"``.
        attacked: Images that are attacked by gradients, the first of one fixed permutation of ``seed``.
        queried: How many of these Square attacks.
        queries: Square's queries per image.
        seed: Of the permutation and of all that is random.
        resume: A folder where what is finished of the attacks is kept until all is; None keeps nothing.
        precision: Of the attacks' gradients; every verdict is the edited model's own in float32.

    Returns:
        ``harden.frontier``: Table, a row for the model as it is and for each edit and strength: clean accuracy; robust
        accuracy, which is the share that stands under both gradient attacks times the share that Square leaves of it;
        the judgment; the share that stands under PGD alone and under APGD too; how many of how many Square broke; the
        share of images, right untouched, whose cross-entropy has no gradient at all; whether no other row is better in
        both accuracies. ``arrays`` hold the verdicts per image. ``harden.curve``: robust over clean.
        ``how["doubts"]`` says what speaks against a number.

    Raises:
        NotApplicable: for a named edit that the model has nothing for, or a model that normalizes by each batch.
        PassbandError: for unknown edits, options out of range.

    **Source**: high-frequency, section 6.3; adversarial-focus, section 4; spatial-mixing, section 4.3.3.
    **Differs**: the papers attack edited models by the cross-entropy's gradient alone.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    _check(model, eps, attacked, queried, queries)
    chosen = list(dict.fromkeys([*to_try(model, edits, strengths), *map(choice, also)]))
    for name, strength in chosen:
        edited(model, name, strength)  # refuses a strength out of range, before any work
    some = batches.subset(permutation(batches.count, min(attacked, batches.count), seed))
    attack = _Attack(eps, min(queried, some.count), queries, seed, resume, precision)
    rows = [attack.on(UNEDITED, None, model, batches, some)]
    for name, strength in track(chosen, "harden"):
        rows.append(attack.on(name, strength, edited(model, name, strength), batches, some))
    how: dict[str, Any] = {
        "probe": "harden", "eps": eps, "attacked": some.count, "queried": attack.queried, "queries": queries,
        "attacks": [str(attack.pgd), str(attack.apgd), str(attack.square)],
        "doubts": {row.name: [asdict(doubt) for doubt in row.doubts] for row in rows if row.doubts},
    }  # fmt: skip
    return _table(rows, how, measure), _curve(rows, how, measure)


@dataclass(frozen=True)
class _Attack:
    eps: float
    queried: int
    queries: int
    seed: int
    resume: Path | None
    precision: Precision

    @property
    def pgd(self) -> PGD:
        return replace(PRESETS["adversarial-focus"], seed=self.seed).at(self.eps)

    @property
    def apgd(self) -> APGD:
        return APGD(eps=self.eps, steps=20, seed=self.seed, loss="dlr")

    @property
    def square(self) -> Square:
        return Square(eps=self.eps, n_queries=self.queries, seed=self.seed)

    def on(self, name: str, strength: float | None, model: Classifier, batches: Batches, some: Batches) -> Tried:
        """Ask an edited model about its images, untouched and attacked."""
        with untouched(model):
            pieces = Pieces.of(self.resume, model, next(iter(some))[0], "harden")
            clean = joined(by_part(pieces, "clean", batches, partial(_clean, model), "clean"))["clean"]
        climbs = [self.pgd, self.apgd] if model.spec.classes > 2 else [self.pgd]
        found = self._under(climbs, model, some)
        stands = found.correct[0]
        worst = stands[: self.queried].copy()
        left = np.flatnonzero(worst)
        if len(left):
            worst[left] = self._under([self.square], model, some.subset(left)).correct[0]
        blind = of_black_box("Square", len(left) - int(worst.sum()), len(left))
        silent = kept_gradients(model, some, self.resume).zero & found.clean
        doubts = (*found.doubts, *blind)
        return Tried(name, strength, clean, stands | (found.fell_to[0] == 1), stands, worst, silent, doubts)

    def _under(self, attacks: Sequence[Any], model: Classifier, batches: Batches) -> RobustAccuracy:
        return robust_accuracy(model, batches, attacks, self.eps, resume=self.resume, precision=self.precision)


def _clean(model: Classifier, part: Part) -> Arrays:
    return {"clean": np.concatenate([correct(predict(model, x), y).cpu().numpy() for x, y in part.batches])}


def _check(model: Classifier, eps: float, attacked: int, queried: int, queries: int) -> None:
    if uses_batch_statistics(model):
        raise NotApplicable("harden needs answers that do not depend on the batch; this model normalizes by each batch")
    if not 0 < eps <= 1:
        raise PassbandError(f"harden: eps lies above 0 and up to 1, in pixels of [0, 1], such as 1/255; got {eps:g}")
    for option, count in (("attacked", attacked), ("queried", queried), ("queries", queries)):
        if count < 1:
            raise PassbandError(f"harden: {option} is 1 or more; got {count}")


def to_try(model: Classifier, edits: tuple[str, ...] | None, strengths: tuple[float, ...] | None) -> list[Choice]:
    """Return the edits to try with their strengths; of all edits, those that the model has something for.

    Raises:
        NotApplicable: for a named edit that the model has nothing for.
        PassbandError: for an unknown edit, and strengths without one edit that they belong to.
    """
    for name in edits or ():
        if name not in EDITS:
            raise unknown("edit", name, EDITS)
    if strengths is not None:
        if edits is None or len(edits) != 1:
            raise PassbandError("harden: strengths are in one edit's unit; name that edit: edits=smooth-first")
        EDITS[edits[0]].strengths(model)
        return [(edits[0], strength) for strength in strengths]
    found: list[Choice] = []
    for name in EDITS if edits is None else edits:
        try:
            found += [(name, strength) for strength in EDITS[name].strengths(model)]
        except NotApplicable:
            if edits is not None:
                raise
    return found


def _table(rows: list[Tried], how: dict[str, Any], measure: str) -> Table:
    columns = (
        Column(name="edit"), Column(name="strength"), Column(name="clean", unit="fraction"),
        Column(name="robust", unit="fraction"), Column(name="judged"), Column(name="under PGD", unit="fraction"),
        Column(name="and APGD", unit="fraction"), Column(name="Square broke"), Column(name="of"),
        Column(name="zero gradients", unit="fraction"), Column(name="on the frontier"),
    )  # fmt: skip
    edits = max(1, len(rows) - 1)
    said = [judged(row, rows[0], edits) for row in rows]
    cells: list[tuple[Cell, ...]] = []
    arrays: dict[str, np.ndarray] = {}
    for row, word, best in zip(rows, said, frontier(rows), strict=True):
        cells.append(
            (
                row.edit, row.strength, float(row.clean.mean()), row.robust, word, float(row.pgd.mean()),
                float(row.climbed.mean()), row.left - int(row.worst.sum()), row.left, float(row.silent.mean()),
                "yes" if best else "no",
            )
        )  # fmt: skip
        parts = ("clean", "pgd", "climbed", "worst", "silent")
        arrays |= {f"{row.name}.{part}": getattr(row, part) for part in parts}
    notes = [f"{name}: {EDITS[name].line}; {EDITS[name].strength}." for name in dict.fromkeys(r.edit for r in rows[1:])]
    hidden = [row.name for row, word in zip(rows, said, strict=True) if word == HIDES]
    if hidden:
        notes.insert(0, f"Only hides gradients, and is no defense: {', '.join(hidden)}.")
    return Table(
        name="harden.frontier",
        title=f"Training-free edits: {measure}, untouched and at ε = {how['eps'] * 255:.3g}/255",
        how=how,
        notes=(
            *notes,
            f"PGD-20 and APGD-20 on the DLR through each edit, on {how['attacked']} images; then Square, "
            f"{how['queries']} queries, on what stood of the first {how['queried']}. Robust is the share that stood "
            "times the share that Square left of it. Zero gradients counts images that are right untouched.",
            f"Judged on the same images as the unedited model, by paired intervals that hold for {edits} edits at "
            "once, at 95%; an image that stands without a gradient does not count as robust.",
        ),
        arrays=arrays,
        columns=columns,
        rows=tuple(cells),
    )


def _curve(rows: list[Tried], how: dict[str, Any], measure: str) -> Curve:
    places = sorted({float(row.clean.mean()) for row in rows})
    series = []
    for name in dict.fromkeys(row.edit for row in rows):
        found: dict[float, float] = {}
        for row in rows:
            if row.edit == name:
                at = float(row.clean.mean())
                found[at] = max(row.robust, found.get(at, 0.0))
        series.append(Series(name=name, values=tuple(found.get(at) for at in places), n=how["attacked"]))
    return Curve(
        name="harden.curve",
        title=f"Robust over clean {measure}, by edit",
        how=how,
        notes=(
            "A point for each strength; towards the upper right is better. Of strengths with the same clean "
            f"{measure} the most robust is drawn.",
        ),
        x=Axis(name=f"clean {measure}", unit="fraction", values=tuple(places)),
        y=Axis(name=f"robust {measure}", unit="fraction"),
        series=tuple(series),
    )
