"""Signs that an evaluation says less than it seems, as data: what to look at before a number is reported."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SHARE = 0.01
"""Share of the images from which a sign counts: a single odd image is no doubt about a whole evaluation."""

ROUNDING = 1e-4
"""Share of the largest logit by which two answers may differ by rounding."""


@dataclass(frozen=True)
class Doubt:
    """Name one sign.

    Attributes:
        name: ``"softmax"``, ``"zero gradient"``, ``"random model"``, ``"black box wins"`` or ``"loss fell"``.
        message: What was seen and what to do, for people.
        share: Of the images looked at, a fraction.
    """

    name: str
    message: str
    share: float


def of_outputs(logits: Tensor, again: Tensor) -> tuple[Doubt, ...]:
    """Look at a model's answers to some untouched images.

    Args:
        logits: [B, K].
        again: What the model said when it was asked once more.
    """
    found = []
    if bool(((logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)).all()):
        message = "the outputs are probabilities: their gradients vanish where the model is sure; give logits instead"
        found.append(Doubt("softmax", message, 1.0))
    differ = float(((again - logits).abs().amax(1) > ROUNDING * logits.abs().amax()).float().mean())
    if differ:
        message = "the model answers the same images differently: one gradient misleads; average several (eot_iter)"
        found.append(Doubt("random model", message, differ))
    return tuple(found)


def of_search(name: str, silent: int, fell: int, attacked: int, stood: int) -> tuple[Doubt, ...]:
    """Look at what a gradient attack saw.

    Args:
        name: The attack, for people.
        silent: Images whose first gradient was zero everywhere.
        fell: Images that stand although their loss, which should rise, fell.
        attacked: Images that were attacked.
        stood: Images that stand.
    """
    found = []
    if attacked and silent / attacked >= SHARE:
        message = (
            f"{name} saw no gradient at all on {silent} of {attacked} images; add a black-box attack such as square"
        )
        found.append(Doubt("zero gradient", message, silent / attacked))
    if stood and fell / stood >= SHARE:
        message = f"the loss fell under {name} on {fell} of the {stood} images that stand; take smaller steps or apgd"
        found.append(Doubt("loss fell", message, fell / stood))
    return tuple(found)


def of_black_box(name: str, broke: int, count: int) -> tuple[Doubt, ...]:
    """Look at what an attack without gradients broke after attacks with gradients had failed."""
    if not count or broke / count < SHARE:
        return ()
    message = f"{name}, which sees no gradient, broke {broke} of {count} images that gradient attacks left standing"
    return (Doubt("black box wins", f"{message}: gradients are masked; report the worst case", broke / count),)
