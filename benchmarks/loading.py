"""Compare an epoch of augmented images from our set in memory with torchvision's CIFAR-10 through a DataLoader.

Both cut each image out of its zero-padded self at random, mirror half of them, make floats and normalize; ours in
batches, theirs image by image. Theirs is torchvision's own CIFAR10 class, given its pixels in place of files, behind
two workers that stay from epoch to epoch, behind none, and with the transforms of torchvision v2.
``python -m benchmarks.loading [--quick]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10
from torchvision.transforms import v2

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from passband.data.augment import TrainBatches, augmentations
from passband.data.dataset import ImageSet
from passband.experiments.timing import interleaved

SIDE, PAD, BATCH = 32, 4, 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)

Batches = Iterator[tuple[Tensor, Tensor]]


def ours(pixels: np.ndarray, labels: np.ndarray, augmented: bool = True) -> Callable[[], Batches]:
    """Return a function that serves an epoch, each a new one, with a normalization that our models have inside."""
    names = tuple(map(str, range(int(labels.max()) + 1)))
    steps: list[dict[str, Any]] = [{"name": "crop", "pad": PAD}, {"name": "flip"}] if augmented else []
    served = TrainBatches(ImageSet("random", pixels, labels, names, "random"), BATCH, augmentations(steps))
    # As wide as an image, and in its layout: three numbers alone would be spread pixel by pixel.
    mean, std = (torch.tensor(values).expand(SIDE, SIDE, 3).contiguous().permute(2, 0, 1) for values in (MEAN, STD))
    numbers = count()

    def epoch() -> Batches:
        for images, targets in served.epoch(next(numbers)):
            yield images.sub_(mean).div_(std), targets

    return epoch


def theirs(
    pixels: np.ndarray, labels: np.ndarray, workers: int, second: bool = False, augmented: bool = True
) -> Callable[[], Batches]:
    """Return a function that serves an epoch from torchvision's CIFAR-10.

    Args:
        pixels: uint8 [N, H, W, 3].
        labels: int64 [N].
        workers: Processes beside this one; 0 reads in it.
        second: Whether the transforms are those of torchvision v2, as its documentation orders them.
        augmented: Whether images are cut out and mirrored.
    """
    dataset = CIFAR10.__new__(CIFAR10)
    dataset.data, dataset.targets, dataset.target_transform = pixels, labels.tolist(), None
    if second:
        moves = [v2.RandomCrop(SIDE, PAD), v2.RandomHorizontalFlip()] if augmented else []
        dataset.transform = v2.Compose(
            [v2.ToImage(), *moves, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )
    else:
        moves = [transforms.RandomCrop(SIDE, PAD), transforms.RandomHorizontalFlip()] if augmented else []
        dataset.transform = transforms.Compose([*moves, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: iter(loader)


def assert_agreement(images: int = 300) -> float:
    """Check that both serve the same images, and both of every kind of window; return the largest difference.

    Raises:
        AssertionError: when an image differs by more than rounding, or is no window of its padded self.
    """
    pixels, labels = random_set(images)[0], np.arange(images)
    plain = {name: _in_order(epoch) for name, epoch in _variants(pixels, labels, augmented=False).items()}
    worst = max(float((found - plain["ours"]).abs().max()) for found in plain.values())
    assert worst < 1e-5, f"images differ by {worst:.1e}"
    for name, epoch in _variants(pixels, labels, augmented=True).items():
        seen = {_window(image, whole) for image, whole in zip(_in_order(epoch), pixels, strict=True)}
        assert {mirrored for mirrored, _, _ in seen} == {False, True}, f"{name}: half of the images are to be mirrored"
        for places in ({down for _, down, _ in seen}, {right for _, _, right in seen}):
            assert places == set(range(2 * PAD + 1)), f"{name}: {places} are not all places"
    return worst


def random_set(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random pixels of 1 to 255, so that the padding can be told, and labels of ten classes."""
    chance = np.random.default_rng(0)
    return chance.integers(1, 256, (images, SIDE, SIDE, 3), dtype=np.uint8), chance.integers(0, 10, images)


def _variants(pixels: np.ndarray, labels: np.ndarray, augmented: bool) -> dict[str, Callable[[], Batches]]:
    return {
        "ours": ours(pixels, labels, augmented),
        "torchvision": theirs(pixels, labels, 0, augmented=augmented),
        "torchvision v2": theirs(pixels, labels, 0, second=True, augmented=augmented),
    }


def _in_order(epoch: Callable[[], Batches]) -> Tensor:
    """Return an epoch's images by their labels, which number them."""
    images, labels = (torch.cat(parts) for parts in zip(*epoch(), strict=True))
    return images[labels.argsort()]


def _window(served: Tensor, whole: np.ndarray) -> tuple[bool, int, int]:
    """Return whether an image is mirrored and where it was cut out of its padded self."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    stored = (255 * (served * std + mean)).round().to(torch.uint8).permute(1, 2, 0).numpy()
    padded = np.pad(whole, ((PAD, PAD), (PAD, PAD), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, stored.shape)[:, :, 0]
    for mirrored, image in ((False, stored), (True, stored[:, ::-1])):
        # One line of random pixels finds the place; the whole window must then be the image.
        places = np.argwhere((windows[:, :, SIDE // 2] == image[SIDE // 2]).all((2, 3)))
        if len(places) == 1 and np.array_equal(windows[tuple(places[0])], image):
            return mirrored, int(places[0, 0]), int(places[0, 1])
    raise AssertionError("an image is no window of its padded self")


def compare_loaders(images: int, rounds: int, note: str) -> list[dict[str, Any]]:
    """Time one epoch of each."""
    pixels, labels = random_set(images)
    loaders = {
        "ours": ours(pixels, labels),
        "torchvision, 2 workers": theirs(pixels, labels, 2),
        "torchvision, no workers": theirs(pixels, labels, 0),
        "torchvision v2, 2 workers": theirs(pixels, labels, 2, second=True),
    }

    def whole(epoch: Callable[[], Batches]) -> Callable[[], int]:
        return lambda: sum(len(batch) for batch, _ in epoch())

    times = interleaved({name: whole(epoch) for name, epoch in loaders.items()}, rounds)
    show_times(f"one epoch of {images:,} images, batch {BATCH}", times, 1000, "ms")
    targets = {name: None for name in loaders if name != "ours"} | {"torchvision, 2 workers": 15.0}
    pairs = [Pair(f"epoch against {name}", "ours", name, target, note) for name, target in targets.items()]
    return [compare(pair, times, "s") for pair in pairs]


def main() -> None:
    """Run the whole comparison."""
    reader = parser(__doc__ or "")
    reader.add_argument("--rounds", type=int, default=5, help="rounds of the whole measurement")
    arguments = reader.parse_args()
    torch.set_num_threads(arguments.threads)
    images, rounds = (2_000, 2) if arguments.quick else (50_000, arguments.rounds)
    worst = assert_agreement()
    print(f"ours and theirs serve the same images to {worst:.1e}, cut out and mirrored alike")
    note = f"{images:,} images of 32 × 32 pixels, crop, flip, normalize, {arguments.threads} threads"
    report(compare_loaders(images, rounds, note), arguments.json)


if __name__ == "__main__":
    main()
