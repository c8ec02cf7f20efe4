"""PGD in Euclidean norm: steps along the gradient itself, at a fixed length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from passband.attacks.given_loss import GivenLoss, climbed
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels
from passband.attacks.threat import Images, threat_of
from passband.attacks.walk import Walk, check_restarts, check_steps, scaled
from passband.core.band import Band
from passband.models.state import Mode


@ATTACKS.register("pgdl2")
@dataclass(frozen=True)
class PGDL2:
    """Take many steps along the gradient, back into the L2 ball after each.

    **Source**: Madry et al., *Towards deep learning models resistant to adversarial attacks*, section 2.1;
    arguments and defaults as torchattacks 3.5.1.
    **Differs**: an image without a gradient stays; torchattacks divides by a norm of 1e-10 more.

    Attributes:
        eps: Radius of the L2 ball over all pixels and channels, pixels in [0, 1].
        alpha: Length of a step; None takes ε/5.
        steps: Number of steps, 1 or more.
        random_start: Start a length of U(0, ε) away in a random direction rather than from the image.
        n_restarts: Starts; the answer is the last iterate of the first start that succeeds, or of the last one.
        step_decay: Factor of alpha from one step to the next, above 0 and at most 1.
        targeted: Whether labels are classes to lead to.
        band: Frequencies that the change may have; None allows all.
        seed: Of the random start.
        mode: Mode of the model meanwhile; ``"train"`` is for training on what comes out.

    Raises:
        PassbandError: when an argument makes no sense.
    """

    eps: float = 1.0
    alpha: float | None = 0.2
    steps: int = 10
    random_start: bool = True
    n_restarts: int = 1
    step_decay: float = 1.0
    targeted: bool = False
    band: Band | None = None
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        threat_of("L2", self.eps)
        check_steps(self.steps, self.alpha, self.eps, largest=float("inf"))
        check_restarts(self.n_restarts, self.random_start, self.step_decay)

    def search(self) -> Walk:
        """Return how it searches."""
        return Walk(
            threat=threat_of("L2", self.eps, self.band),
            alpha=self.eps / 5 if self.alpha is None else self.alpha,
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
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        return climbed(self, model, images, labels, loss)

    def at(self, eps: float, *, scale: bool = True) -> PGDL2:
        """Return this attack at another ε, keeping alpha/eps (``scale``) or alpha."""
        return replace(self, eps=eps, alpha=scaled(self.alpha, self.eps, eps, scale))
