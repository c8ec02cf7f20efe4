"""What a recipe says of photographs that are read anew in each epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.recipe import Recipe
from passband.data import catalog
from passband.data.augment import augmentations, resized_crop
from passband.data.dataset import ImageSet
from passband.data.stream import TrainStream
from passband.data.stream_samples import Cut, window
from passband.data.stream_source import StreamSet
from passband.data.views import VIEWS

CUTS = "resized-crop"
"""The augmentation that is cut from the photograph itself where it comes first."""


def streams(recipe: Recipe) -> bool:
    """Tell whether a recipe's training photographs are read anew in each epoch."""
    return recipe.data.stream is True or recipe.data.name.partition(":")[0] == "shards"


def photographs(recipe: Recipe, data_dir: Path | None) -> StreamSet:
    """Return the photographs that a recipe's ``data`` names.

    Raises:
        PassbandError: for what a stream cannot do, or a set that cannot be streamed.
    """
    for name, given in (("part", recipe.data.part), ("shuffle_labels", recipe.data.shuffle_labels)):
        if given:
            raise PassbandError(
                f"data.{name} needs a set that is held, and {recipe.data.name} is a stream; leave it out"
            )
    if recipe.normalize is None:
        raise needs_normalize(recipe)
    size = (recipe.data.size, recipe.data.size)
    return catalog.stream(recipe.data.name, size=size, data_dir=data_dir)


def batches(recipe: Recipe, dataset: StreamSet, skip_bad: bool) -> TrainStream:
    """Return what the training goes through: the view, the window, the augmentations."""
    entries: list[dict[str, Any]] = [entry.arguments | {"name": entry.name} for entry in recipe.augment]
    augment, cut = augmentations(entries), None
    if entries and entries[0]["name"] == CUTS:
        augment, cut = augment[1:], _window(entries[0], dataset.size)
    return TrainStream(_viewed(recipe, dataset), recipe.batch, augment, recipe.seed, cut, skip_bad)


def needs_normalize(recipe: Recipe) -> PassbandError:
    """Return the error for a recipe that leaves mean and std to be measured."""
    return PassbandError(
        f"mean and std of a stream are not measured, and the recipe gives none for {recipe.data.name}; set normalize, "
        "as to {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}, or to none"
    )


def _window(entry: dict[str, Any], size: tuple[int, int]) -> Cut:
    given = {key: value for key, value in entry.items() if key != "name"}
    options = parse_options(resized_crop, given, owner=f"augmentation {CUTS}")
    return window(size, options.get("scale", (0.08, 1.0)), options.get("ratio", (3 / 4, 4 / 3)))


def _viewed(recipe: Recipe, dataset: StreamSet) -> StreamSet:
    """Return the stream seen through the recipe's view, which one black image shows the way."""
    if recipe.data.view is None:
        return dataset
    make = VIEWS[recipe.data.view.name]
    black = ImageSet(dataset.name, np.zeros((1, *dataset.size, 3), np.uint8), None, (), dataset.fingerprint)
    arguments = parse_options(make, recipe.data.view.arguments, owner=f"view {recipe.data.view.name}")
    return replace(dataset, view=make(black, **arguments).view)
