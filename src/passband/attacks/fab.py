"""FAB: the nearest image that the model errs on, by projecting onto linearized decision boundaries."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from passband.attacks.chance import fork, normal, uniform
from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images, Norm, Threat, threat_of
from passband.core.errors import PassbandError
from passband.models.state import Mode

WIDEST: dict[str, float] = {"Linf": 0.3, "L2": 1.0}
"""The radius that ``eps=None`` takes, per norm, as torchattacks does."""

Each = Float[Tensor, " batch"]


@ATTACKS.register("fab")
@dataclass(frozen=True)
class FAB:
    """Look for the nearest image that the model errs on; a success where it lies within ``eps``.

    A step linearizes the difference between another class's logit and the label's, projects both the point and
    the untouched image onto the hyperplane where it is 0, inside [0, 1], overshoots both by ``eta``, and mixes
    them. Where the model errs on what comes out, the next step starts on the way back to the image. The answer is
    the nearest point that the model errs on if it lies within ``eps``, else the untouched image.

    A step takes two queries: the gradient at a point, then the logits of the one it leads to. Rows that began
    together stay in phase, and then the second query computes no gradient.

    **Source**: Croce and Hein, *Minimally distorted adversarial examples with a fast adaptive boundary attack*,
    algorithm 1; ``multi_targeted`` is the targeted FAB of their *Reliable evaluation of adversarial robustness*,
    AutoAttack. Arguments and defaults as torchattacks 3.5.1.
    **Differs**: no mode towards a label, no L1 and no band. As in AutoAttack and torchattacks, the final search
    along a line is left out. The points that gradients are taken at count as well when the model errs on them.
    The projections find their multiplier by Newton's method, which is exact on a piecewise linear function,
    rather than by sorting. Restarts and classes go on after a success, to look for nearer points. An image that
    the model errs on untouched is its own answer.

    Attributes:
        norm: The distance that is made small: ``"Linf"`` or ``"L2"``.
        eps: The radius within which an answer is a success; None takes 0.3 in L∞ and 1 in L2.
        steps: Steps per start, 1 or more.
        n_restarts: Starts, 1 or more: the image, then random points at half the smallest distance found, at most
            ``eps / 2``.
        alpha_max: Largest share of the untouched image's projection in a step's mixture, 0 to 1.
        eta: Overshoot of the projections, 1 or more.
        beta: Where the next step starts after an error: this share of the way from the image, 0 to 1.
        seed: Of the random starts.
        multi_targeted: Lead to one wrong class after another, the most likely first, with one gradient a step,
            rather than to the nearest boundary of all, with a gradient per wrong class.
        n_classes: With multi_targeted, n_classes - 1 wrong classes are tried, or all where there are fewer.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    norm: Norm = "Linf"
    eps: float | None = 8 / 255
    steps: int = 10
    n_restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    seed: int = 0
    multi_targeted: bool = False
    n_classes: int = 10
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        threat_of(self.norm, self.eps or 0)
        for name, count, least in (
            ("steps", self.steps, 1),
            ("n_restarts", self.n_restarts, 1),
            ("n_classes", self.n_classes, 2),
        ):
            if count < least:
                raise PassbandError(f"{name} is {least} or more; got {count}")
        for name, share in (("alpha_max", self.alpha_max), ("beta", self.beta)):
            if not 0 <= share <= 1:
                raise PassbandError(f"{name} is a share, 0 to 1; got {share:g}")
        if not 1 <= self.eta < math.inf:
            raise PassbandError(f"eta is 1 or more, as a smaller step reaches no boundary; got {self.eta:g}")

    @property
    def threat(self) -> Threat:
        """The ball within which an answer is a success."""
        return threat_of(self.norm, WIDEST[self.norm] if self.eps is None else self.eps)

    @property
    def targeted(self) -> bool:
        """False: labels are classes to lead away from, with multi_targeted too."""
        return False

    @property
    def queries(self) -> int:
        """Answers a row needs at most."""
        return self._period * self.n_restarts * (self.n_classes - 1 if self.multi_targeted else 1)

    @property
    def needs_clean(self) -> bool:
        """Whether it looks at the untouched images' logits, to order the classes."""
        return self.multi_targeted

    @property
    def _period(self) -> int:
        """Answers per start."""
        return 2 * self.steps

    @property
    def alternation(self) -> int:
        """Queries after which their kind repeats: a gradient, then logits alone."""
        return 2

    def search(self) -> FAB:
        """Return how it searches, which is itself."""
        return self

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch.

        Args:
            model: Images in [0, 1] in, logits out; left as it was found.
            images: float [B, C, H, W] in [0, 1].
            labels: int64 [B], the classes to lead away from.

        Returns:
            Adversarial images in [0, 1], of the images' type and memory format.

        Raises:
            PassbandError: when images or labels are out of range, or the model gives NaN.
        """
        refuse_loss(self, loss)
        return searched(self, model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> FAB:
        """Return this attack at another ε, which its steps do not depend on."""
        return replace(self, eps=eps)

    def begin(self, rows: Rows) -> None:
        """Start from the images."""
        rows.memory = {"best": rows.images.clone(), "distance": rows.images.new_full((len(rows),), math.inf)}
        if self.multi_targeted:
            classes = torch.arange(rows.clean.shape[1], device=rows.clean.device)
            wrong = rows.clean.masked_fill(classes == rows.labels[:, None], -math.inf)
            most = min(self.n_classes, len(classes)) - 1
            rows.memory["goals"] = wrong.argsort(dim=1, descending=True, stable=True)[:, :most]

    def losses(self, logits: Tensor, rows: Rows) -> Tensor | None:
        """Return how far wrong classes' logits lie above the label's; None where no row needs a gradient."""
        if not bool((rows.step % 2 == 0).any()):
            return None
        own = rows.labels[:, None]
        if self.multi_targeted:
            goal = rows.memory["goals"].gather(1, rows.step[:, None] // (self._period * self.n_restarts))
            return (logits.gather(1, goal) - logits.gather(1, own))[:, 0]
        wrong = torch.arange(logits.shape[1] - 1, device=logits.device)
        return logits.gather(1, wrong + (wrong >= own)) - logits.gather(1, own)

    def advance(self, rows: Rows, said: Said) -> None:
        """Keep the point if it is the nearest error; then step, or go back towards the image from an error."""
        threat, memory = self.threat, rows.memory
        errs = said.logits.argmax(1) != rows.labels
        distance = threat.distance(rows.points, rows.images)
        nearer = errs & (distance < memory["distance"])
        memory["distance"] = torch.where(nearer, distance, memory["distance"])
        memory["best"] = torch.where(_each(nearer), rows.points, memory["best"])
        led = rows.step % 2 == 1
        points = torch.where(_each(led & errs), rows.images.lerp(rows.points, self.beta), rows.points)
        if said.gradient is not None:
            points = torch.where(_each(led), points, self._stepped(rows, said))
        start, turn = (rows.step + 1) // self._period, (rows.step + 1) % self._period
        if self.queries > self._period and bool((turn == 0).any()):
            points = torch.where(_each(turn == 0), self._started(rows, start), points)
        if self.multi_targeted:
            rows.done = rows.done | (start >= self.n_restarts * memory["goals"].shape[1])
        rows.done = rows.done | (memory["distance"] == 0)
        rows.points = points

    def answer(self, rows: Rows) -> Tensor:
        """Return the nearest errors within eps, and the untouched images where there is none."""
        return torch.where(_each(rows.memory["distance"] <= self.threat.eps), rows.memory["best"], rows.images)

    def _stepped(self, rows: Rows, said: Said) -> Images:
        assert said.losses is not None and said.gradient is not None
        gap, slope = said.losses, said.gradient
        if not self.multi_targeted:
            dual = torch.linalg.vector_norm(slope, ord=1 if self.norm == "Linf" else 2, dim=(2, 3, 4))
            nearest = (gap.abs().T / dual.clamp_(min=1e-30)).argmin(0)
            each = torch.arange(len(rows), device=nearest.device)
            gap, slope = gap[each, nearest], slope[nearest, each]
        points, images = rows.points, rows.images
        gap_there = gap + (slope * (images - points)).sum((1, 2, 3))
        here = onto_plane(points, gap, slope, self.norm)
        there = onto_plane(images, gap_there, slope, self.norm)
        near, far = self._length(here), self._length(there)
        share = (near / (near + far).clamp(min=1e-30)).clamp(max=self.alpha_max)
        there = torch.add(images, there, alpha=self.eta)
        return torch.add(points, here, alpha=self.eta).lerp(there, share).clamp_(0, 1)

    def _started(self, rows: Rows, start: Int[Tensor, " batch"]) -> Images:
        """Return each row's next start: its image for a new class, else a random point."""
        if self.n_restarts == 1:
            return rows.images
        draw = uniform if self.norm == "Linf" else normal
        images = rows.images
        change = torch.empty_like(images).copy_(draw(fork(rows.keys, start), images.shape[1:]))
        if self.norm == "Linf":
            change = 2 * change - 1
        radius = _each(rows.memory["distance"].clamp(max=self.threat.eps) / 2)
        points = (images + change * (radius / self._length(change))).clamp_(0, 1)
        return torch.where(_each(start % self.n_restarts == 0), images, points)

    def _length(self, change: Images) -> Tensor:
        order = math.inf if self.norm == "Linf" else 2
        length: Tensor = torch.linalg.vector_norm(change, ord=order, dim=(1, 2, 3), keepdim=True)
        return length


def onto_plane(points: Images, gap: Each, slope: Images, norm: Norm) -> Images:
    """Return the shortest change that brings each point to its hyperplane inside [0, 1].

    Where the box does not meet the hyperplane, the change leads to the box's corner nearest to it. A pixel
    moves by min(λ·m, its room), with m = 1 in L∞ and \\|slope\\| in L2: what that gains is piecewise linear and
    concave in λ, so Newton's method climbs to the root from 0 and stops exactly at it, after a few rounds.

    **Source**: Croce and Hein, the projections onto a hyperplane and the box, which sort the pixels instead.

    Args:
        points: [B, C, H, W] in [0, 1].
        gap: The linear function's value at the points, which should become 0.
        slope: Its gradient.
        norm: What shortest means.
    """
    way = slope.sign() * _each(-gap.sign())
    room = (way + 1).div_(2).sub_(points).mul_(way)  # 1 - point upwards, the point downwards, 0 without a slope
    weight = slope.abs()
    rate = torch.ones_like(weight) if norm == "Linf" else weight
    gain, most = weight * rate, weight * room
    need = _each(gap.abs())
    reach = torch.zeros_like(need)
    while True:
        free = (rate * reach < room).to(weight.dtype)
        slack = (gain * free).sum((1, 2, 3), keepdim=True)
        held = (most * (1 - free)).sum((1, 2, 3), keepdim=True)
        further = torch.where(slack > 0, (need - held) / slack, reach)
        if not bool((further > reach).any()):
            return way * (rate * reach).minimum(room)
        # Slopes near zero ask for a reach beyond all numbers, which times a slope of zero would be none at all.
        reach = reach.maximum(further).clamp(max=torch.finfo(reach.dtype).max)


def _each(which: Tensor) -> Tensor:
    return which.view(-1, 1, 1, 1)
