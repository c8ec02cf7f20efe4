"""Carlini and Wagner's L2 attack: the nearest image that the model errs on, by descent on distance and margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, Search, searched
from passband.attacks.threat import Images, Threat, check_images
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.frequency.filters import keep
from passband.models.outputs import check_logits, check_targets
from passband.models.state import Mode, frozen

Compat = Literal["torchattacks-3.5.1", "torchattacks-3.2"]
Logits = Float[Tensor, "batch classes"]
Each = Float[Tensor, " batch"]
_BETAS, _TINY = (0.9, 0.999), 1e-8
"""Adam's own defaults, which the paper's code and torchattacks keep."""


@ATTACKS.register("cw")
@dataclass(frozen=True)
class CW:
    """Lower ‖x' - x‖² + c·max(margin, -κ) with Adam; the answer is the nearest iterate that fools the model.

    The margin is z_y - max_{k≠y} z_k, or max_{k≠t} z_k - z_t towards a class t. Each image starts at itself, and
    its round ends after ``steps`` steps, or earlier: every max(steps // 10, 1) steps, if the image's own cost has
    risen since the last look. With ``search_steps`` above 1 further rounds follow from the image, with c halfway
    between the largest that failed and the smallest that succeeded, or ten times larger while none has.
    An iterate whose margin reaches -κ goes before one that merely fools the model; among equals the nearest is
    kept. An image that was never broken comes back untouched. Nothing bounds the change but c, and no chance
    takes part.

    **Source**: Carlini and Wagner, *Towards evaluating the robustness of neural networks*, sections V and VI
    (objective f6, the search over c of section VI-D); arguments and defaults as torchattacks 3.5.1. The paper
    searches c in 9 rounds from 0.001.
    **Differs**: the box is kept by clipping to [0, 1] after each step rather than by x' = (tanh w + 1)/2, in which
    pixels at 0 and 1 have no slope and never move. Adam moves pixels by lr/2, which is what lr in w moves a
    mid-gray pixel by. Each image stops by itself, and the last iterate counts too. ``compat`` is torchattacks
    instead, in that version: tanh space; every logit of another class counts as 0 or more, in 3.5.1 the label's
    own too; the whole batch stops when its summed cost rises, so that an image's answer depends on its batch;
    the last iterate is not looked at; κ shapes the cost alone.

    Attributes:
        c: Weight of the margin against the squared distance; with search_steps, the first one tried.
        kappa: Margin by which the model should err, in logits, 0 or more (the paper's confidence).
        steps: Adam's steps in a round, 1 or more.
        lr: Adam's step in tanh space.
        search_steps: Rounds of the search over c, 1 or more; 1 keeps c, 9 is the paper's.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all. The gradient is filtered before Adam's
            step and the change after it, then the pixels are clipped to [0, 1].
        compat: None, or the version of torchattacks to follow quirk by quirk. Version 3.2's own defaults are
            c = 1e-4 and 1000 steps.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense, or compat is asked for what it does not have.
    """

    c: float = 1.0
    kappa: float = 0.0
    steps: int = 50
    lr: float = 0.01
    search_steps: int = 1
    targeted: bool = False
    band: Band | None = None
    compat: Compat | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        infinite = float("inf")
        for name, value in (("c", self.c), ("lr", self.lr)):
            if not 0 < value < infinite:
                raise PassbandError(f"{name} is a finite number above 0; got {value:g}")
        if not 0 <= self.kappa < infinite:
            raise PassbandError(f"kappa is a finite number of 0 or more; got {self.kappa:g}")
        for name, count in (("steps", self.steps), ("search_steps", self.search_steps)):
            if count < 1:
                raise PassbandError(f"{name} is 1 or more; got {count}")
        if self.compat is None:
            return
        if self.search_steps > 1:
            raise PassbandError(f"{self.compat} has no search over c; leave search_steps at 1, or compat out")
        if self.band is not None:
            raise PassbandError(f"{self.compat} has no band; leave band or compat out")
        if self.targeted and self.compat == "torchattacks-3.2":
            raise PassbandError(
                "torchattacks-3.2 judges a targeted attack by the true labels, which are not given here; "
                "take compat='torchattacks-3.5.1'"
            )

    @property
    def couples_batch(self) -> bool:
        """Whether an image's answer depends on the batch it is in."""
        return self.compat is not None

    @property
    def threat(self) -> Threat | None:
        """None: nothing bounds the change."""
        return None

    @property
    def queries(self) -> int:
        """Answers a row needs at most: in each round the start and what each step led to."""
        return self.search_steps * (self.steps + 1)

    @property
    def needs_clean(self) -> bool:
        """False: the image itself is the first point of each round."""
        return False

    def search(self) -> Search:
        """Return how it searches, which is itself.

        Raises:
            PassbandError: with compat, which moves a batch as one.
        """
        if self.compat is not None:
            raise PassbandError(
                f"CW with compat='{self.compat}' couples the images of a batch; call it on whole batches, or leave "
                "compat out"
            )
        return self

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch.

        Args:
            model: Images in [0, 1] in, logits out; left as it was found.
            images: float [B, C, H, W] in [0, 1].
            labels: int64 [B], the classes to lead away from, or to.

        Returns:
            Adversarial images in [0, 1], of the images' type and memory format.

        Raises:
            PassbandError: when images or labels are out of range, or the model gives NaN.
        """
        refuse_loss(self, loss)
        if self.compat is not None:
            return _coupled(self, model, images, labels)
        return searched(self.search(), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> CW:
        """Return this attack itself: it has no ε, and says how far it went instead."""
        return self

    def begin(self, rows: Rows) -> None:
        """Start the first round at the image."""
        each, count = rows.images.new_zeros(len(rows)), torch.zeros_like(rows.step)
        rows.memory = {
            "c": torch.full_like(each, self.c),
            "lower": each,
            "upper": torch.full_like(each, float("inf")),
            "round": count,
            "found": torch.zeros_like(rows.done),
            "inner": count.clone(),
            "cost": torch.full_like(each, float("inf")),
            "mean": torch.zeros_like(rows.images),
            "power": torch.zeros_like(rows.images),
            "best": rows.images.clone(),
            "rank": torch.full_like(each, float("inf")),
        }

    def losses(self, logits: Logits, rows: Rows) -> Each:
        """Return what should rise by the model's part: -c·max(margin, -κ)."""
        return -rows.memory["c"] * _margin(logits, rows.labels, self.targeted).clamp(min=-self.kappa)

    def advance(self, rows: Rows, said: Said) -> None:
        """Judge the point, then take a step, or begin the next round."""
        assert said.losses is not None and said.gradient is not None
        memory = rows.memory
        change = rows.points - rows.images
        distance = change.square().flatten(1).sum(1)
        cost = distance - said.losses
        sure = said.fooled & (_margin(said.logits, rows.labels, self.targeted) <= -self.kappa)
        self._judge(rows, said.fooled, sure, distance)

        inner = memory["inner"]
        looks = inner % max(self.steps // 10, 1) == 0
        ends = (inner >= self.steps) | (looks & (cost > memory["cost"]))
        memory["cost"] = torch.where(looks, cost, memory["cost"])
        moved = self._stepped(rows, 2 * change - said.gradient)
        self._round(rows, ends, sure)

        images = rows.images
        fresh = ends.view(-1, 1, 1, 1)
        rows.points = torch.where(fresh, images, moved)
        for name in ("mean", "power"):
            memory[name].masked_fill_(fresh, 0)
        memory["cost"].masked_fill_(ends, float("inf"))
        memory["inner"] = (inner + 1).masked_fill_(ends, 0)

    def answer(self, rows: Rows) -> Images:
        """Return the best iterates."""
        return rows.memory["best"]

    def _judge(self, rows: Rows, fooled: Tensor, sure: Tensor, distance: Each) -> None:
        """Keep the nearest; what fools without the margin asked for ranks behind every distance there is."""
        memory = rows.memory
        rank = torch.where(sure, distance, distance + rows.images[0].numel())
        better = fooled & (rank < memory["rank"])
        memory["rank"] = torch.where(better, rank, memory["rank"])
        memory["best"] = torch.where(better.view(-1, 1, 1, 1), rows.points, memory["best"])

    def _stepped(self, rows: Rows, gradient: Images) -> Images:
        """Take Adam's step down the gradient, each row by its own count, into the band and the box."""
        memory, (first, second) = rows.memory, _BETAS
        if self.band is not None:
            gradient = _kept(gradient, self.band)
        mean = memory["mean"].lerp_(gradient, 1 - first)
        power = memory["power"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        count = (memory["inner"] + 1).to(mean.dtype).view(-1, 1, 1, 1)
        size = self.lr / 2 / (1 - first**count)
        moved = rows.points - size * mean / (power / (1 - second**count)).sqrt_().add_(_TINY)
        if self.band is not None:
            moved = rows.images + _kept(moved - rows.images, self.band)
        return moved.clamp_(0, 1)

    def _round(self, rows: Rows, ends: Tensor, sure: Tensor) -> None:
        """Choose the next round's c in the rows whose round ends; end the rows that have had all rounds."""
        memory = rows.memory
        found = memory["found"] | sure
        upper = torch.where(ends & found, memory["c"], memory["upper"])
        lower = torch.where(ends & ~found, memory["c"], memory["lower"])
        chosen = torch.where(upper.isinf(), 10 * lower, (lower + upper) / 2)
        memory["c"] = torch.where(ends, chosen, memory["c"])
        memory["upper"], memory["lower"], memory["found"] = upper, lower, found & ~ends
        memory["round"] = memory["round"] + ends
        rows.done = rows.done | (memory["round"] >= self.search_steps)


def _kept(change: Images, band: Band) -> Images:
    """Return what a band keeps, in the change's type and memory format."""
    return torch.empty_like(change).copy_(keep(change, band))


def _margin(logits: Logits, labels: Labels, targeted: bool) -> Each:
    """Return how far the model is from the error that is wanted; 0 or less where it errs."""
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return other - own if targeted else own - other


def _coupled(attack: CW, model: nn.Module, images: Images, labels: Labels) -> Images:
    """Attack a batch as torchattacks does, its sums in its order."""
    check_images(images)
    images = images.detach()
    scaled = images * 2 - 1
    # Infinite where a pixel is 0 or 1: its slope is 0 then, and so is Adam's step.
    space = 0.5 * torch.log((1 + scaled) / (1 - scaled))
    mean, power = torch.zeros_like(space), torch.zeros_like(space)
    best, nearest = images.clone(), images.new_full((len(images),), 1e10)
    previous = 1e10
    with frozen(model, attack.mode):
        for step in range(attack.steps):
            with torch.enable_grad():
                space.requires_grad_(True)
                points = 0.5 * (space.tanh() + 1)
                distance = (points - images).square().flatten(1).sum(1)
                logits = model(points)
                if step == 0:
                    check_targets(labels, check_logits(logits, len(images)).shape[1])
                cost = distance.sum() + attack.c * _floored(attack, logits, labels).sum()
            hit = logits.detach().argmax(1) == labels
            better = (hit if attack.targeted else ~hit) & (distance.detach() < nearest)
            nearest = torch.where(better, distance.detach(), nearest)
            best = torch.where(better.view(-1, 1, 1, 1), points.detach(), best)
            if step % max(attack.steps // 10, 1) == 0:
                current = cost.item()
                if current > previous:
                    break
                previous = current
            # What the last step leads to is never looked at, so it is not taken.
            if step < attack.steps - 1:
                (gradient,) = torch.autograd.grad(cost, space)
                space = space.detach()
                _adam(space, gradient, mean, power, step + 1, attack.lr)
    return best


def _floored(attack: CW, logits: Logits, labels: Labels) -> Each:
    """Return max(margin, -κ) with the floor of 0 that a product with a one-hot puts under each largest logit."""
    own_class = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    other = ((1 - own_class) * logits).max(1).values
    if attack.compat == "torchattacks-3.2":
        own = logits.gather(1, labels[:, None])[:, 0]
    else:
        own = (own_class * logits).max(1).values
    return (other - own if attack.targeted else own - other).clamp(min=-attack.kappa)


def _adam(point: Tensor, gradient: Tensor, mean: Tensor, power: Tensor, count: int, lr: float) -> None:
    """Take Adam's step in place. ``torch.optim`` does the same, but takes seconds to load."""
    first, second = _BETAS
    mean.lerp_(gradient, 1 - first)
    power.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    root = (power.sqrt() / (1 - second**count) ** 0.5).add_(_TINY)
    point.addcdiv_(mean, root, value=-lr / (1 - first**count))
