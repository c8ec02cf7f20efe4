"""What an attack is allowed: how far from the image, in which norm, and never out of the pixel range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from passband.attacks.chance import fork, normal, uniform
from passband.core.band import Band
from passband.core.errors import PassbandError, unknown
from passband.data.pixels import check_pixels
from passband.frequency.filters import keep

Keys = Int[Tensor, " batch"]
Images = Float[Tensor, "batch channel height width"]


Norm = Literal["Linf", "L2"]


@runtime_checkable
class Threat(Protocol):
    """Know a ball around each image: how to step, stay and start in it."""

    @property
    def eps(self) -> float:
        """Radius of the ball, in units of pixels in [0, 1]."""
        ...

    @property
    def norm(self) -> Norm:
        """The norm that the radius is measured in."""
        ...

    def direction(self, gradient: Images) -> Images:
        """Return the step of norm 1 that raises the loss most, per image."""
        ...

    def ball(self, change: Images) -> Images:
        """Return the nearest change that the ball allows, whatever the range of pixels."""
        ...

    def project(self, points: Images, images: Images) -> Images:
        """Bring points back into the ball around ``images``, then into [0, 1], which leaves no ball."""
        ...

    def scatter(self, images: Images, keys: Keys) -> Images:
        """Return a random point of each ball, in [0, 1], from each image's own random numbers."""
        ...

    def distance(self, points: Images, images: Images) -> Float[Tensor, " batch"]:
        """Return how far each point lies from its image, in the threat's norm."""
        ...


@dataclass(frozen=True)
class Linf:
    """Allow every pixel of every channel to change by ``eps``.

    Attributes:
        eps: Largest change, pixels in [0, 1]: ``8/255`` is eight gray levels.

    Raises:
        PassbandError: when ``eps`` is not in [0, 1].
    """

    eps: float
    norm: ClassVar[Norm] = "Linf"

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def direction(self, gradient: Images) -> Images:
        """Return the gradient's sign; where the gradient is zero the pixel stays."""
        return gradient.sign()

    def ball(self, change: Images) -> Images:
        """Clip to ±eps."""
        return change.clamp(-self.eps, self.eps)

    def project(self, points: Images, images: Images) -> Images:
        """Clip the change to ±eps, then the pixels to [0, 1]."""
        return (points - images).clamp_(-self.eps, self.eps).add_(images).clamp_(0, 1)

    def scatter(self, images: Images, keys: Keys) -> Images:
        """Add U(-eps, eps) and clip to [0, 1]."""
        numbers = torch.empty_like(images).copy_(uniform(keys, images.shape[1:]))
        return (2 * numbers - 1).mul_(self.eps).add_(images).clamp_(0, 1)

    def distance(self, points: Images, images: Images) -> Float[Tensor, " batch"]:
        """Return the largest change of any pixel."""
        distance: Tensor = (points - images).abs().amax((1, 2, 3))
        return distance


@dataclass(frozen=True)
class L2:
    """Allow an image to change by a vector of Euclidean length ``eps``.

    Attributes:
        eps: Length over all pixels and channels, pixels in [0, 1].

    Raises:
        PassbandError: when ``eps`` is negative or not finite.
    """

    eps: float
    norm: ClassVar[Norm] = "L2"

    def __post_init__(self) -> None:
        if not 0 <= self.eps < float("inf"):
            raise PassbandError(f"an L2 eps is a length of 0 or more, such as 0.5; got {self.eps:g}")

    def direction(self, gradient: Images) -> Images:
        """Return the gradient at length 1; an image without a gradient stays."""
        # The tiny floor turns 0/0 into 0; gradients of float32 networks lie far above it.
        return gradient / _length(gradient).clamp_(min=1e-30)

    def ball(self, change: Images) -> Images:
        """Shorten to eps."""
        length = _length(change)
        return change * (self.eps / length.clamp(min=max(self.eps, 1e-30)))

    def project(self, points: Images, images: Images) -> Images:
        """Shorten the change to eps, then clip the pixels to [0, 1]."""
        return self.ball(points - images).add_(images).clamp_(0, 1)

    def scatter(self, images: Images, keys: Keys) -> Images:
        """Step a length of U(0, eps) in a random direction and clip to [0, 1], as torchattacks does."""
        steps = torch.empty_like(images).copy_(normal(fork(keys, 0), images.shape[1:]))
        lengths = uniform(fork(keys, 1), torch.Size([1, 1, 1])).to(images.dtype).mul_(self.eps)
        return steps.mul_(lengths / _length(steps)).add_(images).clamp_(0, 1)

    def distance(self, points: Images, images: Images) -> Float[Tensor, " batch"]:
        """Return the Euclidean length of the change."""
        distance: Tensor = torch.linalg.vector_norm(points - images, dim=(1, 2, 3))
        return distance


@dataclass(frozen=True)
class Banded:
    """Allow only changes inside a band of frequencies, and inside another threat's ball.

    The change has no energy outside the band until the pixels are clipped to [0, 1], which comes last. The
    ball is met by clipping and filtering in turn, then by scaling the whole change, which keeps the band.

    Attributes:
        inner: The ball.
        band: The frequencies that a change may have, in each channel.
    """

    inner: Linf | L2
    band: Band

    @property
    def eps(self) -> float:
        """Radius of the inner ball."""
        return self.inner.eps

    @property
    def norm(self) -> Norm:
        """The inner ball's norm."""
        return self.inner.norm

    def direction(self, gradient: Images) -> Images:
        """Return the inner threat's step for what the gradient has in the band, filtered, at norm 1."""
        step = self._kept(self.inner.direction(self._kept(gradient)))
        return step / self._norm(step).clamp_(min=1e-30)

    def ball(self, change: Images) -> Images:
        """Return a change in the band and in the ball, near this one."""
        change = self._kept(change)
        for _ in range(ROUNDS):
            change = self._kept(self.inner.ball(change))
        return change * (self.eps / self._norm(change).clamp_(min=max(self.eps, 1e-30)))

    def project(self, points: Images, images: Images) -> Images:
        """Bring the change into the band and the ball, then clip the pixels to [0, 1]."""
        return self.ball(points - images).add_(images).clamp_(0, 1)

    def scatter(self, images: Images, keys: Keys) -> Images:
        """Filter the inner threat's random change and give it back the size that the filter took."""
        change = self.inner.scatter(images, keys) - images
        kept = self._kept(change)
        kept = kept * (self._norm(change) / self._norm(kept).clamp_(min=1e-30))
        return self.project(images + kept, images)

    def distance(self, points: Images, images: Images) -> Float[Tensor, " batch"]:
        """Return how far each point lies from its image, in the inner norm."""
        return self.inner.distance(points, images)

    def _kept(self, change: Images) -> Images:
        return torch.empty_like(change).copy_(keep(change, self.band))

    def _norm(self, change: Images) -> Tensor:
        return self.inner.distance(change, torch.zeros_like(change)).view(-1, 1, 1, 1)


ROUNDS = 2
"""Rounds of clipping and filtering; more come nearer to the ball's edge by less than they cost."""


def threat_of(norm: Norm, eps: float, band: Band | None = None) -> Threat:
    """Return the ball of a norm, cut to a band where one is given.

    Raises:
        PassbandError: for an unknown norm or a radius that makes no sense in it.
    """
    balls: dict[str, type[Linf] | type[L2]] = {"Linf": Linf, "L2": L2}
    if norm not in balls:
        raise unknown("norm", norm, balls)
    ball = balls[norm](eps)
    return ball if band is None else Banded(ball, band)


def _length(change: Images) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return length


def check_eps(eps: float) -> None:
    """Refuse a radius that is no L∞ distance between pixels in [0, 1].

    Raises:
        PassbandError: when it is negative, above 1 or not a number.
    """
    if not 0 <= eps <= 1:
        cure = f"; write {eps:g}/255 if gray levels were meant" if 1 < eps <= 255 else ""
        raise PassbandError(f"eps lies in 0 to 1, as pixels do; got {eps:g}{cure}")


def check_images(images: Images) -> None:
    """Refuse images that are not floats in [0, 1], of any number of channels.

    Raises:
        PassbandError: naming what came and the cure.
    """
    check_pixels(images, channels=images.shape[1] if images.ndim == 4 else 3)
