"""Working batches of one size, so that a verdict does not depend on how the caller cut the data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

Chunk = tuple[Tensor, Tensor, Tensor]
"""Places in the data set int64 [B] on the CPU, images [B, C, H, W], targets int64 [B]."""


def working_size(model: nn.Module) -> int:
    """Return how many images go through a model at a time: 64 on a CPU, whose caches hold them, else 256."""
    parameter = next(model.parameters(), None)
    return 64 if parameter is None or parameter.device.type == "cpu" else 256


def numbered(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Chunk]:
    """Number the images through the whole data set."""
    first = 0
    for images, targets in batches:
        yield torch.arange(first, first + len(images)), images, targets
        first += len(images)


def packed(chunks: Iterable[Chunk], size: int) -> Iterator[Chunk]:
    """Cut a stream of chunks into chunks of one size; the last may be shorter."""
    held: list[Chunk] = []
    for chunk in chunks:
        held.append(chunk)
        while sum(len(places) for places, _, _ in held) >= size:
            places, images, targets = _joined(held)
            yield places[:size], images[:size], targets[:size]
            held = [(places[size:], images[size:], targets[size:])]
    if any(len(places) for places, _, _ in held):
        yield _joined(held)


def filled(images: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Fill a batch to ``size`` by repeating its first image, channels_last.

    Networks choose other kernels for other batch sizes, whose rounding differs: a full batch keeps the bits.
    """
    missing = size - len(images)
    if missing:
        images = torch.cat((images, images[:1].expand(missing, -1, -1, -1)))
        targets = torch.cat((targets, targets[:1].expand(missing)))
    return images.contiguous(memory_format=torch.channels_last), targets


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    places, images, targets = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return places, images, targets
