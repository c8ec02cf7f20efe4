"""The one training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.store import explain_disk
from passband.train.checkpoint import Position, State
from passband.train.interrupt import deferred
from passband.train.optim import Schedule
from passband.train.pieces import cut
from passband.train.ranks import Ranks
from passband.train.steps import Step

T = TypeVar("T")
LOG_EVERY = 50
"""Steps between two lines of the log within an epoch."""
NAMED = 8
"""Images that an error names."""


class Batches(Protocol):
    """Serve the steps of a training, each of which can be repeated."""

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """Yield this rank's images and targets of the epoch's steps, from one on."""
        ...

    def count(self, step: int) -> int:
        """Return how many images a step has, over all ranks."""
        ...

    def ids(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return what the images of a step are called, over all ranks."""
        ...


@dataclass(frozen=True)
class Plan:
    """Say how a training goes: everything the loop needs beside the state that it changes.

    Attributes:
        epochs: When it ends.
        step: One batch to one loss.
        score: What the model gave in a step, images and targets to one score per sample; None where there is none.
        schedule: Epoch to the factor of each group's learning rate.
        evaluate: The model to its mean score on the test set.
        save: Puts the state on disk.
        kept: Says which checkpoint is the last one, for an error.
        end_epoch: Called after each epoch, before its state is put on disk; may be called again for the same one.
            Returns why the training ends with it, or ``""``.
        log: Where a line goes every ``LOG_EVERY`` steps and at each epoch's end.
        description: What the progress bar says.
        replays: Steps in a row that learn from the same batch; each counts as a step of the epoch.
        pieces: How many pieces a rank's share of a batch is cut into, one after the other on the device.
        apart: Whether pieces draw apart from each other, over all ranks; else a step's draws belong to its images.
        synchronized: Whether batch norms see all ranks' images.
        unused: Whether a step may leave out a parameter that learns.
        clip: Largest length of a step's gradient; None leaves it as it is.
        average: A step's number, from 1 on, to the share of the moving average that stays.
        save_seconds: Seconds between two saves within an epoch.
    """

    epochs: int
    step: Step
    score: Callable[[Any, Tensor, Any], Tensor | None]
    schedule: Schedule
    evaluate: Callable[[nn.Module], float]
    save: Callable[[], None]
    kept: Callable[[], str]
    end_epoch: Callable[[int], str]
    log: Path
    description: str
    replays: int = 1
    pieces: int = 1
    apart: bool = False
    synchronized: bool = False
    unused: bool = False
    clip: float | None = None
    average: Callable[[int], float] | None = None
    save_seconds: float = 60.0


def fit(ranks: Ranks, state: State, batches: Batches, plan: Plan) -> None:
    """Train ``state`` in place, from where it stands to the plan's last epoch, or until an epoch's end says so.

    Args:
        ranks: The processes that share the training, each with its own ``batches`` and an equal ``state``.
        state: What learns, and where it stands.
        batches: This rank's share of every step's images.
        plan: All else.

    Raises:
        PassbandError: when the loss or a weight is not finite, naming the epoch, the step, the images and the last good
            checkpoint.
        KeyboardInterrupt: when the program was asked to stop; the state was saved before.
    """
    model, optimizer = ranks.join(state.model, state.optimizer, unused=plan.unused)
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    at, steps = state.position, len(batches) * plan.replays
    began, saved = time.monotonic() - at.seconds, time.monotonic()
    with deferred() as interrupt:
        for images, targets in _shown(ranks, _stream(batches, state, plan), plan, at, steps):
            number = at.epoch * steps + at.step
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * plan.schedule(number / steps, plan.epochs)
            model.train()
            total = batches.count(at.step // plan.replays)
            loss, score = _learn(ranks, model, optimizer, plan, images, targets, number, total)
            due = ranks.first and time.monotonic() - saved > plan.save_seconds
            # One message a step: all ranks count alike, and stop and save in the same step.
            loss, score, asked, overdue = ranks.sum([loss, score, interrupt.asked, due])
            _count(at, loss, score, total, batches, plan)
            _move(ranks, state, model, optimizer, plan, number)
            at.step, at.seconds = at.step + 1, time.monotonic() - began
            if at.step == steps or asked or overdue:
                _check_weights(state, batches, plan)
            if at.step == steps:
                at = _end_epoch(ranks, state, optimizer, plan)
            elif at.step % LOG_EVERY == 0:
                _line(ranks, plan.log, at, optimizer.param_groups[0]["lr"], None)
            if not at.step or asked or overdue:
                plan.save()
                saved = time.monotonic()
            if asked:
                raise KeyboardInterrupt
        if ranks.sum([interrupt.asked])[0]:
            raise KeyboardInterrupt


def _move(ranks: Ranks, state: State, model: nn.Module, optimizer: Optimizer, plan: Plan, number: int) -> None:
    """Move the weights by the gradient, and their moving average behind them."""
    if plan.clip is not None:
        ranks.clip(model, optimizer, plan.clip)
    optimizer.step()
    if not plan.synchronized:
        ranks.level(state.model)
    if state.ema is not None:
        if plan.average is not None:
            state.ema.decay = plan.average(number + 1)
        state.ema.update(state.model)


def _end_epoch(ranks: Ranks, state: State, optimizer: Optimizer, plan: Plan) -> Position:
    """Log an epoch, keep what it keeps, and return where the training stands then."""
    at = state.position
    _line(ranks, plan.log, at, optimizer.param_groups[0]["lr"], plan.evaluate(state.evaluated))
    state.position = at = Position(epoch=at.epoch + 1, log_bytes=at.log_bytes, seconds=at.seconds)
    # What an epoch keeps comes first: a checkpoint must never stand for weights that were not kept.
    at.ended = plan.end_epoch(at.epoch)
    if at.ended:
        _write(ranks, plan.log, at, f"# {at.ended}")
    return at


def _shown(ranks: Ranks, served: Iterator[T], plan: Plan, at: Position, steps: int) -> Iterable[T]:
    """Show how far the training is, once for all ranks."""
    left = (plan.epochs - at.epoch) * steps - at.step
    return track(served, plan.description, left) if ranks.first else served


def _learn(
    ranks: Ranks, model: nn.Module, optimizer: Optimizer, plan: Plan, images: Tensor, targets: Any, number: int,
    total: int,
) -> tuple[float, float]:  # fmt: skip
    """Gather the gradient of a step's mean loss, piece by piece, each of which draws by a number of its own.

    Returns:
        This rank's sums over its images: of the loss, and of the score.
    """
    device, losses, tally = ranks.fabric.device, 0.0, 0.0
    pieces = list(cut(images.to(device), targets.to(device), plan.pieces))
    first = (number * ranks.world + ranks.rank) * plan.pieces if plan.apart else number
    for index, (part, classes) in enumerate(pieces):
        with ranks.gathering(model, last=index == len(pieces) - 1):
            loss, outputs = plan.step(model, part, classes, first + index)
            if not index:
                optimizer.zero_grad(set_to_none=True)
            # A rank's gradient counts as one of `world` that are averaged.
            share = len(part) * ranks.world
            ranks.fabric.backward(loss if share == total else loss * (share / total))
        losses += float(loss.detach()) * len(part)
        scores = plan.score(_detached(outputs), part, classes)
        tally += math.nan if scores is None else float(scores.sum())
    return losses, tally


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


def _stream(batches: Batches, state: State, plan: Plan) -> Iterator[tuple[Tensor, Any]]:
    """Yield every batch from the position on, which the loop moves.

    Randomness depends on seed, epoch and step alone.
    """
    while state.position.epoch < plan.epochs and not state.position.ended:
        first, seen = divmod(state.position.step, plan.replays)
        served = batches.epoch(state.position.epoch, start=first)
        yield from islice((pair for pair in served for _ in range(plan.replays)), seen, None)


def _count(at: Position, loss: float, score: float, total: int, batches: Batches, plan: Plan) -> None:
    if not math.isfinite(loss):
        what = f"the loss is {loss / total} at epoch {at.epoch + 1}, step {at.step + 1}"
        raise PassbandError(_not_finite(what, at.epoch, at.step, batches, plan))
    at.seen += total
    at.loss_sum += loss
    at.score_sum += score


def _check_weights(state: State, batches: Batches, plan: Plan) -> None:
    """Refuse to keep weights that are lost: a checkpoint is what a training goes back to."""
    at = state.position
    for name, weight in state.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            what = f"weight {name} is not finite after epoch {at.epoch + 1}, step {at.step}"
            raise PassbandError(_not_finite(what, at.epoch, at.step - 1, batches, plan))


def _not_finite(what: str, epoch: int, step: int, batches: Batches, plan: Plan) -> str:
    ids = batches.ids(epoch, step // plan.replays)
    shown = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
    return f"{what} (images {shown}); {plan.kept()}; train with a smaller learning rate, or look at those images"


def _line(ranks: Ranks, log: Path, at: Position, rate: float, score: float | None) -> None:
    test = "" if score is None else f"{score:.6f}"
    train = "" if math.isnan(at.score_sum) else f"{at.score_sum / at.seen:.6f}"
    line = f"{at.epoch + 1},{at.step},{rate:.6g},{at.loss_sum / at.seen:.6f},{train},{test},{at.seconds:.1f}"
    _write(ranks, log, at, line)


def _write(ranks: Ranks, log: Path, at: Position, line: str) -> None:
    if not ranks.first:
        return
    with explain_disk(log), log.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    at.log_bytes = log.stat().st_size


def cut_log(log: Path, length: int, score: str) -> None:
    """Cut the log back to where the checkpoint knew it, or begin it; ``score`` is what the task calls its score."""
    with explain_disk(log), log.open("a+b") as file:
        if file.seek(0, os.SEEK_END) < length:
            raise PassbandError(f"{log} is shorter than its checkpoint knew it; remove {log.parent} to train anew")
        file.truncate(length)
        if not length:
            file.write(f"epoch,step,lr,loss,train_{score},test_{score},seconds\n".encode())
