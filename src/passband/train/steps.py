"""Training schemes: how one batch becomes one loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from passband.attacks.registry import make
from passband.core.recipe import Part
from passband.tasks.classification import loss

Step = Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Model, images, targets and the step's number to the loss and the logits."""


def plain(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Learn from the images as they are."""
    logits = model(images)
    return loss(logits, targets), logits


def adversarial(attack: Any) -> Step:
    """Return the step that learns from what ``attack`` makes of each batch.

    Each step draws its own random start: the step's number is the attack's seed.
    """

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        seeded = replace(attack, seed=number) if hasattr(attack, "seed") else attack
        return plain(model, seeded(model, images, targets), targets, number)

    return step


def make_step(attack: Part | None) -> Step:
    """Make the step that a recipe's ``attack`` names.

    Raises:
        PassbandError: for an unknown attack or argument.
    """
    if attack is None:
        return plain
    return adversarial(make(attack.name, attack.arguments))
