"""The one training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.store import explain_disk
from passband.data.augment import TrainBatches
from passband.data.train_scenes import TrainScenes
from passband.train.checkpoint import Position, State
from passband.train.interrupt import deferred
from passband.train.optim import Schedule
from passband.train.pieces import cut
from passband.train.steps import Step

LOG_EVERY = 50
"""Steps between two lines of the log within an epoch."""


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
        end_epoch: Called after each epoch, before its state is put on disk; may be called again for the same one.
            Returns why the training ends with it, or ``""``.
        log: Where a line goes every ``LOG_EVERY`` steps and at each epoch's end.
        description: What the progress bar says.
        replays: Steps in a row that learn from the same batch; each counts as a step of the epoch.
        pieces: How many pieces a batch is cut into, one after the other on the device.
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
    end_epoch: Callable[[int], str]
    log: Path
    description: str
    replays: int = 1
    pieces: int = 1
    clip: float | None = None
    average: Callable[[int], float] | None = None
    save_seconds: float = 60.0


def fit(fabric: Fabric, state: State, batches: TrainBatches | TrainScenes, plan: Plan) -> None:
    """Train ``state`` in place, from where it stands to the plan's last epoch, or until an epoch's end says so.

    Raises:
        PassbandError: when the loss is not finite, naming the epoch and the step.
        KeyboardInterrupt: when the program was asked to stop; the state was saved before.
    """
    model, optimizer = fabric.setup(state.model, state.optimizer)
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    at, steps = state.position, len(batches) * plan.replays
    began, saved = time.monotonic() - at.seconds, time.monotonic()
    left = (plan.epochs - at.epoch) * steps - at.step
    with deferred() as interrupt:
        for images, targets in track(_stream(batches, state, plan), plan.description, left):
            number = at.epoch * steps + at.step
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * plan.schedule(number / steps, plan.epochs)
            model.train()
            _learn(fabric, model, optimizer, at, plan, images.to(fabric.device), targets.to(fabric.device), number)
            if plan.clip is not None:
                fabric.clip_gradients(model, optimizer, max_norm=plan.clip, error_if_nonfinite=False)
            optimizer.step()
            if state.ema is not None:
                if plan.average is not None:
                    state.ema.decay = plan.average(number + 1)
                state.ema.update(state.model)
            at.step, at.seconds = at.step + 1, time.monotonic() - began
            if at.step == steps:
                _line(plan.log, at, optimizer.param_groups[0]["lr"], plan.evaluate(state.evaluated))
                state.position = at = Position(epoch=at.epoch + 1, log_bytes=at.log_bytes, seconds=at.seconds)
                # What an epoch keeps comes first: a checkpoint must never stand for weights that were not kept.
                at.ended = plan.end_epoch(at.epoch)
                if at.ended:
                    _write(plan.log, at, f"# {at.ended}")
                plan.save()
                saved = time.monotonic()
            elif at.step % LOG_EVERY == 0:
                _line(plan.log, at, optimizer.param_groups[0]["lr"], None)
            if (interrupt.asked or time.monotonic() - saved > plan.save_seconds) and at.step:
                plan.save()
                saved = time.monotonic()
            interrupt.check()


def _learn(
    fabric: Fabric, model: nn.Module, optimizer: Optimizer, at: Position, plan: Plan, images: Tensor, targets: Any,
    number: int,
) -> None:  # fmt: skip
    """Gather the gradient of a batch's mean loss, piece by piece; each piece draws by a number of its own."""
    for index, (part, classes) in enumerate(cut(images, targets, plan.pieces)):
        loss, outputs = plan.step(model, part, classes, number * plan.pieces + index)
        if not index:
            optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss if len(part) == len(images) else loss * (len(part) / len(images)))
        _count(at, loss, len(part))
        scores = plan.score(_detached(outputs), part, classes)
        at.score_sum += math.nan if scores is None else float(scores.sum())


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


def _stream(batches: TrainBatches | TrainScenes, state: State, plan: Plan) -> Iterator[tuple[Tensor, Any]]:
    """Yield every batch from the position on, which the loop moves.

    Randomness depends on seed, epoch and step alone.
    """
    while state.position.epoch < plan.epochs and not state.position.ended:
        first, seen = divmod(state.position.step, plan.replays)
        served = batches.epoch(state.position.epoch, start=first)
        yield from islice((pair for pair in served for _ in range(plan.replays)), seen, None)


def _count(at: Position, loss: Tensor, count: int) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PassbandError(
            f"the loss is {value} at epoch {at.epoch + 1}, step {at.step + 1}; train with a smaller learning rate"
        )
    at.seen += count
    at.loss_sum += value * count


def _line(log: Path, at: Position, rate: float, score: float | None) -> None:
    test = "" if score is None else f"{score:.6f}"
    train = "" if math.isnan(at.score_sum) else f"{at.score_sum / at.seen:.6f}"
    _write(log, at, f"{at.epoch + 1},{at.step},{rate:.6g},{at.loss_sum / at.seen:.6f},{train},{test},{at.seconds:.1f}")


def _write(log: Path, at: Position, line: str) -> None:
    with explain_disk(log), log.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    at.log_bytes = log.stat().st_size


def cut_log(log: Path, length: int, score: str) -> None:
    """Cut the log back to where the checkpoint knew it, or begin it; ``score`` is what the task calls its score."""
    with explain_disk(log), log.open("a+b") as file:
        file.truncate(length)
        if not length:
            file.write(f"epoch,step,lr,loss,train_{score},test_{score},seconds\n".encode())
