"""Robust accuracy over ε: which images of a data set a model still gets right under attack, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from passband.attacks.packing import Chunk, filled, numbered, packed, working_size
from passband.attacks.registry import Attack
from passband.attacks.threat import check_eps, check_images
from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.statistics import wilson
from passband.models.outputs import check_logits, check_targets
from passband.models.state import untouched

VERDICT = "last"
"""An image has fallen when the attack's last iterate fools the model, which is torchattacks' reading."""


@dataclass(frozen=True)
class RobustAccuracy:
    """Hold who stands under one attack at each ε.

    Attributes:
        attack: The attack, printed.
        eps: Radii, pixels in [0, 1].
        correct: bool [eps, N], in the order of the batches; what is wrong untouched is wrong at each ε.
        clean: bool [N], right when untouched.
        working_batch: Images that went through the model at a time.
        verdict: What fallen means: ``"last"``, the attack's final image fools the model.
    """

    attack: str
    eps: tuple[float, ...]
    correct: np.ndarray = field(repr=False)
    clean: np.ndarray = field(repr=False)
    working_batch: int
    verdict: str = VERDICT

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.clean)

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Share of images that stand, per ε."""
        return tuple(float(row.mean()) for row in self.correct)

    def intervals(self, level: float = 0.95) -> tuple[tuple[float, float], ...]:
        """Return the Wilson interval of the accuracy, per ε."""
        return tuple(wilson(int(row.sum()), self.count, level) for row in self.correct)


def robust_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attack: Attack,
    eps: Sequence[float],
    *,
    scale: bool = True,
    working_batch: int | None = None,
) -> RobustAccuracy:
    """Measure accuracy under an attack over several ε, on a whole data set.

    Only images that the model gets right untouched are attacked. Images are packed anew into working batches
    of one size, the last filled by repetition, so that neither the caller's batch size nor the order of the
    images changes a verdict. The verdict is the model's answer to the finished adversarial image, in the
    images' own precision.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: ``(images, targets)``; a target is a label, or the prediction to lead away from.
        attack: How to search; its own ε matters for the share of ε in a step alone.
        eps: Radii, pixels in [0, 1]; at 0 the untouched image is judged.
        scale: Keep the attack's alpha/eps at each ε, rather than alpha.
        working_batch: Images at a time; None takes 64 on a CPU and 256 elsewhere.

    Raises:
        PassbandError: when images, labels or ε are out of range, there is no image, the model gives NaN, or
            the attack runs in training mode, which would mix the images of a batch.
    """
    if attack.mode != "eval":
        raise PassbandError(
            f"an evaluation attacks the model in evaluation mode; mode '{attack.mode}' is for training alone"
        )
    for radius in eps:
        check_eps(radius)
    attacks = [attack.at(radius, scale=scale) if radius else None for radius in eps]
    size = working_batch or working_size(model)
    clean: list[Tensor] = []
    stands: list[tuple[Tensor, Tensor]] = []
    with untouched(model), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        stream = packed(numbered(track(batches, f"attacking: {type(attack).__name__}")), size)
        for places, images, targets in packed(_right(model, stream, size, clean), size):
            stands.append((places, _judge(model, images, targets, attacks, size)))
    if not clean:
        raise PassbandError("there is no image to attack; give at least one")
    verdicts = torch.cat(clean).numpy()
    correct = np.zeros((len(eps), len(verdicts)), dtype=bool)
    for places, standing in stands:
        correct[:, places.numpy()] = standing.numpy()
    return RobustAccuracy(str(attack), tuple(eps), correct, verdicts, size)


def _right(model: nn.Module, chunks: Iterable[Chunk], size: int, clean: list[Tensor]) -> Iterator[Chunk]:
    """Pass on the images that the model gets right; ``clean`` collects the verdicts of all."""
    for places, images, targets in chunks:
        check_images(images)
        right = _hits(model, *filled(images, targets, size))[: len(places)]
        clean.append(right.cpu())
        yield places[right.cpu()], images[right], targets[right]


def _judge(
    model: nn.Module, images: Tensor, targets: Tensor, attacks: Sequence[Attack | None], size: int
) -> Bool[Tensor, "eps batch"]:
    """Attack images that the model gets right and tell which still stand; without an attack all do."""
    count = len(images)
    images, targets = filled(images, targets, size)
    stands = torch.ones(len(attacks), count, dtype=torch.bool)
    for row, attack in zip(stands, attacks, strict=True):
        if attack is not None:
            row.copy_(_hits(model, attack(model, images, targets), targets)[:count])
    return stands


def _hits(model: nn.Module, images: Tensor, targets: Tensor) -> Bool[Tensor, " batch"]:
    with torch.no_grad():
        logits = check_logits(model(images), len(images))
    check_targets(targets, logits.shape[1])
    return logits.argmax(1) == targets
