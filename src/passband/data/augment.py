"""Batched augmentations, and the training sampler whose every step can be repeated."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.registry import Registry
from passband.data.dataset import ImageSet, as_floats
from passband.data.held import fits, viewed
from passband.data.seeding import generator

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Takes images [B, H, W, C], uint8 or floating, and a source of randomness; returns images like them."""

_POLICY = re.compile(r"rand(-(m|n|p|mstd|mmax|inc)\d[\d.]*|-t\w+)*")
"""What timm reads of a RandAugment policy."""

AUGMENTATIONS: Registry[Callable[..., Augmentation]] = Registry("augmentation")


@AUGMENTATIONS.register("crop")
def crop(*, pad: int = 4) -> Augmentation:
    """Return an augmentation that pads with zeros (black) on all sides and cuts each image out somewhere.

    Args:
        pad: Pixels on each side, 1 or more.

    Raises:
        PassbandError: when ``pad`` is not positive.
    """
    if pad < 1:
        raise PassbandError(f"augmentation crop pads by 1 pixel or more; got {pad}")

    def cut(images: Tensor, generator: torch.Generator) -> Tensor:
        count, height, width, channels = images.shape
        down, right = torch.randint(2 * pad + 1, (2, count), generator=generator).numpy()
        padded = F.pad(images, (0, 0, pad, pad, pad, pad)).numpy().reshape(count, height + 2 * pad, -1)
        # A line of a window is one stretch of memory, which numpy copies whole; torch would go pixel by pixel.
        windows = sliding_window_view(padded, (height, width * channels), (1, 2))
        return torch.from_numpy(windows[np.arange(count), down, channels * right]).reshape(images.shape)

    return cut


@AUGMENTATIONS.register("resized-crop")
def resized_crop(
    *, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Augmentation:
    """Return torchvision's RandomResizedCrop: a part of each image, bilinearly resized (antialiased) to the whole.

    It cuts from the images as the set holds them, at the recipe's ``data.size``: of a photograph, its resized center.
    What lies outside that center is never seen, and a small part is enlarged from the pixels held, not from the
    photograph's own. Images held larger than the network's input would be cut here from that size to the input's; a
    recipe would have to name both.

    Args:
        scale: Smallest and largest share of the image's area, in (0, 1].
        ratio: Smallest and largest width over height, above 0.

    Raises:
        PassbandError: when an option is out of range.

    **Source**: Szegedy et al., "Going deeper with convolutions", 2014; the defaults are everyone's for ImageNet.
    """
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1 or len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
        raise PassbandError(
            f"augmentation resized-crop takes a scale within 0 and 1 and a ratio above 0, each the smallest and the "
            f"largest; got {list(scale)} and {list(ratio)}"
        )
    from torchvision.transforms import v2

    def resized(images: Tensor, generator: torch.Generator) -> Tensor:
        cut = v2.RandomResizedCrop(images.shape[1:3], scale, ratio, v2.InterpolationMode.BILINEAR, antialias=True)
        with _drawing_from(generator):
            # A view of each image by itself: torchvision draws one window for all that it is given.
            return torch.stack([cut(image).permute(1, 2, 0) for image in images.permute(0, 3, 1, 2)])

    return resized


@AUGMENTATIONS.register("flip")
def flip(*, chance: float = 0.5) -> Augmentation:
    """Return an augmentation that mirrors each image left to right with probability ``chance``.

    Raises:
        PassbandError: when ``chance`` is no probability.
    """
    if not 0 <= chance <= 1:
        raise PassbandError(f"augmentation flip takes a chance between 0 and 1; got {chance}")

    def mirror(images: Tensor, generator: torch.Generator) -> Tensor:
        turned = (torch.rand(len(images), generator=generator) < chance).numpy()
        pixels = images.numpy().copy()
        # numpy moves whole images several times faster, torch mirrors them.
        pixels[turned] = torch.from_numpy(pixels[turned]).flip(2).numpy()
        return torch.from_numpy(pixels)

    return mirror


@AUGMENTATIONS.register("randaugment")
def randaugment(
    *, num_ops: int = 2, magnitude: int = 9, interpolation: Literal["nearest", "bilinear"] = "nearest"
) -> Augmentation:
    """Return torchvision's RandAugment, each image by itself.

    It works on stored pixels, image by image, and takes about a millisecond for each.

    Args:
        num_ops: Changes to an image, one after the other, 1 or more.
        magnitude: How large they are, 0 to 30.
        interpolation: How turned and moved pixels are found.

    Raises:
        PassbandError: when an option is out of range; when used, for images that are not uint8.

    **Source**: Cubuk et al., "RandAugment", 2020; the ConvMixer authors' CIFAR recipe takes 2 of magnitude 12.
    """
    if num_ops < 1 or not 0 <= magnitude <= 30:
        raise PassbandError(
            f"augmentation randaugment makes 1 change or more of magnitude 0 to 30; got {num_ops} and {magnitude}"
        )
    from torchvision.transforms import v2

    change = v2.RandAugment(num_ops, magnitude, interpolation=v2.InterpolationMode(interpolation))
    return lambda images, generator: _each(images, generator, change, "randaugment")


@AUGMENTATIONS.register("timm-randaugment")
def timm_randaugment(
    *, policy: str = "rand-m9-mstd0.5-inc1", fill: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
) -> Augmentation:
    """Return timm's RandAugment, each image by itself.

    Args:
        policy: As timm writes it: magnitude, its spread, whether all changes grow with it.
        fill: Color of what comes into the image from outside, in [0, 1].

    Raises:
        PassbandError: for a policy that timm does not read; when used, for images that are not uint8.

    **Source**: timm; the default is what the ConvMixer authors take for ImageNet.
    """
    from timm.data.auto_augment import rand_augment_transform

    color = tuple(min(255, round(255 * value)) for value in fill)

    def made(side: int) -> Callable[[Image.Image], Image.Image]:
        change: Callable[[Image.Image], Image.Image]
        change = rand_augment_transform(policy, {"translate_const": int(0.45 * side), "img_mean": color})
        return change

    try:
        # timm passes over a section without a number, such as the m of rand-m.
        if not _POLICY.fullmatch(policy):
            raise ValueError(policy)
        made(32)
    except (AssertionError, ValueError, KeyError):
        raise PassbandError(f"timm reads no policy '{policy}'; it begins with rand-, as rand-m9-mstd0.5-inc1") from None
    return lambda images, generator: _each(images, generator, made(min(images.shape[1:3])), "timm-randaugment")


@AUGMENTATIONS.register("erasing")
def erasing(
    *,
    chance: float = 0.25,
    fill: Literal["noise", "mean"] = "noise",
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD,
) -> Augmentation:
    """Return timm's random erasing: a rectangle of an image, 2% to 33% of it, becomes noise or one color.

    Args:
        chance: How probable it is for an image.
        fill: What stands there: ``"noise"``, or the ``"mean"`` color, which is 0 once a network has normalized by it.
        mean: Of the noise in pixels, or the color, per channel.
        std: Of the noise in pixels, per channel, before it is clipped to [0, 1].

    Raises:
        PassbandError: when ``chance`` is no probability.

    **Source**: Zhong et al., "Random erasing data augmentation", 2017; timm's modes ``pixel``
    and ``const``.
    **Differs**: images are not normalized yet, so that the noise is clipped to the pixels' range.
    """
    if not 0 <= chance <= 1:
        raise PassbandError(f"augmentation erasing takes a chance between 0 and 1; got {chance}")
    from timm.data.random_erasing import RandomErasing

    # A constant is 0 in timm, the mean once it is scaled and shifted below.
    eraser = RandomErasing(probability=chance, mode="pixel" if fill == "noise" else "const", device="cpu")
    center, spread = torch.tensor(mean), torch.tensor(std)

    def erase(images: Tensor, generator: torch.Generator) -> Tensor:
        count, height, width, channels = images.shape
        with _drawing_from(generator):
            noise = eraser(torch.full((count, channels, height, width), torch.nan)).permute(0, 2, 3, 1)
        pixels = (noise * spread + center).clamp(0, 1)
        if not images.is_floating_point():
            pixels = (255 * pixels).round()
        return torch.where(noise.isnan(), images, pixels.nan_to_num().to(images.dtype))

    return erase


def _each(
    images: Tensor, generator: torch.Generator, change: Callable[[Image.Image], Image.Image], name: str
) -> Tensor:
    """Change image by image, through PIL as the recipes that use these augmentations do."""
    if images.dtype != torch.uint8:
        raise PassbandError(f"augmentation {name} works on stored pixels, not on a view of them; leave out one of both")
    with _drawing_from(generator):
        changed = [np.asarray(change(Image.fromarray(image))) for image in images.numpy()]
    return torch.from_numpy(np.stack(changed))


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Seed the sources of randomness that libraries draw from, and give them back as they were."""
    seed = int(torch.randint(2**32, (), generator=generator))
    python, legacy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(torchs)


def augmentations(entries: Sequence[Mapping[str, Any]]) -> tuple[Augmentation, ...]:
    """Make the augmentations of a recipe: ``[{"name": "crop", "pad": 4}, {"name": "flip"}]``.

    Raises:
        PassbandError: for an unknown name or option, or an entry without a name.
    """
    made = []
    for entry in entries:
        options = dict(entry)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise PassbandError(f"an augmentation is written {{name: crop, pad: 4}}; got {dict(entry)}")
        factory = AUGMENTATIONS[name]
        made.append(factory(**parse_options(factory, options, owner=f"augmentation {name}")))
    return tuple(made)


@dataclass(frozen=True, eq=False)
class TrainBatches:
    """Serve a set for training, shuffled anew in each epoch.

    The order of an epoch depends on (seed, epoch) and the augmentation of a step on (seed, epoch, step)
    alone, so a run continued at any step sees what the unbroken run would have seen.

    Attributes:
        dataset: What to train on; it needs labels.
        batch: Samples in a step, 2 or more. The last step of an epoch may hold fewer; a single sample
            left over is not served, since batch norm cannot train on one.
        augment: Applied in order to each batch, after the set's view, which belongs to the data.
        seed: 0 or more.
        device: Where images and targets are put.
        rank: Which part of each step is served.
        world: Into how many parts, as equal as can be, each step is cut; its images are what they are in one part.

    Raises:
        PassbandError: when there are no labels, or fewer than two samples to a step.
    """

    dataset: ImageSet
    batch: int
    augment: tuple[Augmentation, ...] = ()
    seed: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a device is immutable)
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.dataset.labels is None:
            raise PassbandError(f"training needs labels, and {self.dataset.name} has none; give a set with classes")
        if self.batch < 2 or len(self.dataset) < 2:
            raise PassbandError(
                f"a training step holds at least two images (batch norm cannot train on one); got batches of "
                f"{self.batch} from {len(self.dataset)} images"
            )

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 1)

    def share(self, rank: int, world: int) -> TrainBatches:
        """Return one of ``world`` parts of every step."""
        return replace(self, rank=rank, world=world)

    def count(self, step: int) -> int:
        """Return how many samples a step has, in all parts."""
        return min(self.batch, len(self.dataset) - step * self.batch)

    def ids(self, epoch: int, step: int) -> tuple[str, ...]:
        """Return what the samples of a step are called, in all parts."""
        chosen = self._order(epoch)[step * self.batch : (step + 1) * self.batch]
        return tuple(self.dataset.ids[place] for place in chosen.tolist())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of a result must know of what was served."""
        return self.dataset.notes

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.dataset), generator=generator(self.seed, epoch))

    @cached_property
    def _labels(self) -> Tensor:
        return torch.from_numpy(np.array(self.dataset.labels, dtype=np.int64))

    @cached_property
    def _held(self) -> Tensor | None:
        """The view of every image, made once; None where there is no view, or the copies take too much memory."""
        return viewed(self.dataset) if self.dataset.view is not None and fits(self.dataset) else None

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the steps of an epoch from ``start`` on: images as ``Batches`` has them, and targets."""
        order = self._order(number)
        for step in range(start, len(self)):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            images, labels = self._images(chosen.numpy(), generator(self.seed, number, step)), self._labels[chosen]
            if self.world > 1:
                # An augmentation draws for the whole step at once: so a part has what it would have in one.
                images, labels = (whole.tensor_split(self.world)[self.rank] for whole in (images, labels))
            yield images.to(self.device), labels.to(self.device)

    def _images(self, chosen: np.ndarray, generator: torch.Generator) -> Tensor:
        view = self.dataset.view
        if view is None:
            pixels = self.dataset.tensor(chosen)
        elif self._held is None:
            pixels = view(as_floats(self.dataset.tensor(chosen))).permute(0, 2, 3, 1)
        else:
            pixels = self._held[chosen]
        for augment in self.augment:
            pixels = augment(pixels, generator)
        images = pixels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return images if images.is_floating_point() else images.float().div_(255)
