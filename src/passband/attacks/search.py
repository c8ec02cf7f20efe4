"""What an attack in progress is: rows, one per image and free of each other, moved by what the model says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from passband.attacks.chance import image_keys
from passband.attacks.threat import Images, Threat, check_images
from passband.core.errors import PassbandError
from passband.models.outputs import check_logits, check_targets
from passband.models.state import Mode, frozen

Labels = Int[Tensor, " batch"]


@dataclass
class Rows:
    """Hold the state of an attack, a row per image.

    Attributes:
        images: The untouched images, [B, C, H, W] in [0, 1].
        labels: int64 [B], the classes to lead away from, or to lead to in a targeted attack.
        keys: int64 [B], the source of each image's random numbers (:mod:`passband.attacks.chance`).
        clean: Logits of the untouched images [B, K]; [B, 0] where the attack needs none.
        points: What the model is asked about next, [B, C, H, W] in [0, 1].
        step: int64 [B], how many answers each row has had.
        done: bool [B], set by an attack that ends a row before its last query.
        memory: What the attack keeps beside; each tensor has a row per image.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    clean: Tensor
    points: Tensor
    step: Tensor
    done: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, which: Tensor | slice) -> Rows:
        """Return those rows, by a mask, by places or by a slice."""
        return self._each(lambda tensor: tensor[which])

    def joined(self, other: Rows) -> Rows:
        """Return these rows, then the other's."""
        memory = {name: torch.cat((value, other.memory[name])) for name, value in self.memory.items()}
        return Rows(**{name: torch.cat((value, getattr(other, name))) for name, value in self._plain()}, memory=memory)

    def filled(self, size: int) -> Rows:
        """Fill up to ``size`` by repeating the first row.

        Networks choose other kernels for other batch sizes, whose rounding differs: a full batch keeps the bits.
        """
        missing = size - len(self)
        if missing <= 0:
            return self
        places = torch.arange(size, device=self.step.device)
        return self.take(places.where(places < len(self), 0))

    def _plain(self) -> list[tuple[str, Tensor]]:
        return [(one.name, getattr(self, one.name)) for one in fields(self) if one.name != "memory"]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        memory = {name: change(value) for name, value in self.memory.items()}
        return Rows(**{name: change(value) for name, value in self._plain()}, memory=memory)


@dataclass(frozen=True)
class Said:
    """Hold what the model said of ``rows.points``.

    Attributes:
        logits: [B, K].
        losses: What was to rise, [B] or [B, J]; None where the attack asked for the logits alone.
        gradient: Of each row's losses by its pixels, [B, C, H, W] or [J, B, C, H, W]; None as above.
        fooled: bool [B], the point is a success: the model errs (or answers the goal), inside the threat.
    """

    logits: Tensor
    losses: Tensor | None
    gradient: Tensor | None
    fooled: Tensor


@runtime_checkable
class Search(Protocol):
    """An attack that asks the model about one point of each image at a time.

    All state is in the rows, and no row looks at another: rows may be taken out, put back and joined with
    rows that began later. An attack begins, then is asked for a loss and told the answer ``queries`` times.

    Attributes:
        mode: The model's mode meanwhile.
        targeted: Whether labels are classes to lead to.
        threat: What is allowed; None where nothing bounds the change.
        queries: How many answers a row needs at most.
        needs_clean: Whether ``begin`` needs the logits of the untouched images.

    A search may say more: ``seed``, of its random numbers; ``period``, the answers of one climb of one loss;
    ``alternation``, after how many questions their kinds repeat; ``black_box``, that it follows no gradient.
    """

    @property
    def mode(self) -> Mode: ...
    @property
    def targeted(self) -> bool: ...
    @property
    def threat(self) -> Threat | None: ...
    @property
    def queries(self) -> int: ...
    @property
    def needs_clean(self) -> bool: ...

    def begin(self, rows: Rows) -> None:
        """Set the first points, which are the untouched images until then, and the memory."""
        ...

    def losses(self, logits: Tensor, rows: Rows) -> Tensor | None:
        """Return what should rise, [B] (or [B, J] for J gradients a row); None asks for no gradient."""
        ...

    def advance(self, rows: Rows, said: Said) -> None:
        """Move ``rows.points`` on and change the memory, given the answer; the step is counted elsewhere.

        Tensors are replaced, never changed in place: a point that fooled the model is still wanted.
        """
        ...

    def answer(self, rows: Rows) -> Tensor:
        """Return the adversarial images as they now stand."""
        ...


def begun(attack: Search, images: Tensor, labels: Tensor, clean: Tensor | None = None) -> Rows:
    """Begin an attack on some images.

    Args:
        attack: How to search.
        images: [B, C, H, W] in [0, 1].
        labels: int64 [B].
        clean: Logits of the untouched images, where they are known.
    """
    count, device = len(images), images.device
    rows = Rows(
        images=images,
        labels=labels,
        keys=image_keys(images, getattr(attack, "seed", 0)),
        clean=images.new_zeros(count, 0) if clean is None else clean,
        points=images.clone(),
        step=torch.zeros(count, dtype=torch.int64, device=device),
        done=torch.zeros(count, dtype=torch.bool, device=device),
    )
    attack.begin(rows)
    return rows


def asked(attack: Search, model: nn.Module, rows: Rows, *, check: bool = False) -> Said:
    """Ask the model about each row's point.

    Args:
        attack: How to search.
        model: Images in [0, 1] in, logits out; no parameter asks for a gradient.
        rows: Where the attack stands.
        check: Look at logits and labels; on a GPU that waits, so a loop checks once.
    """
    # What never follows a gradient records nothing for one.
    blind = bool(getattr(attack, "black_box", False))
    with torch.set_grad_enabled(not blind):
        points = rows.points.detach().requires_grad_(not blind)
        logits: Tensor = model(points)
        if check:
            check_targets(rows.labels, check_logits(logits, len(points)).shape[1])
        losses = attack.losses(logits, rows)
        if losses is not None and not losses.requires_grad:
            raise blocked(type(attack).__name__, cure="let gradients through, or attack with square")
        gradient = None if losses is None else _gradient(losses, points)
    logits = logits.detach()
    return Said(logits, None if losses is None else losses.detach(), gradient, fooled(attack, logits, rows))


def fooled(
    attack: Search, logits: Float[Tensor, "batch classes"], rows: Rows, points: Tensor | None = None
) -> Bool[Tensor, " batch"]:
    """Tell where a point is a success: the model errs, or answers the goal, and the threat allows the point."""
    hit = logits.argmax(1) == rows.labels
    success = hit if attack.targeted else ~hit
    if attack.threat is None:
        return success
    distance = attack.threat.distance(rows.points if points is None else points, rows.images)
    # A point at the ball's edge may lie outside by the rounding of a sum.
    return success & (distance <= attack.threat.eps * (1 + 1e-5) + 1e-6)


def searched(attack: Search, model: nn.Module, images: Images, labels: Labels) -> Images:
    """Run an attack on one batch to its end, and return its answer for each image.

    Raises:
        PassbandError: when images or labels are out of range, or the model gives NaN.
    """
    check_images(images)
    check_labels(labels, images)
    threat = attack.threat
    if threat is not None and threat.eps == 0:
        return images.detach().clone()
    with frozen(model, attack.mode):
        clean = None
        if attack.needs_clean:
            with torch.no_grad():
                clean = check_logits(model(images), len(images))
        rows = begun(attack, images.detach(), labels, clean)
        answers = torch.empty_like(images)
        places = torch.arange(len(images), device=images.device)
        first = True
        while len(rows):
            ended = rows.done | (rows.step >= attack.queries)
            if bool(ended.any()):
                over = rows.take(ended)
                answers[places[ended]] = attack.answer(over)
                rows, places = rows.take(~ended), places[~ended]
                continue
            said = asked(attack, model, rows, check=first)
            first = False
            attack.advance(rows, said)
            rows.step = rows.step + 1
    return answers


def check_labels(labels: Tensor, images: Tensor) -> None:
    """Refuse labels that are no class index per image.

    Raises:
        PassbandError: naming what came.
    """
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or labels.device != images.device:
        came = f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)} on {labels.device}"
        raise PassbandError(
            f"labels are class indices, int64 [{len(images)}] on {images.device} as the images; got {came}"
        )


def blocked(name: str, cure: str) -> PassbandError:
    """Build the error for an attack that follows a gradient, where none reaches the images."""
    where = "torch.no_grad or NumPy in the model's forward"
    return PassbandError(f"no gradient reaches the images ({where}), and {name} follows one; {cure}")


def _gradient(losses: Tensor, points: Tensor) -> Tensor:
    """Return each row's own gradient: rows do not meet in the model, so the sum's gradient holds them apart."""
    if losses.ndim == 1:
        (gradient,) = torch.autograd.grad(losses.sum(), points)
        return gradient
    sums: Any = losses.sum(0)
    return torch.stack([torch.autograd.grad(one, points, retain_graph=True)[0] for one in sums])
