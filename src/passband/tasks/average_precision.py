"""How well boxes are found: COCO's average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from passband.core.errors import PassbandError
from passband.data.objects import Objects
from passband.models.found import Found
from passband.tasks.box_matching import MOST, RECALLS, THRESHOLDS


@dataclass(frozen=True)
class Precision:
    """Hold COCO's numbers, in [0, 1]; None where no object is there to be found.

    Attributes:
        ap: Average precision: the mean over classes and over IoU 0.50, 0.55 to 0.95.
        ap50: At IoU 0.50 alone.
        ap75: At IoU 0.75 alone.
        small: As ``ap``, objects of at most 32² pixels.
        medium: As ``ap``, objects of 32² to 96² pixels.
        large: As ``ap``, objects of at least 96² pixels.
        per_class: ``ap`` of each class by its name.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    per_class: dict[str, float | None]


def average_precision(found: Sequence[Found], objects: Sequence[Objects], class_names: Sequence[str]) -> Precision:
    """Compare what a detector finds with what is there, as COCO does.

    A box around a crowd asks for nothing: a detection on it is neither right nor wrong. An object's size is its
    annotated area. At most 100 detections of each image and class count, the most certain ones.

    Args:
        found: What is found in each image, labels in the order of ``class_names``.
        objects: What is there, image by image in the same order.
        class_names: The classes, one name each.

    Raises:
        PassbandError: when the numbers of images differ, there is none, a label names no class, or torchmetrics is
            missing.

    **Source**: Lin et al., *Microsoft COCO*, 2014, and its evaluation code, through torchmetrics.
    **Differs**: torchmetrics' own thresholds are float32, which moves a recall of 1/10 below the threshold 0.1; they
    are COCO's here, in float64.
    """
    check_labels(found, objects, class_names)
    metric = _metric()
    metric.update(
        [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in (part.cpu() for part in found)],
        [
            {"boxes": one.boxes, "labels": one.labels, "iscrowd": one.crowd.long(), "area": one.areas}
            for one in (part.to("cpu") for part in objects)
        ],
    )
    said = metric.compute()
    names = {"ap": "map", "ap50": "map_50", "ap75": "map_75"}
    numbers = {name: _known(said[key]) for name, key in names.items()}
    sizes = {name: _known(said[f"map_{name}"]) for name in ("small", "medium", "large")}
    return Precision(**numbers, **sizes, per_class=_per_class(said, class_names))


def check_labels(found: Sequence[Found], objects: Sequence[Objects], class_names: Sequence[str]) -> None:
    """Refuse what cannot be compared.

    Raises:
        PassbandError: when the numbers of images differ, there is none, or a label names no class.
    """
    if len(found) != len(objects) or not found:
        raise PassbandError(
            f"average precision needs what is found and what is there in the same images, one at least; got "
            f"{len(found)} and {len(objects)} images"
        )
    for labels in (*(one.labels for one in found), *(one.labels for one in objects)):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise PassbandError(
                f"a label lies outside the {len(class_names)} classes: {int(labels.min())} to {int(labels.max())}; "
                "give labels in the order of the class names"
            )


def _metric() -> Any:
    try:
        import faster_coco_eval  # noqa: F401
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError:
        raise PassbandError(
            "detection needs torchmetrics and faster-coco-eval: pip install 'passband[detection]'"
        ) from None
    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_type="bbox",
        iou_thresholds=THRESHOLDS.tolist(),
        rec_thresholds=RECALLS.tolist(),
        max_detection_thresholds=[1, 10, MOST],
        # One pass gives every class; class_metrics would go through all images once per class.
        extended_summary=True,
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    return metric


def _known(value: Any) -> float | None:
    """Return a number, or None for the -1 that stands for none."""
    number = float(value)
    return None if number < 0 else number


def _per_class(said: dict[str, Any], class_names: Sequence[str]) -> dict[str, float | None]:
    of_class: dict[str, float | None] = dict.fromkeys(class_names)
    if "precision" not in said:
        return of_class
    # IoU, recall, class, area (all of them first), most detections (100 last).
    curves = np.asarray(said["precision"])[:, :, :, 0, -1]
    for place, label in enumerate(said["classes"].reshape(-1).tolist()):
        values = curves[:, :, place]
        of_class[class_names[label]] = float(values.mean()) if (values > -1).all() else None
    return of_class
