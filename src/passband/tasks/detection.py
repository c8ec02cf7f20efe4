"""Detection: what its loss and its score mean, and what a detector finds in a set's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from passband.core.progress import track
from passband.data.objects import Objects, Targets
from passband.data.scene_classes import as_detected, match
from passband.data.scenes import SceneBatches
from passband.models.create import Gives
from passband.models.detector import BACKGROUND, Detector, Marked
from passband.models.found import Found, Images
from passband.models.state import untouched
from passband.tasks.average_precision import Precision, average_precision


def find(detector: Detector, images: Images, classes: Tensor) -> list[Found]:
    """Return what a detector finds, in a set's classes, without a graph and in the mode that the detector is in.

    Call it inside :func:`passband.models.state.untouched`.

    Args:
        detector: Images in [0, 1] in, boxes out.
        images: In [0, 1]; band copies may leave that range.
        classes: The set's class of each of the detector's, int64, -1 for none; what is found of those is left out.
    """
    with torch.no_grad():
        return [_in_set(one.cpu(), classes) for one in detector(images)]


def _in_set(found: Found, classes: Tensor) -> Found:
    labels = classes[found.labels]
    known = labels >= 0
    return Found(found.boxes[known], found.scores[known], labels[known])


def measured(detector: Detector, batches: SceneBatches) -> Precision:
    """Return a detector's average precision on whole images; it is left as it was found.

    Raises:
        PassbandError: when its classes and the set's do not meet, or it gives NaN.
    """
    classes = match(detector.spec, batches.dataset)
    found: list[Found] = []
    objects: list[Objects] = []
    with untouched(detector):
        for images, targets in track(batches, "detecting"):
            found += find(detector, images, classes)
            objects += targets.to("cpu").images
    return average_precision(found, objects, batches.dataset.class_names)


def as_learned(targets: Targets, class_names: Sequence[str]) -> Targets:
    """Return a set's objects in the classes of a detector that was made for the set, crowds left out.

    Args:
        targets: In the set's classes.
        class_names: The detector's, which are the set's, behind the background where the library has one.
    """
    first = 1 if class_names and class_names[0] == BACKGROUND else 0
    return as_detected(targets, torch.arange(len(class_names)) - first)


@dataclass(frozen=True)
class Detection:
    """Learn to find objects by the detector's own losses; the score is the average precision at IoU 0.5."""

    name: ClassVar[str] = "detection"
    score: ClassVar[str] = "ap50"
    gives: ClassVar[Gives] = "boxes"

    def learn(self, model: nn.Module, images: Tensor, targets: Targets) -> tuple[Tensor, None]:
        """Return the sum of a batch's losses; what is found in training is nobody's score."""
        learned = as_learned(targets, _spec(model).class_names)
        losses = model(images, [Marked(one.boxes, one.labels, one.crowd) for one in learned])
        total: Tensor = torch.stack(list(losses.values())).sum()
        return total, None

    def tally(self, outputs: None, images: Tensor, targets: Targets) -> None:
        """Give no score: libraries return losses or boxes, not both."""

    def evaluate(self, model: nn.Module, batches: SceneBatches) -> float:
        """Return the average precision at IoU 0.5; NaN where no object is there to be found."""
        assert isinstance(model, Detector)
        score = measured(model, batches).ap50
        return float("nan") if score is None else score

    def metrics(self, model: nn.Module, batches: SceneBatches) -> dict[str, Any]:
        """Return all of COCO's numbers but those of each class, and how many images and objects there are."""
        assert isinstance(model, Detector)
        numbers = {f"test_{name}": value for name, value in asdict(measured(model, batches)).items()}
        del numbers["test_per_class"]
        objects = sum(len(one.single) for one in batches.dataset.objects)
        return numbers | {"test_images": batches.count, "test_objects": objects}


def _spec(model: nn.Module) -> Any:
    return model.spec


DETECTION = Detection()
