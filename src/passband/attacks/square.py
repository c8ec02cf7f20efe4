"""Square Attack: random search by squares, which asks the model for logits alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.chance import fork, uniform
from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images, Norm, Threat, threat_of
from passband.core.errors import PassbandError, unknown
from passband.models.state import Mode

HALVED, OF = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), 10_000
"""Queries, of so many, after which the squares' area is halved."""

GRID = 5
"""Bumps along a side at the start in L2."""


@ATTACKS.register("square")
@dataclass(frozen=True)
class Square:
    """Change one random square at a time, and keep the change where the model becomes less sure.

    L∞ starts from vertical stripes of ±ε, and a proposal moves a square to a random corner of the ball, per
    channel. L2 starts from a grid of bumps, and a proposal moves the energy of one window into a bump in another.
    A row ends with its first success; one that never has any gives the best point of its last restart.

    **Source**: Andriushchenko et al., *Square Attack*, algorithms 1 to 3, section 3.4 for L2; arguments and
    defaults as torchattacks 3.5.1.
    **Differs**: the area is halved after query 500 too, as in the authors' code and torchattacks, which the
    paper's list lacks. From torchattacks: each image draws squares of its own, not one for the whole batch; squares
    reach the last line and column, as in the paper; the start is the first of ``n_queries``; in L2 the energy of
    windows is kept per channel, as in the paper; where nothing succeeds the best point comes back, not the image.

    Attributes:
        norm: The ball: ``"Linf"`` or ``"L2"``.
        eps: Its radius, pixels in [0, 1]; in L2 over all pixels and channels.
        n_queries: Queries per restart, 1 or more.
        n_restarts: Restarts, 1 or more.
        p_init: Share of the image's area in the first squares, above 0 and at most 1. The paper takes 0.05 for
            L∞ and 0.1 for L2, and more against robust networks.
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
    black_box: ClassVar[bool] = True

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
        return searched(self, model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> Square:
        """Return this attack at another ε, of which its changes are shares."""
        return replace(self, eps=eps)

    def side(self, turn: Int[Tensor, " batch"], height: int, width: int) -> Int[Tensor, " batch"]:
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

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what should fall, [B]."""
        if self.loss == "ce":
            loss = -functional.cross_entropy(logits, labels, reduction="none")
        else:
            own = labels[:, None]
            loss = logits.gather(1, own)[:, 0] - logits.scatter(1, own, -math.inf).amax(1)
        return -loss if self.targeted else loss

    def _started(self, rows: Rows, step: Tensor) -> Tensor:
        images, keys = rows.images, fork(rows.keys, step)
        if self.norm == "Linf":
            signs = _signs(uniform(keys, torch.Size([images.shape[1], 1, images.shape[3]])), images.dtype)
            return torch.add(images, signs, alpha=self.eps).clamp_(0, 1)
        return torch.add(images, self.threat.direction(_grid(keys, images)), alpha=self.eps).clamp_(0, 1)

    def _proposed(self, rows: Rows, step: Tensor) -> Tensor:
        turn = step % self.n_queries
        propose = self._squared if self.norm == "Linf" else self._bumped
        points = propose(rows, fork(rows.keys, step), self.side(turn, *rows.images.shape[2:]))
        if self.n_restarts > 1 and bool((turn == 0).any()):
            points = torch.where((turn == 0).view(-1, 1, 1, 1), self._started(rows, step), points)
        return points

    def _squared(self, rows: Rows, keys: Tensor, side: Tensor) -> Tensor:
        """Push a square by ±2ε, per channel, and back into the ball, so into a corner of it (algorithm 2)."""
        images = rows.images
        _, channels, height, width = images.shape
        numbers = uniform(keys, torch.Size([2 + channels]))
        lines = _within(_placed(numbers[:, 0], side, height), side).to(images.dtype)
        columns = _within(_placed(numbers[:, 1], side, width), side)
        push = _signs(numbers[:, 2:, None, None], images.dtype) * columns[:, None, None]
        if images.is_contiguous(memory_format=torch.channels_last):
            # Operands whose layouts differ are added one by one: ten times slower.
            push = push.contiguous(memory_format=torch.channels_last)
        pushed = torch.addcmul(rows.memory["best"], push, lines[:, None, :, None], value=2 * self.eps)
        return self.threat.project(pushed, images)

    def _bumped(self, rows: Rows, keys: Tensor, side: Tensor) -> Tensor:
        """Add a bump to what one window has, at the energy of that window, of another and of none (algorithm 3)."""
        images = rows.images
        _, channels, height, width = images.shape
        numbers = uniform(keys, torch.Size([5 + channels]))
        y, x = _placed(numbers[:, 0], side, height), _placed(numbers[:, 1], side, width)
        y2, x2 = _placed(numbers[:, 2], side, height), _placed(numbers[:, 3], side, width)
        one = (_within(y, side)[:, None, :, None] & _within(x, side)[:, None, None]).to(images.dtype)
        two = (_within(y2, side)[:, None, :, None] & _within(x2, side)[:, None, None]).to(images.dtype)
        change = (rows.memory["best"] - images).contiguous()
        unused = (self.eps**2 - _length(change, (1, 2, 3)).square_()).clamp_(min=0)
        taken = change * one.maximum(two)
        energy = _length(taken).square_() + unused / channels
        bump = _bumps(y, x, side, numbers[:, 4] < 0.5, images.dtype)
        signs = _signs(numbers[:, 5:, None, None], images.dtype)
        fresh = torch.addcmul(_unit(change * one), _unit(bump), signs)
        # The energies add up to eps² but for rounding, which must not add up over the queries.
        change = self.threat.ball(torch.addcmul(change - taken, _unit(fresh), energy.sqrt_()))
        return torch.add(images, change).clamp_(0, 1)


def _signs(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ±1 from numbers in [0, 1)."""
    return (numbers < 0.5).to(dtype).mul_(2).sub_(1)


def _length(change: Tensor, dim: tuple[int, ...] = (2, 3)) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=dim, keepdim=True)
    return length


def _unit(change: Tensor) -> Tensor:
    """Return each channel at length 1; one that is zero stays."""
    return change / _length(change).clamp_(min=1e-30)


def _placed(number: Tensor, side: Tensor, length: int) -> Tensor:
    """Place an interval per row; return how far each of ``length`` places lies from its first one, [B, length]."""
    first = (number * (length - side + 1)).to(torch.int64)
    return torch.arange(length, device=side.device) - first[:, None]


def _within(offsets: Tensor, side: Tensor) -> Tensor:
    return (offsets >= 0) & (offsets < side[:, None])


def _bumps(y: Tensor, x: Tensor, side: Tensor, turned: Tensor, dtype: torch.dtype) -> Tensor:
    """Return two bumps in a window, one up and one down, above each other or, turned, beside each other.

    A bump's height is Σ 1/j² from its ring to the outermost one, where the middle is ring 1.

    **Source**: section 3.4, without its normalization.

    Args:
        y: How far each line lies from the window's first one, int64 [B, H].
        x: The same of the columns, int64 [B, W].
        side: Of the window, int64 [B].
        turned: Whether the bumps lie beside each other, bool [B].
        dtype: Of what comes out, [B, 1, H, W].
    """
    outermost = side[:, None] // 2 + 1
    (far_y, sign_y), (far_x, sign_x) = _halves(y, side, ~turned), _halves(x, side, turned)
    ring = torch.maximum(far_y[:, :, None], far_x[:, None]).minimum(outermost[:, None])
    longest = max(y.shape[1], x.shape[1]) // 2 + 1
    squares = torch.arange(1, longest + 1, device=y.device, dtype=dtype).pow_(-2)
    sums = functional.pad(squares.cumsum(0), (1, 0))
    height = sums[outermost][:, None] - sums[ring]
    return (height * sign_y[:, :, None] * sign_x[:, None])[:, None]


def _halves(offsets: Tensor, side: Tensor, split: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the bump's middle, and 1 in a window, -1 in its second half if split, 0 outside."""
    within = _within(offsets, side)
    side, half, split = side[:, None], side[:, None] // 2, split[:, None]
    second = split & (offsets >= half)
    middle = torch.where(split, torch.where(second, half + (side - half) // 2, half // 2), half)
    return (offsets - middle).abs(), torch.where(second, -1, 1) * within


def _grid(keys: Tensor, images: Tensor) -> Tensor:
    """Tile the image with bumps, each turned and each channel's signed at random; of any length."""
    _, channels, height, width = images.shape
    tile = max(min(height, width) // GRID, 1)
    numbers = uniform(keys, torch.Size([1 + channels, height // tile, width // tile]))
    offsets = []
    for dim, length in ((2, height), (3, width)):
        place = torch.arange(length, device=images.device) - length % tile // 2
        cell = (place // tile).clamp_(0, length // tile - 1)
        numbers = numbers.index_select(dim, cell)
        offsets.append((place - cell * tile)[None])
    side, ways = keys.new_full((2,), tile), torch.tensor([False, True], device=keys.device)
    upright, turned = _bumps(offsets[0].expand(2, -1), offsets[1].expand(2, -1), side, ways, images.dtype)
    return torch.where(numbers[:, :1] < 0.5, turned, upright) * _signs(numbers[:, 1:], images.dtype)
