"""Attacks that follow the gradient of the cross-entropy: one step of the whole ε, or many smaller ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.chance import image_keys, uniform
from passband.attacks.registry import ATTACKS
from passband.attacks.threat import Images, Linf, Threat, check_eps, check_images
from passband.core.errors import PassbandError
from passband.models.outputs import check_logits, check_targets
from passband.models.state import Mode, frozen

Labels = Int[Tensor, " batch"]


@ATTACKS.register("fgsm")
@dataclass(frozen=True)
class FGSM:
    """Take one step of the whole ε along the sign of the gradient, from the image itself.

    **Source**: Goodfellow et al., *Explaining and harnessing adversarial examples*, equation 1; arguments and
    defaults as torchattacks 3.5.1.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        mode: Mode of the model meanwhile; ``"train"`` is for training on what comes out.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 8 / 255
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def __call__(self, model: nn.Module, images: Images, labels: Labels) -> Images:
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
        check_images(images)
        with frozen(model, self.mode):
            return climb(model, images, labels, Linf(self.eps), start=images, alpha=self.eps, steps=1)

    def at(self, eps: float, *, scale: bool = True) -> FGSM:
        """Return this attack at another ε; its one step is always ε."""
        return replace(self, eps=eps)


@ATTACKS.register("pgd")
@dataclass(frozen=True)
class PGD:
    """Take many steps along the sign of the gradient, back into the ball after each.

    The last iterate is the answer. The random start is drawn per image from its content and ``seed``, so it
    depends neither on the batch nor on the order; a training passes another seed each step.

    **Source**: Madry et al., *Towards deep learning models resistant to adversarial attacks*, section 2.1;
    arguments and defaults as torchattacks 3.5.1.
    **Differs**: the loss is the batch's sum, not its mean, so that no image's gradient depends on the batch's
    size; its sign is the same.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        alpha: Size of a step, pixels in [0, 1]; None takes ε/4, which is the default at ε = 8/255.
        steps: Number of steps, 1 or more.
        random_start: Start from U(-ε, ε) around the image, clipped to [0, 1], rather than from the image.
        seed: Of the random start.
        mode: Mode of the model meanwhile; ``"train"`` is for training on what comes out.

    Raises:
        PassbandError: when an argument makes no sense.

    >>> PGD(eps=0.1, alpha=0.05, steps=2).at(0.2)
    PGD(eps=0.2, alpha=0.1, steps=2, random_start=True, seed=0, mode='eval')
    """

    eps: float = 8 / 255
    alpha: float | None = 2 / 255
    steps: int = 10
    random_start: bool = True
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise PassbandError(f"alpha lies in 0 to 1, as pixels do, such as 2/255; got {self.alpha:g}")
        if self.alpha == 0 and self.eps > 0:
            raise PassbandError("alpha is 0: the attack would not move; give a step such as 2/255")
        if self.steps < 1:
            raise PassbandError(f"steps is 1 or more; got {self.steps}")

    @property
    def step(self) -> float:
        """Size of a step, pixels in [0, 1]."""
        return self.eps / 4 if self.alpha is None else self.alpha

    def __call__(self, model: nn.Module, images: Images, labels: Labels) -> Images:
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
        check_images(images)
        threat = Linf(self.eps)
        start = images
        if self.random_start:
            start = random_start(images, threat, self.seed)
        with frozen(model, self.mode):
            return climb(model, images, labels, threat, start=start, alpha=self.step, steps=self.steps)

    def at(self, eps: float, *, scale: bool = True) -> PGD:
        """Return this attack at another ε.

        Args:
            eps: The other radius.
            scale: Keep alpha/eps as it is (always so where alpha is None), rather than alpha.

        Raises:
            PassbandError: when this attack's ε is 0, so that there is no ratio to keep.
        """
        if self.alpha is None or not scale:
            return replace(self, eps=eps)
        if self.eps == 0:
            raise PassbandError("an attack of eps 0 has no alpha/eps to keep; set alpha to None, which is eps/4")
        return replace(self, eps=eps, alpha=self.alpha * (eps / self.eps))


PRESETS = {
    "adversarial-focus": PGD(steps=20),
    "high-frequency": PGD(alpha=8 / 255 / 30, steps=40, random_start=False),
    "spatial-mixing": PGD(alpha=4 / 255, steps=2, random_start=False),
}
"""Each paper's PGD, at ε = 8/255; ``at`` takes it to another ε with the same share of ε in a step.

**Source**: adversarial-focus, table 1 (20 steps, ε/4); high-frequency, the library default behind table 2 (40
steps, ε/30, no random start), at a fixed ε here; spatial-mixing, figure 6 (PGD-2; the step ε/2 and the
missing random start are assumed, the papers say neither).
"""


def random_start(images: Images, threat: Threat, seed: int) -> Images:
    """Return a random point of each image's ball, drawn from the image's content and ``seed``."""
    numbers = torch.empty_like(images).copy_(uniform(image_keys(images, seed), images.shape[1:]))
    return threat.scatter(images, numbers)


def climb(
    model: nn.Module,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    start: Images,
    alpha: float,
    steps: int,
) -> Images:
    """Raise the cross-entropy by steps of size ``alpha`` inside a threat.

    The caller holds the model frozen (:func:`passband.models.state.frozen`).
    """
    points = start.detach().clone()
    if threat.eps == 0:
        return points
    for number in range(steps):
        gradient = loss_gradient(model, points, labels, check=number == 0)
        # torch.add on the points keeps their memory format, whatever the gradient's is.
        points = threat.project(torch.add(points, threat.direction(gradient), alpha=alpha), images)
    return points


def loss_gradient(model: nn.Module, points: Images, labels: Labels, *, check: bool = True) -> Images:
    """Return the gradient of each image's cross-entropy with respect to its pixels.

    Args:
        model: Images in [0, 1] in, logits out.
        points: Where the gradient is taken.
        labels: int64 [B].
        check: Look at logits and labels; on a GPU that waits, so a loop checks once.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_(True)
        logits: Float[Tensor, "batch classes"] = model(points)
        if check:
            check_targets(labels, check_logits(logits, len(points)).shape[1])
        # The sum's gradient holds each image's own, free of the batch's size.
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
    return gradient
