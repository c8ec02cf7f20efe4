"""GN: Gaussian noise, the control that no attack should be weaker than."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from passband.attacks.chance import normal
from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS
from passband.attacks.search import Labels, Rows, Said, searched
from passband.attacks.threat import Images
from passband.core.errors import PassbandError
from passband.models.state import Mode


@ATTACKS.register("gn")
@dataclass(frozen=True)
class GN:
    """Add Gaussian noise and clip to [0, 1]; no ε bounds it, and the model is not asked.

    **Source**: adversarial-focus, table 1; arguments and defaults as torchattacks 3.5.1.
    **Differs**: each image's noise is drawn from its content and ``seed``.

    Attributes:
        std: Standard deviation, pixels in [0, 1].
        seed: Of the noise.
        mode: Has no effect.

    Raises:
        PassbandError: when ``std`` is not in [0, 1].
    """

    std: float = 0.1
    seed: int = 0
    mode: Mode = "eval"
    black_box: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.std <= 1:
            raise PassbandError(f"std lies in 0 to 1, as pixels do, such as 0.1; got {self.std:g}")

    def search(self) -> _Noise:
        """Return how it searches: not at all."""
        return _Noise(self.std, self.seed, self.mode)

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch, as :meth:`passband.attacks.gradient_sign.FGSM.__call__` does."""
        refuse_loss(self, loss)
        return searched(self.search(), model, images, labels)

    def at(self, eps: float, *, scale: bool = True) -> GN:
        """Return this attack: no ε bounds it."""
        return self


@dataclass(frozen=True)
class _Noise:
    std: float
    seed: int
    mode: Mode
    targeted: bool = False
    threat: None = None
    queries: int = 0
    needs_clean: bool = False

    def begin(self, rows: Rows) -> None:
        noise = torch.empty_like(rows.images).copy_(normal(rows.keys, rows.images.shape[1:]))
        rows.points = torch.add(rows.images, noise, alpha=self.std).clamp_(0, 1)

    def losses(self, logits: Tensor, rows: Rows) -> None:
        return None

    def advance(self, rows: Rows, said: Said) -> None:
        return None

    def answer(self, rows: Rows) -> Tensor:
        return rows.points
