"""What an attack by gradients would see first: how often the loss has no gradient at all, and how sure the model is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.packing import working_size
from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Result, Scalar
from passband.data.dataset import Batches
from passband.models.fast import Precision
from passband.models.outputs import check_logits, check_targets
from passband.models.state import exact, frozen, uses_batch_statistics
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.tasks.classification import correct, wilson


@dataclass(frozen=True)
class Gradients:
    """Hold what was seen of each image, in the order of the batches.

    Attributes:
        right: bool [N], the model's answer is the target.
        largest: float32 [N], largest size of an entry of the gradient of the cross-entropy by the image.
        confidence: float32 [N], largest softmax probability, 0 to 1.
    """

    right: np.ndarray
    largest: np.ndarray
    confidence: np.ndarray

    @property
    def zero(self) -> np.ndarray:
        """bool [N], the gradient is zero everywhere."""
        zero: np.ndarray = self.largest == 0
        return zero


@PROBES.register("gradients")
def gradients(
    model: nn.Module, batches: Batches, *, resume: Path | None = None, precision: Precision = "float32"
) -> tuple[Result, ...]:
    """Count images on which the loss has no gradient at all, so that attacks which follow it stand still.

    Logits far apart make the softmax 1 and 0 to the last bit of float32, and the cross-entropy's gradient exactly
    zero: such an image withstands FGSM and PGD for reasons of arithmetic. Any gradient above zero has a sign to follow,
    though the label's own part of it is gone before, once its probability rounds to 1.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what the loss counts as right.
        resume: A folder where what is finished is kept until all is; None keeps nothing.
        precision: ``"bf16"`` is refused: what underflows there says nothing of float32.

    Returns:
        ``gradients.zero``: Scalar, of the images that the model gets right the share whose gradient is zero
        everywhere. ``arrays`` hold, per image, ``right``, ``zero`` and ``largest``, the largest size of an entry.
        ``gradients.confidence``: Scalar, the largest softmax probability, mean over all images; each one in ``arrays``.

    Raises:
        NotApplicable: when the model normalizes by each batch, whose images then share their gradients.
        PassbandError: when the targets are no classes of the model, or it gives NaN.

    **Source**: high-frequency, section 6.3, does not look; Athalye et al., *Obfuscated gradients give a false sense
    of security*, section 3, say why one should.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    if precision != "float32":
        raise PassbandError(f"gradients are looked at in float32; got precision '{precision}': leave it out")
    found = kept_gradients(model, batches, resume)
    silent, count = int((found.zero & found.right).sum()), int(found.right.sum())
    how: dict[str, Any] = {"probe": "gradients", "loss": "cross-entropy", "dtype": "float32"}
    ends = wilson(silent, count) if count else (None, None)
    return (
        Scalar(
            name="gradients.zero",
            title=f"Images without any gradient, of those that count for the {measure}",
            how=how,
            notes=("Of the images with a right answer, those whose gradient is zero everywhere, in float32.",),
            arrays={"right": found.right, "zero": found.zero, "largest": found.largest},
            value=silent / count if count else None,
            low=ends[0],
            high=ends[1],
            n=count,
            unit="fraction",
        ),
        Scalar(
            name="gradients.confidence",
            title="Largest softmax probability, mean over the images",
            how=how,
            arrays={"confidence": found.confidence},
            value=float(found.confidence.mean(dtype=np.float64)),
            n=len(found.confidence),
            unit="fraction",
        ),
    )


def kept_gradients(model: nn.Module, batches: Batches, resume: Path | None) -> Gradients:
    """Do as :func:`input_gradients`, part by part of the images.

    Args:
        model: As there.
        batches: As there.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Raises:
        NotApplicable: as there.
        PassbandError: as there.
    """
    with frozen(model), exact():
        pieces = Pieces.of(resume, model, next(iter(batches))[0], "gradients")
        found = by_part(pieces, "cross-entropy", batches, partial(_of_part, model), "gradients")
    return Gradients(**joined(found))


def _of_part(model: nn.Module, part: Part) -> Arrays:
    return asdict(input_gradients(model, part.batches))


def input_gradients(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Gradients:
    """Ask a model about each image and differentiate its cross-entropy by the image.

    Raises:
        NotApplicable: when the model normalizes by each batch.
        PassbandError: when the targets are no classes of the model, or it gives NaN.
    """
    if uses_batch_statistics(model):
        raise NotApplicable(
            "gradients of an image need answers that others do not change; this model normalizes by batch"
        )
    size = working_size(model)
    with frozen(model), exact():
        parts = [
            _of_batch(model, images[first : first + size], targets[first : first + size])
            for images, targets in batches
            for first in range(0, len(images), size)
        ]
    return Gradients(*(torch.cat(some).cpu().numpy() for some in zip(*parts, strict=True)))


def _of_batch(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    points = images.detach().requires_grad_()
    logits = check_logits(model(points), len(points))
    check_targets(targets, logits.shape[1])
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, targets, reduction="sum"), points)
    said = logits.detach()
    return correct(said, targets), gradient.abs().amax((1, 2, 3)).float(), said.softmax(1).amax(1).float()
