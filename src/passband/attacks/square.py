"""Square Attack: random search by squares, which asks the model for logits alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.chance import fork, uniform
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images, Norm, Threat, threat_of
from passband.core.errors import PassbandError, unknown
from passband.models.state import Mode

HALVED, OF = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), 10_000
"""Queries, of so many, after which the squares' area is halved."""

GRID = 5
"""Bumps along a side at the start in L2."""

Each = Int[Tensor, " batch"]
Offsets = Int[Tensor, "batch length"]


@ATTACKS.register("square")
@dataclass(frozen=True)
class Square:
    """Change one random square at a time, and keep the change where the model becomes less sure.

    L∞ starts from vertical stripes of ±ε, and a proposal moves a square to a random corner of the ball, per
    channel. L2 starts from a grid of bumps, and a proposal moves the energy of one window into a bump in another.
    A row ends with its first success; one that never has any gives the best point of its last restart.

    **Source**: Andriushchenko et al., *Square Attack*, algorithms 1 to 3, section 3.4 for L2; arguments and
    defaults as torchattacks 3.5.1.
    **Differs**: each image draws squares of its own, where torchattacks moves one square through the whole batch;
    a square may lie at the far edges too, as in the paper. The area is halved after query 500 as well, as in the
    authors' code and torchattacks, which the paper's list lacks. The start counts as the first of ``n_queries``.

    Attributes:
        norm: The ball: ``"Linf"`` or ``"L2"``.
        eps: Its radius, pixels in [0, 1]; in L2 over all pixels and channels.
        n_queries: Queries per restart, 1 or more.
        n_restarts: Restarts, 1 or more.
        p_init: Share of the image's area in the first squares, above 0 and at most 1. The paper takes 0.05 for
            L∞ and 0.1 for L2, and more for robust networks.
        loss: What should fall: the ``"margin"`` of the label over the best other class, or minus the
            cross-entropy (``"ce"``); in a targeted attack the negative of either.
        resc_schedule: Stretch the schedule of the area from 10,000 queries to ``n_queries``.
        seed: Of all random numbers.
        targeted: Whether labels are classes to lead to.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    norm: Norm = "Linf"
    eps: float = 8 / 255
    n_queries: int = 5000
    n_restarts: int = 1
    p_init: float = 0.8
    loss: Literal["margin", "ce"] = "margin"
    resc_schedule: bool = True
    seed: int = 0
    targeted: bool = False
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        threat_of(self.norm, self.eps)
        for name, count in (("n_queries", self.n_queries), ("n_restarts", self.n_restarts)):
            if count < 1:
                raise PassbandError(f"{name} is 1 or more; got {count}")
        if not 0 < self.p_init <= 1:
            raise PassbandError(f"p_init is a share of the image, above 0 and at most 1; got {self.p_init:g}")
        if self.loss not in ("margin", "ce"):
            raise unknown("loss", self.loss, ("margin", "ce"))

    @property
    def threat(self) -> Threat:
        """The ball."""
        return threat_of(self.norm, self.eps)

    @property
    def queries(self) -> int:
        """Answers a row needs at most."""
        return self.n_queries * self.n_restarts

    @property
    def needs_clean(self) -> bool:
        """False: the first point asked about is already changed."""
        return False

    def search(self) -> Square:
        """Return how it searches, which is itself."""
        return self

    def __call__(self, model: nn.Module, images: Images, labels: Labels) -> Images:
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
        return searched(self, model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> Square:
        """Return this attack at another ε, of which its changes are shares."""
        return replace(self, eps=eps)

    def side(self, turn: Each, height: int, width: int) -> Each:
        """Return the side of the square that each row tries, in pixels.

        Args:
            turn: How many answers the row has had since it (re)started.
            height: Of the images.
            width: Of the images.
        """
        shortest = min(height, width)
        sides = []
        for halvings in range(len(HALVED) + 1):
            side = max(round(math.sqrt(self.p_init / 2**halvings * height * width)), 1)
            # A bump has a middle: its side is odd, and 3 at least where the image has as much.
            sides.append(min(side, shortest) if self.norm == "Linf" else min(max(side, 3) | 1, shortest - 1 | 1))
        count = turn * OF // self.n_queries if self.resc_schedule else turn
        return turn.new_tensor(sides)[torch.bucketize(count, turn.new_tensor(HALVED))]

    def begin(self, rows: Rows) -> None:
        """Start from stripes or bumps."""
        rows.points = self._started(rows, rows.step)
        rows.memory = {"best": rows.images.clone(), "loss": rows.images.new_full((len(rows),), math.inf)}

    def losses(self, logits: Tensor, rows: Rows) -> None:
        """Ask for no gradient."""

    def advance(self, rows: Rows, said: Said) -> None:
        """Keep the point where it is better, and propose the next one."""
        loss = self._loss(said.logits, rows.labels).to(rows.images.dtype)
        better = (loss < rows.memory["loss"]) | said.fooled
        if self.n_restarts > 1:
            better |= rows.step % self.n_queries == 0
        rows.memory["loss"] = torch.where(better, loss, rows.memory["loss"])
        rows.memory["best"] = torch.where(better.view(-1, 1, 1, 1), rows.points, rows.memory["best"])
        rows.done = rows.done | said.fooled
        rows.points = self._proposed(rows, rows.step + 1)

    def answer(self, rows: Rows) -> Tensor:
        """Return the best points."""
        return rows.memory["best"]

    def _loss(self, logits: Float[Tensor, "batch classes"], labels: Labels) -> Float[Tensor, " batch"]:
        """Return what should fall: 0 or less is a success where it is the margin."""
        if self.loss == "ce":
            loss = -functional.cross_entropy(logits, labels, reduction="none")
        else:
            own = labels[:, None]
            loss = logits.gather(1, own)[:, 0] - logits.scatter(1, own, -math.inf).amax(1)
        return -loss if self.targeted else loss

    def _started(self, rows: Rows, step: Each) -> Images:
        images, keys = rows.images, fork(rows.keys, step)
        if self.norm == "Linf":
            signs = _signs(uniform(keys, torch.Size([images.shape[1], 1, images.shape[3]])), images)
            return torch.add(images, signs, alpha=self.eps).clamp_(0, 1)
        change = _grid(keys, images)
        return torch.add(images, self.threat.direction(change), alpha=self.eps).clamp_(0, 1)

    def _proposed(self, rows: Rows, step: Each) -> Images:
        turn = step % self.n_queries
        side = self.side(turn, *rows.images.shape[2:])
        propose = self._squared if self.norm == "Linf" else self._bumped
        points = propose(rows, fork(rows.keys, step), side)
        if self.n_restarts > 1 and bool((turn == 0).any()):
            points = torch.where((turn == 0).view(-1, 1, 1, 1), self._started(rows, step), points)
        return points

    def _squared(self, rows: Rows, keys: Each, side: Each) -> Images:
        """Push a square by ±2ε, per channel, and back into the ball, so into a corner of it (algorithm 2)."""
        images = rows.images
        numbers = uniform(keys, torch.Size([2 + images.shape[1]]))
        y, x = _placed(numbers[:, :2], side, images)
        push = _signs(numbers[:, 2:, None, None], images) * _within(x, side)[:, None, None]
        if images.is_contiguous(memory_format=torch.channels_last):
            # Operands whose layouts differ are added one by one: ten times slower.
            push = push.contiguous(memory_format=torch.channels_last)
        lines = _within(y, side).to(images.dtype)[:, None, :, None]
        pushed = torch.addcmul(rows.memory["best"], push, lines, value=2 * self.eps)
        return self.threat.project(pushed, images)

    def _bumped(self, rows: Rows, keys: Each, side: Each) -> Images:
        """Add a bump to what one window has, at the energy of that window, of another and of none (algorithm 3)."""
        images = rows.images
        channels = images.shape[1]
        numbers = uniform(keys, torch.Size([5 + channels]))
        y, x = _placed(numbers[:, :2], side, images)
        one = _window(y, x, side).to(images.dtype)
        both = _window(*_placed(numbers[:, 2:4], side, images), side).to(images.dtype).maximum(one)
        change = (rows.memory["best"] - images).contiguous()
        unused = (self.eps**2 - _length(change, (1, 2, 3)).square_()).clamp_(min=0)
        taken = change * both
        energy = _length(taken).square_() + unused / channels
        bump = _bumps(y, x, side, numbers[:, 4] < 0.5, images)
        fresh = torch.addcmul(_unit(change * one), _unit(bump), _signs(numbers[:, 5:, None, None], images))
        # The energies add up to eps² but for rounding, which must not add up over the queries.
        change = self.threat.ball(torch.addcmul(change - taken, _unit(fresh), energy.sqrt_()))
        return torch.add(images, change).clamp_(0, 1)


def _signs(numbers: Tensor, images: Images) -> Tensor:
    """Return ±1 from numbers in [0, 1)."""
    return (numbers < 0.5).to(images.dtype).mul_(2).sub_(1)


def _length(change: Images, dim: tuple[int, ...] = (2, 3)) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=dim, keepdim=True)
    return length


def _unit(change: Images) -> Images:
    """Return each channel at length 1; one that is zero stays."""
    return change / _length(change).clamp_(min=1e-30)


def _placed(numbers: Float[Tensor, "batch 2"], side: Each, images: Images) -> tuple[Offsets, Offsets]:
    """Place a window per row; return how far each line [B, H] and each column [B, W] lies from its first one."""
    offsets = []
    for number, length in zip(numbers.unbind(1), images.shape[2:], strict=True):
        first = (number * (length - side + 1)).to(torch.int64)
        offsets.append(torch.arange(length, device=images.device) - first[:, None])
    return offsets[0], offsets[1]


def _within(offsets: Offsets, side: Each) -> Bool[Tensor, "batch length"]:
    return (offsets >= 0) & (offsets < side[:, None])


def _window(y: Offsets, x: Offsets, side: Each) -> Bool[Tensor, "batch 1 height width"]:
    return (_within(y, side)[:, :, None] & _within(x, side)[:, None])[:, None]


def _bumps(
    y: Offsets, x: Offsets, side: Each, turned: Bool[Tensor, " batch"], images: Images
) -> Float[Tensor, "batch 1 height width"]:
    """Return two bumps in a window, one up and one down, above each other or, turned, beside each other.

    A bump's height is Σ 1/j² from its ring to the outermost one, j = 1 at its middle.

    **Source**: equation 2.

    Args:
        y: Of each line, from the window's first one.
        x: Of each column, from the window's first one.
        side: Of the window.
        turned: Whether the bumps lie beside each other.
        images: Whose type and device to take.
    """
    half = side[:, None] // 2
    lines, columns = _halves(y, side, ~turned), _halves(x, side, turned)
    ring = torch.maximum(lines[0][:, :, None], columns[0][:, None]).minimum(half[:, None] + 1)
    longest = max(images.shape[2:]) // 2 + 1
    squares = torch.arange(1, longest + 1, device=images.device, dtype=images.dtype).pow_(-2)
    sums = functional.pad(squares.cumsum(0), (1, 0))
    height = sums[half + 1][:, None] - sums[ring]
    return (height * lines[1][:, :, None] * columns[1][:, None])[:, None]


def _halves(offsets: Offsets, side: Each, split: Bool[Tensor, " batch"]) -> tuple[Offsets, Offsets]:
    """Return the distance to the bump's middle, and 1 in a window, -1 in its second half if split, 0 outside."""
    side, half, split = side[:, None], side[:, None] // 2, split[:, None]
    second = split & (offsets >= half)
    middle = torch.where(split, torch.where(second, half + (side - half) // 2, half // 2), half)
    sign = torch.where(second, -1, 1) * ((offsets >= 0) & (offsets < side))
    return (offsets - middle).abs(), sign


def _grid(keys: Each, images: Images) -> Images:
    """Tile the image with bumps, each turned and each channel's signed at random; of any length."""
    _, channels, height, width = images.shape
    tile = max(min(height, width) // GRID, 1)
    side = keys.new_full((1,), tile)
    numbers = uniform(keys, torch.Size([1 + channels, height // tile, width // tile]))
    offsets = []
    for dim, length in ((2, height), (3, width)):
        place = torch.arange(length, device=images.device) - length % tile // 2
        cell = (place // tile).clamp_(0, length // tile - 1)
        numbers = numbers.index_select(dim, cell)
        offsets.append((place - cell * tile)[None])
    y, x = offsets
    upright, turned = (_bumps(y, x, side, torch.full_like(side, way, dtype=torch.bool), images) for way in (0, 1))
    return torch.where(numbers[:, :1] < 0.5, turned, upright) * _signs(numbers[:, 1:], images)
