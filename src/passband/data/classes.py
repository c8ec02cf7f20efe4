"""Which of a model's outputs each class of a data set means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.data.dataset import ImageSet, derive

CURE = "--truth prediction measures agreement with the model's own prediction"


def match_classes(dataset: ImageSet, spec: ImageSpec) -> ImageSet:
    """Return the set with labels that number the model's outputs.

    Classes meet by name where both sides have names: a subset, or another order, is mapped (ImageNet folders
    are named by WordNet ids). Where one side has none, an equal number of classes is taken to be in the same
    order, and a note says so.

    Args:
        dataset: With labels; left alone where the model gives images and so names no class.
        spec: The model's.

    Raises:
        PassbandError: naming ``--truth prediction``, when there are no labels or the classes differ.
    """
    if not spec.classes:
        return dataset
    if dataset.labels is None:
        raise PassbandError(f"{dataset.name} has no labels to compare with the model's answers; {CURE}")
    ours, theirs = dataset.class_names, spec.class_names
    if _named(ours) and _named(theirs):
        return _by_name(dataset, spec)
    if len(ours) != spec.classes:
        raise PassbandError(f"{dataset.name} has {len(ours)} classes and the model {spec.classes} outputs; {CURE}")
    note = f"{dataset.name}: class names of the data or the model are unknown; taken to be in the same order"
    return replace(dataset, notes=(*dataset.notes, note))


def _named(names: tuple[str, ...]) -> bool:
    """Tell whether names say more than a number does."""
    return bool(names) and not all(name.isdigit() for name in names)


def _by_name(dataset: ImageSet, spec: ImageSpec) -> ImageSet:
    ours, theirs = dataset.class_names, spec.class_names
    if ours == theirs:
        return dataset
    place = {name: index for index, name in enumerate(theirs)}
    strange = [name for name in ours if name not in place]
    if strange:
        raise PassbandError(
            f"{len(strange)} of {dataset.name}'s {len(ours)} classes are not among the model's "
            f"{spec.classes} (the first: '{strange[0]}'; the model's first: '{theirs[0]}'); {CURE}"
        )
    table = np.array([place[name] for name in ours], dtype=np.int64)
    return replace(
        dataset,
        labels=table[dataset.labels],
        class_names=theirs,
        fingerprint=derive(dataset.fingerprint, "classes", table.tobytes()),
    )
