"""Steps along a gradient, back into the ball after each: the search of FGSM, BIM, PGD and TPGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from passband.attacks.chance import fork, normal
from passband.attacks.search import Rows, Said
from passband.attacks.threat import Banded, Images, Threat
from passband.core.errors import PassbandError
from passband.models.state import Mode

Rise = Callable[[Tensor, Rows], Tensor]
"""Logits and rows to what should rise, [B]."""


def cross_entropy(logits: Float[Tensor, "batch classes"], rows: Rows) -> Float[Tensor, " batch"]:
    """Return each image's cross-entropy with its label."""
    return functional.cross_entropy(logits, rows.labels, reduction="none")


def divergence(logits: Float[Tensor, "batch classes"], rows: Rows) -> Float[Tensor, " batch"]:
    """Return KL(softmax of the untouched image ‖ softmax of the point), per image."""
    return functional.kl_div(logits.log_softmax(1), rows.clean.softmax(1), reduction="none").sum(1)


@dataclass(frozen=True)
class Walk:
    """Raise a loss by a fixed number of steps of a fixed size.

    Attributes:
        threat: The ball.
        alpha: Size of a step, in the threat's norm.
        steps: Steps from a start.
        start: ``"image"``; ``"ball"``, a random point of it; or ``"noise"``, the image and 0.001·N(0, 1).
        restarts: Starts; a row ends after the first whose last iterate is a success.
        step_decay: Factor of the step from one step to the next.
        rise: What should rise.
        needs_clean: Whether it looks at the untouched images' logits.
        targeted: Whether the loss should fall instead.
        seed: Of the starts.
        mode: The model's mode.
    """

    threat: Threat
    alpha: float
    steps: int
    start: Literal["image", "ball", "noise"] = "image"
    restarts: int = 1
    step_decay: float = 1.0
    rise: Rise = cross_entropy
    needs_clean: bool = False
    targeted: bool = False
    seed: int = 0
    mode: Mode = "eval"

    @property
    def period(self) -> int:
        """Answers per start: with restarts the last iterate is asked about too, to know whether to go on."""
        return self.steps + (self.restarts > 1)

    @property
    def queries(self) -> int:
        """Answers a row needs; the very last iterate is left to the caller's judgment."""
        return self.restarts * self.period - (self.restarts > 1)

    def begin(self, rows: Rows) -> None:
        """Start."""
        rows.points = self._started(rows.images, rows.keys)

    def losses(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return what should rise."""
        rise = self.rise(logits, rows)
        return -rise if self.targeted else rise

    def advance(self, rows: Rows, said: Said) -> None:
        """Take a step, or start anew where the last start failed."""
        assert said.gradient is not None
        step: Tensor = self.threat.direction(said.gradient)
        # torch.add on the points keeps their memory format, whatever the gradient's is.
        if self.step_decay == 1:
            moved = torch.add(rows.points, step, alpha=self.alpha)
        else:
            sizes = self.alpha * self.step_decay ** (rows.step % self.period).to(step.dtype)
            moved = torch.addcmul(rows.points, step, sizes.view(-1, 1, 1, 1))
        moved = self.threat.project(moved, rows.images)
        if self.restarts > 1:
            ends = rows.step % self.period == self.steps
            rows.done = rows.done | (ends & said.fooled)
            if bool(ends.any()):
                keys = fork(rows.keys, rows.step // self.period)
                moved = torch.where(_each(ends), self._started(rows.images, keys), moved)
            moved = torch.where(_each(rows.done), rows.points, moved)
        rows.points = moved

    def answer(self, rows: Rows) -> Tensor:
        """Return the last iterates."""
        return rows.points

    def _started(self, images: Images, keys: Int[Tensor, " batch"]) -> Images:
        if self.start == "image":
            return images.clone()
        if self.start == "ball":
            return self.threat.scatter(images, keys)
        noise = torch.empty_like(images).copy_(normal(keys, images.shape[1:]))
        start = torch.add(images, noise, alpha=0.001).clamp_(0, 1)
        # A start outside the band would be no point of the search.
        return self.threat.project(start, images) if isinstance(self.threat, Banded) else start


def check_steps(steps: int, alpha: float | None, eps: float, largest: float = 1.0) -> None:
    """Refuse a number of steps or a step size that makes no sense.

    Raises:
        PassbandError: naming what came.
    """
    if alpha is not None and not 0 <= alpha <= largest:
        raise PassbandError(f"alpha lies in 0 to {largest:g}, as pixels do, such as 2/255; got {alpha:g}")
    if alpha == 0 and eps > 0:
        raise PassbandError("alpha is 0: the attack would not move; give a step such as 2/255")
    if steps < 1:
        raise PassbandError(f"steps is 1 or more; got {steps}")


def check_restarts(restarts: int, random_start: bool, step_decay: float) -> None:
    """Refuse restarts that would repeat themselves, and a decay that makes no sense.

    Raises:
        PassbandError: naming what came.
    """
    if restarts < 1:
        raise PassbandError(f"n_restarts is 1 or more; got {restarts}")
    if restarts > 1 and not random_start:
        raise PassbandError(f"{restarts} restarts without a random start would be the same; set random_start")
    if not 0 < step_decay <= 1:
        raise PassbandError(f"step_decay is above 0 and at most 1; got {step_decay:g}")


def scaled(alpha: float | None, eps: float, other: float, scale: bool) -> float | None:
    """Return the step at another ε: with the same share of ε (always so for None, which is a share), or as it is.

    Raises:
        PassbandError: when ε is 0, so that there is no share to keep.
    """
    if alpha is None or not scale:
        return alpha
    if eps == 0:
        raise PassbandError("an attack of eps 0 has no alpha/eps to keep; set alpha to None, which is a share of eps")
    return alpha * (other / eps)


def _each(which: Tensor) -> Tensor:
    return which.view(-1, 1, 1, 1)
