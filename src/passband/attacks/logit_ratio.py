"""The difference-of-logits ratio (DLR), which no scale of the logits changes, and its targeted form."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from passband.core.errors import PassbandError

FLOOR = 1e-12
"""Keeps 0/0 out of a ratio where the largest logits are all equal; as the authors' code has it."""


def logit_ratio(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the DLR: how far the best other logit lies above the label's, over the largest less the third.

    **Source**: Croce and Hein (2020), section 4.
    """
    (first, second, third), places = _largest(logits, 3)
    other = torch.where(places[0] == labels, second, first)
    return (other - picked(logits, labels)) / (first - third + FLOOR)


def targeted_logit_ratio(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], goals: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the targeted DLR: how far the goal's logit lies above the label's, over a spread of the largest four.

    **Source**: Croce and Hein (2020), section 4, the targeted version.
    """
    (first, _, third, fourth), _ = _largest(logits, 4)
    return (picked(logits, goals) - picked(logits, labels)) / (first - (third + fourth) / 2 + FLOOR)


def check_classes(logits: Tensor, needed: int) -> int:
    """Return the number of classes, refusing fewer than a ratio needs: 3, or 4 for the targeted one."""
    classes = logits.shape[1]
    if classes < needed:
        kind = "DLR loss" if needed == 3 else "targeted DLR loss"
        raise PassbandError(f"the {kind} needs {needed} classes or more; this model has {classes}: use APGD, loss 'ce'")
    return classes


def _largest(logits: Tensor, count: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    check_classes(logits, count)
    values, places = logits.topk(count, dim=1)
    return values.unbind(1), places.unbind(1)


def picked(values: Tensor, places: Tensor) -> Tensor:
    """Return the value at a place of each row: values [batch, n], places [batch]."""
    return values.gather(1, places[:, None])[:, 0]
