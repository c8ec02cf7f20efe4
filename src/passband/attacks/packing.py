"""Working batches of one size, so that a verdict does not depend on how the caller cut the data set."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def working_size(model: nn.Module) -> int:
    """Return how many images go through a model at a time: 32 on a CPU, else 256."""
    parameter = next(model.parameters(), None)
    return 32 if parameter is None or parameter.device.type == "cpu" else 256


def logits_of(model: nn.Module, images: Tensor, size: int) -> Tensor:
    """Ask a model about many images, ``size`` at a time, the last batch filled by repetition.

    Networks choose other kernels for other batch sizes, whose rounding differs: a full batch keeps the bits.
    """
    found = []
    with torch.no_grad():
        for chunk in chunks(len(images), size):
            asked = images[chunk]
            missing = size - len(asked)
            if missing:
                asked = torch.cat((asked, asked[:1].expand(missing, -1, -1, -1)))
            found.append(model(asked)[: len(images[chunk])])
    return torch.cat(found)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` into slices of one size; the last may be shorter."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
