"""A set of images held as one uint8 array, and the batches that everything above eats."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from passband.core.errors import PassbandError

Truth = Literal["label", "prediction"]
NO_TARGET = -1
"""Stands where a sample has no label yet."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Hold images, what they show, and a fingerprint that knows no path.

    Attributes:
        name: As given to ``catalog.load``.
        images: Stored pixels, uint8 [N, H, W, 3], in memory or memory-mapped, before any ``view``.
        labels: int64 [N], or None for a set without labels.
        class_names: One name per class, in the order of the labels; empty when there are none.
        fingerprint: SHA-256 in hexadecimal over name, count and content.
        notes: Sentences that the reader of a result must know.
        ids: What each sample is called: a relative file name, or its index in the whole set.
        view: Turns float images [B, 3, H, W] in [0, 1] into what this set shows of them, such as a band of
            their frequencies; None for the images themselves.

    Raises:
        PassbandError: when the parts do not fit together, or a label has no class.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    view: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        shape, kind = self.images.shape, self.images.dtype
        if kind != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise PassbandError(
                f"{self.name}: images are stored as uint8 [N, H, W, 3]; got {kind} {list(shape)}; repeat a "
                "gray channel three times and multiply floats by 255"
            )
        if not len(self):
            raise PassbandError(f"{self.name} holds no images; give a set with at least one")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(map(str, range(len(self)))))
        for what, values in (("labels", self.labels), ("ids", self.ids)):
            if values is not None and len(values) != len(self):
                raise PassbandError(f"{self.name} has {len(values)} {what} for {len(self)} images; give one for each")
        if self.labels is not None:
            check_labels(self.labels, len(self.class_names), self.name)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def take(self, limit: int | None = None, seed: int = 0) -> ImageSet:
        """Return the first ``limit`` samples of one fixed seeded permutation, or all in that order.

        A set that comes sorted by class gives all its classes this way.

        Raises:
            PassbandError: when ``limit`` is not positive.
        """
        return self.subset(permutation(len(self), limit, seed))

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """Return the samples at ``indices`` in that order, in memory, with a fingerprint of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        if np.array_equal(chosen, np.arange(len(self))):
            return self
        return replace(
            self,
            images=np.asarray(self.images)[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            ids=tuple(self.ids[i] for i in chosen),
            fingerprint=derive(self.fingerprint, "subset", chosen.tobytes()),
        )

    def tensor(self, start: int | np.ndarray, stop: int | None = None) -> Tensor:
        """Return samples ``start`` to ``stop``, or those at an array of indices: uint8 [B, H, W, 3]."""
        rows = self.images[start] if isinstance(start, np.ndarray) else self.images[start:stop]
        return torch.from_numpy(np.array(rows))

    def batches(
        self,
        size: int = 256,
        device: str | torch.device = "cpu",
        targets: Tensor | None = None,
        truth: Truth = "label",
    ) -> Batches:
        """Return this set cut into batches.

        Args:
            size: Samples in a batch, 1 or more.
            device: Where images and targets are put.
            targets: int64 [N], in place of the labels; without either, every target is -1.
            truth: What the targets are: labels, or a model's prediction on the untouched image.

        Raises:
            PassbandError: when the size is not positive, or targets and images differ in number.
        """
        if size < 1:
            raise PassbandError(f"a batch holds at least one image; got {size}")
        if targets is None:
            given = np.full(len(self), NO_TARGET) if self.labels is None else self.labels
            targets = torch.from_numpy(np.array(given, dtype=np.int64))
        return Batches(self, size, torch.device(device), targets.to("cpu", torch.int64), truth)


@dataclass(frozen=True, eq=False)
class Batches:
    """Yield ``(images, targets)``, always in the same order; made by ``ImageSet.batches``.

    Images are float32 [B, 3, H, W] in [0, 1] (a view's may lie outside), channels_last; targets int64 [B].
    """

    dataset: ImageSet
    size: int
    device: torch.device
    targets: Tensor
    truth: Truth = "label"

    def __post_init__(self) -> None:
        if self.targets.shape != (len(self.dataset),):
            raise PassbandError(
                f"{self.dataset.name} has {len(self.dataset)} images, and targets have shape "
                f"{list(self.targets.shape)}; give one target for each image"
            )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.count, self.size):
            images = as_floats(self.dataset.tensor(start, start + self.size).to(self.device))
            if self.dataset.view is not None:
                images = self.dataset.view(images)
            yield images, self.targets[start : start + self.size].to(self.device)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in the order of the targets; empty when unknown."""
        return self.dataset.class_names

    @property
    def measure(self) -> str:
        """What a share of right answers is called here.

        Raises:
            PassbandError: when there is nothing to compare an answer with.
        """
        if self.truth == "prediction":
            return "agreement with the prediction on the untouched image"
        if bool((self.targets == NO_TARGET).any()):
            raise PassbandError(
                f"{self.dataset.name} has no labels to compare with; --truth prediction measures agreement "
                "with the model's own prediction"
            )
        return "accuracy"

    def subset(self, indices: np.ndarray) -> Batches:
        """Return the samples at ``indices`` in that order, with their targets."""
        return replace(self, dataset=self.dataset.subset(indices), targets=self.targets[indices])

    def cut(self, size: int) -> Batches:
        """Return the same samples in batches of another size, 1 or more."""
        return self.dataset.batches(size, self.device, self.targets, self.truth)

    def with_targets(self, targets: Tensor, truth: Truth) -> Batches:
        """Return these batches with other targets, int64 [N].

        Raises:
            PassbandError: when their number is not the number of images.
        """
        return replace(self, targets=targets.detach().to("cpu", torch.int64), truth=truth)


def as_floats(pixels: Tensor) -> Tensor:
    """Turn uint8 [B, H, W, C] into float32 [B, C, H, W] in [0, 1], channels_last."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def permutation(count: int, limit: int | None, seed: int) -> np.ndarray:
    """Return the first ``limit`` of ``range(count)`` in an order of ``seed`` and ``count`` alone.

    It rests on the raw bits of PCG64, which numpy keeps from version to version, unlike its permutations.

    Raises:
        PassbandError: when ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise PassbandError(f"a limit is at least 1 image; got {limit}")
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")[:limit]


def fingerprint(name: str, images: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the SHA-256 over name, count, pixels and labels, in hexadecimal."""
    digest = hashlib.sha256(f"{name}\n{images.shape}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def derive(parent: str, what: str, data: bytes = b"") -> str:
    """Return the fingerprint of a set made from the set with fingerprint ``parent``."""
    return hashlib.sha256(f"{parent}\n{what}\n".encode() + data).hexdigest()


def check_labels(labels: np.ndarray, classes: int, name: str) -> None:
    """Refuse labels that are not 0 … ``classes`` - 1.

    Raises:
        PassbandError: naming the label and its place.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise PassbandError(f"{name}: labels are integers; got {labels.dtype}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise PassbandError(
            f"{name}: label {labels[wrong[0]]} of sample {wrong[0]} is out of range for {classes} classes: "
            f"labels run from 0 to {classes - 1}"
        )
