"""Auto-PGD: gradient steps of a size that halves itself, up the cross-entropy or the ratio of logit differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.chance import fork, normal, uniform
from passband.attacks.given_loss import refuse_loss
from passband.attacks.logit_ratio import check_classes, logit_ratio, picked, targeted_logit_ratio
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images, Keys, Norm, Threat, threat_of
from passband.core.band import Band
from passband.core.errors import PassbandError, unknown
from passband.models.outputs import check_targets
from passband.models.state import Mode

Loss = Literal["ce", "dlr"]
MOMENTUM = 0.75
"""Share of the gradient step in a step; the rest repeats the last change (α in the paper's algorithm 1)."""


@ATTACKS.register("apgd")
@dataclass(frozen=True)
class APGD:
    """Climb with momentum; halve the step, and go back to the best point, where too few steps raise the loss.

    A start lies at the edge of the ball. The answer is the point of highest loss among those that succeed, or
    among all where none does; an image that fell is given no further start.

    **Source**: Croce and Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks*, section 3 (algorithm 1, checkpoints at 0.22, then periods shorter by 0.03 down to
    0.06) and section 4 (DLR); arguments, defaults and the starts as torchattacks 3.5.1.
    **Differs**: at a checkpoint the point just asked about is replaced, not the one after it, as the authors'
    code does. torchattacks rounds checkpoints down, takes ``<=`` for condition 1 and leaves condition 2 out at
    the first checkpoint. The targeted DLR leads away from the model's clean prediction, or from the runner-up
    where that is the goal. With ``eot_iter`` the loss is averaged as the gradient is.
    torchattacks answers with the last success, else with the untouched image, and leaves alone what is wrong.

    Attributes:
        norm: ``"Linf"`` or ``"L2"``.
        eps: Radius of the ball in that norm, pixels in [0, 1].
        steps: Gradient steps from a start, 1 or more; the model is asked once more, about the last point.
        n_restarts: Random starts.
        seed: Of the starts.
        loss: ``"ce"``, the cross-entropy, or ``"dlr"``, which is free of the logits' scale and shift and takes
            a model of 3 classes, targeted of 4.
        eot_iter: Answers averaged at each point, for models that draw at random.
        rho: Share of steps that must raise the loss between checkpoints, 0 to 1.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense, or the model has too few classes for the loss.
    """

    norm: Norm = "Linf"
    eps: float = 8 / 255
    steps: int = 10
    n_restarts: int = 1
    seed: int = 0
    loss: Loss = "ce"
    eot_iter: int = 1
    rho: float = 0.75
    targeted: bool = False
    band: Band | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        threat_of(self.norm, self.eps, self.band)
        if self.loss not in get_args(Loss):
            raise unknown("loss", self.loss, get_args(Loss))
        _check(self.rho, steps=self.steps, n_restarts=self.n_restarts, eot_iter=self.eot_iter)

    def search(self) -> _Ascent:
        """Return how it searches."""
        return _Ascent(self, self.loss, targeted=self.targeted)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(replace(self.search(), content=True), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> APGD:
        """Return this attack at another ε; its first step is always 2ε."""
        return replace(self, eps=eps)


@ATTACKS.register("apgdt")
@dataclass(frozen=True)
class APGDT:
    """Climb the targeted DLR towards each of the likeliest wrong classes in turn, as APGD climbs.

    The goals are ranked by the untouched image's logits; an image that fell is given no further goal or start.

    **Source**: Croce and Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks*, sections 3 to 5; arguments, defaults and the starts as torchattacks 3.5.1.
    **Differs**: as in :class:`APGD`; an image that is wrong untouched gets the same goals as others, all but its
    label, where torchattacks leaves out the wrong prediction.

    Attributes:
        norm: ``"Linf"`` or ``"L2"``.
        eps: Radius of the ball in that norm, pixels in [0, 1].
        steps: Gradient steps from a start, 1 or more; the model is asked once more, about the last point.
        n_restarts: Random starts per goal.
        seed: Of the starts.
        eot_iter: Answers averaged at each point, for models that draw at random.
        rho: Share of steps that must raise the loss between checkpoints, 0 to 1.
        n_classes: One more than there are goals; at most as many as the model has classes, which are 4 or more.
        band: Frequencies that the change may have; None allows all.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense, or the model has too few classes for the loss.
    """

    norm: Norm = "Linf"
    eps: float = 8 / 255
    steps: int = 10
    n_restarts: int = 1
    seed: int = 0
    eot_iter: int = 1
    rho: float = 0.75
    n_classes: int = 10
    band: Band | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        threat_of(self.norm, self.eps, self.band)
        _check(self.rho, steps=self.steps, n_restarts=self.n_restarts, eot_iter=self.eot_iter)
        if self.n_classes < 2:
            raise PassbandError(f"n_classes is 2 or more, for one goal or more; got {self.n_classes}")

    def search(self) -> _Ascent:
        """Return how it searches."""
        return _Ascent(self, "dlr", goals=self.n_classes - 1)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(replace(self.search(), content=True), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> APGDT:
        """Return this attack at another ε; its first step is always 2ε."""
        return replace(self, eps=eps)


@cache
def checkpoints(steps: int) -> tuple[int, ...]:
    """Return after which steps the step size is looked at: the paper's ⌈p_j · steps⌉, each once.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    share, gap, found = 22, 22, []
    while share < 100:
        found.append(-(-share * steps // 100))
        gap = max(gap - 3, 6)
        share += gap
    return tuple(sorted(set(found)))


@dataclass(frozen=True)
class _Ascent:
    """Search as Auto-PGD does: runs of ``steps + 1`` points, one after another, a goal's restarts together."""

    attack: APGD | APGDT
    loss: Loss
    targeted: bool = False
    goals: int = 0
    content: bool = False
    """Whether a success ends the row with its run. A caller that judges each success ends rows itself."""

    @property
    def mode(self) -> Mode:
        return self.attack.mode

    @property
    def seed(self) -> int:
        return self.attack.seed

    @property
    def threat(self) -> Threat:
        return threat_of(self.attack.norm, self.attack.eps, self.attack.band)

    @property
    def period(self) -> int:
        """Answers of a run."""
        return self._points * self.attack.eot_iter

    @property
    def _points(self) -> int:
        """Points of a run."""
        return self.attack.steps + 1

    @property
    def queries(self) -> int:
        return max(self.goals, 1) * self.attack.n_restarts * self.period

    @property
    def needs_clean(self) -> bool:
        return self.goals > 0 or (self.targeted and self.loss == "dlr")

    def begin(self, rows: Rows) -> None:
        """Choose the goals and the first start."""
        if self.needs_clean:
            classes = check_classes(rows.clean, 4)
            check_targets(rows.labels, classes)
            others = rows.clean.scatter(1, rows.labels[:, None], float("-inf"))
            if self.targeted:
                rows.memory["away"], rows.memory["goals"] = others.argmax(1), rows.labels[:, None]
            else:
                ranked = others.topk(min(self.goals, classes - 1)).indices
                rows.memory["away"], rows.memory["goals"] = rows.labels, ranked
        for name in ("best", "previous", "answer"):
            rows.memory[name] = rows.images.clone()
        rows.memory["best_gradient"] = torch.zeros_like(rows.images)
        rows.memory["answer_loss"] = rows.images.new_full((len(rows),), float("-inf"))
        rows.memory["fooled"] = torch.zeros_like(rows.done)
        rows.memory |= self._fresh(rows)
        if self.attack.eot_iter > 1:
            rows.memory["heard_loss"] = torch.zeros_like(rows.memory["answer_loss"])
            rows.memory["heard_gradient"] = torch.zeros_like(rows.images)
            rows.memory["heard_fooled"] = torch.zeros_like(rows.done)
        rows.points = self._start(rows.images, fork(rows.keys, 0))

    def losses(self, logits: Tensor, rows: Rows) -> Tensor:
        """Return what should rise."""
        if self.loss == "ce":
            rise = functional.cross_entropy(logits, rows.labels, reduction="none")
            return -rise if self.targeted else rise
        if not self.needs_clean:
            return logit_ratio(logits, rows.labels)
        turn = rows.step // (self.period * self.attack.n_restarts)
        return targeted_logit_ratio(logits, rows.memory["away"], picked(rows.memory["goals"], turn))

    def advance(self, rows: Rows, said: Said) -> None:
        """Move on with each answer, or with the average of ``eot_iter`` answers, a success in any being one."""
        count = self.attack.eot_iter
        if count == 1:
            self._move(rows, said)
            return
        assert said.losses is not None and said.gradient is not None
        old = rows.memory
        loss = old.pop("heard_loss") + said.losses / count
        gradient = old.pop("heard_gradient") + said.gradient / count
        fooled = old.pop("heard_fooled") | said.fooled
        moved = replace(rows, step=rows.step // count, memory=dict(old))
        self._move(moved, Said(said.logits, loss, gradient, fooled))
        full = (rows.step + 1) % count == 0
        rows.points, rows.done = _where(full, moved.points, rows.points), _where(full, moved.done, rows.done)
        rows.memory = {name: _where(full, moved.memory[name], value) for name, value in old.items()}
        rows.memory["heard_loss"] = loss.masked_fill(full, 0)
        rows.memory["heard_gradient"] = gradient.masked_fill(full.view(-1, 1, 1, 1), 0)
        rows.memory["heard_fooled"] = fooled & ~full

    def _move(self, rows: Rows, said: Said) -> None:
        """Look at the answer, halve the step where it is time, and step; or start the next run."""
        assert said.losses is not None and said.gradient is not None
        memory, points, place = rows.memory, rows.points, rows.step % self._points
        loss = said.losses.to(points.dtype)

        better = torch.where(said.fooled == memory["fooled"], loss > memory["answer_loss"], said.fooled)
        memory["answer"] = _where(better, points, memory["answer"])
        memory["answer_loss"] = _where(better, loss, memory["answer_loss"])
        memory["fooled"] = memory["fooled"] | said.fooled

        higher = loss > memory["best_loss"]
        best_loss = torch.maximum(loss, memory["best_loss"])
        best = _where(higher, points, memory["best"])
        best_gradient = _where(higher, said.gradient, memory["best_gradient"])
        rises = memory["rises"] + (loss > memory["last_loss"])

        bars = _bars(self.attack.steps, self.attack.rho, points.device)[place]
        checks = bars >= 0
        stuck = ~memory["halved"] & (best_loss == memory["checked_loss"])
        halves = checks & ((rises < bars) | stuck)
        points = _where(halves, best, points)
        gradient = _where(halves, best_gradient, said.gradient)
        size = memory["size"] * (1 - 0.5 * halves.to(points.dtype))

        rows.points = self._step(rows.images, points, memory["previous"], gradient, size, place == 0)
        memory["best"], memory["best_gradient"], memory["best_loss"] = best, best_gradient, best_loss
        memory["previous"], memory["size"] = points, size
        # The next step is a success when it rises above the point that it leaves.
        memory["last_loss"] = _where(halves, best_loss, loss)
        memory["rises"] = rises.masked_fill(checks, 0)
        memory["halved"] = _where(checks, halves, memory["halved"])
        memory["checked_loss"] = _where(checks, best_loss, memory["checked_loss"])
        if self.queries > self._points:
            self._turn(rows, place == self.attack.steps)

    def answer(self, rows: Rows) -> Tensor:
        """Return the best points: those that succeed before those that do not, then by their loss."""
        return rows.memory["answer"]

    def _step(
        self, images: Images, points: Images, previous: Images, gradient: Images, size: Tensor, first: Tensor
    ) -> Images:
        threat = self.threat
        step = torch.addcmul(points, threat.direction(gradient), size.view(-1, 1, 1, 1))
        share = torch.where(first, 1.0, MOMENTUM).to(points.dtype).view(-1, 1, 1, 1)
        moved = torch.lerp(points, threat.project(step, images), share)
        return threat.project(moved.addcmul_(points - previous, 1 - share), images)

    def _turn(self, rows: Rows, ends: Tensor) -> None:
        """Start the next run where one ends, or end the row."""
        if not bool(ends.any()):  # a start costs as much as ten steps
            return
        run = rows.step // self._points + 1
        goals = rows.memory["goals"].shape[1] if self.needs_clean else 1
        over = run >= goals * self.attack.n_restarts
        rows.done = rows.done | (ends & (over | rows.memory["fooled"] if self.content else over))
        rows.points = _where(ends, self._start(rows.images, fork(rows.keys, run)), rows.points)
        for name, value in self._fresh(rows).items():
            rows.memory[name] = _where(ends, value, rows.memory[name])

    def _fresh(self, rows: Rows) -> dict[str, Tensor]:
        """Return the memory of a run that has had no answer."""
        plain = rows.images.new_zeros(len(rows))
        return {
            "best_loss": plain - float("inf"),
            "last_loss": plain + float("inf"),
            "checked_loss": plain - float("inf"),
            "size": plain + 2 * self.attack.eps,
            "rises": torch.zeros_like(rows.step),
            "halved": torch.zeros_like(rows.done),
        }

    def _start(self, images: Images, keys: Keys) -> Images:
        """Return a random point at the edge of each ball, as AutoAttack starts, clipped to [0, 1]."""
        threat, flat = self.threat, self.attack.norm == "Linf"
        numbers = (uniform if flat else normal)(keys, images.shape[1:])
        change = torch.empty_like(images).copy_(2 * numbers - 1 if flat else numbers)
        # A band takes some of the length away, which the second round gives back.
        change = threat.ball(_stretched(change, threat))
        return threat.project(_stretched(change, threat).add_(images), images)


def _check(rho: float, **counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise PassbandError(f"{name} is 1 or more; got {value}")
    if not 0 <= rho <= 1:
        raise PassbandError(f"rho is a share of steps, 0 to 1; got {rho:g}")


@cache
def _bars(steps: int, rho: float, device: torch.device) -> Tensor:
    """Return how many rises each place in a run asks for: [steps + 1], -1 where nothing is looked at."""
    ends = (0, *checkpoints(steps))
    bars = torch.full((steps + 1,), -1.0)
    for before, end in zip((0, *ends), ends, strict=False):
        bars[end] = rho * (end - before)
    return bars.to(device)


def _stretched(change: Images, threat: Threat) -> Images:
    """Return the change at the length of the ball's radius."""
    length = threat.distance(change, torch.zeros_like(change)).clamp_(min=1e-30)
    return change * (threat.eps / length).view(-1, 1, 1, 1)


def _where(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.ndim - 1)), new, old)
