"""Robust accuracy over ε: which images of a data set a model still gets right under attack, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.cascade import COUNTED, STANDS, Verdict, cascade, couples_batch
from passband.attacks.doubts import Doubt, of_black_box, of_outputs, of_search
from passband.attacks.packing import logits_of, working_size
from passband.attacks.pieces import Pieces, identity_of
from passband.attacks.registry import Attack, Searching, members_of, norm_of
from passband.attacks.shards import Found, Shard, shards
from passband.attacks.threat import Norm, check_images, threat_of
from passband.core.errors import PassbandError, unknown
from passband.core.statistics import wilson
from passband.core.store import make_folder
from passband.models.fast import Fast, Precision, fast
from passband.models.outputs import check_logits, check_targets
from passband.models.state import exact, frozen, uses_batch_statistics


@dataclass(frozen=True)
class RobustAccuracy:
    """Hold who stands at each ε, and by which attack the others fell.

    Attributes:
        attacks: The attacks, printed, in the order in which they ran.
        eps: Radii, pixels in [0, 1].
        clean: bool [N], right when untouched.
        fell_to: int8 [eps, N], place in ``attacks`` of the one that broke the image, `STANDS` or `WRONG`.
        prediction: int64 [eps, N], the model's answer to the adversarial image that was judged last.
        l2: float32 [eps, N], Euclidean length of that image's change; 0 where none was judged.
        linf: float32 [eps, N], its largest change of a pixel.
        queries: int64 [eps, N], how often all attacks asked about the image, judgments apart.
        norm: The norm of eps; None where nothing bounds the attacks.
        verdict: What fallen means: ``"any"``, an iterate fooled the model; ``"last"``, the attack's answer did.
        working_batch: Images that went through the model at a time.
        doubts: Signs that the number says less than it seems.
        batch_dependence: Why other batches could give other verdicts; empty where they could not.
        how: What was done for speed, by name.
    """

    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    clean: np.ndarray = field(repr=False)
    fell_to: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    l2: np.ndarray = field(repr=False)
    linf: np.ndarray = field(repr=False)
    queries: np.ndarray = field(repr=False)
    norm: Norm | None
    verdict: Verdict
    working_batch: int
    doubts: tuple[Doubt, ...]
    batch_dependence: tuple[str, ...]
    how: dict[str, Any] = field(repr=False)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.clean)

    @property
    def correct(self) -> np.ndarray:
        """bool [eps, N], in the order of the batches: right untouched and broken by no attack."""
        correct: np.ndarray = self.fell_to == STANDS
        return correct

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Share of images that stand after all attacks, per ε."""
        return tuple(float(row.mean()) for row in self.correct)

    def after(self, place: int) -> tuple[float, ...]:
        """Return the share that still stood after the attack at ``place``, per ε; later ones saw only those."""
        return tuple(float(((row == STANDS) | (row > place)).mean()) for row in self.fell_to)

    def intervals(self, level: float = 0.95) -> tuple[tuple[float, float], ...]:
        """Return the Wilson interval of the accuracy, per ε."""
        return tuple(wilson(int(row.sum()), self.count, level) for row in self.correct)


def robust_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    attacks: Attack | Sequence[Attack],
    eps: Sequence[float] | float | None = None,
    *,
    verdict: Verdict = "any",
    scale: bool = True,
    working_batch: int | None = None,
    precision: Precision = "float32",
    folding: bool = True,
    compile: bool = False,
    resume: Path | None = None,
) -> RobustAccuracy:
    """Measure accuracy under the worst of some attacks over several ε, on a whole data set.

    Only images that the model gets right untouched are attacked, and each attack sees only what the ones
    before it left standing. A faster form of the model (batch norms folded, channels_last, bf16 if asked)
    proposes the points; the verdict on each is the model's own, in the images' precision. Rows of a working
    batch are free of each other and of one fixed size, so that neither the caller's batches nor the order of
    the images changes a verdict; ``batch_dependence`` says where that cannot be promised.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: ``(images, targets)``; a target is a label, or the prediction to lead away from. For a
            targeted attack every image is led to its least likely class, and falls when the model answers that.
        attacks: How to search, one or several, strongest last; an ensemble's members run one by one.
        eps: Radii, in the attack's norm; at 0 the untouched image is judged. None takes each attack's own.
            What no ε bounds (noise, CW) has the same verdict at each; a search for the smallest change is
            read off: an image stands at ε when its smallest change is larger.
        verdict: ``"any"``: an image has fallen when any iterate fools the model; ``"last"``: when the attack's
            answer does, which is torchattacks' reading.
        scale: Keep the attacks' alpha/eps at each ε, rather than alpha.
        working_batch: Images at a time; None takes 32 on a CPU and 256 elsewhere.
        precision: Of the gradients; ``"bf16"`` finds other points than ``"float32"``, judged all the same.
        folding: Whether batch norms are folded into convolutions.
        compile: Whether the faster form goes through ``torch.compile``.
        resume: A folder where what is finished is kept; the same call finds it done.

    Raises:
        PassbandError: when images, labels or ε are out of range, there is no image, the model gives NaN, or an
            attack runs in training mode, which would mix the images of a batch.
    """
    given = tuple(attacks) if isinstance(attacks, list | tuple) else (attacks,)
    for attack in given:
        if isinstance(attack, type) or not isinstance(attack, Attack):
            raise PassbandError(f"attacks are values such as PGD(), or make('pgd'); got {attack!r}")
    members = tuple(member for attack in given for member in members_of(attack))
    _check(members, verdict)
    norm = next((one for member in members if (one := norm_of(member)) is not None), None)
    radii = (_own_eps(given),) if eps is None else _radii(eps, norm)
    plan = [_at(given, radius, scale) if eps is not None else members for radius in radii]
    size = working_batch or working_size(model)
    if size < 1:
        raise PassbandError(f"working_batch is 1 or more; got {size}")
    asked = repr((members, radii, verdict, scale, size, precision, folding, compile))
    device = next((parameter.device for parameter in model.parameters()), None)
    folder = None if resume is None else make_folder(Path(resume))
    with frozen(model), exact():
        cut = shards(batches, device or torch.device("cpu"))
        first = next(cut, None)
        if first is None:
            raise PassbandError("there is no image to attack; give at least one")
        asking = _Asking.of(model, first, size, folding=folding, precision=precision, compile=compile)
        pieces = Pieces() if folder is None else Pieces(folder, identity_of(model, asked, asking.first))
        queue = chain([first], cut)
        del first  # many images, and in the queue

        def attacked(place: int, shard: Shard) -> Found:
            logits = _logits(asking.judge, shard, size) if place else asking.first
            return cascade(asking.judge, asking.form.module, shard, logits, plan, radii, verdict, size)

        found = pieces.all(
            (shard.fingerprint() if folder else place, partial(attacked, place, shard))
            for place, shard in enumerate(map(_checked, queue))
        )
    whole = Found.merged(found)
    return RobustAccuracy(
        attacks=tuple(str(member) for member in members),
        eps=radii,
        **whole.arrays,
        norm=norm,
        verdict=verdict,
        working_batch=size,
        doubts=(*asking.doubts, *_doubts(whole, members)),
        batch_dependence=_dependence(model, members, asking.placed),
        how=dict(asking.form.how),
    )


@dataclass(frozen=True)
class _Asking:
    """Hold how a model is asked, and what shows when it is asked about the first images.

    Attributes:
        form: Its fast form.
        judge: Gives the verdicts.
        first: Answers to the first shard, untouched.
        doubts: Signs that answers are random.
        placed: Whether an answer depends, if only by rounding, on its place in a working batch.
    """

    form: Fast
    judge: nn.Module
    first: Tensor
    doubts: tuple[Doubt, ...]
    placed: bool

    @classmethod
    def of(cls, model: nn.Module, shard: Shard, size: int, **speed: Any) -> _Asking:
        sample = _checked(shard).images[:size]
        form = fast(model, sample[:16], **speed)
        judge = form.given(model)
        logits = _logits(judge, shard, size)
        # Asked again in another order: what differs by more than rounding is random, what differs at all
        # depends on an image's place in the working batch.
        again = logits_of(judge, sample.roll(1, 0), size).roll(-1, 0)
        return cls(form, judge, logits, of_outputs(logits[:size], again), not torch.equal(logits[:size], again))


def _checked(shard: Shard) -> Shard:
    check_images(shard.images)
    return shard


def _check(members: Sequence[Attack], verdict: Verdict) -> None:
    """Refuse what cannot be evaluated."""
    if verdict not in get_args(Verdict):
        raise unknown("verdict", verdict, get_args(Verdict))
    if not members:
        raise PassbandError("there is no attack; give at least one, such as PGD()")
    norms = {norm for member in members if (norm := norm_of(member)) is not None}
    if len(norms) > 1:
        raise PassbandError("the attacks measure eps in different norms, Linf and L2; evaluate them apart")
    for attack in members:
        if attack.mode != "eval":
            raise PassbandError(
                f"an evaluation attacks the model in evaluation mode; mode '{attack.mode}' is for training alone"
            )


def _logits(model: nn.Module, shard: Shard, size: int) -> Tensor:
    """Return the model's answers to the untouched images."""
    logits = check_logits(logits_of(model, shard.images, size), len(shard.images))
    check_targets(shard.targets, logits.shape[1])
    return logits


def _at(given: Sequence[Attack], radius: float, scale: bool) -> tuple[Attack, ...]:
    """Return the attacks at one radius; none at 0, where the untouched image is judged."""
    if radius == 0:
        return ()
    return tuple(member for attack in given for member in members_of(attack.at(radius, scale=scale)))


def _own_eps(given: Sequence[Attack]) -> float:
    """Return the ε that the attacks have of their own; infinite where nothing bounds them.

    Raises:
        PassbandError: when they differ.
    """
    own = {_eps_of(member) for attack in given for member in members_of(attack)}
    if len(own) > 1:
        raise PassbandError(f"the attacks have different eps ({', '.join(f'{e:g}' for e in sorted(own))}); give eps")
    return own.pop()


def _eps_of(attack: Attack) -> float:
    if norm_of(attack) is None or getattr(attack, "minimal", None) is not None:
        return float("inf")
    threat = attack.search().threat if isinstance(attack, Searching) else None
    return float(threat.eps if threat is not None else getattr(attack, "eps", float("inf")))


def _radii(eps: Sequence[float] | float, norm: Norm | None) -> tuple[float, ...]:
    """Return ε as a tuple, refusing what is no radius in the attacks' norm."""
    radii = (float(eps),) if isinstance(eps, int | float) else tuple(float(radius) for radius in eps)
    if not radii:
        raise PassbandError("there is no eps; give at least one, such as 8/255")
    for radius in radii:
        threat_of(norm or "Linf", radius)
    return radii


def _doubts(found: Found, members: Sequence[Attack]) -> tuple[Doubt, ...]:
    """Look at what each attack saw, over all ε."""
    doubts: list[Doubt] = []
    blind = [bool(getattr(member, "black_box", False)) for member in members]
    for place, member in enumerate(members[: found.counts["attacked"].shape[1]]):
        attacked, silent, fell, broke = (int(found.counts[name][:, place].sum()) for name in COUNTED)
        name = type(member).__name__
        if not blind[place]:
            doubts += of_search(name, silent, fell, attacked, attacked - broke)
        elif norm_of(member) is not None and any(_climbs(other) for other in members[:place]):
            doubts += of_black_box(name, broke, attacked)
    return tuple(doubts)


def _climbs(attack: Attack) -> bool:
    """Tell whether an attack takes more than one step along gradients."""
    return isinstance(attack, Searching) and not getattr(attack, "black_box", False) and attack.search().queries > 1


def _dependence(model: nn.Module, members: Sequence[Attack], placed: bool) -> tuple[str, ...]:
    """Say why other batches could give other verdicts."""
    why = [f"{type(member).__name__} couples the images of a batch" for member in members if couples_batch(member)]
    names = [type(one).__name__ for one in members if not (isinstance(one, Searching) or couples_batch(one))]
    why += [f"{name} is given whole batches, and may look from image to image" for name in names]
    if uses_batch_statistics(model):
        why.append("the model normalizes by the statistics of each batch")
    if placed:
        why.append("the model's answer to an image depends, if only by rounding, on its place in a batch")
    return tuple(why)
