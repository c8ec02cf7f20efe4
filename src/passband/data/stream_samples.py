"""A lane of a stream, read step by step: bytes to pixels, bad samples, augmentations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from passband.core.errors import PassbandError
from passband.data.augment import Augmentation
from passband.data.dataset import as_floats
from passband.data.decode import BadImage, read_bytes
from passband.data.seeding import generator
from passband.data.stream_order import Group, Order, find
from passband.data.stream_source import OpenShard, StreamSet

Cut = Callable[[Image.Image], np.ndarray]
"""Takes a photograph, RGB, and draws from torch's own source of randomness; returns a part of it, uint8 [H, W, 3]."""

CURE = "leave bad samples out with --skip-bad"
_CUTS, _STEPS = 3, 4
"""What keeps draws of windows and of steps apart, from each other and from those of the order."""


@dataclass(frozen=True)
class Chunk:
    """Hold a lane's share of a step, or that of several lanes one after the other.

    Attributes:
        pixels: [B, H, W, 3], uint8 or floating.
        labels: int64 [B].
        bad: Messages of samples that could not be read, by their ids.
        ignored: Names of what was passed over in the shards.
        failed: What ended the reading; empty when nothing did.
    """

    pixels: Tensor = field(default_factory=lambda: torch.empty(0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    bad: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Reading:
    """Say how samples become a step's images.

    Attributes:
        dataset: What is read.
        share: Samples of a lane in a step.
        augment: Applied in order to each lane's share of a step, after the set's view.
        cut: Takes a window out of the photograph itself; None brings the whole of it to the set's size.
        skip_bad: Put the next sample that can be read in the place of a bad one, and name it, in place of raising.
    """

    dataset: StreamSet
    share: int
    augment: tuple[Augmentation, ...] = ()
    cut: Cut | None = None
    skip_bad: bool = False


class Lane:
    """Read a lane of an epoch; the shards of one group are open at a time, and each is opened when it is needed."""

    def __init__(self, reading: Reading, order: Order, number: int) -> None:
        self.reading, self.order, self.number = reading, order, number
        self._groups = order.groups(number)
        self._group: Group | None = None
        self._mixed = np.empty(0, dtype=np.int64)
        self._open: dict[int, OpenShard] = {}
        self._fit = reading.dataset.fitting.maker()
        self._bad: dict[str, str] = {}
        self._ignored: list[str] = []

    def chunk(self, step: int) -> Chunk:
        """Return the lane's share of a step.

        Raises:
            PassbandError: when a shard cannot be read; for a sample that cannot be, unless such are skipped.
        """
        reading = self.reading
        self._bad, self._ignored = {}, []
        images, labels = [], []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._draws(_CUTS, step).initial_seed())
            for position in range(step * reading.share, (step + 1) * reading.share):
                pixels, label = self._good(position)
                images.append(pixels)
                labels.append(label)
        served = torch.from_numpy(np.stack(images))
        if reading.dataset.view is not None:
            served = reading.dataset.view(as_floats(served)).permute(0, 2, 3, 1)
        draws = self._draws(_STEPS, step)
        for augment in reading.augment:
            served = augment(served, draws)
        return Chunk(served.contiguous(), torch.tensor(labels), self._bad, tuple(self._ignored))

    def _draws(self, what: int, step: int) -> torch.Generator:
        return generator(self.order.seed, what, self.order.epoch, step, self.number)

    def close(self) -> None:
        """Close what is open."""
        for opened in self._open.values():
            opened.close()
        self._open = {}

    def _good(self, position: int) -> tuple[np.ndarray, int]:
        """Return the sample at a position, or the next of its group, around its end, that can be read."""
        group, at = find(self._groups, self.number * self.order.length + position)
        if group != self._group:
            self.close()
            self._group, self._mixed = group, self.order.mixed(self.number, group)
        for further in range(len(self._mixed)):
            shard, index = self.order.sample(int(self._mixed[(at + further) % len(self._mixed)]))
            try:
                return self._sample(shard, index)
            except BadImage as error:
                if not self.reading.skip_bad:
                    raise
                self._bad[self.reading.dataset.source.id(shard, index)] = str(error)
        raise PassbandError(
            f"none of {len(self._mixed)} samples that follow each other in {self.reading.dataset.name} can be read; "
            f"the first: {next(iter(self._bad.values()))}"
        )

    def _sample(self, shard: int, index: int) -> tuple[np.ndarray, int]:
        opened, dataset = self._opened(shard), self.reading.dataset
        label = opened.label(index)
        if label >= len(dataset.class_names):
            classes = len(dataset.class_names)
            raise BadImage(f"{opened.called(index)} has the class {label}, and there are {classes} from 0 on; {CURE}")
        photograph, _ = read_bytes(opened.image(index), opened.called(index), CURE)
        if self.reading.cut is None:
            return self._fit(np.asarray(photograph)), label
        return self.reading.cut(photograph), label

    def _opened(self, shard: int) -> OpenShard:
        if shard not in self._open:
            self._open[shard] = opened = self.reading.dataset.source.open(shard)
            self._ignored += [f"{name} in {self.reading.dataset.source.shards[shard].name}" for name in opened.ignored]
        return self._open[shard]


def window(size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Cut:
    """Return torchvision's RandomResizedCrop of a photograph: a part of it, bilinearly resized (antialiased).

    Args:
        size: Height and width to come to, in pixels.
        scale: Smallest and largest share of the photograph's area, in (0, 1].
        ratio: Smallest and largest width over height, above 0.
    """
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale, ratio, v2.InterpolationMode.BILINEAR, antialias=True)

    def cut(photograph: Image.Image) -> np.ndarray:
        return np.array(crop(photograph))

    return cut
