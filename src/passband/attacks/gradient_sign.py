"""Attacks that follow the sign of the cross-entropy's gradient: one step of the whole ε, or many smaller ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from passband.attacks.given_loss import GivenLoss, climbed
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels
from passband.attacks.threat import Images, check_eps, threat_of
from passband.attacks.walk import Walk, check_restarts, check_steps, scaled
from passband.core.band import Band
from passband.models.state import Mode


@ATTACKS.register("fgsm")
@dataclass(frozen=True)
class FGSM:
    """Take one step of the whole ε along the sign of the gradient, from the image itself.

    **Source**: Goodfellow et al., *Explaining and harnessing adversarial examples*, equation 1; arguments and
    defaults as torchattacks 3.5.1.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        mode: Mode of the model meanwhile; ``"train"`` is for training on what comes out.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 8 / 255
    targeted: bool = False
    band: Band | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)

    def search(self) -> Walk:
        """Return how it searches."""
        threat = threat_of("Linf", self.eps, self.band)
        return Walk(threat, alpha=self.eps, steps=1, targeted=self.targeted, mode=self.mode)

    def __call__(
        self, model: nn.Module, images: Images, labels: Labels | Any, *, loss: GivenLoss | None = None
    ) -> Images:
        """Attack a batch.

        Args:
            model: Images in [0, 1] in, logits out; left as it was found.
            images: float [B, C, H, W] in [0, 1].
            labels: int64 [B], the classes to lead away from, or to; with ``loss``, whatever it takes.
            loss: ``loss(model, images, labels)`` rises in place of the cross-entropy (falls, in a targeted attack):
                one number or one per image, as :func:`passband.attacks.given_loss.climbed` takes it.

        Returns:
            Adversarial images in [0, 1], of the images' type and memory format.

        Raises:
            PassbandError: when images or labels are out of range, or the model or the loss gives NaN.
        """
        return climbed(self, model, images, labels, loss)

    def at(self, eps: float, *, scale: bool = True) -> FGSM:
        """Return this attack at another ε; its one step is always ε."""
        return replace(self, eps=eps)


@ATTACKS.register("ffgsm")
@dataclass(frozen=True)
class FFGSM:
    """Take one step along the sign of the gradient from a random point of the ball: FGSM-RS.

    **Source**: Wong et al., *Fast is better than free*, algorithm 3; arguments and defaults as torchattacks 3.5.1.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        alpha: Size of the step; 1.25 ε by default. None takes 1.25 ε whatever ε is.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        seed: Of the random start; a training passes another one each step.
        mode: Mode of the model meanwhile; the paper's code crafts in ``"train"`` mode.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 8 / 255
    alpha: float | None = 10 / 255
    targeted: bool = False
    band: Band | None = None
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        # From one side of the ball to the other is a step of 2 ε; ε is at most 1.
        check_steps(1, self.alpha, self.eps, largest=2.0)

    def search(self) -> Walk:
        """Return how it searches."""
        alpha = 1.25 * self.eps if self.alpha is None else self.alpha
        threat = threat_of("Linf", self.eps, self.band)
        return Walk(threat, alpha, 1, "ball", targeted=self.targeted, seed=self.seed, mode=self.mode)

    def __call__(
        self, model: nn.Module, images: Images, labels: Labels | Any, *, loss: GivenLoss | None = None
    ) -> Images:
        """Attack a batch, as :meth:`FGSM.__call__` does."""
        return climbed(self, model, images, labels, loss)

    def at(self, eps: float, *, scale: bool = True) -> FFGSM:
        """Return this attack at another ε, keeping alpha/eps (``scale``) or alpha."""
        return replace(self, eps=eps, alpha=scaled(self.alpha, self.eps, eps, scale))


@ATTACKS.register("bim")
@dataclass(frozen=True)
class BIM:
    """Take many steps along the sign of the gradient, from the image itself.

    **Source**: Kurakin et al., *Adversarial examples in the physical world*, section 2.2; arguments and defaults
    as torchattacks 3.5.1, 0 steps as in its version 3.2.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        alpha: Size of a step; None takes ε/4.
        steps: Number of steps; 0 takes min(255 ε + 4, 1.25 · 255 ε), rounded down, as the paper does.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 8 / 255
    alpha: float | None = 2 / 255
    steps: int = 10
    targeted: bool = False
    band: Band | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_steps(self.steps or 1, self.alpha, self.eps)

    def search(self) -> Walk:
        """Return how it searches."""
        alpha = self.eps / 4 if self.alpha is None else self.alpha
        levels = 255 * self.eps
        steps = self.steps or max(int(min(levels + 4, 1.25 * levels) + 1e-9), 1)
        threat = threat_of("Linf", self.eps, self.band)
        return Walk(threat, alpha, steps, targeted=self.targeted, mode=self.mode)

    def __call__(
        self, model: nn.Module, images: Images, labels: Labels | Any, *, loss: GivenLoss | None = None
    ) -> Images:
        """Attack a batch, as :meth:`FGSM.__call__` does."""
        return climbed(self, model, images, labels, loss)

    def at(self, eps: float, *, scale: bool = True) -> BIM:
        """Return this attack at another ε, keeping alpha/eps (``scale``) or alpha."""
        return replace(self, eps=eps, alpha=scaled(self.alpha, self.eps, eps, scale))


@ATTACKS.register("pgd")
@dataclass(frozen=True)
class PGD:
    """Take many steps along the sign of the gradient, back into the ball after each.

    The last iterate is the answer. The random start is drawn per image from its content and ``seed``, so it
    depends neither on the batch nor on the order; a training passes another seed each step.

    **Source**: Madry et al., *Towards deep learning models resistant to adversarial attacks*, section 2.1;
    arguments and defaults as torchattacks 3.5.1.
    **Differs**: the loss is the batch's sum, not its mean, so that no image's gradient depends on the batch's
    size; its sign is the same. Restarts, step decay and the band are additions.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        alpha: Size of a step, pixels in [0, 1]; None takes ε/4, which is the default at ε = 8/255.
        steps: Number of steps, 1 or more.
        random_start: Start from U(-ε, ε) around the image, clipped to [0, 1], rather than from the image.
        n_restarts: Starts; the answer is the last iterate of the first start that succeeds, or of the last one.
        step_decay: Factor of alpha from one step to the next, above 0 and at most 1.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        seed: Of the random start.
        mode: Mode of the model meanwhile; ``"train"`` is for training on what comes out.

    Raises:
        PassbandError: when an argument makes no sense.

    >>> PGD(eps=0.1, alpha=0.05, steps=2).at(0.2).alpha
    0.1
    """

    eps: float = 8 / 255
    alpha: float | None = 2 / 255
    steps: int = 10
    random_start: bool = True
    n_restarts: int = 1
    step_decay: float = 1.0
    targeted: bool = False
    band: Band | None = None
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_steps(self.steps, self.alpha, self.eps)
        check_restarts(self.n_restarts, self.random_start, self.step_decay)

    def search(self) -> Walk:
        """Return how it searches."""
        return Walk(
            threat=threat_of("Linf", self.eps, self.band),
            alpha=self.eps / 4 if self.alpha is None else self.alpha,
            steps=self.steps,
            start="ball" if self.random_start else "image",
            restarts=self.n_restarts,
            step_decay=self.step_decay,
            targeted=self.targeted,
            seed=self.seed,
            mode=self.mode,
        )

    def __call__(
        self, model: nn.Module, images: Images, labels: Labels | Any, *, loss: GivenLoss | None = None
    ) -> Images:
        """Attack a batch, as :meth:`FGSM.__call__` does."""
        return climbed(self, model, images, labels, loss)

    def at(self, eps: float, *, scale: bool = True) -> PGD:
        """Return this attack at another ε.

        Args:
            eps: The other radius.
            scale: Keep alpha/eps as it is (always so where alpha is None), rather than alpha.

        Raises:
            PassbandError: when this attack's ε is 0, so that there is no ratio to keep.
        """
        return replace(self, eps=eps, alpha=scaled(self.alpha, self.eps, eps, scale))


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
