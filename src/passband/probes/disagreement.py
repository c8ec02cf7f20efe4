"""How often a model answers otherwise once high frequencies are gone, and how far such an image lies from its copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.band import Band, Edge, Shape
from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.results import Axis, Curve, Result, Series
from passband.data.dataset import Batches
from passband.frequency.filters import Rescale, sweep
from passband.frequency.filters import rescale as rescaled
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.tasks.classification import check_targets, predict, untouched, wilson

ALL, RIGHT = "all images", "answered rightly untouched"


@dataclass(frozen=True)
class _Answers:
    """Hold what a model said, and how far it was led to say it.

    Attributes:
        whole: Class of each untouched image, int64 [N].
        low: Class of its low copy, by radius, int64 [radius, N].
        linf: Largest change of a pixel from the image to its copy, float32 [radius, N], pixels in [0, 1].
        l2: Euclidean length of that change, over pixels and channels, float32 [radius, N].
        targets: The right classes, int64 [N].
        reach: Smallest and largest pixel of the copies that the model saw.
    """

    whole: np.ndarray
    low: np.ndarray
    linf: np.ndarray
    l2: np.ndarray
    targets: np.ndarray
    reach: tuple[float, float]

    @property
    def right(self) -> np.ndarray:
        """Return per image whether it is answered rightly untouched."""
        return np.asarray(self.whole == self.targets)

    @property
    def differs(self) -> np.ndarray:
        """Return per radius and image whether the low copy is answered otherwise."""
        return np.asarray(self.low != self.whole)


@PROBES.register("disagreement")
def disagreement(
    model: nn.Module,
    batches: Batches,
    *,
    radii: tuple[float, ...] | None = None,
    shape: Shape = "disc",
    edge: Edge = "inclusive",
    rescale: Rescale = "none",
    quantiles: tuple[float, ...] = (0.05, 0.5, 0.95),
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure how often a model answers otherwise on the low frequencies (LFC) of an image than on all of them.

    Where it is right untouched and answers otherwise on the LFC, no bound ε of at least their distance lets it be both
    accurate and robust at that image: the LFC is a perturbed image within ε, and its answer is wrong.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what counts as right.
        radii: Cut-offs in bins of the spectrum of the image as the model takes it; None is 1/8, 2/8, 3/8, 4/8 of the
            shorter side (4, 8, 12, 16 at 32 pixels).
        shape: The cut's shape; of a square, the radius is half the side.
        edge: Whether the cut-off itself is kept.
        rescale: How an LFC comes to a pixel scale; ``"none"`` leaves it, which overshoots [0, 1], ``"clip"`` keeps it
            within, where attacks stay. Distances are to the copy that the model sees.
        quantiles: Of the distances, 0 to 1.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``disagreement.share``: Curve of the share of images answered otherwise, by radius, with Wilson intervals: of
        all, and of those that are right untouched. ``disagreement.linf`` and ``disagreement.l2``: Curves of the
        distance from image to LFC, pixels in [0, 1], over the images that are right untouched and answered otherwise,
        and the mean over all images. ``arrays`` hold all that per image: [radius, image].

    Raises:
        PassbandError: when there is no cut-off, a quantile is out of range, or there is nothing to compare with.

    **Source**: high-frequency, section 3.2, assumption A2 and corollary 1.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    images, _ = next(iter(batches))
    side = min(images.shape[-2:])
    if radii is None:
        radii = tuple(max(1, round(side * eighths / 8)) for eighths in (1, 2, 3, 4))
    if not radii:
        raise PassbandError("probe disagreement: radii needs at least one number, such as radii=8; got none")
    outside = [share for share in quantiles if not 0 <= share <= 1]
    if outside:
        raise PassbandError(f"probe disagreement: quantiles lie from 0 to 1, such as 0.5; got {outside[0]:g}")
    bands = [Band(float(radius), shape, "pixel", edge) for radius in sorted(set(radii))]
    answers = _ask(model, batches, bands, rescale, resume)
    how: dict[str, Any] = {
        "probe": "disagreement", "band": ", ".join(map(str, bands)), "spectrum": list(images.shape[-2:]),
        "radii": [band.cutoff for band in bands], "rescale": rescale, "measure": measure,
    }  # fmt: skip
    return (
        _share(answers, bands, batches.truth, how),
        _distance(answers, bands, "linf", quantiles, how),
        _distance(answers, bands, "l2", quantiles, how),
    )


def _ask(model: nn.Module, batches: Batches, bands: list[Band], rescaling: str, resume: Path | None) -> _Answers:
    with untouched(model):
        pieces = Pieces.of(resume, model, next(iter(batches))[0], ("disagreement", bands, rescaling))
        found = by_part(pieces, "copies", batches, partial(_of_part, model, bands, rescaling), "disagreement")
    arrays = joined(found, axis=-1)
    reach = float(arrays["lowest"].min()), float(arrays["highest"].max())
    return _Answers(arrays["whole"], arrays["low"], arrays["linf"], arrays["l2"], arrays["right"], reach)


def _of_part(model: nn.Module, bands: list[Band], rescaling: str, part: Part) -> Arrays:
    """Ask a model about the images and their low copies, all from one transform, and measure the way between."""
    whole: list[Tensor] = []
    right: list[Tensor] = []
    said: list[Tensor] = []
    far: list[Tensor] = []
    lowest, highest = float("inf"), float("-inf")
    for images, targets in track(part.batches, "disagreement"):
        logits = predict(model, images.contiguous(memory_format=torch.channels_last))
        check_targets(targets, logits.shape[1])
        whole.append(logits.argmax(1).cpu())
        right.append(targets.cpu())
        answers, distances = [], []
        for _, low, _ in sweep(images, bands):
            copy = rescaled(low, rescaling)
            lowest, highest = min(lowest, float(copy.min())), max(highest, float(copy.max()))
            answers.append(predict(model, copy.contiguous(memory_format=torch.channels_last)).argmax(1))
            change = (copy - images).flatten(1)
            distances.append(torch.stack((change.abs().amax(1), torch.linalg.vector_norm(change, dim=1))))
        said.append(torch.stack(answers).cpu())
        far.append(torch.stack(distances, dim=1).cpu())
    linf, l2 = torch.cat(far, dim=2).numpy()
    return {
        "whole": torch.cat(whole).numpy(), "low": torch.cat(said, dim=1).numpy(), "linf": linf, "l2": l2,
        "right": torch.cat(right).numpy(), "lowest": np.array([lowest]), "highest": np.array([highest]),
    }  # fmt: skip


def _share(answers: _Answers, bands: list[Band], truth: str, how: dict[str, Any]) -> Curve:
    differs, right = answers.differs, answers.right
    notes = [
        f"LFC keeps a {bands[0].shape} around zero frequency, each channel by itself ({bands[0]} and so on); the model "
        f"sees LFC from {answers.reach[0]:.2f} to {answers.reach[1]:.2f}.",
    ]
    if truth != "label":
        notes.append("No label is known: an untouched image is right by construction, and both lines are one.")
    return Curve(
        name="disagreement.share",
        title="Images answered otherwise on their low frequencies (LFC), by radius",
        how=how,
        notes=tuple(notes),
        arrays={
            "differs": differs, "correct": right, "predicted": answers.whole, "LFC.predicted": answers.low,
            "targets": answers.targets,
        },
        x=_radius_axis(bands),
        y=Axis(name="share answered otherwise", unit="fraction"),
        series=(_line(ALL, differs), _line(RIGHT, differs[:, right])),
    )  # fmt: skip


def _line(name: str, differs: np.ndarray) -> Series:
    """Return the share at each radius with its interval; of no images none is known."""
    count = differs.shape[1]
    if not count:
        return Series(name=name, values=(None,) * len(differs), n=0)
    changed = [int(row.sum()) for row in differs]
    low, high = zip(*(wilson(some, count) for some in changed), strict=True)
    return Series(name=name, values=tuple(some / count for some in changed), low=low, high=high, n=count)


def _distance(
    answers: _Answers, bands: list[Band], norm: str, quantiles: tuple[float, ...], how: dict[str, Any]
) -> Curve:
    distances = getattr(answers, norm)
    changed = [row[differs & answers.right] for row, differs in zip(distances, answers.differs, strict=True)]
    lines = {"mean": [_mean(row) for row in changed]}
    for share in quantiles:
        name = "median" if share == 0.5 else f"{100 * share:g}% quantile"
        lines[name] = [float(np.quantile(row, share)) if len(row) else None for row in changed]
    lines["mean, all images"] = [_mean(row) for row in distances]
    words = {"linf": "largest change of a pixel (L∞)", "l2": "Euclidean length of the change (L2)"}[norm]
    counts = ", ".join(f"{len(row)} at {band.cutoff:g}" for row, band in zip(changed, bands, strict=True))
    return Curve(
        name=f"disagreement.{norm}",
        title=f"From images to their low frequencies: {words}, where the answer is right before and other after",
        how=how,
        notes=(
            "At such an image no bound ε of at least this distance lets the model be both accurate and robust. "
            f"Images by radius: {counts}. Lengths run over all pixels and channels, in [0, 1].",
        ),
        arrays={"distance": distances},
        x=_radius_axis(bands),
        y=Axis(name=f"{words}, pixels in [0, 1]"),
        series=tuple(Series(name=name, values=tuple(values)) for name, values in lines.items()),
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _radius_axis(bands: list[Band]) -> Axis:
    return Axis(name="radius of the cut", unit="bins", values=tuple(band.cutoff for band in bands))
