"""Many images under one attack: those that have fallen leave, others take their places, the model itself judges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from passband.attacks.packing import logits_of
from passband.attacks.search import Rows, Said, Search, asked, begun, fooled


@dataclass
class Outcome:
    """Hold what one attack did to each image.

    Attributes:
        stands: bool [N], the attack did not change the model's verdict.
        prediction: int64 [N], the model's answer to the adversarial image that was judged last.
        l2: float [N], Euclidean length of that image's change.
        linf: float [N], its largest change of a pixel.
        queries: int64 [N], how often the image was asked about, judgments apart.
        silent: bool [N], the first gradient was zero everywhere.
        fell: bool [N], the loss that should rise was lower at the last answer than at the first.
    """

    stands: Tensor
    prediction: Tensor
    l2: Tensor
    linf: Tensor
    queries: Tensor
    silent: Tensor
    fell: Tensor

    @classmethod
    def of(cls, count: int) -> Outcome:
        """Return the outcome of ``count`` images that nothing was done to."""
        no, number, real = (torch.zeros(count, dtype=kind) for kind in (torch.bool, torch.int64, torch.float32))
        return cls(~no, number - 1, real, real.clone(), number, no, no.clone())

    def take(self, which: Tensor) -> Outcome:
        """Return the outcome of some of the images."""
        return Outcome(**{name: value[which] for name, value in vars(self).items()})

    def put(self, places: Tensor, other: Outcome) -> None:
        """Write the outcome of some of the images."""
        for name, value in vars(other).items():
            getattr(self, name)[places] = value

    def judged(self, places: Tensor, success: Tensor, logits: Tensor, points: Tensor, images: Tensor) -> None:
        """Write the verdicts on some points."""
        change = (points - images).float()
        self.stands[places] = ~success.cpu()
        self.prediction[places] = logits.argmax(1).cpu()
        self.l2[places] = torch.linalg.vector_norm(change, dim=(1, 2, 3)).cpu()
        self.linf[places] = change.abs().amax((1, 2, 3)).cpu()


@dataclass
class _Group:
    """Rows with their places in the outcome, which are on the CPU."""

    rows: Rows
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def take(self, which: Tensor) -> _Group:
        return _Group(self.rows.take(which), self.places[which.cpu()])

    def first(self, count: int) -> _Group:
        return _Group(self.rows.take(slice(0, count)), self.places[:count])

    def after(self, count: int) -> _Group:
        return _Group(self.rows.take(slice(count, None)), self.places[count:])

    def joined(self, other: _Group) -> _Group:
        """Return both; neither is copied where the other is empty."""
        if not len(other) or not len(self):
            return self if len(self) else other
        return _Group(self.rows.joined(other.rows), torch.cat((self.places, other.places)))


@dataclass
class _Candidate:
    """Points to be judged, with the rows that go on from there where the judgment refutes them."""

    points: Tensor
    group: _Group
    final: Tensor
    """bool: the point is the attack's answer; the row has nothing further to try."""


def pooled(
    attack: Search,
    fast: nn.Module,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    clean: Tensor,
    outcome: Outcome,
    *,
    size: int,
    early: bool,
) -> Iterator[int]:
    """Attack images and write into ``outcome``, yielding the place of each image as it is judged.

    A working batch of ``size`` rows goes through ``fast``, which proposes; a row leaves when a point fools it
    (``early``) or when the attack has ended, and the next image takes its place. ``model`` itself judges each
    proposed point; a row whose point it refutes goes on. Images with the largest margin go first, so that
    those that stay longest do not run alone at the end; no row sees another, so the order changes no bits.

    Args:
        attack: How to search.
        fast: Proposes: the model, or a faster form of it.
        model: Judges.
        images: [N, C, H, W], all that the model gets right untouched.
        labels: int64 [N].
        clean: The model's logits of the untouched images, [N, K].
        outcome: Of N images, written in place.
        size: Rows at a time, always: an incomplete batch is filled up.
        early: Whether any iterate counts, rather than the attack's answer alone.
    """
    queue = _by_margin(clean, labels)
    images = images.contiguous(memory_format=torch.channels_last)
    active, queue = _begun(attack, images, labels, clean, queue[:size]), queue[size:]
    back = active.first(0)
    waiting: list[_Candidate] = []
    # An attack whose questions alternate between kinds says after how many they repeat: rows that keep step save
    # the gradients that only some kinds need.
    kinds, turn = getattr(attack, "alternation", 1), 0
    while True:
        free = size - len(active)
        if free and len(back):
            active, back = active.joined(back.first(free)), back.after(free)
        elif free and len(queue) and (turn % kinds == 0 or not len(active)):
            active, queue = active.joined(_begun(attack, images, labels, clean, queue[:free])), queue[free:]
        if len(active):
            active, candidate = _one_query(attack, fast, active, size, early)
            turn = turn + 1 if len(active) else 0
            if len(candidate.group):
                waiting.append(candidate)
        if sum(len(one.group) for one in waiting) >= size or (waiting and not (len(active) or len(back) or len(queue))):
            judged = _judge(attack, model, _merged(waiting), outcome, size)
            waiting, back = judged.again, back.joined(judged.back)
            yield from judged.settled.tolist()
        elif not (len(active) or len(back) or len(queue)):
            return


def _begun(attack: Search, images: Tensor, labels: Tensor, clean: Tensor, places: Tensor) -> _Group:
    rows = begun(attack, images[places], labels[places], clean[places])
    rows.memory[FIRST] = rows.memory[LAST] = torch.zeros(len(rows), device=images.device)
    rows.memory[SILENT] = torch.zeros_like(rows.done)
    return _Group(rows, places)


def _one_query(attack: Search, fast: nn.Module, group: _Group, size: int, early: bool) -> tuple[_Group, _Candidate]:
    """Ask about every row once and move on; return the rows that stay and the points that want a judgment."""
    if attack.queries == 0:
        everything = torch.ones_like(group.rows.done)
        return group.take(~everything), _Candidate(attack.answer(group.rows), group, everything)
    count, rows = len(group), group.rows.filled(size)
    rows.points = rows.points.contiguous(memory_format=torch.channels_last)
    said = asked(attack, fast, rows)
    points = rows.points
    _note(attack, rows, said)
    # Where any iterate counts, a success leaves; the search is not told, so that one which the model refutes goes on.
    told, done = replace(said, fooled=torch.zeros_like(said.fooled)) if early else said, rows.done
    attack.advance(rows, told)
    if early:
        rows.done = torch.where(said.fooled, done, rows.done)
    rows.step = rows.step + 1
    group = _Group(rows if count == size else rows.take(slice(0, count)), group.places)
    success, ended = said.fooled[:count], group.rows.done | (group.rows.step >= attack.queries)
    leaves = ended | success if early else ended
    if not bool(leaves.any()):
        return group, _Candidate(points[:0], group.first(0), ended[:0])
    leaving = group.take(leaves)
    proposed, final = attack.answer(leaving.rows), ended[leaves]
    if early:
        hit = success[leaves]
        proposed = torch.where(hit.view(-1, 1, 1, 1), points[:count][leaves], proposed)
        final = final & ~hit
    return group.take(~leaves), _Candidate(proposed, leaving, final)


@dataclass
class _Judgment:
    settled: Tensor
    back: _Group
    again: list[_Candidate]


def _judge(attack: Search, model: nn.Module, candidate: _Candidate, outcome: Outcome, size: int) -> _Judgment:
    """Let the model decide about proposed points; what it refutes goes on, or is tried by its answer."""
    rows, points = candidate.group.rows, candidate.points
    logits = logits_of(model, points, size)
    success = fooled(attack, logits, rows, points)
    settled = success | candidate.final
    over = candidate.group.take(settled)
    where = over.places
    outcome.judged(where, success[settled], logits[settled], points[settled], over.rows.images)
    outcome.queries[where] = over.rows.step.cpu()
    outcome.silent[where] = over.rows.memory[SILENT].cpu()
    outcome.fell[where] = (over.rows.memory[LAST] < over.rows.memory[FIRST]).cpu()
    ended = rows.done | (rows.step >= attack.queries)
    last = candidate.group.take(~settled & ended)
    again = [_Candidate(attack.answer(last.rows), last, torch.ones_like(last.rows.done))] if len(last) else []
    return _Judgment(where, candidate.group.take(~settled & ~ended), again)


def _merged(candidates: list[_Candidate]) -> _Candidate:
    group = candidates[0].group
    for one in candidates[1:]:
        group = group.joined(one.group)
    points = torch.cat([one.points for one in candidates])
    return _Candidate(points, group, torch.cat([one.final for one in candidates]))


FIRST, LAST, SILENT = "first loss", "last loss", "silent"


def _note(attack: Search, rows: Rows, said: Said) -> None:
    """Remember what makes an attack doubtful: no gradient at the start, a loss that ends below its beginning.

    An attack that climbs one loss says by ``period`` how many answers a climb has; the first is looked at.
    """
    if said.losses is None or said.gradient is None or said.losses.ndim > 1:
        return
    begins, losses = rows.step == 0, said.losses.float()
    rows.memory[SILENT] = rows.memory[SILENT] | (begins & ~said.gradient.flatten(1).any(1))
    climb = getattr(attack, "period", 0)
    rows.memory[FIRST] = torch.where(begins & (climb > 0), losses, rows.memory[FIRST])
    rows.memory[LAST] = torch.where(rows.step < climb, losses, rows.memory[LAST])


def _by_margin(clean: Tensor, labels: Tensor) -> Tensor:
    """Return places, the image that the model is surest of first."""
    rivals = clean.scatter(1, labels[:, None], float("-inf")).amax(1)
    return (clean.gather(1, labels[:, None])[:, 0] - rivals).argsort(descending=True).cpu()
