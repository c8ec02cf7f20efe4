"""What an attack is allowed: how far from the image, in which norm, and never out of the pixel range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from passband.core.errors import PassbandError
from passband.data.pixels import check_pixels

Images = Float[Tensor, "batch channel height width"]


@runtime_checkable
class Threat(Protocol):
    """Know a ball around each image: how to step, stay and start in it."""

    @property
    def eps(self) -> float:
        """Radius of the ball, in units of pixels in [0, 1]."""
        ...

    def direction(self, gradient: Images) -> Images:
        """Return the step of norm 1 that raises the loss most, per image."""
        ...

    def project(self, points: Images, images: Images) -> Images:
        """Return the nearest points that lie in the ball around ``images`` and in [0, 1]."""
        ...

    def scatter(self, images: Images, uniform: Images) -> Images:
        """Return a random point of each ball, in [0, 1], from numbers in [0, 1) of the images' shape."""
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

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def direction(self, gradient: Images) -> Images:
        """Return the gradient's sign; where the gradient is zero the pixel stays."""
        return gradient.sign()

    def project(self, points: Images, images: Images) -> Images:
        """Clip the change to ±eps, then the pixels to [0, 1]."""
        return (points - images).clamp_(-self.eps, self.eps).add_(images).clamp_(0, 1)

    def scatter(self, images: Images, uniform: Images) -> Images:
        """Add U(-eps, eps) and clip to [0, 1]."""
        return (2 * uniform - 1).mul_(self.eps).add_(images).clamp_(0, 1)

    def distance(self, points: Images, images: Images) -> Float[Tensor, " batch"]:
        """Return the largest change of any pixel."""
        return (points - images).abs().flatten(1).amax(1)


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
