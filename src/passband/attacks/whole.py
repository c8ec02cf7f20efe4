"""Attacks that cannot be taken apart into rows: a whole batch goes in, and its answer is judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from passband.attacks.packing import logits_of
from passband.attacks.pool import Outcome
from passband.attacks.registry import Attack
from passband.core.errors import PassbandError


def attacked(
    attack: Attack,
    fast: nn.Module,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    outcome: Outcome,
    *,
    size: int,
    batches: Sequence[int],
    targeted: bool,
) -> Iterator[int]:
    """Attack batch by batch and write into ``outcome``, yielding the place of each image as it is judged.

    Args:
        attack: Called with ``fast``.
        fast: The model, or a faster form of it.
        model: Judges the answers.
        images: [N, C, H, W].
        labels: int64 [N].
        outcome: Of N images, written in place.
        size: Images at a time for the judgment.
        batches: Sizes of the batches that the attack is given.
        targeted: Whether labels are classes to lead to.

    Raises:
        PassbandError: when the attack returns something other than images in [0, 1].
    """
    first = 0
    for count in batches:
        chunk = slice(first, first + count)
        untouched = images[chunk]
        points = attack(fast, untouched, labels[chunk]).detach()
        if points.shape != untouched.shape or not bool(((points >= 0) & (points <= 1)).all()):
            raise PassbandError(f"{type(attack).__name__} must return as many images in [0, 1] as it is given")
        logits = logits_of(model, points, size)
        hit = logits.argmax(1) == labels[chunk]
        places = torch.arange(first, first + count)
        outcome.judged(places, hit if targeted else ~hit, logits, points, untouched)
        yield from places.tolist()
        first += count
