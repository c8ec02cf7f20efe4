"""The training sampler of photographs that are read anew in each epoch, whose every step can be repeated."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from passband.core.errors import PassbandError
from passband.data.augment import Augmentation
from passband.data.stream_order import Order, lanes_of
from passband.data.stream_samples import Chunk, Cut, Lane, Reading
from passband.data.stream_source import StreamSet

FEW = 1000
"""Photographs up to which the program reads them itself, and above which helpers do."""
MOST_HELPERS = 32
PREFETCH = 2
"""Steps that a helper is ahead."""
GIVEN_BACK = 2**20
"""Bytes from which on a helper gives memory back to the system when it is freed."""
_MMAP_THRESHOLD = -3
"""What glibc's malloc.h calls that limit."""


@dataclass(frozen=True, eq=False)
class TrainStream:
    """Serve a stream for training, in another order in each epoch.

    An epoch is cut into lanes (``data/stream_order.py``), and a step is made of as many samples of each. Its images
    depend on (seed, epoch, step) alone: neither the number of ranks nor that of helpers changes one, and a run
    continued at any step sees what the unbroken run would have seen; shards that lie before it are not opened. All
    steps are of one size: what is left over of an epoch goes unseen in it, other samples in each.

    Attributes:
        dataset: What to train on.
        batch: Samples in a step, over all ranks, 2 or more.
        augment: Applied in order to each lane's share of a step, after the set's view.
        seed: 0 or more.
        cut: Takes a window out of the photograph itself; None brings the whole of it to the set's size.
        skip_bad: Put the next sample of the lane that can be read in the place of one that cannot be, and name it in
            :attr:`notes`; else such a one ends the training.
        helpers: Processes that read and augment; None for as many as there are cores to a rank, none for a small set.
        rank: Which share of each step is served.
        world: How many shares there are.

    Raises:
        PassbandError: when there are too few images for a step, or a step cannot be shared among so many.
    """

    dataset: StreamSet
    batch: int
    augment: tuple[Augmentation, ...] = ()
    seed: int = 0
    cut: Cut | None = None
    skip_bad: bool = False
    helpers: int | None = None
    rank: int = 0
    world: int = 1
    _bad: dict[str, str] = field(default_factory=dict, repr=False)
    _ignored: dict[str, None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.batch < 2 or not len(self):
            raise PassbandError(
                f"a training step holds at least two images, and an epoch of a stream whole steps; got batches of "
                f"{self.batch} from {len(self.dataset)} images; give another batch"
            )
        if self.lanes % self.world:
            raise PassbandError(
                f"{self.dataset.name} is read in {self.lanes} lanes, which {self.world} processes cannot share; give "
                f"as many processes as divide {self.lanes}, or a batch and shards that more powers of two divide"
            )

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        return sum(self.dataset.lengths) // self.lanes // (self.batch // self.lanes)

    @cached_property
    def lanes(self) -> int:
        """Into how many lanes an epoch is cut; whoever reads it, however many they are."""
        return lanes_of(self.dataset.lengths, self.batch)

    def share(self, rank: int, world: int) -> TrainStream:
        """Return these batches as one of ``world`` ranks sees them: an equal part of each step, of its own lanes."""
        return replace(self, rank=rank, world=world)

    def count(self, step: int) -> int:
        """Return how many samples a step has, over all ranks."""
        return self.batch

    def ids(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return what the samples of a step are called, over all ranks, without opening a shard."""
        order, share = self._order(epoch), self.batch // self.lanes
        places = [at for lane in range(self.lanes) for at in order.samples(lane, step * share, (step + 1) * share)]
        return tuple(self.dataset.source.id(shard, index) for shard, index in places)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a result must know of what was served so far to this rank."""
        name, said = self.dataset.name, list(self.dataset.notes)
        if self._bad:
            first = min(self._bad)
            said.append(
                f"{name}: {len(self._bad)} samples could not be read, and others stood in for them: "
                f"{', '.join(sorted(self._bad)[:10])}; the first: {self._bad[first]}"
            )
        if self._ignored:
            shown = ", ".join(sorted(self._ignored)[:5])
            said.append(
                f"{name}: {len(self._ignored)} members of shards were passed over, being no plain files: {shown}"
            )
        return tuple(said)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the steps of an epoch from ``start`` on: float32 [B, 3, H, W] in [0, 1], channels_last, and targets."""
        blocks, turns = self._crew()
        helped = self.helpers != 0 and blocks * turns > 1
        loader: DataLoader[Chunk] = DataLoader(
            _Epoch(self, number, start, blocks, turns),
            batch_size=None,
            num_workers=blocks * turns if helped else 0,
            collate_fn=_as_it_is,
            prefetch_factor=PREFETCH if helped else None,
            worker_init_fn=_begin if helped else None,
            multiprocessing_context="fork" if helped else None,  # augmentations are closures
            generator=torch.Generator(),  # or each epoch would draw a number from torch's own, a resumed one too
        )
        served = iter(loader)
        for _ in range(start, len(self)):
            yield self._together([self._next(served) for _ in range(blocks)])

    def _order(self, epoch: int) -> Order:
        return Order(self.dataset.lengths, self.lanes, self.seed, epoch)

    def _crew(self) -> tuple[int, int]:
        """Return into how many blocks this rank's lanes are divided, and how many helpers take turns at each."""
        own = self.lanes // self.world
        helpers = self.helpers
        if helpers is None:
            here = min(self.world, int(os.environ.get("LOCAL_WORLD_SIZE") or self.world))
            helpers = 0 if len(self.dataset) <= FEW else min(MOST_HELPERS, _cores() // here)
        blocks = 1
        while 2 * blocks <= min(helpers, own):
            blocks *= 2
        # Those that take turns each open the group's shards: far away, each would fetch them whole.
        return blocks, max(1, helpers // blocks) if self.dataset.source.near else 1

    def _next(self, served: Iterator[Chunk]) -> Chunk:
        try:
            chunk = next(served)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = re.sub(r"^DataLoader worker \(pid(\(s\))? [\d, ]+\) *", "", str(error)).partition(".")[0]
            raise PassbandError(
                f"a process that reads {self.dataset.name} died ({reason}); most often memory was short: give the same "
                "command again, with a smaller batch or smaller shards"
            ) from error
        if chunk.failed:
            raise PassbandError(chunk.failed)
        self._bad.update(chunk.bad)
        self._ignored.update(dict.fromkeys(chunk.ignored))
        return chunk

    def _together(self, chunks: list[Chunk]) -> tuple[Tensor, Tensor]:
        pixels = torch.cat([chunk.pixels for chunk in chunks])
        images = pixels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        labels = torch.cat([chunk.labels for chunk in chunks])
        return images if images.is_floating_point() else images.float().div_(255), labels


class _Epoch(IterableDataset[Chunk]):
    """Serve one helper's part of an epoch: its block of lanes, at the steps where it is its turn."""

    def __init__(self, stream: TrainStream, number: int, start: int, blocks: int, turns: int) -> None:
        self.stream, self.number, self.start, self.blocks, self.turns = stream, number, start, blocks, turns

    def __iter__(self) -> Iterator[Chunk]:
        info = get_worker_info()
        if info is not None:
            yield from self._helped(info.id % self.blocks, info.id // self.blocks, self.turns)
            return
        for parts in zip(*(self._helped(block, 0, 1) for block in range(self.blocks)), strict=True):
            yield from parts

    def _helped(self, block: int, turn: int, turns: int) -> Iterator[Chunk]:
        stream = self.stream
        reading = Reading(stream.dataset, stream.batch // stream.lanes, stream.augment, stream.cut, stream.skip_bad)
        own = stream.lanes // stream.world
        size = own // self.blocks
        first = stream.rank * own + block * size
        order = stream._order(self.number)
        lanes = [Lane(reading, order, lane) for lane in range(first, first + size)]
        try:
            for step in range(self.start + turn, len(stream), turns):
                yield _joined([lane.chunk(step) for lane in lanes])
        except PassbandError as error:
            yield Chunk(failed=str(error))  # as a value: an exception would come through as its traceback
        finally:
            for lane in lanes:
                lane.close()


def _joined(chunks: list[Chunk]) -> Chunk:
    return Chunk(
        torch.cat([chunk.pixels for chunk in chunks]),
        torch.cat([chunk.labels for chunk in chunks]),
        {name: why for chunk in chunks for name, why in chunk.bad.items()},
        tuple(name for chunk in chunks for name in chunk.ignored),
    )


def _cores() -> int:
    """Return the cores that this process may use, which not every system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _begin(_: int) -> None:
    """Let the training answer Ctrl-C, which saves, and leave its memory shared: its helpers end with it."""
    # Else each collection of garbage writes to all objects that came with the fork, and so copies their pages.
    gc.freeze()
    # glibc learns from the first large image to keep what is freed, and its heap is then torn into ever more pieces.
    if set_limit := getattr(ctypes.CDLL(None), "mallopt", None):
        set_limit(_MMAP_THRESHOLD, GIVEN_BACK)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
