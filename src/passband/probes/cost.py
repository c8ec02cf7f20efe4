"""What a model costs: parameters, multiplications, memory, and time, forward and in training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from passband.core.errors import PassbandError, unknown
from passband.core.results import Cell, Column, Result, Table
from passband.core.rounds import interleaved
from passband.data.dataset import Batches
from passband.models.fast import Precision, fast, has_bf16
from passband.models.fold import copied
from passband.probes.counts import Counts, count
from passband.probes.peak import held, peak
from passband.probes.registry import PROBES, TIMED

_MIB = 2**20
_REFUSED = {"unfolded": "Not folded", "layout_kept": "Not in channels last", "not_copied": "Not copied"}
"""What the quick form says was not done, to what a reader is told."""
_FORWARD, _LATENCY, _STEP = "forward", "latency", "training step"


@dataclass(frozen=True)
class _Work:
    """Hold something whose time and memory are taken.

    Attributes:
        run: Does it once, and waits until it is done.
        images: How many images it takes.
        held: Bytes that are there all the time: weights, buffers, an optimizer's state.
        watched: Whether its memory can be measured.
    """

    run: Callable[[], None]
    images: int
    held: int
    watched: bool = True


@PROBES.register("cost")
def cost(
    model: nn.Module,
    batches: Batches,
    *,
    batch: int = 32,
    rounds: int = 7,
    precisions: tuple[str, ...] = get_args(Precision),
    training: bool = True,
    folded: bool = False,
    compiled: bool = False,
    budget: float = 300.0,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Count a model's parameters and multiplications, and measure its memory, its speed and its latency.

    Images per second are those of a forward pass in evaluation mode, without gradients, and of a training step
    (forward, backward, AdamW at a rate of 0) on random targets; the latency is a forward pass of one image. All run on
    copies in channels last, once in each round in an order drawn anew, after a round that is not counted. Reading
    images is in none. Times belong to the machine and to what else it does: the spread is that of the rounds.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: Where the images come from; the first ones, repeated where there are too few.
        batch: Images in a forward pass and in a training step, 2 or more.
        rounds: How often each is timed, 1 or more.
        precisions: What is measured, one after the other: ``"float32"``, ``"bf16"`` (autocast). bf16 is left out on a
            processor without instructions for it, unless the whole command asks for it.
        training: Whether training steps are measured.
        folded: Whether batch norms are folded into convolutions for the forward passes.
        compiled: Whether the forward passes are compiled; their memory is then measured on CUDA devices alone.
        budget: Seconds for each precision after which no round begins.
        precision: ``"bf16"`` measures that alone.

    Returns:
        ``cost.counts`` and ``cost.times`` (Tables). ``FLOPs`` are what fvcore calls so, in training mode: a MAC is 1,
        a normalized element 5, one that is averaged over all positions 1. Memory is the peak: weights, buffers and the
        optimizer's state, and what torch's allocator gave beyond (CUDA) or the tensors that were alive at one time
        (elsewhere; scratch memory of kernels is not among them).

    Raises:
        PassbandError: when an option is out of range, or the model cannot be copied.

    **Source**: spartan, tables II, V and VIII, whose FLOPs, MACs and images per second are of these kinds.
    """
    wanted = (precision,) if precision != "float32" else precisions
    _check(batch, wanted)
    images = _images(batches, batch)
    counts = count(model, images.contiguous())  # code with `view` counts on it
    notes, rows = [], []
    used: dict[str, Any] = {}
    for one in dict.fromkeys(wanted):
        if one == "bf16" and precision != "bf16" and images.device.type == "cpu" and not has_bf16():
            notes.append("bf16 is left out: this processor has no instructions for it.")
            continue
        works, said, used = _works(model, images, one, training, folded, compiled)
        notes += [note for note in said if note not in notes]
        with torch.random.fork_rng():
            seconds = interleaved({name: work.run for name, work in works.items()}, rounds, budget=budget)
            rows += [_row(name, one, works[name], seconds[name], images.device) for name in works]
    how_made = {
        "probe": "cost", "batch": batch, "rounds": rounds, "threads": torch.get_num_threads(),
        "tf32": torch.backends.cudnn.allow_tf32, **used,
    }  # fmt: skip
    return (_counts(counts, images, how_made), _times(rows, tuple(notes), how_made))


TIMED.add("cost")


def _check(batch: int, precisions: tuple[str, ...]) -> None:
    if batch < 2:
        raise PassbandError(f"probe cost: a batch has 2 images or more, as batch norm needs; got {batch}")
    for one in precisions:
        if one not in get_args(Precision):
            raise unknown("precision", one, get_args(Precision))


def _images(batches: Batches, count: int) -> Tensor:
    """Return the first images, repeated where there are too few."""
    first = next(iter(batches.cut(count)))[0]
    return torch.cat([first] * -(-count // len(first)))[:count].contiguous(memory_format=torch.channels_last)


def _works(
    model: nn.Module, images: Tensor, precision: Any, training: bool, folded: bool, compiled: bool
) -> tuple[dict[str, _Work], list[str], dict[str, Any]]:
    sample = images if precision == "bf16" else images[:2]
    quick = fast(model, sample, folding=folded, precision=precision, compile=compiled)
    refused = {key: words for key, words in _REFUSED.items() if key in quick.how and (folded or key != "unfolded")}
    notes = [f"{words}: {quick.how[key]}." for key, words in refused.items()]
    if "changed" in quick.how:
        notes.append(f"bf16 changes {quick.how['changed']}.")
    watched = images.device.type == "cuda" or not quick.how["compiled"]
    size = held([*quick.module.parameters(), *quick.module.buffers()])

    @torch.no_grad()
    def forward(given: Tensor) -> None:
        quick.module(given)
        wait(str(given.device))

    works = {
        _FORWARD: _Work(lambda: forward(images), len(images), size, watched),
        _LATENCY: _Work(lambda: forward(images[:1]), 1, size, watched),
    }
    if training and not any(parameter.requires_grad for parameter in model.parameters()):
        notes.append("No parameter asks for a gradient: there is no training step to measure.")
    elif training:
        layout = torch.channels_last if quick.how["layout"] == "channels_last" else torch.contiguous_format
        works[_STEP] = _training_step(model, images.contiguous(memory_format=layout), precision == "bf16")
    return works, notes, {key: quick.how[key] for key in ("folded", "also_folded", "compiled") if key in quick.how}


def _training_step(model: nn.Module, images: Tensor, bf16: bool) -> _Work:
    """Return a training step on a copy, in training mode and in the layout of the images."""
    learner = copied(model).train()
    for parameter in learner.parameters():
        if parameter.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    learned = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    # The rate is zero, which costs the same: random targets lead no weight astray.
    optimizer = torch.optim.AdamW(learned, lr=0.0)
    kind = images.device.type

    def run() -> None:
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            logits = learner(images)
        loss = F.cross_entropy(logits.float(), torch.arange(len(images), device=images.device) % logits.shape[1])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(str(images.device))

    with torch.random.fork_rng():
        run()  # the optimizer makes its state now
    state = [one for kept in optimizer.state.values() for one in kept.values() if isinstance(one, Tensor)]
    return _Work(run, len(images), held([*learner.parameters(), *learner.buffers(), *state]))


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _row(name: str, precision: str, work: _Work, seconds: list[float], device: torch.device) -> tuple[Cell, ...]:
    # The gradients that a first backward pass lays out anew are among the rounds' own.
    memory = (work.held + peak(work.run, device)) / _MIB if work.watched else None
    milliseconds = [1e3 * one for one in (median(seconds), min(seconds), max(seconds))]
    speeds = [work.images / one for one in (median(seconds), max(seconds), min(seconds))]
    return (str(device), precision, name, work.images, len(seconds), *milliseconds, *speeds, memory)


def _times(rows: list[tuple[Cell, ...]], notes: tuple[str, ...], how: dict[str, Any]) -> Table:
    return Table(
        name="cost.times",
        title="Time and memory",
        how=how,
        notes=(
            "Median, least and most over rounds, after one round that is not counted.",
            "Memory: weights, buffers, optimizer's state (AdamW), and the peak of what is made beyond, which on a "
            "CUDA device is what torch's allocator gave, elsewhere the tensors alive at one time.",
            *notes,
        ),
        columns=(
            Column(name="device"), Column(name="precision"), Column(name="what"), Column(name="images"),
            Column(name="rounds"), Column(name="time", unit="ms"), Column(name="time, least", unit="ms"),
            Column(name="time, most", unit="ms"), Column(name="speed", unit="images/s"),
            Column(name="speed, least", unit="images/s"), Column(name="speed, most", unit="images/s"),
            Column(name="peak memory", unit="MiB"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _counts(counts: Counts, images: Tensor, how: dict[str, Any]) -> Table:
    height, width = images.shape[-2:]
    macs = (counts.macs, counts.convolutions, counts.linear, counts.products)
    return Table(
        name="cost.counts",
        title="Parameters, and work for one image",
        how=how,
        notes=(
            "MACs are multiplications with addition in convolutions, linear layers and attention's products; what is "
            "done with the weights alone, whatever the number of images, is not among them.",
            "FLOPs as fvcore counts them in training mode: a MAC is 1, a normalized element 5, an element that is "
            "averaged over all positions 1; attention's products are among them here.",
        ),
        columns=(
            Column(name="parameters"), Column(name="learned"), Column(name="input", unit="pixels"),
            Column(name="MACs", unit="M"), Column(name="in convolutions", unit="M"),
            Column(name="in linear layers", unit="M"), Column(name="in attention", unit="M"),
            Column(name="FLOPs", unit="G"),
        ),
        rows=((
            counts.parameters, counts.learned, f"{height}×{width}", *(one / 1e6 for one in macs), counts.flops / 1e9,
        ),),
    )  # fmt: skip
