"""A batch in pieces, for gradients that are gathered over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def cut(images: Tensor, targets: Any, pieces: int) -> Iterator[tuple[Tensor, Any]]:
    """Cut a batch into pieces of as equal a size as can be, none of a single image, on which no batch norm can train.

    Args:
        images: [B, ...], B 2 or more.
        targets: [B], or :class:`passband.data.objects.Targets` of B images.
        pieces: How many at most; a batch of fewer than two images a piece is cut into fewer.
    """
    count = max(1, min(pieces, len(images) // 2))
    yield from zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
