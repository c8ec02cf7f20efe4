"""Which of a set's classes each of a detector's means, and the other way round."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec
from passband.data.coco_names import OLDER
from passband.data.objects import Targets
from passband.data.scenes import SceneSet

NONE = -1
"""Stands where a detector's class is none of the set's."""


def match(spec: ImageSpec, dataset: SceneSet) -> Int[Tensor, " classes"]:
    """Return the set's class of each of the detector's, -1 for none; they meet by name, COCO's older names included.

    Args:
        spec: The detector's; without names as many classes as the set has are taken to be in its order.
        dataset: With its class names.

    Raises:
        PassbandError: when no class meets another.
    """
    ours = dataset.class_names
    if not spec.class_names and spec.classes == len(ours):
        return torch.arange(len(ours))
    place = {OLDER.get(name, name): index for index, name in enumerate(ours)}
    found = [place.get(OLDER.get(name, name), NONE) for name in spec.class_names]
    if not ours:
        raise PassbandError(f"{dataset.name} has no classes to compare with the detector's; give a set that has some")
    if not any(index >= 0 for index in found):
        first = spec.class_names[0] if spec.class_names else f"none named, {spec.classes} in number"
        raise PassbandError(
            f"none of the detector's {spec.classes} classes (the first: {first}) is among {dataset.name}'s {len(ours)} "
            f"(the first: {ours[0]}); take a detector for these classes"
        )
    return torch.tensor(found)


def as_detected(targets: Targets, classes: Int[Tensor, " classes"]) -> Targets:
    """Return a set's objects in the detector's classes, those of none and crowds left out: what its losses take.

    Args:
        targets: In the set's classes.
        classes: As :func:`match` gives it.
    """
    made = []
    for one in targets.images:
        meets = one.labels[:, None] == classes.to(one.labels.device)
        known = replace(one, labels=meets.int().argmax(1))
        made.append(known.take(meets.any(1) & ~one.crowd))
    return Targets(tuple(made))
