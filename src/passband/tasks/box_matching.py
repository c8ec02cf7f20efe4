"""Which detection found which object, as COCO pairs them, and what each object's finding is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torchvision.ops import box_iou

from passband.data.objects import Objects
from passband.models.found import Found

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Overlaps (IoU) from which a detection finds an object."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which a precision is read."""
MOST = 100
"""Detections of an image and class that count."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Hold what each detection of a set met, and each object's score.

    Attributes:
        images: Number of images.
        image: Place of each detection's image, int64 [D], ascending.
        label: Its class, int64 [D].
        score: Its certainty, float64 [D], falling within an image and class.
        hit: Whether it found an object that counts, by IoU threshold, bool [T, D].
        ignored: Whether it lies on a crowd and counts neither way, bool [T, D].
        object_image: Place of each counted object's image, int64 [O].
        object_label: Its class, int64 [O].
        object_score: How well it was found, float64 [O], 0 to 1.
    """

    images: int
    image: Int[np.ndarray, " found"]
    label: Int[np.ndarray, " found"]
    score: Float[np.ndarray, " found"]
    hit: Bool[np.ndarray, "threshold found"]
    ignored: Bool[np.ndarray, "threshold found"]
    object_image: Int[np.ndarray, " objects"]
    object_label: Int[np.ndarray, " objects"]
    object_score: Float[np.ndarray, " objects"]


@dataclass(frozen=True, eq=False)
class _Part:
    """Hold one class of one image: its detections' scores and what they met, its objects' places and scores."""

    label: int
    score: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray
    object_score: np.ndarray


def match_boxes(found: Sequence[Found], objects: Sequence[Objects], threshold: float = 0.0) -> Matches:
    """Pair detections with objects of their image and class, the most certain first, at each IoU threshold.

    A detection takes the free object that it overlaps most; one that overlaps none enough but a crowd is ignored.

    An object's score is the mean over the IoU thresholds 0.50, 0.55 to 0.95 of the precision among the detections of
    its image and class down to the one that found it, 0 where none did. The mean of the scores of an image's objects
    of one class is the average precision of that image and class, without interpolation.

    Args:
        found: What is found in each image; at most `MOST` of each class count.
        objects: What is there, image by image in the same order. Those of a crowd have no score.
        threshold: An object found with less certainty than this has score 0.

    **Source**: Lin et al., *Microsoft COCO*, 2014, and its evaluation code (the pairing).
    """
    parts: list[tuple[int, _Part]] = []
    object_score: list[np.ndarray] = []
    for place, (said, there) in enumerate(zip(found, objects, strict=True)):
        scores = np.zeros(len(there))
        for part in _parts(said.cpu(), there.to("cpu"), threshold):
            scores[part.objects] = part.object_score
            parts.append((place, part))
        object_score.append(scores[~there.crowd.cpu().numpy()])
    counted = [one.single.to("cpu") for one in objects]
    empty = np.zeros((len(THRESHOLDS), 0), dtype=bool)
    return Matches(
        images=len(found),
        image=np.repeat(*_columns([place for place, _ in parts], [len(part.score) for _, part in parts])),
        label=np.repeat(*_columns([part.label for _, part in parts], [len(part.score) for _, part in parts])),
        score=np.concatenate([np.zeros(0), *(part.score for _, part in parts)]),
        hit=np.concatenate([empty, *(part.hit for _, part in parts)], axis=1),
        ignored=np.concatenate([empty, *(part.ignored for _, part in parts)], axis=1),
        object_image=np.repeat(*_columns(list(range(len(counted))), [len(one) for one in counted])),
        object_label=np.concatenate([np.zeros(0, np.int64), *(one.labels.numpy() for one in counted)]),
        object_score=np.concatenate([np.zeros(0), *object_score]),
    )


def _columns(values: list[int], counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(values, dtype=np.int64), np.array(counts, dtype=np.int64)


def _parts(found: Found, objects: Objects, threshold: float) -> list[_Part]:
    """Pair one image's detections with its objects, class by class."""
    labels, scores = found.labels.numpy(), found.scores.double().numpy()
    there, crowd = objects.labels.numpy(), objects.crowd.numpy()
    overlaps = _overlaps(found, objects)
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MOST]
        columns = np.flatnonzero(there == label)
        # Crowds last: COCO looks at them once no object is left that counts.
        columns = columns[np.argsort(crowd[columns], kind="stable")]
        met = _pair(overlaps[np.ix_(rows, columns)], crowd[columns])
        on_crowd = np.append(crowd[columns], False)[met]  # the last stands for none, -1
        hit, ignored = (met >= 0) & ~on_crowd, (met >= 0) & on_crowd
        found_scores = _object_scores(met, hit, ignored, scores[rows] >= threshold, len(columns))
        parts.append(_Part(int(label), scores[rows], hit, ignored, columns, found_scores))
    return parts


def _overlaps(found: Found, objects: Objects) -> np.ndarray:
    """Return the IoU of each detection with each object, float64; with a crowd, the share of it that lies inside."""
    boxes, there = found.boxes.double(), objects.boxes.double()
    overlaps: np.ndarray = box_iou(boxes, there).numpy()
    for column in np.flatnonzero(objects.crowd.numpy()):
        left, top, right, bottom = there[column]
        width = (boxes[:, 2].minimum(right) - boxes[:, 0].maximum(left)).clamp(min=0)
        height = (boxes[:, 3].minimum(bottom) - boxes[:, 1].maximum(top)).clamp(min=0)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        overlaps[:, column] = (width * height / area).nan_to_num(0.0).numpy()
    return overlaps


def _pair(overlaps: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return which object each detection met, -1 for none, int64 [threshold, detection]; the most certain choose first.

    Args:
        overlaps: [detection, object], both in the order in which they are looked at.
        crowd: Whether an object is a crowd, which any number of detections may meet, [object].
    """
    met = np.full((len(THRESHOLDS), len(overlaps)), -1)
    free = np.ones((len(THRESHOLDS), overlaps.shape[1]), dtype=bool)
    wanted = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for row in np.flatnonzero(overlaps.max(1, initial=0.0) >= THRESHOLDS[0]):
        reached = np.where(free & (overlaps[row] >= wanted), overlaps[row], -1.0)
        single = np.where(crowd, -1.0, reached)
        reached = np.where((single >= 0).any(1, keepdims=True), single, reached)
        # Among equals COCO takes the last.
        best = reached.shape[1] - 1 - reached[:, ::-1].argmax(1)
        lines = np.flatnonzero(reached.max(1) >= 0)
        met[lines, row] = best[lines]
        taken = lines[~crowd[best[lines]]]
        free[taken, best[taken]] = False
    return met


def _object_scores(
    met: np.ndarray, hit: np.ndarray, ignored: np.ndarray, certain: np.ndarray, count: int
) -> np.ndarray:
    """Return each object's mean over thresholds of the precision at the detection that found it, float64 [object]."""
    precision = hit.cumsum(1) / np.maximum((~ignored).cumsum(1), 1)
    scores = np.zeros((len(THRESHOLDS), count))
    lines, rows = np.nonzero(hit & certain)
    scores[lines, met[lines, rows]] = precision[lines, rows]
    return np.asarray(scores.mean(0))
