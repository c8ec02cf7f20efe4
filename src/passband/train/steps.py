"""Training schemes: how one batch becomes one loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from passband.attacks.gradient_sign import FGSM
from passband.attacks.registry import Attack, make
from passband.attacks.threat import check_images
from passband.attacks.trades import TPGD
from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.recipe import Part
from passband.core.registry import Registry
from passband.tasks import CLASSIFICATION, Task
from passband.train.mixing import How, Mixing, On, walk_of
from passband.train.ranks import alone

Step = Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Model, images, targets and the step's number (a piece's, where batches are cut) to the loss and what the model gave.
"""


@dataclass(frozen=True)
class Scheme:
    """Say how a recipe learns from its batches.

    Attributes:
        step: One batch to one loss.
        attack: What it trains against; None for plain images.
        replays: How many steps in a row learn from the same batch.
        whole: Whether a step needs the batch whole, not cut into pieces.
        couples: Whether an image's part in the loss depends on the others of its batch, or of its piece.
    """

    step: Step
    attack: Attack | None = None
    replays: int = 1
    whole: bool = False
    couples: bool = False


SCHEMES: Registry[Callable[..., Scheme]] = Registry("scheme")
"""Functions of the recipe's attack (or None) and of what a scheme keeps from step to step; options by keyword."""


def learning(task: Task) -> Step:
    """Return the step that learns a task from the images as they are."""

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        return task.learn(model, images, targets)

    return step


plain = learning(CLASSIFICATION)
"""Learn to classify images as they are."""


def adversarial(attack: Any) -> Step:
    """Return the step that learns from what ``attack`` makes of each batch.

    Each step draws its own random start: the step's number is the attack's seed.
    """

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        return plain(model, _seeded(attack, number)(alone(model), images, targets), targets, number)

    return step


@SCHEMES.register("trades")
def trades(attack: Attack | None, memory: dict[str, Any], *, beta: float = 6.0) -> Scheme:
    """Learn the clean images' labels, and to answer adversarial images as the clean ones are answered.

    The loss is CE(f(x), y) + beta · KL(f(x) ‖ f(x')), a mean over the batch, whose gradient flows through both
    answers. The accuracy that the log counts is that of the clean images.

    **Source**: Zhang et al., *Theoretically principled trade-off between robustness and accuracy*, algorithm 1;
    beta, which is 1/λ there, as in the authors' code.

    Args:
        attack: Makes x' from x; None takes TPGD: 10 steps of 2/255 at ε = 8/255, crafted in eval mode.
        memory: Nothing is kept.
        beta: Weight of the divergence, 0 or more.

    Raises:
        PassbandError: when ``beta`` is negative.
    """
    if not beta >= 0:
        raise PassbandError(f"scheme trades takes a beta of 0 or more; got {beta:g}")
    inner = TPGD() if attack is None else attack

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        points = _seeded(inner, number)(alone(model), images, targets)
        natural, logits = plain(model, images, targets, number)
        clean, moved = (functional.log_softmax(answer, dim=1) for answer in (logits, model(points)))
        return natural + beta * functional.kl_div(moved, clean, reduction="batchmean", log_target=True), logits

    return Scheme(step, inner)


@SCHEMES.register("mixup")
def mixup(attack: Attack | None, memory: dict[str, Any], *, alpha: float = 0.5) -> Scheme:
    """Learn from mixtures of two images and of their labels, by one share per batch drawn from Beta(alpha, alpha).

    torchvision's MixUp, which mixes each image with the one before it in the batch; batches are shuffled. The
    accuracy that the log counts is that of the mixtures against the label of the first image.

    **Source**: Zhang et al., *mixup: Beyond empirical risk minimization*; high-frequency, section 5.1 (alpha 0.5).
    **Differs**: high-frequency's code draws from Beta(1, 1), which its text contradicts.

    Args:
        attack: Must be None.
        memory: Nothing is kept.
        alpha: Of the Beta distribution, above 0.

    Raises:
        PassbandError: when an attack is given, or ``alpha`` is not positive.
    """
    _check_mixture("mixup", attack, alpha=alpha)
    from torchvision.transforms import v2

    return Scheme(_mixing(lambda classes: v2.MixUp(alpha=alpha, num_classes=classes)), couples=True)


@SCHEMES.register("mixup-or-cutmix")
def mixup_or_cutmix(
    attack: Attack | None, memory: dict[str, Any], *, mixup: float = 0.2, cutmix: float = 1.0
) -> Scheme:
    """Learn from mixtures made in one of two ways, mixup or CutMix, drawn for each batch, each with a chance of 1/2.

    torchvision's MixUp and CutMix: each image meets the one before it in the batch, with one share or one patch per
    batch, and the cross-entropy is that with the mixed label. No batch is left as it is. The accuracy that the log
    counts is that of the mixtures against the label of the first image.

    **Source**: spartan, section IV-A1; that it is always one of both, and how often which, as in its released code.

    Args:
        attack: Must be None.
        memory: Nothing is kept.
        mixup: Alpha of the Beta distribution of mixup's shares, above 0.
        cutmix: Alpha of the Beta distribution of a patch's area, above 0.

    Raises:
        PassbandError: when an attack is given, or an alpha is not positive.
    """
    _check_mixture("mixup-or-cutmix", attack, mixup=mixup, cutmix=cutmix)
    from torchvision.transforms import v2

    def either(classes: int) -> nn.Module:
        ways = (v2.MixUp(alpha=mixup, num_classes=classes), v2.CutMix(alpha=cutmix, num_classes=classes))
        chosen: nn.Module = v2.RandomChoice(ways)
        return chosen

    return Scheme(_mixing(either), couples=True)


def _check_mixture(name: str, attack: Attack | None, **alphas: float) -> None:
    if attack is not None:
        raise PassbandError(f"scheme {name} mixes images as they are; leave attack null")
    for option, alpha in alphas.items():
        if not alpha > 0:
            what = "an alpha" if option == "alpha" else f"a {option} (its alpha)"
            raise PassbandError(f"scheme {name} takes {what} above 0; got {alpha:g}")


def _mixing(make: Callable[[int], nn.Module]) -> Step:
    """Return the step that learns from torchvision's mixtures; ``make`` is asked with the number of classes."""

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        spec: Any = model.spec
        mix = make(spec.classes)
        # What is mixed how depends on the step alone, as every other draw does; the pairs on the recipe's seed.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            mixed, shares = mix(images, targets)
        logits = model(mixed)
        return functional.cross_entropy(logits, shares), logits

    return step


@SCHEMES.register("mixed")
def mixed(
    attack: Attack | None,
    memory: dict[str, Any],
    *,
    how: How = "mixup",
    on: On = "adversarial",
    alpha: float = 1.0,
) -> Scheme:
    """Learn from mixtures inside adversarial training: what the attack made is mixed, or mixtures are attacked.

    ``"mixup"`` draws one share per batch, ``"cutmix"`` one patch per batch, ``"cutout"`` one patch per image, which
    is set to 0. A share, or the area of a patch as a share of the image, is drawn from Beta(alpha, alpha); a patch is
    a square around a uniform center, clipped to the image, and its weight in the label is what is left of it. Mixed
    labels are learned by the binary cross-entropy of each class's logit, summed over the classes, a mean over the
    batch; the attack on a mixture climbs the same loss. Cutout keeps labels and cross-entropy. ``"none"`` mixes
    nothing, and learns, and attacks clean images, by the binary cross-entropy: the control of what the loss alone does.

    **Source**: adversarial-focus, section 3.2 (A-mixup is mixup on adversarial examples, C-mixup on clean data);
    one share per batch as in the codes of mixup and CutMix, one patch per image as in Cutout's.
    **Differs**: the paper gives neither alpha nor how the binary cross-entropy is reduced: 1, and the sum over the
    classes, whose gradients have the cross-entropy's size.

    Args:
        attack: Makes the adversarial images; on mixtures with mixed labels fgsm, ffgsm, bim or pgd.
        memory: Nothing is kept.
        how: ``"mixup"``, ``"cutout"``, ``"cutmix"`` or ``"none"``.
        on: ``"adversarial"`` attacks first and mixes the finished images; ``"clean"`` mixes first.
        alpha: Of the Beta distribution, above 0; 1 is the uniform one.

    Raises:
        PassbandError: when no attack is given, it cannot climb the loss of mixed labels, or an option is out of range.
    """
    if attack is None:
        raise PassbandError("scheme mixed mixes inside adversarial training; give an attack, such as {name: pgd}")
    inner, mixing = attack, Mixing(how, on, alpha)
    if on == "clean" and how != "cutout":
        walk_of(inner)

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        return mixing.learn(_seeded(inner, number), model, images, targets, number)

    return Scheme(step, inner, couples=how != "none")


@SCHEMES.register("free")
def free(attack: Attack | None, memory: dict[str, Any], *, replays: int = 8, eps: float = 8 / 255) -> Scheme:
    """Learn from each batch several times; each backward pass moves the weights and the change δ of the images.

    δ ← clip(δ + ε·sign(gradient), ±ε); it begins at zero, is never begun anew, and goes on to the next batch,
    image by image in order. Pixels are clipped to [0, 1] before the model sees them. Every replay is a step of the
    optimizer and of the schedule, so an epoch is ``replays`` times the work of a plain one: the paper divides its
    epochs by that, and so must a recipe that is to cost no more.

    **Source**: Shafahi et al., *Adversarial training for free!*, algorithm 1; the clip as in the authors' code.

    Args:
        attack: Must be None: the scheme makes its own adversarial images.
        memory: Keeps ``delta`` [batch, C, H, W].
        replays: Steps that learn from one batch, m in the paper, 1 or more.
        eps: Radius of the L∞ ball and size of a step, pixels in [0, 1].

    Raises:
        PassbandError: when an attack is given, or an option is out of range.
    """
    if attack is not None:
        raise PassbandError("scheme free makes its own adversarial images; leave attack null and set scheme.eps")
    if replays < 1:
        raise PassbandError(f"scheme free takes 1 replay or more; got {replays}")

    def step(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        check_images(images)
        kept = memory.get("delta")
        # From a checkpoint it comes on the CPU.
        memory["delta"] = torch.zeros_like(images) if kept is None else kept.to(images.device)
        # The last batch of an epoch may be smaller: it sees, and moves, the first rows alone.
        rows = memory["delta"][: len(images)]
        change = rows.clone().requires_grad_(True)

        def move(gradient: Tensor) -> None:
            rows.add_(gradient.sign(), alpha=eps).clamp_(-eps, eps)

        # The loop's own backward pass comes by here: no second one is needed.
        change.register_hook(move)
        return plain(model, (images + change).clamp(0, 1), targets, number)

    return Scheme(step, FGSM(eps=eps), replays, whole=True)


def make_scheme(
    scheme: Part | None,
    attack: Part | None,
    memory: dict[str, Any],
    task: Task = CLASSIFICATION,
    pieces: int | None = None,
) -> Scheme:
    """Make what a recipe's ``scheme`` and ``attack`` name; without a scheme, cross-entropy on the attack's images.

    Args:
        scheme: The recipe's, or None.
        attack: The recipe's, or None.
        memory: What the scheme keeps from step to step; part of the checkpoint.
        task: Another than classification has neither scheme nor attack; a recipe refuses them.
        pieces: The recipe's, or None.

    Raises:
        PassbandError: for an unknown scheme, attack or argument, or a scheme that cannot learn piece by piece.
    """
    if task is not CLASSIFICATION:
        return Scheme(learning(task))
    made = None if attack is None else make(attack.name, attack.arguments)
    if getattr(made, "targeted", False):
        raise PassbandError("a training leads away from the labels: an attack towards them would help; drop targeted")
    if scheme is None:
        return Scheme(plain if made is None else adversarial(made), made)
    build = SCHEMES[scheme.name]
    chosen = build(made, memory, **parse_options(build, scheme.arguments, owner=f"scheme {scheme.name}"))
    if chosen.whole and pieces is not None:
        raise PassbandError(f"scheme {scheme.name} keeps something for each image of a batch; leave pieces null")
    return chosen


def _seeded(attack: Any, number: int) -> Any:
    return replace(attack, seed=number) if hasattr(attack, "seed") else attack
