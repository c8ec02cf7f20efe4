"""A recipe of task detection to its scenes and its detector."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.core.spec import ImageSpec
from passband.data import scene_catalog
from passband.data.catalog import Split
from passband.data.scene_augment import scene_augment
from passband.data.scenes import SceneSet
from passband.data.train_scenes import TrainScenes
from passband.models.detector import Detector
from passband.models.detectors import create_detector
from passband.tasks import DETECTION


def detects(recipe: Recipe) -> bool:
    """Tell whether a recipe trains a detector."""
    return recipe.task == DETECTION.name


def scenes(recipe: Recipe, split: Split, data_dir: Path | None = None) -> SceneSet:
    """Return all scenes of a split that a recipe's ``data`` names, before any part."""
    return scene_catalog.load(recipe.data.name, split, data_dir=data_dir)


def batches(recipe: Recipe, dataset: SceneSet) -> TrainScenes:
    """Return what the training goes through: the part, the augmentations, one size."""
    if recipe.data.part is not None:
        if recipe.data.part > len(dataset):
            raise PassbandError(f"data.part is {recipe.data.part}, and {dataset.name} has {len(dataset)} images")
        dataset = dataset.take(recipe.data.part)
    entries = [entry.arguments | {"name": entry.name} for entry in recipe.augment]
    return TrainScenes(dataset, recipe.batch, scene_augment(entries, recipe.data.size), recipe.seed)


def spec(recipe: Recipe, dataset: SceneSet) -> ImageSpec:
    """Return the size and the classes that the recipe's detector is made for."""
    side, names = recipe.data.size, dataset.class_names
    return ImageSpec((side, side), None, None, "the detector's own", len(names), class_names=names)


def detector(recipe: Recipe, spec: ImageSpec, *, begin: bool = True) -> Detector:
    """Create the recipe's detector.

    Args:
        recipe: Its model and its seed.
        spec: As :func:`spec` gives it.
        begin: Whether it is to begin as a training does, a pretrained backbone included; not where weights follow.

    Raises:
        PassbandError: for an unknown detector or argument.
    """
    arguments = dict(recipe.model.arguments)
    for name in ("class_names", "size", "pretrained", "weights"):
        if name in arguments:
            raise PassbandError(
                f"a recipe's detector begins with new weights, at data.size and with the classes of data.name; leave "
                f"model.{name} out"
            )
    torch.manual_seed(recipe.seed)
    if not begin:
        arguments.pop("pretrained_backbone", None)
    return create_detector(recipe.model.name, class_names=spec.class_names, size=spec.size[0], **arguments)


def backbone(model: Detector) -> nn.Module:
    """Return the part of a detector that comes trained from elsewhere: without the layers that its library adds."""
    inner = model.inner
    for path in ("model.backbone.model", "backbone.body", "backbone"):
        try:
            return inner.get_submodule(path)
        except AttributeError:
            continue
    raise PassbandError(f"{type(inner).__name__} has no backbone that could learn apart; leave optimizer.backbone out")
