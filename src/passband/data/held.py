"""What a set's view makes of every image, made once and held in memory, not step by step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from passband.core.progress import track
from passband.data.dataset import ImageSet, as_floats

MOST = 8 * 2**30
"""Bytes of float32 copies above which a set is filtered step by step: 60,000 images of 32×32 pixels take 0.7 GB, the
12,150 of restricted-imagenet at 224 pixels 7.3."""
_CHUNK = 1024


def fits(dataset: ImageSet) -> bool:
    """Tell whether the float32 copies of all images take no more than `MOST` bytes."""
    return 4 * dataset.images.size <= MOST


def viewed(dataset: ImageSet) -> Float[Tensor, "count height width channel"]:
    """Return what the view makes of every image of a set, float32, in the layout of stored pixels.

    Args:
        dataset: A set with a view.
    """
    view = dataset.view
    assert view is not None
    copies = torch.empty(dataset.images.shape)
    for start in track(range(0, len(dataset), _CHUNK), f"band copies of {dataset.name}"):
        images = as_floats(dataset.tensor(start, start + _CHUNK))
        copies[start : start + _CHUNK] = view(images).permute(0, 2, 3, 1)
    return copies
