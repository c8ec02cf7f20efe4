"""Mixtures of images in an adversarial training: mixup, cutout and cutmix, before the attack or after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.search import Rows, searched
from passband.attacks.walk import Walk, cross_entropy
from passband.core.errors import PassbandError, unknown
from passband.train.ranks import alone

How = Literal["mixup", "cutout", "cutmix", "none"]
On = Literal["adversarial", "clean"]
Images = Float[Tensor, "batch channel height width"]
Labels = Int[Tensor, " batch"]


@dataclass(frozen=True)
class Mixture:
    """Hold mixed images and what they show.

    Attributes:
        images: [B, C, H, W] in [0, 1].
        labels: int64 [B], the classes of the first images.
        others: int64 [B], the classes of the images that were mixed in.
        shares: [B], the weight of the first label; the second has the rest.
    """

    images: Images
    labels: Labels
    others: Labels
    shares: Float[Tensor, " batch"]


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Labels, others: Labels, shares: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the binary cross-entropy of each class's logit with the mixed label, summed over the classes."""
    first, second = (functional.one_hot(classes, logits.shape[1]) for classes in (labels, others))
    soft = torch.lerp(second.to(logits.dtype), first.to(logits.dtype), shares[:, None].to(logits.dtype))
    return functional.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(1)


@dataclass(frozen=True)
class Mixing:
    """Mix the images of a batch: one formula, m·x + (1 - m)·x', with another map m and another x' for each way.

    Attributes:
        how: ``"mixup"``, ``"cutout"``, ``"cutmix"``, or ``"none"``, which mixes nothing but learns by the same loss.
        on: ``"adversarial"`` mixes what the attack made; ``"clean"`` mixes before it.
        alpha: Of the distribution Beta(alpha, alpha), above 0.

    Raises:
        PassbandError: for an unknown ``how`` or ``on``, or an ``alpha`` that is not positive.
    """

    how: How = "mixup"
    on: On = "adversarial"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise unknown("way of mixing", self.how, get_args(How))
        if self.on not in get_args(On):
            raise unknown("kind of images to mix", self.on, get_args(On))
        if not self.alpha > 0:
            raise PassbandError(f"scheme mixed takes an alpha above 0; got {self.alpha:g}")

    def learn(
        self, attack: Any, model: nn.Module, images: Images, labels: Labels, number: int
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch classes"]]:
        """Return one batch's loss and logits.

        Args:
            attack: Already seeded for this step.
            model: Images in [0, 1] in, logits out.
            images: [B, C, H, W] in [0, 1].
            labels: int64 [B].
            number: The step's; all that is drawn here depends on it alone.
        """
        if self.on == "adversarial":
            mixture = self.mixed(attack(alone(model), images, labels), labels, number)
        else:
            mixture = self.mixed(images, labels, number)
            mixture = replace(mixture, images=self._attacked(attack, model, mixture))
        logits: Tensor = model(mixture.images)
        if self.how == "cutout":
            return functional.cross_entropy(logits, labels), logits
        return soft_cross_entropy(logits, mixture.labels, mixture.others, mixture.shares).mean(), logits

    def mixed(self, images: Images, labels: Labels, number: int) -> Mixture:
        """Return the batch's mixture at a step; each image meets the one before it, in a batch that is shuffled."""
        kept = self._kept(images, number)
        others = torch.zeros_like(images) if self.how == "cutout" else images.roll(1, 0)
        # A patch weighs what is left of it inside the image.
        shares = kept.mean((1, 2, 3)).expand(len(images))
        return Mixture(torch.lerp(others, images, kept), labels, labels.roll(1, 0), shares)

    def _kept(self, images: Images, number: int) -> Float[Tensor, "some 1 h w"]:
        """Return the weight of each pixel of the first image, one map for the batch or one for each image."""
        height, width = images.shape[2:]
        count = len(images) if self.how == "cutout" else 1
        if self.how == "none":
            return images.new_ones(1, 1, 1, 1)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            drawn = torch.distributions.Beta(self.alpha, self.alpha).sample(torch.Size([count]))
            centers = torch.rand(2, count)
        if self.how == "mixup":
            return drawn.to(images).view(1, 1, 1, 1)
        sides = (drawn * height * width).sqrt().round()
        rows, columns = (
            _within(center * length, sides, length) for center, length in zip(centers, (height, width), strict=True)
        )
        return (~(rows[:, None, :, None] & columns[:, None, None, :])).to(images)

    def _attacked(self, attack: Any, model: nn.Module, mixture: Mixture) -> Images:
        """Attack mixed images, up the loss that they are learned by."""
        if self.how == "cutout":
            found: Images = attack(alone(model), mixture.images, mixture.labels)
            return found
        return searched(_Mixed.of(attack, mixture), alone(model), mixture.images, mixture.labels)


def _within(
    centers: Float[Tensor, " some"], sides: Float[Tensor, " some"], length: int
) -> Float[Tensor, "some length"]:
    """Tell which pixels of a line lie in a patch of whole pixels around a center."""
    starts, places = (centers - sides / 2).round()[:, None], torch.arange(length)
    return (places >= starts) & (places < starts + sides[:, None])


def _rise(logits: Float[Tensor, "batch classes"], rows: Rows) -> Float[Tensor, " batch"]:
    return soft_cross_entropy(logits, rows.labels, rows.memory["others"], rows.memory["shares"])


@dataclass(frozen=True, kw_only=True)
class _Mixed(Walk):
    """Walk up the loss of a mixed label, which travels with its row."""

    others: Tensor
    shares: Tensor

    @classmethod
    def of(cls, attack: Any, mixture: Mixture) -> _Mixed:
        """Return an attack's walk, up the loss of the mixed labels."""
        walk = walk_of(attack)
        kept = {one.name: getattr(walk, one.name) for one in fields(walk)}
        return cls(**kept | {"rise": _rise}, others=mixture.others, shares=mixture.shares)

    def begin(self, rows: Rows) -> None:
        """Start, and give each row its second label and the share of its first."""
        super().begin(rows)
        rows.memory |= {"others": self.others, "shares": self.shares}


def walk_of(attack: Any) -> Walk:
    """Return the steps of an attack up the cross-entropy, which can climb another loss just as well.

    Raises:
        PassbandError: when the attack is of another kind.
    """
    search: Callable[[], object] | None = getattr(attack, "search", None)
    walk = None if search is None else search()
    if not isinstance(walk, Walk) or walk.rise is not cross_entropy:
        raise PassbandError(
            f"scheme mixed on clean images needs an attack that can climb the loss of mixed labels: fgsm, ffgsm, bim "
            f"or pgd; got {type(attack).__name__}"
        )
    return walk
