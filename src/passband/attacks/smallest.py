"""The smallest perturbation that fools the model, as foolbox before version 2 searched for it with FGSM and PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images, Norm
from passband.attacks.walk import cross_entropy
from passband.core.errors import PassbandError
from passband.models.state import Mode

GRID, FINE = 1000, 20
"""Values of ε in (0, 1], and how many more below the first success where that came among the first of them."""
HALVINGS, GROWTH = 20, 1.5
"""Halvings of ε once an attack has succeeded, and its factor before."""


@ATTACKS.register("smallest-fgsm")
@dataclass(frozen=True)
class SmallestFGSM:
    """Find the smallest ε at which one step along the gradient's sign fools the model.

    ε goes through 1,000 values up to 1; a success among the first 20 is refined by 20 more below it. Where none
    succeeds the answer is the untouched image. Accuracy at ε is the share of images that are right untouched and whose
    smallest change is larger; it is not the accuracy under FGSM at that ε, as a larger step may fool where a smaller
    one does and a still larger one does not.

    **Source**: high-frequency, table 2, was apparently measured so (its code calls foolbox 1.8 with defaults).

    Attributes:
        targeted: Whether labels are classes to lead to.
        mode: Mode of the model meanwhile.
    """

    targeted: bool = False
    mode: Mode = "eval"
    minimal: ClassVar[Norm] = "Linf"

    def search(self) -> _Line:
        """Return how it searches."""
        return _Line(self.targeted, self.mode)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(self.search(), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> SmallestFGSM:
        """Return this attack: it finds its own ε."""
        return self


@ATTACKS.register("smallest-pgd")
@dataclass(frozen=True)
class SmallestPGD:
    """Find the smallest ε at which PGD without a random start fools the model, by bisection.

    A run ends at its first success. ε grows by half until a run succeeds, at most 20 times, then is halved 20 times
    between the largest failure and the smallest success, each step keeping its share of ε. The answer is the closest
    point that fooled the model in any run, else the untouched image.

    **Source**: as :class:`SmallestFGSM`; defaults of foolbox 1.8.

    Attributes:
        eps: First radius, pixels in [0, 1].
        alpha: Size of a step at the first radius.
        steps: Steps of a run.
        targeted: Whether labels are classes to lead to.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 0.3
    alpha: float = 0.01
    steps: int = 40
    targeted: bool = False
    mode: Mode = "eval"
    minimal: ClassVar[Norm] = "Linf"

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and 0 < self.alpha <= 1 and self.steps >= 1):
            raise PassbandError(
                "eps and alpha lie above 0 and up to 1, steps is 1 or more; "
                f"got {self.eps:g}, {self.alpha:g} and {self.steps}"
            )

    def search(self) -> _Bisection:
        """Return how it searches."""
        return _Bisection(self.eps, self.alpha / self.eps, self.steps, self.targeted, self.mode)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(self.search(), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> SmallestPGD:
        """Return this attack: it finds its own ε."""
        return self


@dataclass(frozen=True)
class _Line:
    targeted: bool
    mode: Mode
    threat: None = None
    needs_clean: bool = False
    queries: int = 1 + GRID + FINE

    def begin(self, rows: Rows) -> None:
        one = torch.ones(len(rows), dtype=rows.images.dtype, device=rows.images.device)
        rows.memory = {
            "sign": torch.zeros_like(rows.images), "answer": rows.images, "eps": 0 * one, "stride": one / GRID,
            "fine": torch.zeros_like(rows.done),
        }  # fmt: skip

    def losses(self, logits: Tensor, rows: Rows) -> Tensor | None:
        """Ask for a gradient only where a row is at its beginning."""
        if not bool((rows.step == 0).any()):
            return None
        return cross_entropy(logits, rows) * (-1 if self.targeted else 1)

    def advance(self, rows: Rows, said: Said) -> None:
        memory = dict(rows.memory)
        begins = rows.step == 0
        if said.gradient is not None:
            memory["sign"] = torch.where(_each(begins), said.gradient.sign(), memory["sign"])
        memory["answer"] = torch.where(_each(said.fooled), rows.points, memory["answer"])
        early = memory["eps"] < (FINE + 0.5) / GRID
        refines = said.fooled & ~begins & ~memory["fine"] & early
        rows.done = rows.done | (said.fooled & ~refines) | (memory["eps"] + memory["stride"] > 1 + 1e-6)
        memory["stride"] = torch.where(refines, memory["eps"] / FINE, memory["stride"])
        memory["fine"] = memory["fine"] | refines
        memory["eps"] = torch.where(refines, 0.0, memory["eps"]) + memory["stride"]
        rows.memory = memory
        rows.points = (rows.images + _each(memory["eps"]) * memory["sign"]).clamp_(0, 1)

    def answer(self, rows: Rows) -> Tensor:
        return rows.memory["answer"]


@dataclass(frozen=True)
class _Bisection:
    eps: float
    share: float
    steps: int
    targeted: bool
    mode: Mode
    threat: None = None
    needs_clean: bool = False

    @property
    def queries(self) -> int:
        """Each run asks about its start and about every step."""
        return 2 * HALVINGS * (self.steps + 1)

    def begin(self, rows: Rows) -> None:
        zero = torch.zeros(len(rows), dtype=rows.images.dtype, device=rows.images.device)
        count = torch.zeros_like(rows.step)
        rows.memory = {
            "answer": rows.images, "distance": zero + float("inf"), "eps": zero + self.eps, "bad": zero,
            "good": zero + float("inf"), "taken": count, "runs": count,
        }  # fmt: skip

    def losses(self, logits: Tensor, rows: Rows) -> Tensor:
        return cross_entropy(logits, rows) * (-1 if self.targeted else 1)

    def advance(self, rows: Rows, said: Said) -> None:
        assert said.gradient is not None
        memory = dict(rows.memory)
        distance = (rows.points - rows.images).abs().amax((1, 2, 3))
        closer = said.fooled & (distance < memory["distance"])
        memory["answer"] = torch.where(_each(closer), rows.points, memory["answer"])
        memory["distance"] = torch.where(closer, distance, memory["distance"])
        over = said.fooled | (memory["taken"] == self.steps)
        memory["good"] = torch.where(said.fooled, memory["eps"], memory["good"])
        searching = memory["good"].isinf()
        # The first bad radius is 0: failures on the way up are not remembered, as foolbox forgets them.
        memory["bad"] = torch.where(over & ~said.fooled & ~searching, memory["eps"], memory["bad"])
        halved = (torch.where(searching, memory["eps"], memory["good"]) + memory["bad"]) / 2
        memory["eps"] = torch.where(over, torch.where(searching, memory["eps"] * GROWTH, halved), memory["eps"])
        first = over & said.fooled & rows.memory["good"].isinf()
        memory["runs"] = torch.where(first, 0, memory["runs"] + over.long())
        rows.done = rows.done | (memory["runs"] >= HALVINGS)
        memory["taken"] = torch.where(over, 0, memory["taken"] + 1)
        eps = _each(memory["eps"])
        moved = rows.points + self.share * eps * said.gradient.sign()
        change = (moved - rows.images).clamp(-eps, eps)
        rows.points = torch.where(_each(over), rows.images, (rows.images + change).clamp_(0, 1))
        rows.memory = memory

    def answer(self, rows: Rows) -> Tensor:
        return rows.memory["answer"]


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
