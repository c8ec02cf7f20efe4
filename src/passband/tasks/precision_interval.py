"""Average precision on images drawn anew: its interval over the images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from passband.core.errors import PassbandError
from passband.tasks.box_matching import RECALLS, THRESHOLDS, Matches

_CELLS = 2**22
"""Detections times draws that are held at a time."""


def redraw(images: int, draws: int, seed: int = 0) -> Int[np.ndarray, "draw image"]:
    """Return how often each image is drawn in each of so many samples with replacement.

    The same numbers of images and draws and the same seed give the same samples, so that what is measured on them is
    paired.

    Raises:
        PassbandError: when there is no image or no draw.
    """
    if images < 1 or draws < 1:
        raise PassbandError(f"a bootstrap needs an image and a draw at least; got {images} and {draws}")
    generator = np.random.default_rng(seed)
    return np.stack(
        [np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(draws)]
    ).astype(np.int32)


def precisions(matches: Matches, counts: Int[np.ndarray, "draw image"]) -> Float[np.ndarray, "draw threshold"]:
    """Return COCO's average precision by IoU threshold on samples of the images, the mean over classes.

    Args:
        matches: What was found, of all images.
        counts: How often each image is in a sample; ones are the set itself.

    Returns:
        NaN for a sample that holds no object.
    """
    labels = np.unique(matches.object_label)
    most = max(1, int(np.bincount(matches.label).max(initial=0)))
    size = max(1, _CELLS // most)
    parts = []
    for start in range(0, len(counts), size):
        chunk = counts[start : start + size]
        total, known = np.zeros((len(chunk), len(THRESHOLDS))), np.zeros((len(chunk), 1))
        for label in labels:
            objects = chunk[:, matches.object_image[matches.object_label == label]].sum(1)
            total += np.where(objects[:, None] > 0, _of_class(matches, int(label), chunk, objects), 0.0)
            known += objects[:, None] > 0
        with np.errstate(invalid="ignore"):
            parts.append(total / known)
    return np.concatenate(parts)


def interval(values: Float[np.ndarray, " draw"], level: float = 0.95) -> tuple[float | None, float | None]:
    """Return the percentiles between which so many samples lie; None where no sample holds an object."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _of_class(matches: Matches, label: int, counts: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return one class's average precision, float64 [draw, threshold].

    An image that is drawn twice counts twice at its detections' places. Between two equal detections the curve has a
    step that COCO's envelope takes away, so this is what two copies of the image give, unless detections of an image
    are equally certain: those of the copies then lie side by side here.
    """
    at = np.flatnonzero(matches.label == label)
    at = at[np.argsort(-matches.score[at], kind="stable")]
    weights = counts[:, matches.image[at]]
    seen = weights.cumsum(1)
    rows = []
    for hit, ignored in zip(matches.hit[:, at], matches.ignored[:, at], strict=True):
        right = np.flatnonzero(hit)
        if not len(right):
            rows.append(np.zeros(len(counts)))
            continue
        left_out = np.pad(weights[:, ignored].cumsum(1), ((0, 0), (1, 0)))
        tried = seen[:, right] - left_out[:, ignored.cumsum()[right]]
        got = weights[:, right].cumsum(1)
        precision = got / np.maximum(tried, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, got / np.maximum(objects, 1)[:, None], side="right")
        rows.append((envelope * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS))
    return np.stack(rows, axis=1)
