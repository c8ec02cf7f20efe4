"""Attacks up a loss that the caller gives: a detector's, a restorer's, where there are no logits to err with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.attacks.chance import fork
from passband.attacks.search import Rows, Said, begun, blocked, searched
from passband.attacks.threat import Images, check_images
from passband.attacks.walk import Walk
from passband.core.errors import PassbandError
from passband.models.state import frozen

GivenLoss = Callable[[nn.Module, Tensor, Any], Tensor]
"""Model, images and targets to what should rise: one number, or one per image, [] or [B]."""


@runtime_checkable
class Walking(Protocol):
    """An attack whose search is a walk up the cross-entropy, and which can climb another loss just as well."""

    def search(self) -> Walk:
        """Return how it searches."""
        ...


def detection_loss(model: nn.Module, images: Tensor, targets: Any) -> Float[Tensor, ""]:
    """Return the sum of the losses that a detector gives, as its training would lower it.

    Args:
        model: ``model(images, targets)`` gives losses by name, as :class:`passband.models.detector.Detector` does.
        images: float [B, 3, H, W] in [0, 1].
        targets: The objects of each image, :class:`passband.data.objects.Targets`.

    Raises:
        PassbandError: when the model gives no losses.
    """
    losses = model(images, targets)
    if not isinstance(losses, dict) or not losses:
        raise PassbandError(
            f"a detector gives losses by name for images and targets; this model gave {type(losses).__name__}: "
            "make it with create_detector"
        )
    return torch.stack([loss.sum() for loss in losses.values()]).sum()


def climbed(
    attack: Walking, model: nn.Module, images: Images | Sequence[Tensor], targets: Any, loss: GivenLoss | None
) -> Images:
    """Attack a batch up the loss that is given, or up the cross-entropy with labels where none is.

    The steps, the ball and the starts are the attack's own. A step follows the sign of an image's own gradient (its
    direction, in L2), which no factor changes: whether a loss is a sum or a mean over images, or one number per
    image, makes no difference. There is no success to stop at: with restarts the answer is the last iterate of the
    start that ends highest (lowest, where the attack is targeted).

    Random numbers that torch draws inside the loss are seeded by the attack's seed and the step, so that the same
    call gives the same answer; the caller's own random numbers go on as if nothing had been drawn. Such numbers are
    drawn for the batch: an image's answer then depends on the others, and on its place.

    Args:
        attack: FGSM, FFGSM, BIM, PGD or PGDL2.
        model: What the loss takes; lent to it in the attack's mode, its parameters asking for no gradient.
        images: float [B, C, H, W] in [0, 1].
        targets: Whatever the loss takes; labels, int64 [B], without one.
        loss: What should rise (fall, where the attack is targeted).

    Returns:
        Adversarial images in [0, 1], of the images' type and memory format.

    Raises:
        PassbandError: when images are out of range, or the loss gives no number, NaN, or no gradient; and with
            restarts, when it gives one number for several images.
    """
    walk = attack.search()
    if not isinstance(images, Tensor):
        raise PassbandError(
            f"an attack takes images of one size, a tensor [B, C, H, W]; got a {type(images).__name__}: stack them, or "
            "attack images of different sizes one at a time, images[0][None]"
        )
    if loss is None:
        return searched(walk, model, images, targets)
    check_images(images)
    if walk.threat.eps == 0:
        return images.detach().clone()
    name = type(attack).__name__
    # No labels: nothing is judged, and no row is ever done.
    rows = begun(walk, images.detach(), torch.zeros(len(images), dtype=torch.int64, device=images.device))
    best, highest = rows.points, images.new_full((len(images),), -torch.inf)
    with frozen(model, walk.mode):
        for query in range(walk.restarts * walk.period):
            said = _said(name, walk, model, rows, targets, loss, query % walk.period)
            if query % walk.period == walk.steps:
                assert said.losses is not None
                higher = said.losses > highest
                highest = said.losses.where(higher, highest)
                best = rows.points.where(higher.view(-1, 1, 1, 1), best)
            walk.advance(rows, said)
            rows.step = rows.step + 1
    return best if walk.restarts > 1 else walk.answer(rows)


def refuse_loss(attack: object, loss: object) -> None:
    """Refuse a loss where an attack has its own.

    Raises:
        PassbandError: when one is given.
    """
    if loss is not None:
        raise PassbandError(
            f"{type(attack).__name__} follows the model's logits, and takes no loss; attack with pgd (or fgsm, ffgsm, "
            "bim, pgdl2), or leave loss out"
        )


def _said(name: str, walk: Walk, model: nn.Module, rows: Rows, targets: Any, loss: GivenLoss, number: int) -> Said:
    """Ask for the loss of each row's point, and for its gradient."""
    with torch.enable_grad(), _seeded(walk.seed, number, rows.images.device):
        points = rows.points.detach().requires_grad_(True)
        rise = _checked(loss(model, points, targets), len(points), compared=walk.restarts > 1)
        if not rise.requires_grad:
            raise blocked(name, cure="let gradients through")
        if walk.targeted:
            rise = -rise
        # A loss with parameters of its own asks for a gradient which need not be the images'.
        (gradient,) = torch.autograd.grad(rise.sum(), points, allow_unused=True)
    if gradient is None:
        raise blocked(name, cure="let gradients through")
    if bool(torch.isnan(gradient).any()):
        raise PassbandError("the loss has a gradient of NaN: a root or a logarithm of 0 in it; keep both above 0")
    nothing = torch.zeros_like(rows.done)
    return Said(rows.clean, rise.detach(), gradient, fooled=nothing)


def _checked(loss: Any, count: int, compared: bool) -> Tensor:
    """Return a loss as [count] or [1], refusing what is no number, or none per image where images are compared."""
    if not isinstance(loss, Tensor) or not loss.is_floating_point() or list(loss.shape) not in ([], [count]):
        came = f"{loss.dtype} {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise PassbandError(
            f"a loss is one float for the batch or one per image, [] or [{count}]; got {came}: return such a tensor "
            "(detection_loss adds up a detector's losses)"
        )
    if compared and loss.ndim == 0 and count > 1:
        raise PassbandError(
            f"restarts are compared image by image, and this loss is one number for {count} images: return one per "
            "image, attack one image at a time, or set n_restarts to 1"
        )
    if bool(torch.isnan(loss).any()):
        raise PassbandError("the loss is NaN: the model's weights hold NaN or overflow; load other weights")
    return loss.view(-1)


@contextmanager
def _seeded(seed: int, number: int, device: torch.device) -> Iterator[None]:
    """Draw torch's random numbers from a seed and a number, and put its generators back."""
    mixed = int(fork(torch.tensor([seed]), number))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(mixed)
        for one in devices:
            torch.cuda.default_generators[one.index].manual_seed(mixed)
        yield
