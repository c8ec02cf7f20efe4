"""How much a model gets right on the low and on the high frequencies of its images, by cut-off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from passband.core.band import Band, Edge, Shape, preset
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.results import Axis, Curve, Gallery, Picture, Result, Scalar, Series
from passband.data.dataset import Batches, permutation
from passband.frequency.filters import Rescale, response
from passband.models.fold import count_norms
from passband.models.state import batch_statistics
from passband.probes.copies import FULL, HFC, LFC, LOW_PASS, WHOLE, Answers, Copy, Cuts, ask, pictures
from passband.probes.registry import PROBES
from passband.tasks.classification import wilson

Statistics = Literal["running", "batch"]
Summary = Callable[[Answers, Copy], tuple[float, float | None, float | None]]
"""A mean over the samples of one copy, with its interval."""


@PROBES.register("bands")
def bands(
    model: nn.Module,
    batches: Batches,
    *,
    radii: tuple[float, ...] | None = None,
    degrees: tuple[float, ...] | None = None,
    shape: Shape = "disc",
    edge: Edge = "inclusive",
    low_pass: Literal["square", "adversarial-focus"] = "square",
    rescale: Rescale = "max",
    statistics: Statistics = "running",
    batch: int = 100,
    examples: int = 12,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure a model on the low (LFC) and high (HFC) part of its images by cut-off, and on low-passed ones.

    All copies of an image come from one transform of it. Nothing is trained or fine-tuned.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what counts as right.
        radii: Cut-offs between LFC and HFC in bins of the spectrum of the image as the model takes it; None
            is 1/8, 2/8, 3/8, 4/8 of the shorter side (4, 8, 12, 16 at 32 pixels).
        degrees: Sides of the square low-pass in bins; None is 4/8, 5/8, 6/8, 7/8, 8/8 of the shorter side
            (16, 20, 24, 28, 32 at 32 pixels), ``()`` leaves ``bands.low_pass`` out.
        shape: The cut's shape; of a square, the radius is half the side.
        edge: Whether the cut-off itself is kept.
        low_pass: Preset of the square: ``"square"`` keeps ``|k| < D/2``, ``"adversarial-focus"``
            ``-D/2 <= k < D/2`` with the real part taken.
        rescale: How LFC and HFC come back to a pixel scale; low-passed images are clipped to [0, 1] always.
        statistics: What a batch norm normalizes by: its ``"running"`` statistics, or those of each ``"batch"`` of
            copies, to which it then adapts.
        batch: Images in such a batch, in one fixed random order; not read with running statistics, where results do
            not depend on it.
        examples: How many images the gallery shows, the first ones of the batches; 0 for no gallery.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``bands.clean``, ``bands.accuracy`` and ``bands.confidence`` (LFC and HFC by radius),
        ``bands.low_pass`` and ``bands.examples``. Confidence is the mean softmax probability of the right
        class. Accuracies carry Wilson intervals, confidences normal ones. Answers per sample are in
        ``arrays``: [cut-off, image].

    Raises:
        PassbandError: when there is no cut-off, or nothing to compare an answer with.

    **Source**: high-frequency, figure 5 and table 1 (LFC, HFC; ``rescale="max"`` is the authors' code);
    adversarial-focus, table 1 (low-pass degree).
    **Differs**: keeps ``<= r`` as that paper writes, its code is ``edge="exclusive"``; running statistics, its code is
    ``statistics="batch"`` in batches of 100.
    """
    measure = batches.measure
    if statistics not in get_args(Statistics):
        raise unknown("statistics", statistics, get_args(Statistics))
    if batch < 2:
        raise PassbandError(f"probe bands: batch is 2 or more, as one image has no statistics; got {batch}")
    images, _ = next(iter(batches))
    size = int(images.shape[-2]), int(images.shape[-1])
    cuts = _cuts(min(size), radii, degrees, (shape, edge), low_pass, rescale)
    if statistics == "batch":
        if not count_norms(model):
            raise NotApplicable("statistics=batch is for batch norms, and this model has none; take running")
        # In one fixed order that is not the classes': a batch of a sorted set would hold one class.
        order = permutation(batches.count, None, 0)
        with batch_statistics(model):
            answers = ask(model, batches.subset(order).cut(batch), cuts, 0, resume)
        answers = answers.reordered(np.argsort(order), pictures(images[:examples]))
    else:
        answers = ask(model, batches, cuts, examples, resume)
    how: dict[str, Any] = {
        "probe": "bands",
        "band": ", ".join(map(str, cuts.parts.values())),
        "low_pass_band": ", ".join(map(str, cuts.squares.values())),
        "spectrum": list(size),
        "radii": list(cuts.parts),
        "degrees": list(cuts.squares),
        "rescale": rescale,
        "statistics": statistics,
        "examples": examples,
        **({"batch": batch} if statistics == "batch" else {}),
    }
    results: list[Result] = [
        _clean(answers, measure, how, batches.truth),
        _accuracy(answers, cuts, size, measure, how),
        _confidence(answers, cuts, batches.truth, how),
    ]
    if cuts.squares:
        results.append(_low_pass(answers, cuts, low_pass, measure, how))
    if examples > 0:
        results.append(_gallery(answers, cuts, batches, class_names(model, batches, answers.classes), how))
    if statistics == "batch":
        note = f"Batch norms take the statistics of each batch of {batch} copies: results depend on who shares one."
        return tuple(result.model_copy(update={"notes": (*result.notes, note)}) for result in results)
    return tuple(results)


def class_names(model: nn.Module, batches: Batches, classes: int) -> tuple[str, ...]:
    """Name a model's outputs by its spec, else by the data where the number fits, else by number."""
    spec = getattr(model, "spec", None)
    for names in (getattr(spec, "class_names", ()), batches.class_names):
        if len(names) == classes:
            return tuple(names)
    return tuple(f"class {index}" for index in range(classes))


def _cuts(
    side: int,
    radii: Sequence[float] | None,
    degrees: Sequence[float] | None,
    kind: tuple[Shape, Edge],
    low_pass: str,
    rescale: str,
) -> Cuts:
    if radii is None:
        radii = [max(1, round(side * eighths / 8)) for eighths in (1, 2, 3, 4)]
    if degrees is None:
        # Even ones: |k| < D/2 keeps the same bins for an odd D as for the next even one.
        degrees = [max(2, 2 * round(side * eighths / 16)) for eighths in (4, 5, 6, 7, 8)]
    if not radii:
        raise PassbandError("probe bands: radii needs at least one number, such as radii=8; got none")
    return Cuts(
        {float(radius): Band(float(radius), kind[0], "pixel", kind[1]) for radius in sorted(set(radii))},
        {float(degree): preset(low_pass, float(degree)) for degree in sorted(set(degrees))},
        rescale,
    )


def _clean(answers: Answers, measure: str, how: dict[str, Any], truth: str) -> Scalar:
    correct = answers.correct(WHOLE)
    low, high = wilson(int(correct.sum()), len(correct))
    return Scalar(
        name="bands.clean",
        title=f"{measure.capitalize()}: whole images",
        how=how,
        notes=() if truth == "label" else ("1 by construction: the prediction is compared with itself.",),
        arrays={"correct": correct, "predicted": answers.predicted[WHOLE], "targets": answers.targets},
        value=float(correct.mean()),
        low=low,
        high=high,
        n=len(correct),
        unit="fraction",
    )


def _accuracy(answers: Answers, cuts: Cuts, size: tuple[int, int], measure: str, how: dict[str, Any]) -> Curve:
    first = next(iter(cuts.parts.values()))
    notes = [
        f"LFC keeps a {first.shape} around zero frequency, edge {first.edge} ({first} and so on), each "
        "channel by itself; HFC is the image less LFC. "
        f"Radii count bins of the {size[0]}×{size[1]} spectrum.",
        _reach_note(answers, cuts.rescaling),
    ]
    empty = [radius for radius, band in cuts.parts.items() if not response(band.high, size).any()]
    if empty:
        notes.append(f"At radius {', '.join(f'{r:g}' for r in empty)} HFC is empty: the model sees no image.")
    arrays = {}
    for kind in (LFC, HFC):
        arrays[f"{kind}.correct"] = np.stack([answers.correct((kind, radius)) for radius in cuts.parts])
        arrays[f"{kind}.predicted"] = np.stack([answers.predicted[kind, radius] for radius in cuts.parts])
    return Curve(
        name="bands.accuracy",
        title=f"{measure.capitalize()}: low (LFC) and high frequencies (HFC), by radius",
        how=how,
        notes=tuple(notes),
        arrays=arrays,
        x=_radius_axis(cuts),
        y=Axis(name=measure, unit="fraction"),
        series=_lines(answers, cuts, _share),
    )


def _confidence(answers: Answers, cuts: Cuts, truth: str, how: dict[str, Any]) -> Curve:
    of = "the true class" if truth == "label" else "the class predicted on the untouched image"
    kinds = {kind: [(kind, radius) for radius in cuts.parts] for kind in (LFC, HFC)}
    return Curve(
        name="bands.confidence",
        title=f"Confidence in {of} on low (LFC) and high frequencies (HFC), by radius",
        how=how,
        notes=(f"Mean softmax probability of {of}, with the normal 95% interval of the mean.",),
        arrays={kind: np.stack([answers.in_target[copy] for copy in copies]) for kind, copies in kinds.items()}
        | {FULL: answers.in_target[WHOLE]},
        x=_radius_axis(cuts),
        y=Axis(name=f"confidence in {of}", unit="fraction"),
        series=_lines(answers, cuts, _mean_confidence),
    )


def _low_pass(answers: Answers, cuts: Cuts, name: str, measure: str, how: dict[str, Any]) -> Curve:
    copies: list[Copy] = [(LOW_PASS, degree) for degree in cuts.squares]
    edge = "keeps |k| < D/2" if name == "square" else "keeps -D/2 <= k < D/2, real part (±D/2 weighs a half)"
    return Curve(
        name="bands.low_pass",
        title=f"{measure.capitalize()}: low-passed images, by degree",
        how=how,
        notes=(f"A central square of side D, in both directions; it {edge}. Pixels are clipped to [0, 1].",),
        arrays={
            "correct": np.stack([answers.correct(copy) for copy in copies]),
            "predicted": np.stack([answers.predicted[copy] for copy in copies]),
        },
        x=Axis(name="low-pass degree D", unit="bins", values=tuple(cuts.squares)),
        y=Axis(name=measure, unit="fraction"),
        series=(_line("low-passed", answers, copies, _share),),
    )


def _radius_axis(cuts: Cuts) -> Axis:
    return Axis(name="radius of the cut", unit="bins", values=tuple(cuts.parts))


def _lines(answers: Answers, cuts: Cuts, summary: Summary) -> tuple[Series, ...]:
    """Return LFC, HFC and, level, the whole image."""
    return (
        *(_line(kind, answers, [(kind, radius) for radius in cuts.parts], summary) for kind in (LFC, HFC)),
        _line("whole image", answers, [WHOLE] * len(cuts.parts), summary),
    )


def _line(name: str, answers: Answers, copies: Iterable[Copy], summary: Summary) -> Series:
    values, lows, highs = zip(*(summary(answers, copy) for copy in copies), strict=True)
    return Series(name=name, values=values, low=lows, high=highs, n=len(answers.targets))


def _share(answers: Answers, copy: Copy) -> tuple[float, float, float]:
    correct = answers.correct(copy)
    return float(correct.mean()), *wilson(int(correct.sum()), len(correct))


def _mean_confidence(answers: Answers, copy: Copy) -> tuple[float, float | None, float | None]:
    values = answers.in_target[copy].astype(np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = NormalDist().inv_cdf(0.975) * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _reach_note(answers: Answers, rescaling: str) -> str:
    def reach(name: str) -> str:
        low, high = answers.reach[name]
        return f"{low:.2f} to {high:.2f}"

    scale = {
        "none": "They are not rescaled",
        "max": "Each copy is divided by its own maximum and keeps its negative values",
        "min-max": "Each copy is mapped to [0, 1] by its own minimum and maximum",
        "clip": "They are clipped to [0, 1]",
    }[rescaling]
    return (
        f"Band copies leave [0, 1], by intent: LFC reaches {reach(LFC)} and HFC {reach(HFC)}. {scale}; "
        f"the model sees {reach(f'{LFC} rescaled')} and {reach(f'{HFC} rescaled')}."
    )


def _gallery(answers: Answers, cuts: Cuts, batches: Batches, names: tuple[str, ...], how: dict[str, Any]) -> Gallery:
    def said(copy: Copy, index: int) -> dict[str, Any]:
        prediction = names[answers.predicted[copy][index]]
        return {"prediction": prediction, "confidence": float(answers.confidence[copy][index])}

    pictures = []
    for index, image in enumerate(answers.shown):
        # Where the truth is a prediction, no label is known: the picture goes by its name in the data.
        truth = names[answers.targets[index]] if batches.truth == "label" else None
        data = {
            "truth": truth,
            "full": said(WHOLE, index),
            "low": [said((LFC, radius), index) for radius in cuts.parts],
            "high": [said((HFC, radius), index) for radius in cuts.parts],
        }
        pixels = image[..., 0] if image.shape[-1] == 1 else image
        pictures.append(Picture(image=pixels, caption=truth or batches.dataset.ids[index], data=data))
    band = next(iter(cuts.parts.values()))
    return Gallery(
        name="bands.examples",
        title="What the model says as frequencies are taken away",
        how=how,
        notes=(
            f"Predictions were measured at the listed radii, on copies rescaled by '{cuts.rescaling}'; "
            "confidence is the softmax probability of the predicted class.",
        ),
        pictures=tuple(pictures),
        view="bands",
        data={
            "radii": list(cuts.parts),
            "shape": band.shape,
            "edge": band.edge,
            "unit": "pixel",
            "rescale": cuts.rescaling,
        },
    )
