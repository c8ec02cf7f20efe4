"""A set seen otherwise: through a band of frequencies, under shuffled labels, in part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from passband.core.band import Band, Edge, Shape, Side
from passband.core.errors import PassbandError, unknown
from passband.core.registry import Registry
from passband.data.dataset import ImageSet, derive, permutation
from passband.frequency import filters
from passband.frequency.filters import Rescale

VIEWS: Registry[Callable[..., ImageSet]] = Registry("view")
"""What a recipe's ``data.view`` can name."""


@VIEWS.register("band_limited")
def _band_of_a_recipe(
    dataset: ImageSet,
    *,
    cutoff: float = 12,
    side: Side = "low",
    shape: Shape = "disc",
    edge: Edge = "inclusive",
    rescale: Rescale = "max",
) -> ImageSet:
    """Read a band off plain arguments: ``{name: band_limited, cutoff: 12, side: high}``."""
    return band_limited(dataset, Band(cutoff, shape, "pixel", edge, side), rescale)


@VIEWS.register("rescaled")
def rescaled(dataset: ImageSet) -> ImageSet:
    """Return the set with every image divided by its own maximum over pixels and channels.

    **Source**: high-frequency's code, which does so to the images of every natural training, not to those of the test.
    **Differs**: the code cuts the quotients to integers of 0 to 255.
    """
    before = dataset.view

    def view(images: Tensor) -> Tensor:
        return filters.rescale(images if before is None else before(images), "max")

    note = f"{dataset.name}: each image divided by its maximum"
    return replace(
        dataset, view=view, fingerprint=derive(dataset.fingerprint, "rescaled max"), notes=(*dataset.notes, note)
    )


def band_limited(dataset: ImageSet, band: Band, rescale: Rescale = "max") -> ImageSet:
    """Return the set with every image reduced to ``band``, filtered as its batches are made.

    A low band overshoots [0, 1] and a high one is signed, so images come as floats outside of it; the set's
    notes say by how much (on up to 256 of its images) and how they were rescaled.

    Args:
        dataset: What to filter; views add up.
        band: What is kept.
        rescale: ``"max"`` divides each image by its own maximum and keeps negative values, ``"none"`` leaves the
            copies as they are, ``"min-max"`` maps each to [0, 1], ``"clip"`` cuts to [0, 1]. An empty copy (all zeros)
            stays empty.

    Raises:
        PassbandError: for an unknown rescaling.

    **Source**: high-frequency, table 1 and its code.
    **Differs**: a copy that holds nothing is not divided by its maximum.
    """
    if rescale not in get_args(Rescale):
        raise unknown("rescaling", rescale, get_args(Rescale))
    before = dataset.view

    def filtered(images: Tensor) -> Tensor:
        return filters.keep(images if before is None else before(images), band)

    def view(images: Tensor) -> Tensor:
        return filters.rescale(filtered(images), rescale).contiguous(memory_format=torch.channels_last)

    mark = derive(dataset.fingerprint, f"band {band!r} {rescale}")
    raw = replace(dataset, view=filtered, fingerprint=mark)
    return replace(raw, view=view, notes=(*dataset.notes, _note(raw, band, rescale)))


def shuffle_labels(dataset: ImageSet, seed: int = 0) -> ImageSet:
    """Return the set with its labels dealt anew by one fixed permutation, so that each class keeps its count.

    Raises:
        PassbandError: when there are no labels.

    **Source**: high-frequency, section 4.1 and its code, which stores one permutation and loads it again.
    """
    if dataset.labels is None:
        raise PassbandError(f"{dataset.name} has no labels to shuffle; give a set with classes")
    return replace(
        dataset,
        labels=dataset.labels[permutation(len(dataset), None, seed)],
        fingerprint=derive(dataset.fingerprint, f"labels shuffled {seed}"),
        notes=(*dataset.notes, f"{dataset.name}: labels shuffled once, seed {seed}"),
    )


def part(dataset: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """Return ``count`` samples, the first of one fixed permutation.

    Raises:
        PassbandError: when the set holds fewer.
    """
    if count > len(dataset):
        raise PassbandError(f"a part of {count} was asked of {dataset.name}, which holds {len(dataset)} images")
    return dataset.take(count, seed)


def _note(raw: ImageSet, band: Band, rescale: str) -> str:
    low, high = 1.0, 0.0
    for images, _ in raw.subset(permutation(len(raw), 256, 0)).batches(64):
        low, high = min(low, float(images.min())), max(high, float(images.max()))
    how = {
        "max": "each image divided by its maximum, negative values kept",
        "none": "not rescaled",
        "min-max": "each image mapped to [0, 1] by its own minimum and maximum",
        "clip": "clipped to [0, 1]",
    }[rescale]
    return f"{raw.name}: reduced to {band}, which spans [{low:.3f}, {high:.3f}]; {how}"
