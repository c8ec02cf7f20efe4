"""A recipe to the model and the data that it names, edits in their fixed order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.recipe import Recipe
from passband.core.spec import ImageSpec
from passband.data import catalog
from passband.data.augment import TrainBatches, augmentations
from passband.data.dataset import ImageSet
from passband.data.scenes import SceneSet
from passband.data.stream import TrainStream
from passband.data.stream_source import StreamSet
from passband.data.train_scenes import TrainScenes
from passband.data.views import VIEWS, part, shuffle_labels
from passband.models.create import create
from passband.models.detector import Detector
from passband.models.wrap import Classifier
from passband.tasks import TASKS
from passband.train import detecting, quantized, streaming
from passband.train.optim import Parameters, apart, decayed
from passband.weights.banks import draw_filters
from passband.weights.learn import LearnReport, learn
from passband.weights.separate import separate
from passband.weights.smooth import smooth


def training_set(recipe: Recipe, data_dir: Path | None = None) -> ImageSet | SceneSet | StreamSet:
    """Return all training images that a recipe's ``data`` names, before any part, view or shuffle."""
    if detecting.detects(recipe):
        return detecting.scenes(recipe, "train", data_dir)
    if streaming.streams(recipe):
        return streaming.photographs(recipe, data_dir)
    size = (recipe.data.size, recipe.data.size)
    dataset = catalog.load(recipe.data.name, "train", size=size, data_dir=data_dir)
    if dataset.labels is None and TASKS[recipe.task].gives == "images":
        # Nobody reads them: the images are their own targets.
        return replace(dataset, labels=np.zeros(len(dataset), np.int64), class_names=("image",))
    if dataset.labels is None:
        raise PassbandError(f"training needs labels, and {recipe.data.name} has none; use a folder: with class folders")
    return dataset


def test_set(recipe: Recipe, data_dir: Path | None = None) -> ImageSet | SceneSet:
    """Return the test images, always untouched."""
    if detecting.detects(recipe):
        return detecting.scenes(recipe, "test", data_dir)
    return catalog.load(recipe.data.name, "test", size=(recipe.data.size, recipe.data.size), data_dir=data_dir)


def batches(
    recipe: Recipe, dataset: ImageSet | SceneSet | StreamSet, *, skip_bad: bool = False
) -> TrainBatches | TrainScenes | TrainStream:
    """Return what the training goes through: the part, the view, the shuffle, the augmentations.

    Args:
        recipe: What names them.
        dataset: What :func:`training_set` returned.
        skip_bad: Of a stream: let other samples stand in for those that cannot be read.
    """
    if isinstance(dataset, SceneSet):
        return detecting.batches(recipe, dataset)
    if isinstance(dataset, StreamSet):
        return streaming.batches(recipe, dataset, skip_bad)
    data = recipe.data
    if data.part is not None:
        dataset = part(dataset, data.part, seed=0)
    if data.view is not None:
        view = VIEWS[data.view.name]
        dataset = view(dataset, **parse_options(view, data.view.arguments, owner=f"view {data.view.name}"))
    if data.shuffle_labels:
        dataset = shuffle_labels(dataset, seed=0)
    augment = augmentations([entry.arguments | {"name": entry.name} for entry in recipe.augment])
    return TrainBatches(dataset, recipe.batch, augment, recipe.seed)


def image_spec(recipe: Recipe, dataset: ImageSet | SceneSet | StreamSet) -> ImageSpec:
    """Return the input that the recipe's model takes; mean and std are the training images' own unless given."""
    if isinstance(dataset, SceneSet):
        return detecting.spec(recipe, dataset)
    size = (recipe.data.size, recipe.data.size)
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    if recipe.normalize == "none":
        mean, std, source = None, None, "the recipe: none"
    elif recipe.normalize is None:
        if isinstance(dataset, StreamSet):
            raise streaming.needs_normalize(recipe)
        mean, std = channel_statistics(dataset)
        source = f"measured on the training images of {recipe.data.name.partition(':')[0]}"
    else:
        mean, std, source = recipe.normalize.mean, recipe.normalize.std, "the recipe"
    names = dataset.class_names if TASKS[recipe.task].gives == "logits" else ()
    return ImageSpec(
        size=size, mean=mean, std=std, source=source, classes=len(names), fit="pad", class_names=names,
    )  # fmt: skip


def channel_statistics(dataset: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, of all pixels in [0, 1], exactly, from their histograms."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(dataset.images.shape[-1]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(dataset), 4096):
            counts += np.bincount(dataset.images[start : start + 4096, ..., channel].reshape(-1), minlength=256)
        mean = float(counts @ values / counts.sum())
        means.append(round(mean, 6))
        stds.append(round(float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum())), 6))
    return tuple(means), tuple(stds)


def bare_model(recipe: Recipe, spec: ImageSpec) -> Classifier:
    """Create the recipe's model and edit it: all but which parameters learn.

    Raises:
        PassbandError: for an unknown model or argument, or an edit that does not fit the model.
    """
    torch.manual_seed(recipe.seed)
    made = create(
        recipe.model.name, classes=spec.classes or None, channels=spec.channels, size=spec.size,
        mean=spec.mean or (0.0,), std=spec.std or (1.0,), gives=TASKS[recipe.task].gives, **recipe.model.arguments,
    )  # fmt: skip
    model = Classifier(made.inner, spec)
    if recipe.filters is not None:
        draw_filters(model, recipe.filters, seed=recipe.seed)
    if recipe.smooth is not None:
        smooth(model, **parse_options(smooth, recipe.smooth, owner="smooth"))
    if recipe.separate is not None:
        separate(model, **parse_options(separate, recipe.separate, owner="separate"))
    if recipe.quantize is not None:
        quantized.apply(model, recipe.quantize)
    return model


def trainable_model(recipe: Recipe, spec: ImageSpec) -> tuple[Classifier | Detector, LearnReport]:
    """Create the recipe's model, edited, with only what should learn able to.

    Raises:
        PassbandError: as :func:`bare_model`, and where ``learn`` refuses.
    """
    model = detecting.detector(recipe, spec) if detecting.detects(recipe) else bare_model(recipe, spec)
    options = recipe.learn_options or {}
    return model, learn(model, recipe.learn, **parse_options(learn, options, owner="learn_options"))


def learned(recipe: Recipe, model: Classifier | Detector) -> Parameters:
    """Return what the recipe's optimizer moves: all that learns, or groups of it.

    Raises:
        PassbandError: for an unknown ``decay``, or one that makes groups beside ``quantize``, which makes its own.
    """
    whole = decayed(recipe.optimizer, model.inner)
    if "backbone" in recipe.optimizer.arguments:
        if not isinstance(model, Detector):
            raise PassbandError("optimizer.backbone is the rate of a detector's backbone; leave it out, or set lr")
        return apart(whole, detecting.backbone(model), recipe.optimizer.arguments["backbone"])
    if recipe.quantize is None:
        return whole
    assert isinstance(model, Classifier)  # a recipe refuses to quantize a detector
    if recipe.optimizer.arguments.get("decay", "all") != "all":
        raise PassbandError("optimizer.decay=kernels and quantize each group the parameters; leave one of them out")
    return quantized.parameter_groups(model, recipe.quantize)
