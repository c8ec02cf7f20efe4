"""AutoAttack: the worst case of several attacks whose parameters are fixed, for a number to report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from passband.attacks.auto_pgd import APGD, APGDT
from passband.attacks.fab import FAB
from passband.attacks.given_loss import refuse_loss
from passband.attacks.registry import ATTACKS, Attack
from passband.attacks.search import Labels
from passband.attacks.square import Square
from passband.attacks.threat import Images, Norm, check_images
from passband.core.errors import unknown
from passband.models.outputs import check_logits, check_targets
from passband.models.state import Mode, frozen

Version = Literal["standard", "plus", "rand"]
STEPS, QUERIES = 100, 5000


@ATTACKS.register("standard")
@dataclass(frozen=True)
class Standard:
    """Run AutoAttack's attacks one after another, each on the images that still stand.

    ``"standard"`` is APGD on the cross-entropy, targeted APGD on the DLR, targeted FAB and Square. ``"plus"`` adds
    untargeted APGD-DLR and FAB, with five restarts for the untargeted ones. ``"rand"``, for models that draw at
    random, is APGD on both losses, each gradient the average of 20. All take 100 steps, and Square 5000 queries.

    **Source**: Croce and Hein, *Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks*, section 5 (and its authors' code for the order of ``"plus"``); arguments and defaults
    as torchattacks 3.5.1.
    **Differs**: torchattacks' AutoAttack runs APGD and FAB for their defaults of 10 steps and stretches Square's
    schedule to the queries, and its seed is the time.

    Attributes:
        norm: ``"Linf"`` or ``"L2"``.
        eps: Radius of the ball in that norm, pixels in [0, 1].
        version: Which attacks: ``"standard"``, ``"plus"`` or ``"rand"``.
        n_classes: One more than the wrong classes that targeted attacks try; AutoAttack takes 10 for any model.
        seed: Of all members.
        mode: Mode of the model meanwhile.

    Raises:
        PassbandError: when an argument makes no sense; when attacking a model of fewer than 4 classes, which the
            DLR takes.
    """

    norm: Norm = "Linf"
    eps: float = 8 / 255
    version: Version = "standard"
    n_classes: int = 10
    seed: int = 0
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise unknown("version", self.version, get_args(Version))
        _ = self.members  # refuses what a member refuses

    @property
    def members(self) -> tuple[Attack, ...]:
        """The attacks, in the order in which they run."""
        apgd = partial(APGD, self.norm, self.eps, STEPS, seed=self.seed, mode=self.mode)
        apgdt = APGDT(self.norm, self.eps, STEPS, seed=self.seed, n_classes=self.n_classes, mode=self.mode)
        fab = FAB(self.norm, self.eps, STEPS, seed=self.seed, n_classes=self.n_classes, mode=self.mode)
        fabt = replace(fab, multi_targeted=True)
        square = Square(self.norm, self.eps, QUERIES, resc_schedule=False, seed=self.seed, mode=self.mode)
        if self.version == "rand":
            return apgd(loss="ce", eot_iter=20), apgd(loss="dlr", eot_iter=20)
        if self.version == "plus":
            often = apgd(loss="ce", n_restarts=5), apgd(loss="dlr", n_restarts=5), replace(fab, n_restarts=5)
            return *often, square, apgdt, fabt
        return apgd(loss="ce"), apgdt, fabt, square

    def __call__(self, model: nn.Module, images: Images, labels: Labels, *, loss: object = None) -> Images:
        """Attack a batch.

        Args:
            model: Images in [0, 1] in, logits out; left as it was found.
            images: float [B, C, H, W] in [0, 1].
            labels: int64 [B], the classes to lead away from.

        Returns:
            The first answer that fools the model, of the images' type and memory format; the untouched image where
            none does, or where the model errs already.

        Raises:
            PassbandError: when images or labels are out of range, or the model gives NaN.
        """
        refuse_loss(self, loss)
        check_images(images)
        answers = images.detach().clone()
        standing = self._right(model, images, labels).nonzero()[:, 0]
        for member in self.members:
            if not len(standing):
                break
            tried = member(model, images[standing], labels[standing])
            stands = self._right(model, tried, labels[standing])
            answers[standing[~stands]] = tried[~stands]
            standing = standing[stands]
        return answers

    def at(self, eps: float, *, scale: bool = True) -> Standard:
        """Return this attack at another ε; no member has a step of its own."""
        return replace(self, eps=eps)

    def _right(self, model: nn.Module, images: Images, labels: Labels) -> Bool[Tensor, " batch"]:
        with frozen(model, self.mode), torch.no_grad():
            logits = check_logits(model(images), len(images))
        check_targets(labels, logits.shape[1])
        return logits.argmax(1) == labels
