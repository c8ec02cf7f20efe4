"""The built-in set: patches of the photographs inside scikit-image's wheel, told apart by structure alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from passband.core.errors import PassbandError
from passband.data.dataset import ImageSet, fingerprint

Split = Literal["train", "test"]
FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
"""One class each. Of the wheel's eighteen photographs, clock_motion, moon and text have too few patches."""

SIDE = 32
CONTRAST = 0.125
"""Standard deviation of every patch; half the pixel range is four of it."""
FLATTEST = 6.0
"""Smallest standard deviation, of 255, before patches are brought to ``CONTRAST``: below, noise rules."""
PEAK = 0.5 / CONTRAST
"""Largest distance from the mean, in standard deviations; beyond, a patch would be clipped."""
COUNTS: dict[Split, int] = {"train": 240, "test": 55}
"""Patches of each photograph."""
STRIDE = 8
_PERIOD, _STRIPS = 144, {"train": (0, 88), "test": (96, 136)}


@cache
def photos(split: Split) -> ImageSet:
    """Return the built-in photographs as 32×32 patches, the same on every machine.

    Rows 0-87 of every 144 of a photograph serve training and rows 96-135 testing, so that no test patch
    touches a training patch; patches within a split overlap. A patch is the luminance (ITU-R 601), brought to
    mean 0.5 and standard deviation 0.125 (up to rounding to 8 bits) and repeated to three channels. Nearly
    flat patches are left out, and so are those whose brightest or darkest pixel would have to be clipped. All
    classes have equally many patches, so chance is one in fifteen, and a patch's mean, contrast and color say
    nothing about its class.

    Args:
        split: ``"train"`` (3600 patches) or ``"test"`` (825).

    Raises:
        PassbandError: when scikit-image is there without its photographs.
    """
    images = np.concatenate([_patches(_luminance(name), split) for name in FILES])
    labels = np.repeat(np.arange(len(FILES)), COUNTS[split])
    images = np.repeat(images[..., None], 3, axis=3)
    images.flags.writeable = labels.flags.writeable = False
    names = tuple(Path(name).stem for name in FILES)
    chance = f"photos: {len(FILES)} classes with equally many patches each, so that chance is 1/{len(FILES)}"
    return ImageSet("photos", images, labels, names, fingerprint(f"photos/{split}", images, labels), (chance,))


def photograph(name: str) -> Path:
    """Return where a photograph of scikit-image's wheel lies.

    Raises:
        PassbandError: when scikit-image is there without it.
    """
    found = find_spec("skimage")
    path = Path(found.origin).parent / "data" / name if found and found.origin else None
    if path is None or not path.is_file():
        raise PassbandError(
            f"the built-in photographs need {name} of scikit-image's wheel, which is not there; "
            "install it again: pip install --force-reinstall scikit-image"
        )
    return path


def _luminance(name: str) -> np.ndarray:
    with Image.open(photograph(name)) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


def _patches(photo: np.ndarray, split: Split) -> np.ndarray:
    kept = []
    for top in _tops(photo.shape[0], split):
        strip = photo[top : top + SIDE]
        patches = np.lib.stride_tricks.sliding_window_view(strip, SIDE, axis=1)[:, ::STRIDE].transpose(1, 0, 2)
        centered = patches - patches.mean((1, 2), keepdims=True)
        spread = centered.std((1, 2), keepdims=True)
        peak = np.abs(centered).max((1, 2), keepdims=True)
        fit = ((spread > FLATTEST) & (peak <= PEAK * spread))[:, 0, 0]
        kept.append(0.5 + CONTRAST * centered[fit] / spread[fit])
    whole = np.concatenate(kept)
    chosen = np.linspace(0, len(whole) - 1, COUNTS[split]).round().astype(int)
    pixels: np.ndarray = np.rint(whole[chosen] * 255).astype(np.uint8)
    return pixels


def _tops(height: int, split: Split) -> Iterator[int]:
    first, last = _STRIPS[split]
    for start in range(0, height, _PERIOD):
        for top in range(start + first, start + last - SIDE + 1, STRIDE):
            if top + SIDE <= height:
                yield top
