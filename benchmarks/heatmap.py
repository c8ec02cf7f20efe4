"""Compare the Fourier heat map with the usual way: one pass over the images for each frequency.

Theirs is that loop in its best form: images in memory in channels last, waves and signs made before the clock starts,
evaluation and inference mode, verdicts left on the device until the end, the batch size that was quickest beforehand.
It asks the model as it is; ours asks its quick form, with batches of several images and several waves. Both are
arithmetic, nearly all of it, without TF32. In float32 both must err on the same images; how many verdicts differ is
counted, and more than `ALLOWED` stops the benchmark.

bf16 is ours in bf16 against theirs in float32, with the share of verdicts that it changes. Without bf16 instructions it
is slower, and is measured on a few frequencies alone, which says so.

A whole map at 32 pixels has 514 frequencies: times are of a fixed random part of them, ``--bases all`` takes all.
The network learned ten noisy patterns for a few steps: its answers take as long as any other's, and its verdicts are
neither all right nor all wrong. ``python -m benchmarks.heatmap [--quick] [--bases 64] [--device cuda]``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from benchmarks.steps import channels_last
from passband.data.dataset import Batches, ImageSet, permutation
from passband.experiments.timing import interleaved, wait
from passband.frequency.basis import basis, half_plane
from passband.models.fast import Precision, fast, has_bf16
from passband.models.postact_resnet import PostActivationResNet
from passband.models.state import exact, untouched
from passband.probes.heatmap import PRESETS, Wave, drawn_signs, errors

SIDE, DEPTH = 32, 3
WAVE = Wave(PRESETS["cifar10"][0])
SIZES = (32, 64, 128, 256, 512, 1024)
"""Batch sizes among which theirs chooses."""
ALLOWED = 1e-4
"""Share of float32 verdicts that may differ, by rounding."""
FEW = 4
"""Frequencies on which bf16 is measured where it is slow."""


class Loop:
    """Hold the usual way: all that it needs is made beforehand.

    Args:
        model: The network, in channels last and in evaluation mode.
        images: [N, C, H, W] in [0, 1].
        targets: int64 [N].
        frequencies: ``(ky, kx)`` in bins, [K, 2].
    """

    def __init__(self, model: nn.Module, images: Tensor, targets: Tensor, frequencies: Tensor) -> None:
        self.model, self.targets = model, targets
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.waves = WAVE.norm * basis(frequencies, (SIDE, SIDE), images.device)
        self.signs = drawn_signs(images, frequencies, WAVE).transpose(0, 1)[..., None, None]

    def wrong(self, size: int, count: int | None = None) -> Tensor:
        """Return where the network errs, bool [frequency, image], with so many images a batch.

        Args:
            size: Of a batch.
            count: Frequencies, the first ones; None takes all.
        """
        found = torch.empty(len(self.waves[:count]), len(self.images), dtype=torch.bool, device=self.images.device)
        with torch.inference_mode(), exact():
            for row, wave in enumerate(self.waves[:count]):
                for first in range(0, len(self.images), size):
                    part = slice(first, first + size)
                    copies = torch.addcmul(self.images[part], self.signs[row, part], wave).clamp_(0, 1)
                    found[row, part] = self.model(copies).argmax(1) != self.targets[part]
        return found.cpu()

    def best_size(self) -> int:
        """Return the batch size that is quickest on one frequency, the better of two tries each."""
        return min(SIZES, key=lambda size: min(self._seconds(size) for _ in range(2)))

    def _seconds(self, size: int) -> float:
        begin = time.perf_counter()
        self.wrong(size, 1)
        return time.perf_counter() - begin


def patterns(count: int, seed: int) -> ImageSet:
    """Return noisy images of ten fixed patterns of 4×4 colors."""
    rng = np.random.default_rng(0)
    colors = rng.random((10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    noise = rng.random((count, 16, 16, 3)).repeat(2, 1).repeat(2, 2)
    pixels = (255 * (0.3 * colors[labels] + 0.7 * noise)).astype(np.uint8)
    return ImageSet("patterns", pixels, labels, tuple("abcdefghij"), "0" * 64)


def network(device: str, steps: int) -> nn.Module:
    """Return a ResNet-20 that learned the patterns for some steps, in channels last and evaluation mode."""
    torch.manual_seed(0)
    model = channels_last(PostActivationResNet(DEPTH).to(device)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in patterns(64 * steps, 1).batches(64, device):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def assert_agreement(ours: np.ndarray, theirs: Tensor) -> int:
    """Return how many verdicts of the two ways differ.

    Raises:
        AssertionError: when they are more than the share `ALLOWED`.
    """
    differing = int((torch.from_numpy(ours) != theirs).sum())
    assert differing <= ALLOWED * ours.size, f"{differing} of {ours.size} verdicts differ"
    return differing


class Sides:
    """Hold both ways on the same frequencies and images."""

    def __init__(self, model: nn.Module, batches: Batches, frequencies: Tensor) -> None:
        self.model, self.batches, self.frequencies = model, batches, frequencies
        self.images = torch.cat([images for images, _ in batches])
        self.device = str(batches.device)
        self.loop = Loop(model, self.images, torch.cat([targets for _, targets in batches]), frequencies)

    def ours(self, precision: Precision) -> np.ndarray:
        """Return where the model's quick form errs; making that form is part of it."""
        with untouched(self.model), exact():
            form = fast(self.model, self.images[:16], precision=precision)
            return errors(form.module, self.batches, self.frequencies, WAVE)

    def times(self, precision: Precision, size: int, rounds: int) -> dict[str, list[float]]:
        """Time both."""

        def one(run: Any) -> None:
            run()
            wait(self.device)

        return interleaved(
            {
                "ours": lambda: one(lambda: self.ours(precision)),
                "a pass for each frequency": lambda: one(lambda: self.loop.wrong(size)),
            },
            rounds,
        )


def compare_precision(sides: Sides, precision: Precision, size: int, rounds: int, note: str) -> dict[str, Any]:
    """Time ours in one precision against theirs in float32, and count the verdicts that differ."""
    theirs = sides.loop.wrong(size)
    found = sides.ours(precision)
    if precision == "float32":
        said = f"{assert_agreement(found, theirs)} of {found.size:,} verdicts differ"
    else:
        said = (
            f"{100 * float((torch.from_numpy(found) != theirs).float().mean()):.2g}% of {found.size:,} verdicts differ"
        )
    print(f"{precision}: {said}; {100 * float(theirs.float().mean()):.1f}% of them are errors")
    times = sides.times(precision, size, rounds)
    show_times(f"{len(sides.frequencies)} frequencies, ours in {precision}", times, 1, "s")
    target = 1.0 if precision == "float32" else 2.0
    about = f"{note}, {len(sides.frequencies)} of 514 frequencies, theirs in batches of {size}; {said}"
    pair = Pair(f"heat map of ResNet-20, {precision}", "ours", "a pass for each frequency", target, about)
    return compare(pair, times, "s")


def options() -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__ or "")
    reader.add_argument("--bases", default="64", help="how many frequencies are timed, or 'all' 514; 64 unless told")
    reader.add_argument("--images", type=int, default=1000, help="images; 1,000 unless told otherwise")
    reader.add_argument("--rounds", type=int, default=3, help="rounds of the whole measurement")
    reader.add_argument("--device", default="cpu", help="cpu or cuda")
    return reader.parse_args()


def main() -> None:
    """Run the whole comparison."""
    arguments = options()
    torch.set_num_threads(arguments.threads)
    count, rounds = (64, 1) if arguments.quick else (arguments.images, arguments.rounds)
    everything = half_plane((SIDE, SIDE))
    asked = 4 if arguments.quick else len(everything) if arguments.bases == "all" else int(arguments.bases)
    chosen = everything[np.sort(permutation(len(everything), asked, 0))]
    model = network(arguments.device, 8 if arguments.quick else 60)
    batches = patterns(count, 2).batches(256, arguments.device)
    sides = Sides(model, batches, chosen)
    size = sides.loop.best_size()
    note = f"{count:,} images of {SIDE} × {SIDE} pixels, {arguments.device}, {arguments.threads} threads"
    if arguments.quick:
        note += ", a check and no measurement"
    found = [compare_precision(sides, "float32", size, rounds, note)]
    quick = arguments.device != "cpu" or has_bf16()
    few = sides if quick else Sides(model, batches, chosen[:FEW])
    without = "" if quick else ", no bf16 instructions here"
    found.append(compare_precision(few, "bf16", size, rounds, note + without))
    report(found, arguments.json)


if __name__ == "__main__":
    main()
