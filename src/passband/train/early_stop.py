"""The end of a training whose robustness collapsed, as single-step adversarial training's can within an epoch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from passband.attacks.gradient_sign import PGD
from passband.attacks.registry import Attack
from passband.attacks.threat import Banded, Linf
from passband.core.errors import PassbandError
from passband.core.recipe import EarlyStop
from passband.tasks.classification import correct, predict, untouched
from passband.train.checkpoint import State


@dataclass(frozen=True, eq=False)
class Watch:
    """Measure a training's robustness after each epoch, and undo the epoch that lost it.

    **Source**: Wong et al., *Fast is better than free: revisiting adversarial training*, on catastrophic overfitting,
    and the authors' code: PGD-5 on a training batch, a drop of more than 20 points, the weights before it.
    **Differs**: the batch is the same one after every epoch, not a new one each time, so that a drop is the
    model's; the model is measured in evaluation mode, not in training mode.

    Attributes:
        attack: Of the size that the training defends against.
        drop: Fall of the accuracy since the epoch before above which the training ends, a fraction.
        images: The first training batch of the first epoch.
        targets: Its classes.
    """

    attack: PGD
    drop: float
    images: Tensor
    targets: Tensor

    def look(self, state: State, epoch: int) -> str:
        """Return why the training ends now, its weights put back to the epoch before; or ``""``, keeping these.

        The weights that learn are measured, not their moving average, which would show a collapse too late.
        """
        now = robust_accuracy(state.model, self.attack, self.images, self.targets)
        before = state.memory.get("before")
        if before is None or before["accuracy"] - now <= self.drop:
            state.memory["before"] = {"epoch": epoch, "accuracy": now, **copy.deepcopy(state.weights())}
            return ""
        state.put_back(state.memory.pop("before"))
        state.memory["early_stop"] = {
            "epoch": epoch, "weights_of_epoch": before["epoch"],
            "accuracy_before": before["accuracy"], "accuracy": now,
        }  # fmt: skip
        return (
            f"ended early after epoch {epoch}: the PGD-{self.attack.steps} accuracy on a training batch fell from "
            f"{before['accuracy']:.4f} to {now:.4f}; the weights are those of epoch {before['epoch']}"
        )


def watch(part: EarlyStop, attack: Any, images: Tensor, targets: Tensor) -> Watch:
    """Make what a recipe's ``early_stop`` asks for.

    Args:
        part: The recipe's.
        attack: What the training defends against, or None; it says the radius and the band.
        images: [B, C, H, W] in [0, 1].
        targets: int64 [B].

    Raises:
        PassbandError: when the training does not defend against an attack in an L∞ ball.
    """
    threat = attack.search().threat if hasattr(attack, "search") else None
    ball, band = (threat.inner, threat.band) if isinstance(threat, Banded) else (threat, None)
    if not isinstance(ball, Linf):
        came = "plain images" if attack is None else f"what {attack} makes"
        raise PassbandError(f"early_stop needs a training against an L∞ attack, such as ffgsm; this one is on {came}")
    return Watch(PGD(eps=ball.eps, alpha=None, steps=part.steps, band=band), part.drop, images, targets)


def robust_accuracy(model: nn.Module, attack: Attack, images: Tensor, targets: Tensor) -> float:
    """Return the share of images that are classified correctly after the attack; the model stays as it was."""
    points = attack(model, images, targets)
    with untouched(model):
        return float(correct(predict(model, points), targets).float().mean())
