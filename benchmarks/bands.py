"""Compare the split of images into low and high frequencies with the loop of high-frequency's authors.

Theirs goes image by image and channel by channel: transform, shift, mask, shift back, transform back, real part; twice
for each radius, once with the mask and once with its complement. Masks are made before the clock starts. Ours is
measured with all copies kept, and streamed, as a probe needs them: each pair of copies is dropped before the next is
made. numpy on all images at once shows what of it is numpy's loop. ``python -m benchmarks.bands [--quick]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.fft import fft2, fftshift, ifft2, ifftshift
from torch import Tensor

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from passband.core.band import Band
from passband.experiments.timing import interleaved
from passband.frequency.filters import copies, mask, sweep

RADII = (4, 8, 12, 16)
CHUNK = 64
"""Images that stream through at a time."""
ALLOWED = 1e-3
"""Largest error, on pixels from 0 to 255."""


def masks(radii: Sequence[float], side: int) -> list[np.ndarray]:
    """Return 1 where a spectrum whose zero frequency lies in the middle is kept, for each radius."""
    rows, columns = np.indices((side, side)) - side // 2
    return [(np.hypot(rows, columns) <= radius).astype(np.float64) for radius in radii]


def loop(images: np.ndarray, kept: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Split images [N, H, W, C] as the authors do: low and high copies of each radius, one after the other."""
    return [_filtered(images, part) for low in kept for part in (low, 1 - low)]


def _filtered(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    copied = []
    for index in range(len(images)):
        copy = np.zeros(images.shape[1:])
        for channel in range(images.shape[3]):
            spectrum = fftshift(fft2(images[index, :, :, channel]))
            copy[:, :, channel] = np.real(ifft2(ifftshift(spectrum * kept)))
        copied.append(copy)
    return np.array(copied)


def batched(images: np.ndarray, kept: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Split all images at once with numpy, from one transform, in float32."""
    planes = images.transpose(0, 3, 1, 2).astype(np.float32)
    spectrum, found = fft2(planes), []
    for part in kept:
        low = ifft2(spectrum * ifftshift(part).astype(np.float32)).real
        found += [low, planes - low]
    return found


def ours(images: Tensor, bands: Sequence[Band]) -> Tensor:
    """Split stored pixels [N, H, W, C] and keep all copies: [band, 2, N, C, H, W]."""
    return copies(images.permute(0, 3, 1, 2), bands)


def streamed(images: Tensor, bands: Sequence[Band]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the two copies of a few images at a time, for each band."""
    for chunk in images.split(CHUNK):
        for _, low, high in sweep(chunk.permute(0, 3, 1, 2).float(), bands):
            yield low, high


def assert_agreement(images: np.ndarray, radii: Sequence[float] = RADII) -> float:
    """Check that ours, kept and streamed, is what the loop gives; return the largest difference on pixels of 0 to 255.

    Raises:
        AssertionError: when it is `ALLOWED` or more.
    """
    pixels, bands, kept = (
        torch.from_numpy(images),
        [Band.disc(radius) for radius in radii],
        masks(radii, images.shape[1]),
    )
    for band, part in zip(bands, kept, strict=True):
        assert np.array_equal(ifftshift(part), mask(band, images.shape[1:3]).numpy()), f"the masks of {band} differ"
    expected = np.stack(loop(images, kept)).transpose(0, 1, 4, 2, 3)
    pairs = [torch.stack(pair) for pair in streamed(pixels, bands)]
    through = [torch.cat(pairs[index :: len(bands)], dim=1) for index in range(len(bands))]
    worst = 0.0
    for found in (
        ours(pixels, bands).flatten(0, 1).numpy(),
        torch.cat(through).numpy(),
        np.stack(batched(images, kept)),
    ):
        worst = max(worst, float(np.abs(found - expected).max()))
    assert worst < ALLOWED, f"copies differ by {worst:.1e} of 255"
    return worst


def compare_splits(images: np.ndarray, rounds: int, note: str) -> list[dict[str, Any]]:
    """Time the loop, numpy on all images, and ours, kept and streamed."""
    pixels, bands, kept = (
        torch.from_numpy(images),
        [Band.disc(radius) for radius in RADII],
        masks(RADII, images.shape[1]),
    )

    def through() -> None:
        for _ in streamed(pixels, bands):
            pass

    times = interleaved(
        {
            "ours, all copies kept": lambda: ours(pixels, bands),
            "ours, streamed": through,
            "loop over images": lambda: loop(images, kept),
            "numpy on all images": lambda: batched(images, kept),
        },
        rounds,
    )
    show_times(
        f"low and high copies of {len(images):,} images at radii {', '.join(map(str, RADII))}", times, 1000, "ms"
    )
    pairs = (
        Pair("all copies kept, against the loop", "ours, all copies kept", "loop over images", 30.0, note),
        Pair("streamed, against the loop", "ours, streamed", "loop over images", 75.0, f"{note}; {CHUNK} at a time"),
        Pair("all copies kept, against numpy", "ours, all copies kept", "numpy on all images", None, note),
    )
    return [compare(pair, times, "s") for pair in pairs]


def main() -> None:
    """Run the whole comparison."""
    reader = parser(__doc__ or "")
    reader.add_argument("--rounds", type=int, default=5, help="rounds of the whole measurement")
    arguments = reader.parse_args()
    torch.set_num_threads(arguments.threads)
    count, rounds = (200, 2) if arguments.quick else (10_000, arguments.rounds)
    # An FFT takes as long on any pixels.
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    worst = assert_agreement(images[:200])
    print(f"ours and theirs differ by at most {worst:.1e} on pixels from 0 to 255")
    note = f"{count:,} images of 32 × 32 pixels, {arguments.threads} threads, error {worst:.1e} of 255"
    report(compare_splits(images, rounds, note), arguments.json)


if __name__ == "__main__":
    main()
