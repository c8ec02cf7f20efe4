"""The training sampler of scenes, whose every step can be repeated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from passband.core.errors import PassbandError
from passband.data.objects import Objects, Targets
from passband.data.scene_augment import SceneAugment
from passband.data.scenes import SceneSet
from passband.data.seeding import generator

FEW = 1000
"""Photographs up to which the program reads and augments them itself, and above which helpers do: to start those takes
longer than a small set's epoch gains."""
HELPERS = 8
"""How many of them at most."""

_SCALES, _IMAGES = 1, 2
"""What keeps draws of scales, of images and of an epoch's order apart."""


@dataclass(frozen=True, eq=False)
class TrainScenes:
    """Serve scenes for training, shuffled anew in each epoch.

    The order of an epoch depends on (seed, epoch), an image's augmentation on (seed, epoch, its place in the set) and
    a batch's scale on (seed, epoch, step) alone, so a run continued at any step sees what the unbroken run would have
    seen, whatever the number of helpers.

    Attributes:
        dataset: What to train on.
        batch: Images in a step, 2 or more. The last step of an epoch may hold fewer; a single one left over is not
            served, since batch norm cannot train on one.
        augment: What is done to each image and batch.
        seed: 0 or more.
        rank: Which part of each step is served.
        world: Into how many parts, as equal as can be, each step is cut; its images are what they are in one part.

    Raises:
        PassbandError: when there are fewer than two images to a step.
    """

    dataset: SceneSet
    batch: int
    augment: SceneAugment
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch < 2 or len(self.dataset) < 2:
            raise PassbandError(
                f"a training step holds at least two images (batch norm cannot train on one); got batches of "
                f"{self.batch} from {len(self.dataset)} images"
            )

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 1)

    def share(self, rank: int, world: int) -> TrainScenes:
        """Return one of ``world`` parts of every step."""
        return replace(self, rank=rank, world=world)

    def count(self, step: int) -> int:
        """Return how many images a step has, in all parts."""
        return min(self.batch, len(self.dataset) - step * self.batch)

    def ids(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return what the images of a step are called, in all parts."""
        return tuple(self.dataset.ids[place] for place in self._steps(epoch)[step].tolist())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a result must know of what was served."""
        return self.dataset.notes

    def _steps(self, epoch: int) -> tuple[Tensor, ...]:
        order = torch.randperm(len(self.dataset), generator=generator(self.seed, epoch))
        return torch.split(order, self.batch)[: len(self)]

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Targets]]:
        """Yield the steps of an epoch from ``start`` on: images float32 [B, 3, H, W] in [0, 1], and their objects."""
        steps = [step.tensor_split(self.world)[self.rank].tolist() for step in self._steps(number)[start:]]
        helpers = 0 if len(self.dataset) <= FEW else min(HELPERS, os.cpu_count() or 1)
        served: DataLoader[tuple[Tensor, Objects]] = DataLoader(
            _Augmented(self, number),
            batch_sampler=steps,
            num_workers=helpers,
            collate_fn=_together,
            generator=torch.Generator(),  # or each epoch would draw a number from torch's own, a resumed one too
        )
        for step, (pixels, targets) in enumerate(served, start):
            yield self._scaled(pixels.float().div_(255), targets, number, step)

    def _scaled(self, images: Tensor, targets: Targets, epoch: int, step: int) -> tuple[Tensor, Targets]:
        images = images.contiguous(memory_format=torch.channels_last)
        sizes = self.augment.sizes
        if not sizes:
            return images, targets
        side = sizes[int(torch.randint(len(sizes), (), generator=generator(self.seed, epoch, _SCALES, step)))]
        factor = side / self.augment.size
        larger = tuple(replace(one, boxes=one.boxes * factor) for one in targets.images)
        return functional.interpolate(images, size=(side, side)), Targets(larger)


class _Augmented(Dataset[tuple[Tensor, Objects]]):
    """Serve an epoch's images one by one, to whoever asks, in whatever process."""

    def __init__(self, scenes: TrainScenes, epoch: int) -> None:
        self.scenes, self.epoch = scenes, epoch

    def __getitem__(self, place: int) -> tuple[Tensor, Objects]:
        scenes = self.scenes
        seed = generator(scenes.seed, self.epoch, _IMAGES, place).initial_seed()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return scenes.augment(scenes.dataset.image(place), scenes.dataset.objects[place])


def _together(samples: list[tuple[Tensor, Objects]]) -> tuple[Tensor, Targets]:
    return torch.stack([image for image, _ in samples]), Targets(tuple(objects for _, objects in samples))
