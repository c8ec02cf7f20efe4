"""Classification: what its loss and its score mean, and what a model predicts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.core.progress import track
from passband.core.statistics import wilson
from passband.models.outputs import check_logits, check_targets
from passband.models.state import untouched
from passband.tasks.task import ImageTask

__all__ = [
    "CLASSIFICATION",
    "check_logits",
    "check_targets",
    "correct",
    "loss",
    "predict",
    "predicted_targets",
    "untouched",
    "wilson",
]


def predict(model: nn.Module, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch classes"]:
    """Return a model's logits without a graph, in the mode that the model is in.

    Call it inside :func:`untouched`.

    Args:
        model: Images in [0, 1] in, logits out.
        images: In [0, 1]; band copies may leave that range.

    Raises:
        PassbandError: when the logits hold NaN, or are not one row per image.
    """
    with torch.no_grad():
        return check_logits(model(images), len(images))


def loss(
    logits: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"], *, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Return the batch's mean cross-entropy in nats.

    Args:
        logits: One row per image.
        targets: Class indices, 0 to classes - 1.
        label_smoothing: Share of the target spread evenly over all classes, 0 to 1.

    Raises:
        PassbandError: when a target is out of range. That is noticed on a CPU alone: on a GPU the check would
            make every step wait, so call :func:`check_targets` once before.
    """
    try:
        return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    except IndexError:
        check_targets(targets, logits.shape[1])
        raise


def correct(logits: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Tell per image whether the largest logit is the target's."""
    return logits.argmax(1) == targets


def predicted_targets(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Int[Tensor, " count"]:
    """Return the model's own prediction on each untouched image, to measure agreement with it.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, in the order in which the answer comes; their targets are not read.

    Returns:
        Class indices, int64, on the CPU.

    Raises:
        PassbandError: when the model gives NaN.
    """
    with untouched(model):
        found = [predict(model, images).argmax(1).cpu() for images, _ in track(batches, "predicting")]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def _share(verdicts: Tensor) -> tuple[float, float, float]:
    right, count = int(verdicts.sum()), len(verdicts)
    return right / count, *wilson(right, count)


CLASSIFICATION = ImageTask(
    name="classification",
    score="accuracy",
    gives="logits",
    ask=lambda model, images: model(images),
    check=lambda logits, images: check_logits(logits, len(images)),
    loss=lambda logits, images, targets: loss(logits, targets),
    scores=lambda logits, images, targets: correct(logits, targets),
    summary=_share,
)
