"""What the papers' training-free edits make of a model: accuracy, robustness, and whether gradients only hide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from passband.attacks.evaluate import RobustAccuracy, robust_accuracy
from passband.attacks.gradient_sign import PRESETS
from passband.attacks.square import Square
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Axis, Cell, Column, Curve, Result, Series, Table
from passband.data.dataset import Batches, permutation
from passband.models.state import uses_batch_statistics
from passband.models.wrap import Classifier
from passband.probes.gradients import zero_gradients
from passband.probes.registry import PROBES
from passband.tasks.classification import correct, predict, untouched, wilson
from passband.weights.edits import EDITS, choice, edited

UNEDITED = "unedited"


@dataclass(frozen=True)
class Tried:
    """Hold what one edit at one strength came to.

    Attributes:
        edit: Its name; `UNEDITED` for the model as it is.
        strength: In the edit's unit; None for the model as it is.
        clean: bool [all images], right when untouched.
        pgd: bool [attacked images], still right under PGD.
        worst: bool [queried images], still right under PGD and then Square.
        silent: bool [attacked images], right when untouched, and no gradient at all.
    """

    edit: str
    strength: float | None
    clean: np.ndarray
    pgd: np.ndarray
    worst: np.ndarray
    silent: np.ndarray

    @property
    def robust(self) -> float:
        """Share that stands under both attacks: PGD's on all attacked images times what Square leaves of it.

        Square is asked on the first of them alone; where PGD leaves none of these, there is nothing to take away.
        """
        left = self.pgd[: len(self.worst)].sum()
        return float(self.pgd.mean() * (self.worst.sum() / left if left else 1.0))


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
) -> tuple[Result, ...]:
    """Edit a model in each of the papers' training-free ways, and attack each edited model through its edit.

    The edits (`passband.weights.edits.EDITS`) are swept over their strengths on copies. Each copy is attacked as it
    is: PGD-20's gradients go through the edit, and what PGD leaves standing is attacked by Square, which needs none.
    Each edit is compared with the model as it is on the same images, by paired 95% intervals (`judged`): "more robust"
    where it is right more often under both attacks; "only hides gradients" where it is so under PGD and Square, which
    needs none, takes back half of that or more; "not more robust"; "undecided" where the interval holds both.

    Args:
        model: A classifier of images in [0, 1]; left as it was found.
        batches: The images: all for the clean accuracy.
        eps: Radius of the L∞ ball, pixels in [0, 1].
        edits: Names of edits; None takes all that the model has something for.
        strengths: In place of an edit's own sweep; one edit must be named then.
        also: Further edits to try, such as ``"smooth-first=0.05"``.
        attacked: Images that PGD attacks, the first of one fixed permutation of ``seed``.
        queried: How many of these Square attacks.
        queries: Square's queries per image.
        seed: Of the permutation and of all that is random.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``harden.frontier``: Table, a row for the model as it is and for each edit and strength: clean accuracy; robust
        accuracy (under PGD times the share that Square leaves of it); under PGD alone; how many of how many Square
        broke; the share of images, right untouched, whose gradient is zero everywhere; whether no other row is better
        in both accuracies; the judgment. ``arrays`` hold the verdicts per image. ``harden.curve``: robust over clean.

    Raises:
        PassbandError: for unknown edits, an edit that the model has nothing for, options out of range.

    **Source**: high-frequency, section 6.3; adversarial-focus, section 4; spatial-mixing, section 4.3.3. The papers
    attack edited models with gradients alone.
    """
    batches.measure  # noqa: B018  (refuses targets that say nothing, before any work)
    _check(model, eps, attacked, queried, queries)
    chosen = list(dict.fromkeys([*to_try(model, edits, strengths), *map(choice, also)]))
    for name, strength in chosen:
        edited(model, name, strength)  # refuses a strength out of range, before any work
    some = _some(batches, min(attacked, batches.count), seed)
    attack = _Attack(eps, min(queried, some.count), queries, seed, resume)
    rows = [attack.on(UNEDITED, None, model, batches, some)]
    for name, strength in track(chosen, "harden"):
        rows.append(attack.on(name, strength, edited(model, name, strength), batches, some))
    how: dict[str, Any] = {
        "probe": "harden", "eps": eps, "attacked": some.count, "queried": attack.queried, "queries": queries,
        "attacks": [str(attack.pgd), str(attack.square)],
    }  # fmt: skip
    return _table(rows, how, batches.measure), _curve(rows, how, batches.measure)


@dataclass(frozen=True)
class _Attack:
    eps: float
    queried: int
    queries: int
    seed: int
    resume: Path | None

    @property
    def pgd(self) -> Any:
        return replace(PRESETS["adversarial-focus"], seed=self.seed).at(self.eps)

    @property
    def square(self) -> Square:
        return Square(eps=self.eps, n_queries=self.queries, seed=self.seed)

    def on(self, name: str, strength: float | None, model: Classifier, batches: Batches, some: Batches) -> Tried:
        """Ask an edited model about its images, untouched and attacked."""
        with untouched(model):
            clean = np.concatenate([correct(predict(model, x), y).cpu().numpy() for x, y in batches])
        found = self._under(self.pgd, model, some)
        worst = found.correct[0][: self.queried].copy()
        left = np.flatnonzero(worst)
        if len(left):
            worst[left] = self._under(self.square, model, _subset(some, left)).correct[0]
        silent = zero_gradients(model, some) & found.clean
        return Tried(name, strength, clean, found.correct[0], worst, silent)

    def _under(self, attack: Any, model: Classifier, batches: Batches) -> RobustAccuracy:
        return robust_accuracy(model, batches, attack, self.eps, resume=self.resume)


def _check(model: Classifier, eps: float, attacked: int, queried: int, queries: int) -> None:
    if uses_batch_statistics(model):
        raise NotApplicable("harden needs answers that do not depend on the batch; this model normalizes by each batch")
    if not 0 < eps <= 1:
        raise PassbandError(f"harden: eps lies above 0 and up to 1, in pixels of [0, 1], such as 1/255; got {eps:g}")
    for option, count in (("attacked", attacked), ("queried", queried), ("queries", queries)):
        if count < 1:
            raise PassbandError(f"harden: {option} is 1 or more; got {count}")


def to_try(
    model: Classifier, edits: tuple[str, ...] | None, strengths: tuple[float, ...] | None
) -> list[tuple[str, float]]:
    """Return the edits to try with their strengths; of all edits, those that the model has something for."""
    for name in edits or ():
        if name not in EDITS:
            raise unknown("edit", name, EDITS)
    if strengths is not None:
        if edits is None or len(edits) != 1:
            raise PassbandError("harden: strengths are in one edit's own unit; name that edit: edits=smooth-first")
        EDITS[edits[0]].strengths(model)
        return [(edits[0], strength) for strength in strengths]
    found: list[tuple[str, float]] = []
    for name in EDITS if edits is None else edits:
        try:
            found += [(name, strength) for strength in EDITS[name].strengths(model)]
        except NotApplicable:
            if edits is not None:
                raise
    return found


def _some(batches: Batches, count: int, seed: int) -> Batches:
    return _subset(batches, permutation(batches.count, count, seed))


def _subset(batches: Batches, places: np.ndarray) -> Batches:
    dataset = batches.dataset.subset(places)
    return dataset.batches(batches.size, batches.device, batches.targets[places], batches.truth)


def judged(row: Tried, base: Tried) -> str:
    """Say what an edit came to, beside the model as it is, on the same images."""
    if row.edit == UNEDITED:
        return ""
    queried = len(row.worst)
    seen, worst = (
        float(ours.mean() - theirs.mean())
        for ours, theirs in ((row.pgd[:queried], base.pgd[:queried]), (row.worst, base.worst))
    )
    if _gain(row.pgd, base.pgd)[0] > 0 and worst <= seen / 2:
        return "only hides gradients"
    low, high = _gain(row.worst, base.worst)
    return "more robust" if low > 0 else "undecided" if high > 0 else "not more robust"


def _gain(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the ends of the paired normal 95% interval of a difference of accuracies."""
    difference = ours.astype(float) - theirs
    half = NormalDist().inv_cdf(0.975) * float(difference.std(ddof=1)) / len(difference) ** 0.5 if len(ours) > 1 else 1
    return float(difference.mean()) - half, float(difference.mean()) + half


def _best(rows: list[Tried]) -> Iterator[bool]:
    """Tell of each row whether no other is at least as good in both accuracies and better in one."""
    points = [(float(row.clean.mean()), row.robust) for row in rows]
    for clean, robust in points:
        yield not any(c >= clean and r >= robust and (c, r) != (clean, robust) for c, r in points)


def _table(rows: list[Tried], how: dict[str, Any], measure: str) -> Table:
    columns = (
        Column(name="edit"), Column(name="strength"), Column(name="clean", unit="fraction"),
        Column(name="robust", unit="fraction"), Column(name="judged"), Column(name="under PGD", unit="fraction"),
        Column(name="Square broke"), Column(name="of"), Column(name="zero gradients", unit="fraction"),
        Column(name="on the frontier"),
    )  # fmt: skip
    cells: list[tuple[Cell, ...]] = []
    arrays: dict[str, np.ndarray] = {}
    for row, best in zip(rows, _best(rows), strict=True):
        left = int(row.pgd[: len(row.worst)].sum())
        cells.append(
            (
                row.edit, row.strength, float(row.clean.mean()), row.robust, judged(row, rows[0]),
                float(row.pgd.mean()), left - int(row.worst.sum()), left, float(row.silent.mean()),
                "yes" if best else "no",
            )
        )  # fmt: skip
        label = row.edit if row.strength is None else f"{row.edit}={row.strength:g}"
        arrays |= {f"{label}.{part}": getattr(row, part) for part in ("clean", "pgd", "worst", "silent")}
    notes = [f"{name}: {EDITS[name].line}; {EDITS[name].strength}." for name in dict.fromkeys(r.edit for r in rows[1:])]
    hidden = [f"{row.edit}={row.strength:g}" for row in rows if judged(row, rows[0]) == "only hides gradients"]
    if hidden:
        notes.insert(0, f"Only hides gradients, and is no defense: {', '.join(hidden)}.")
    return Table(
        name="harden.frontier",
        title=f"Training-free edits: {measure}, untouched and at ε = {how['eps'] * 255:.3g}/255",
        how=how,
        notes=(
            *notes,
            f"PGD-20 through each edit on {how['attacked']} images; then Square, {how['queries']} queries, on what "
            f"stood of the first {how['queried']}. Robust is the accuracy under PGD times the share that Square left "
            "of it. A zero gradient counts where the image is right untouched.",
        ),
        arrays=arrays,
        columns=columns,
        rows=tuple(cells),
    )


def _curve(rows: list[Tried], how: dict[str, Any], measure: str) -> Curve:
    places = sorted({float(row.clean.mean()) for row in rows})
    base = rows[0]
    series = []
    for name in dict.fromkeys(row.edit for row in rows):
        # Each line sets out from the model as it is.
        found = {float(row.clean.mean()): row for row in (base, *rows) if row.edit in (name, UNEDITED)}
        ends = {at: wilson(round(row.robust * len(row.pgd)), len(row.pgd)) for at, row in found.items()}
        series.append(
            Series(
                name=name,
                values=tuple(found[at].robust if at in found else None for at in places),
                low=tuple(ends[at][0] if at in ends else None for at in places),
                high=tuple(ends[at][1] if at in ends else None for at in places),
                n=len(base.pgd),
            )
        )
    return Curve(
        name="harden.curve",
        title=f"Robust over clean {measure}, by edit",
        how=how,
        notes=("Towards the upper right is better; each line sets out from the unedited model. The intervals are those "
               "of the accuracy under PGD and know nothing of Square's smaller number of images.",),
        x=Axis(name=f"clean {measure}", unit="fraction", values=tuple(places)),
        y=Axis(name=f"robust {measure}", unit="fraction"),
        series=tuple(series),
    )  # fmt: skip
