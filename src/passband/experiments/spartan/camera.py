"""A network's maps of classes of objects, of which several of its own classes may be part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from passband.attacks.packing import chunks
from passband.core.errors import PassbandError
from passband.data.dataset import ImageSet, as_floats, fingerprint
from passband.sweeps.answers import measure as asked
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject
from passband.tasks.classification import predict, untouched
from passband.train.run import Run

Groups = Mapping[str, Sequence[str]]
"""A class of objects to the network's classes that lie in it."""


def outputs(names: Sequence[str], group: Sequence[str], data: str) -> list[int]:
    """Return the classes, by their places, that lie in a class of objects.

    Args:
        names: A network's classes, or those of the set that it is to learn.
        group: Which of them lie in it.
        data: The set's name.

    Raises:
        PassbandError: when there is none.
    """
    if found := [names.index(name) for name in group if name in names]:
        return found
    wanted = " or ".join(group[:2])
    raise PassbandError(f"grad-cam needs a set with the class {wanted}, and {data} has none: leave --data out")


@dataclass(frozen=True)
class Camera:
    """Take a network's maps of pictures, kept with its run."""

    subject: Subject
    run: Run
    lab: Lab
    groups: Groups

    def indices(self, kind: str) -> list[int]:
        """Return the network's outputs that lie in a class of objects."""
        return outputs(self.subject.model.spec.class_names, self.groups[kind], self.run.recipe.data.name)

    def maps(
        self, images: np.ndarray, kinds: Sequence[str], layer: str | None = None
    ) -> tuple[Tensor, np.ndarray, str]:
        """Return each picture's map of a class of objects, the network's answers, and the layer of the maps."""
        names = self.subject.model.spec.class_names
        labels = self._labels(images, kinds)
        mark = fingerprint("grad-cam", images, labels)
        batches = ImageSet("grad-cam", images, labels, names, mark).batches(device=self.lab.device)
        found = asked(
            self.subject, batches, "saliency", {"classes": ("target",), "examples": 0, "layer": layer},
            folder=self.run.folder / "answers", command=self.lab.command,
        )  # fmt: skip
        arrays = found[0].arrays
        maps = torch.from_numpy(np.asarray(arrays["target"]))
        return maps, np.asarray(arrays["predicted.answer"]), str(found[0].how["layer"])

    def _labels(self, images: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
        """Return of each picture the output to explain: of several that lie in its class the largest."""
        choices = {kind: self.indices(kind) for kind in dict.fromkeys(kinds)}
        if all(len(one) == 1 for one in choices.values()):
            return np.array([choices[kind][0] for kind in kinds])
        model = self.subject.model
        with untouched(model):
            pixels = torch.from_numpy(images).to(self.lab.device)
            logits = torch.cat([predict(model, as_floats(pixels[at])).cpu() for at in chunks(len(pixels), 32)])
        largest = [logits[at, choices[kind]].argmax() for at, kind in enumerate(kinds)]
        return np.array([choices[kind][int(best)] for kind, best in zip(kinds, largest, strict=True)])
