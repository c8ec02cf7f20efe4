"""What a classifier's output must be: one row of logits per image, no NaN, and a class for every label."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from passband.core.errors import NotApplicable, PassbandError


def check_logits(logits: Any, count: int) -> Tensor:
    """Return a classifier's output, refusing what is not a finite-or-infinite row of logits per image.

    Args:
        logits: What the model gave.
        count: How many images went in.

    Raises:
        NotApplicable: when it is images, [count, channel, height, width].
        PassbandError: when it is anything else than a tensor [count, classes], or holds NaN.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        came = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        said = f"a classifier gives logits [{count}, classes] for {count} images; this model gave {came}"
        if isinstance(logits, Tensor) and logits.ndim == 4:
            raise NotApplicable(f"{said}: one that gives images has no logits to measure")
        raise PassbandError(f"{said}: wrap it so that forward returns the logits alone")
    if bool(torch.isnan(logits).any()):
        raise PassbandError(
            "the model gives NaN: its weights hold NaN or overflow; load other weights, or train with a lower lr"
        )
    return logits


def check_targets(targets: Int[Tensor, " batch"], classes: int) -> None:
    """Refuse targets that name no class.

    Args:
        targets: Class indices.
        classes: Number of classes, as the model's last axis has them.

    Raises:
        PassbandError: when one lies outside 0 to ``classes - 1``.
    """
    if not len(targets):
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise PassbandError(
            f"labels lie in 0 to {classes - 1} for a model of {classes} classes; got {low} to {high}: use a "
            "model for these classes, or --truth prediction"
        )
