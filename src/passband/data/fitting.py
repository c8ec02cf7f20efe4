"""How images of any size come to a model's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from passband.core.errors import PassbandError
from passband.core.spec import ImageSpec

Fit = Callable[[np.ndarray], np.ndarray]
"""One image, uint8 [h, w, 3], to uint8 [H, W, 3]."""


@dataclass(frozen=True)
class Fitting:
    """Say how images come to ``size``; as text it is part of a set's fingerprint.

    Attributes:
        size: Height and width, in pixels; None leaves every image as it is.
        fit: ``"timm"`` or ``"pad"``, as in ``ImageSpec``.
        crop_pct: As timm's.
        interpolation: As timm's.
        crop_mode: As timm's.
    """

    size: tuple[int, int] | None
    fit: Literal["timm", "pad"] = "pad"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    crop_mode: str = field(default="center", repr=False)

    @classmethod
    def of(cls, size: tuple[int, int] | None, spec: ImageSpec | None) -> Fitting:
        """Return a model's fitting, or padding to ``size`` where no model is given.

        Raises:
            PassbandError: when the model does not take three channels, or a side is not positive.
        """
        if spec is None:
            if size is not None and min(size) < 1:
                raise PassbandError(f"an image size is two positive numbers, height and width; got {size}")
            return cls(size)
        if spec.channels != 3:
            raise PassbandError(
                f"the model takes {spec.channels} channels, and data sets have three (gray is repeated); "
                "give a model made for three channels"
            )
        return cls(spec.size, spec.fit, spec.crop_pct, spec.interpolation, spec.crop_mode)

    @property
    def mark(self) -> str:
        """Name this way of fitting, for fingerprints: what it was called before there were crop modes stays."""
        return repr(self) + (f" {self.crop_mode}" if self.crop_mode != "center" else "")

    def leaves(self, size: tuple[int, int]) -> bool:
        """Tell whether an image of ``size`` stays as it is."""
        return self.size is None or (self.size == size and (self.fit == "pad" or self.crop_pct == 1))

    def maker(self) -> Fit:
        """Return the function that fits one image: timm's evaluation transform, or even zero-padding."""
        size = self.size
        if size is None:
            return lambda image: image
        evaluation = _evaluation_transform(size, self)

        def fitted(image: np.ndarray) -> np.ndarray:
            height, width = image.shape[:2]
            if self.leaves((height, width)):
                return image
            if self.fit == "pad" and height <= size[0] and width <= size[1]:
                return pad(image[None], size).reshape(*size, 3)
            return evaluation(image)

        return fitted


def pad(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Zero-pad images [N, h, w, C] evenly to ``size``; an odd pixel goes to the bottom and right."""
    down, right = size[0] - images.shape[1], size[1] - images.shape[2]
    padded: np.ndarray = np.pad(
        images, ((0, 0), (down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
    )
    return padded


def _evaluation_transform(size: tuple[int, int], fitting: Fitting) -> Fit:
    from timm.data import create_transform

    transform = create_transform(
        input_size=(3, *size),
        is_training=False,
        use_prefetcher=True,  # stops before floats and normalization: uint8 [3, H, W]
        interpolation=fitting.interpolation,
        crop_pct=fitting.crop_pct,
        crop_mode=fitting.crop_mode,
    )

    def evaluate(image: np.ndarray) -> np.ndarray:
        pixels: np.ndarray = transform(Image.fromarray(image)).numpy()
        return pixels.transpose(1, 2, 0)

    return evaluate
