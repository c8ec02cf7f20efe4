"""Images whose right answer rests on high frequencies: right whole, right on these alone, wrong on all the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.band import Band, Edge
from passband.core.errors import PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Cell, Column, Gallery, Picture, Result, Scalar, Table
from passband.data.dataset import Batches
from passband.frequency import filters, low_rank
from passband.frequency.filters import FLAT, Rescale
from passband.probes.bands import class_names
from passband.probes.copies import read
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.tasks.classification import check_targets, predict, untouched, wilson

By = Literal["fourier", "svd"]
Cut = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]
"""Images to their low part, their high part and, where there are some, the ranks of each channel."""
PARTS = ("full", "low", "high")
CALLED: dict[str, dict[str, str]] = {
    "fourier": {"full": "image", "low": "LFC", "high": "HFC"},
    "svd": {"full": "image", "low": "largest singular values", "high": "the other ones"},
}
_TALL = 96
"""Least height of a picture in pixels; smaller images grow by whole numbers."""
_GAP = 4
"""White columns between the pictures of a strip."""


@dataclass(frozen=True)
class _Answers:
    """Hold what a model said of each image and of its two parts, all [N], by part.

    Attributes:
        predicted: Class of the largest logit, int64.
        confidence: Softmax probability of that class.
        in_target: Softmax probability of the right class.
        targets: The right classes, int64.
        empty: Whether the high part holds nothing.
        ranks: Of each channel, int64 [N, C]; None where parts are bands.
        classes: Number of the model's outputs.
    """

    predicted: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    in_target: dict[str, np.ndarray]
    targets: np.ndarray
    empty: np.ndarray
    ranks: np.ndarray | None
    classes: int

    def right(self, part: str) -> np.ndarray:
        """Return per image whether the answer to one of its parts is right."""
        return np.asarray(self.predicted[part] == self.targets)


@PROBES.register("reliance")
def reliance(
    model: nn.Module,
    batches: Batches,
    *,
    radius: float | None = None,
    by: By = "fourier",
    rank: int | None = None,
    edge: Edge = "inclusive",
    rescale: Rescale = "max",
    examples: int = 8,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Find the images that a model gets right whole and on their high part, and wrong on their low part.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what counts as right.
        radius: Cut-off between the low (LFC) and the high part (HFC), in bins of the spectrum of the image as the
            model takes it; None is 12/32 of the shorter side.
        by: ``"fourier"``, or ``"svd"``: the low part is what the largest singular values of each channel make, the
            high part the rest.
        rank: How many singular values the low part keeps; None takes for each channel of each image the fewest that
            keep as much energy as its LFC does. Read with ``by="svd"`` alone.
        edge: Whether the cut-off itself is low.
        rescale: How both parts come to a pixel scale.
        examples: How many such images the gallery shows, those first whose right class loses most confidence from
            the whole to the low part; 0 for no gallery.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``reliance.share``: Scalar, the share of such images with its Wilson interval; ``arrays`` hold the answers per
        image. ``reliance.by_chance``: Scalar, as :func:`by_chance`. ``reliance.verdicts``: Table of how many images
        are right on which parts. ``reliance.examples``: Gallery of image, low and high part side by side, where
        there are such images.

    Raises:
        PassbandError: for an unknown split, a rank that is out of place, or nothing to compare an answer with.

    **Source**: high-frequency, figure 2 (ResNet-18, r = 12; ``rescale="max"`` is the authors' code) and section 8.
    **Differs**: counts them; the paper shows eight.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    if examples < 0:
        raise PassbandError(f"probe reliance: examples is 0 or more; got {examples}")
    images, _ = next(iter(batches))
    size = int(images.shape[-2]), int(images.shape[-1])
    band = Band(min(size) * 12 / 32 if radius is None else float(radius), "disc", "pixel", edge)
    cut = _cut(band, by, rank)
    answers = _ask(model, batches, cut, rescale, resume, (band, by, rank))
    how: dict[str, Any] = {
        "probe": "reliance", "by": by, "band": str(band), "spectrum": list(size), "rescale": rescale,
        "measure": measure,
    }  # fmt: skip
    if by == "svd":
        how["rank"] = "as much energy as the band" if rank is None else rank
    found = answers.right("full") & ~answers.right("low") & answers.right("high")
    results: list[Result] = [_share(answers, found, by, how), _chance(answers, by, how), _verdicts(answers, by, how)]
    if examples and found.any():
        places = _by_fall(answers, found)[:examples]
        strips = _strips(batches, places, cut, rescale)
        names = class_names(model, batches, answers.classes)
        results.append(_gallery(answers, strips, batches, names, by, how))
    return tuple(results)


def by_chance(predicted: np.ndarray, targets: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return scores whose mean is the share of images that would be right by chance, were the answers dealt anew.

    Some images are chosen, and the answers to them are dealt among them at random: an answer that is always the same
    is then right as often as before. What is right beyond that knows of its image.

    Args:
        predicted: The answers, integers [N].
        targets: The right classes, integers [N].
        among: Which images are chosen, bool [N].

    Returns:
        float64 [N], 0 where an image is not chosen. Their mean over all N is the share of images that are chosen and
        right after dealing. They are the mean's influence values, so that a bootstrap over them has its spread.

    **Source**: Cohen, Educ. Psychol. Meas. 20 (1960): the agreement that is expected by chance.

    >>> chosen = np.array([True, True, True, False])
    >>> round(float(by_chance(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1]), chosen).mean()), 6)
    0.5
    """
    scores = np.zeros(len(targets))
    said, truth = predicted[among], targets[among]
    if not len(truth):
        return scores
    classes = int(max(said.max(), truth.max())) + 1
    of_answers, of_truths = (np.bincount(classed, minlength=classes) / len(truth) for classed in (said, truth))
    scores[among] = of_answers[truth] + of_truths[said] - of_answers @ of_truths
    return scores


def _cut(band: Band, by: str, rank: int | None) -> Cut:
    if by not in get_args(By):
        raise unknown("split", by, get_args(By))
    if by == "fourier":
        if rank is not None:
            raise PassbandError(f"probe reliance: rank={rank} belongs to by=svd; a Fourier split has a radius")
        return lambda images: (*filters.split(images, band), None)
    if rank is None:
        return lambda images: low_rank.split_as_band(images, band)
    return lambda images: (*low_rank.split(images, rank), torch.full(images.shape[:2], rank))


def _ask(model: nn.Module, batches: Batches, cut: Cut, rescaling: str, resume: Path | None, asked: object) -> _Answers:
    with untouched(model):
        pieces = Pieces.of(resume, model, next(iter(batches))[0], ("reliance", asked, rescaling))
        found = by_part(pieces, "parts", batches, partial(_of_part, model, cut, rescaling), "reliance")
    arrays = joined(found)
    predicted, confidence, in_target = (
        {part: arrays[f"{part}.{kind}"] for part in PARTS} for kind in ("predicted", "confidence", "in_target")
    )
    return _Answers(
        predicted, confidence, in_target, arrays["right"], arrays["empty"], arrays.get("ranks"),
        int(arrays["classes"][0]),
    )  # fmt: skip


def _of_part(model: nn.Module, cut: Cut, rescaling: str, some: Part) -> Arrays:
    """Ask a model about the images and both parts of them."""
    said: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {part: [] for part in PARTS}
    right: list[Tensor] = []
    empty: list[Tensor] = []
    ranks: list[Tensor] = []
    classes = 0
    for images, targets in track(some.batches, "reliance"):
        low, high, kept = cut(images)
        copies = (images, filters.rescale(low, rescaling), filters.rescale(high, rescaling))
        for part, copy in zip(PARTS, copies, strict=True):
            logits = predict(model, copy.contiguous(memory_format=torch.channels_last))
            if not classes:
                classes = logits.shape[1]
            check_targets(targets, classes)
            said[part].append(read(logits, targets))
        right.append(targets.cpu())
        empty.append((high.abs().amax((1, 2, 3)) <= FLAT).cpu())
        ranks += [] if kept is None else [kept.cpu()]
    arrays = {"right": right, "empty": empty, "classes": [torch.tensor([classes])]} | (
        {"ranks": ranks} if ranks else {}
    )
    for part, rows in said.items():
        for kind, column in zip(("predicted", "confidence", "in_target"), zip(*rows, strict=True), strict=True):
            arrays[f"{part}.{kind}"] = list(column)
    return {name: torch.cat(some).numpy() for name, some in arrays.items()}


def _share(answers: _Answers, found: np.ndarray, by: str, how: dict[str, Any]) -> Scalar:
    called = CALLED[by]
    arrays = {"found": found, "targets": answers.targets, "high.empty": answers.empty}
    for part in PARTS:
        arrays |= {
            f"{part}.correct": answers.right(part),
            f"{part}.predicted": answers.predicted[part],
            f"{part}.confidence": answers.confidence[part],
            f"{part}.in_target": answers.in_target[part],
        }
    if answers.ranks is not None:
        arrays["ranks"] = answers.ranks
    notes = [f"{int(found.sum()):,} of {len(found):,} images. Low part: {called['low']}; high part: {called['high']}."]
    if answers.empty.any():
        notes.append(f"The high part of {int(answers.empty.sum()):,} images is empty: the model sees no image.")
    low, high = wilson(int(found.sum()), len(found))
    return Scalar(
        name="reliance.share",
        title="Images that are right whole and on their high part, and wrong on their low part",
        how=how, notes=tuple(notes), arrays=arrays, value=float(found.mean()), low=low, high=high, n=len(found),
        unit="fraction",
    )  # fmt: skip


def _chance(answers: _Answers, by: str, how: dict[str, Any]) -> Scalar:
    among = answers.right("full") & ~answers.right("low")
    scores = by_chance(answers.predicted["high"], answers.targets, among)
    return Scalar(
        name="reliance.by_chance",
        title="As many would be so by chance, were the answers to the high parts dealt anew",
        how=how,
        notes=(
            f"Dealt among the {int(among.sum()):,} images that are right whole and wrong on "
            f"{CALLED[by]['low']}: only what is beyond this share knows of its image.",
        ),
        arrays={"scores": scores, "among": among},
        value=float(scores.mean()),
        n=len(scores),
        unit="fraction",
    )


def _verdicts(answers: _Answers, by: str, how: dict[str, Any]) -> Table:
    right = [answers.right(part) for part in PARTS]
    rows: list[tuple[Cell, ...]] = []
    for verdict in product((True, False), repeat=3):
        alike = np.all([one == wanted for one, wanted in zip(right, verdict, strict=True)], axis=0)
        words = ("right" if wanted else "wrong" for wanted in verdict)
        rows.append((*words, int(alike.sum()), float(alike.mean())))
    return Table(
        name="reliance.verdicts",
        title="Images by what is right of them",
        how=how,
        columns=(
            *(Column(name=CALLED[by][part]) for part in PARTS),
            Column(name="images"),
            Column(name="share", unit="fraction"),
        ),
        rows=tuple(rows),
    )


def _by_fall(answers: _Answers, found: np.ndarray) -> list[int]:
    """Return the places of such images, first those whose right class loses most confidence on the low part."""
    fall = np.where(found, answers.in_target["full"] - answers.in_target["low"], -np.inf)
    return [int(place) for place in np.argsort(-fall, kind="stable")[: int(found.sum())]]


def _strips(batches: Batches, places: list[int], cut: Cut, rescaling: str) -> dict[int, np.ndarray]:
    """Return image, low part and high part side by side, uint8 [H, W, 3], by place and in the order of ``places``."""
    made: dict[int, np.ndarray] = dict.fromkeys(places, np.empty(0))
    first = 0
    for images, _ in batches:
        here = [place for place in places if first <= place < first + len(images)]
        if here:
            chosen = images[[place - first for place in here]]
            low, high, _ = cut(chosen)
            # The high part is signed: zero is gray, and its largest value black or white.
            peak = high.abs().amax((1, 2, 3), keepdim=True)
            signed = 0.5 + high / torch.where(peak > FLAT, 2 * peak, 1.0)
            gap = chosen.new_ones(*chosen.shape[:3], -(-_GAP // _times(chosen.shape[2])))
            row = torch.cat((chosen, gap, filters.rescale(low, rescaling), gap, signed), dim=3)
            pixels = row.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            made |= {place: _grown(strip) for place, strip in zip(here, pixels, strict=True)}
        first += len(images)
    return made


def _times(height: int) -> int:
    return -(-_TALL // height)


def _grown(strip: np.ndarray) -> np.ndarray:
    """Repeat each pixel, so that a small picture can be seen."""
    times = _times(len(strip))
    return np.ascontiguousarray(strip.repeat(times, axis=0).repeat(times, axis=1))


def _gallery(
    answers: _Answers,
    strips: dict[int, np.ndarray],
    batches: Batches,
    names: tuple[str, ...],
    by: str,
    how: dict[str, Any],
) -> Gallery:
    called = CALLED[by]
    pictures = []
    for place, strip in strips.items():
        said = {
            part: {
                "prediction": names[answers.predicted[part][place]],
                "confidence": float(answers.confidence[part][place]),
            }
            for part in PARTS
        }
        words = [f"{called[part]}: {one['prediction']} ({one['confidence']:.0%})" for part, one in said.items()]
        truth = names[answers.targets[place]] if batches.truth == "label" else None
        data = {"id": batches.dataset.ids[place], "truth": truth, **said}
        pictures.append(Picture(image=strip, caption="; ".join(words), data=data))
    return Gallery(
        name="reliance.examples",
        title=f"Right whole and on {called['high']}, wrong on {called['low']} ({how['band']})",
        how=how,
        notes=(
            f"From left to right: image, {called['low']}, {called['high']} (zero is gray, the largest value black or "
            "white); in parentheses the softmax probability of the answer. First those whose right class loses most.",
        ),
        pictures=tuple(pictures),
    )
