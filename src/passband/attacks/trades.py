"""TPGD: away from the model's own answer rather than from a label, the inner attack of TRADES."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, searched
from passband.attacks.threat import Images, check_eps, threat_of
from passband.attacks.walk import Walk, check_steps, divergence, scaled
from passband.core.band import Band
from passband.models.state import Mode


@ATTACKS.register("tpgd")
@dataclass(frozen=True)
class TPGD:
    """Move the prediction away from the untouched image's, by the sign of the KL divergence's gradient.

    Labels take no part in the search; a success is judged by them. The divergence has no slope at the image
    itself, so the start is 0.001·N(0, 1) away, and rounding decides the first signs: two correct programs
    differ by some points of robust accuracy.

    **Source**: Zhang et al., *Theoretically principled trade-off between robustness and accuracy*, algorithm 1;
    arguments and defaults as torchattacks 3.5.1.

    Attributes:
        eps: Radius of the L∞ ball, pixels in [0, 1].
        alpha: Size of a step; None takes ε/4.
        steps: Number of steps, 1 or more.
        band: Frequencies that the change may have; None allows all.
        seed: Of the start.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 8 / 255
    alpha: float | None = 2 / 255
    steps: int = 10
    band: Band | None = None
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_steps(self.steps, self.alpha, self.eps)

    def search(self) -> Walk:
        """Return how it searches."""
        alpha = self.eps / 4 if self.alpha is None else self.alpha
        threat = threat_of("Linf", self.eps, self.band)
        return Walk(
            threat, alpha, self.steps, "noise", rise=divergence, needs_clean=True, seed=self.seed, mode=self.mode
        )

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(self.search(), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> TPGD:
        """Return this attack at another ε, keeping alpha/eps (``scale``) or alpha."""
        return replace(self, eps=eps, alpha=scaled(self.alpha, self.eps, eps, scale))
