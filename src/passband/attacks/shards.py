"""A data set in pieces that fit in memory, and what was found of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from passband.core.errors import PassbandError

COUNT = 1024
"""Images of a shard, at least: few enough to lose little, enough that hardly any working batch ends unfilled."""


@dataclass
class Shard:
    """Hold some of the caller's batches, whole.

    Attributes:
        images: [N, C, H, W].
        targets: int64 [N].
        batches: Sizes of the caller's batches, which an attack that couples a batch needs.
    """

    images: Tensor
    targets: Tensor
    batches: tuple[int, ...]

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of images, targets and the batches' sizes."""
        hashed = hashlib.sha256(repr((self.batches, self.images.dtype, tuple(self.images.shape))).encode())
        for tensor in (self.images, self.targets):
            hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()


@dataclass
class Found:
    """Hold what was found of some images: :class:`passband.attacks.evaluate.RobustAccuracy` says of each what it is.

    Attributes:
        arrays: ``clean`` [N]; ``fell_to``, ``prediction``, ``l2``, ``linf``, ``queries`` [eps, N].
        counts: int64 [eps, attacks]: ``attacked``, ``silent``, ``fell``, ``broke``.
    """

    arrays: dict[str, np.ndarray]
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence[Found]) -> Found:
        """Join what was found of the shards, in their order."""
        names, counted = parts[0].arrays, parts[0].counts
        return cls(
            {name: np.concatenate([part.arrays[name] for part in parts], axis=-1) for name in names},
            {name: sum((part.counts[name] for part in parts[1:]), parts[0].counts[name]) for name in counted},
        )


def shards(batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[Shard]:
    """Gather batches until a shard is full.

    Raises:
        PassbandError: when what comes is no pair of images and labels, or the images' sizes differ.
    """
    held: list[tuple[Tensor, Tensor]] = []
    count = 0
    for batch in batches:
        if isinstance(batch, Tensor) or len(batch) != 2 or len(batch[0]) != len(batch[1]):
            raise PassbandError(
                "batches yield pairs of images and as many labels; give [(images, labels)] for one batch"
            )
        images, targets = (part.detach().to(device) for part in batch)
        if not len(images):
            continue
        if held and images.shape[1:] != held[0][0].shape[1:]:
            sizes = " and ".join(str(list(one.shape[1:])) for one in (held[0][0], images))
            raise PassbandError(f"images of one data set have one size; got {sizes}: resize them")
        held.append((images, targets.long()))
        count += len(images)
        if count >= COUNT:
            yield _joined(held)
            held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: Sequence[tuple[Tensor, Tensor]]) -> Shard:
    images, targets = (torch.cat(parts) for parts in zip(*held, strict=True))
    return Shard(images, targets, tuple(len(one) for one, _ in held))
