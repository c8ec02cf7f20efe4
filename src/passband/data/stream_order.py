"""The order of a stream's epoch: a function of lengths, lanes, seed and epoch alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from passband.data.seeding import generator

MIXED = 1000
"""Samples after which a group of shards is closed; those of a group are put in one random order."""
MOST_LANES = 16
_SHARDS, _GROUPS = 1, 2
"""What keeps draws of an epoch's shards and of a group's samples apart."""


@dataclass(frozen=True)
class Group:
    """Name a stretch of the epoch's shards whose samples are mixed.

    Attributes:
        number: Its place in its lane.
        start: Its first sample, in the epoch's shards one after the other.
        stop: The sample after its last.
    """

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """Say which sample stands where in an epoch.

    The shards, in an order drawn anew, are thought of as one list, which is cut into lanes of equal length. A lane is
    read from its beginning to its end, a group of shards at a time. What is left over goes unseen in this epoch.

    Attributes:
        lengths: Samples of each shard.
        lanes: How many there are.
        seed: 0 or more.
        epoch: 0 or more.
    """

    lengths: tuple[int, ...]
    lanes: int
    seed: int
    epoch: int

    @property
    def length(self) -> int:
        """Samples of a lane."""
        return sum(self.lengths) // self.lanes

    @cached_property
    def _shards(self) -> np.ndarray:
        return torch.randperm(len(self.lengths), generator=generator(self.seed, _SHARDS, self.epoch)).numpy()

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(np.asarray(self.lengths, dtype=np.int64)[self._shards])

    def groups(self, lane: int) -> tuple[Group, ...]:
        """Return the groups of a lane: whole shards, but for the first and the last, which lanes may share."""
        first, last = lane * self.length, (lane + 1) * self.length
        cuts = [int(end) for end in self._ends if first < end < last]
        groups: list[Group] = []
        for end in [*cuts, last]:
            if end - first >= MIXED or end == last:
                groups.append(Group(len(groups), first, end))
                first = end
        return tuple(groups)

    def mixed(self, lane: int, group: Group) -> np.ndarray:
        """Return a group's samples in the order in which they are served, int64, as places in the one list."""
        key = (self.seed, _GROUPS, self.epoch, lane, group.number)
        return group.start + torch.randperm(group.stop - group.start, generator=generator(*key)).numpy()

    def sample(self, place: int) -> tuple[int, int]:
        """Return the shard of a place in the one list, and the sample's place in that shard."""
        at = int(np.searchsorted(self._ends, place, side="right"))
        shard = int(self._shards[at])
        return shard, int(place - self._ends[at] + self.lengths[shard])

    def samples(self, lane: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Return shard and place of the samples at some positions of a lane."""
        groups = self.groups(lane)
        found = []
        for position in range(start, stop):
            group, at = find(groups, lane * self.length + position)
            found.append(self.sample(int(self.mixed(lane, group)[at])))
        return found


def find(groups: Sequence[Group], place: int) -> tuple[Group, int]:
    """Return the group that a place in the one list belongs to, and the position in it."""
    group = groups[bisect_right(groups, place, key=lambda one: one.start) - 1]
    return group, place - group.start


def lanes_of(shards: Sequence[int], batch: int) -> int:
    """Return into how many lanes an epoch is cut: a power of two that divides the batch, no more than the shards."""
    lanes = 1
    while 2 * lanes <= min(MOST_LANES, len(shards)) and batch % (2 * lanes) == 0:
        lanes *= 2
    return lanes
