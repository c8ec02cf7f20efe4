"""Photographs with boxes around their objects, and the batches that detectors eat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from passband.core.errors import PassbandError
from passband.data.dataset import Truth, derive, permutation
from passband.data.objects import Objects, Targets


@dataclass(frozen=True, eq=False)
class SceneSet:
    """Hold photographs of different sizes with their objects; pixels are read when they are asked for.

    Attributes:
        name: As given to ``scene_catalog.load``.
        ids: What each photograph is called: its file's name.
        sizes: Height and width of each in pixels.
        objects: What is annotated in each; a photograph may hold none.
        read: What a photograph is called to its pixels, uint8 [H, W, 3].
        class_names: One name per class, in the order of the labels.
        fingerprint: SHA-256 in hexadecimal over name, files and annotations.
        notes: Sentences that the reader of a result must know.

    Raises:
        PassbandError: when there is no photograph, or the parts differ in number.
    """

    name: str
    ids: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[Objects, ...]
    read: Callable[[str], np.ndarray]
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids:
            raise PassbandError(f"{self.name} holds no images; give a set with at least one")
        for what, values in (("sizes", self.sizes), ("objects", self.objects)):
            if len(values) != len(self):
                raise PassbandError(f"{self.name} has {len(values)} {what} for {len(self)} images; give one for each")

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Tensor:
        """Return a photograph's pixels, uint8 [3, H, W]."""
        return torch.from_numpy(np.array(self.read(self.ids[index]))).permute(2, 0, 1)

    def take(self, limit: int | None = None, seed: int = 0) -> SceneSet:
        """Return the first ``limit`` photographs of one fixed seeded permutation, or all in that order.

        Raises:
            PassbandError: when ``limit`` is not positive.
        """
        return self.subset(permutation(len(self), limit, seed))

    def subset(self, indices: Sequence[int] | np.ndarray) -> SceneSet:
        """Return the photographs at ``indices`` in that order, with a fingerprint of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        if np.array_equal(chosen, np.arange(len(self))):
            return self
        return replace(
            self,
            ids=tuple(self.ids[at] for at in chosen),
            sizes=tuple(self.sizes[at] for at in chosen),
            objects=tuple(self.objects[at] for at in chosen),
            fingerprint=derive(self.fingerprint, "subset", chosen.tobytes()),
        )

    def batches(self, size: int = 8, device: str | torch.device = "cpu") -> SceneBatches:
        """Return this set cut into batches.

        Raises:
            PassbandError: when the size is not positive.
        """
        if size < 1:
            raise PassbandError(f"a batch holds at least one image; got {size}")
        return SceneBatches(self, size, torch.device(device))


@dataclass(frozen=True, eq=False)
class SceneBatches:
    """Yield ``(images, targets)``, always in the same order; made by ``SceneSet.batches``.

    Images are a list of float32 [3, H, W] in [0, 1], each at its photograph's size; targets hold their objects.
    """

    dataset: SceneSet
    size: int
    device: torch.device
    truth: Truth = "label"

    def __iter__(self) -> Iterator[tuple[list[Tensor], Targets]]:
        for start in range(0, self.count, self.size):
            places = range(start, min(start + self.size, self.count))
            images = [self.dataset.image(at).to(self.device).float().div_(255) for at in places]
            yield images, Targets(tuple(self.dataset.objects[at] for at in places)).to(self.device)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    @property
    def count(self) -> int:
        """Number of photographs."""
        return len(self.dataset)

    @property
    def measure(self) -> str:
        """What is measured here, for people."""
        return "average precision"
