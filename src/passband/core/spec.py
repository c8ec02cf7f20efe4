"""What images a model takes and what its outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fit = Literal["timm", "pad"]


@dataclass(frozen=True)
class ImageSpec:
    """Describe a model's input and its classes.

    Attributes:
        size: Height and width of the input in pixels.
        mean: Per channel, of pixels in [0, 1]; None when the model normalizes inside or not at all.
        std: As ``mean``.
        source: Where mean and std came from, for people: ``"timm's pretrained_cfg"``, ``"--mean/--std"``.
        classes: Number of outputs; 0 for a model that gives images.
        channels: Number of input channels.
        fit: How images of another size come to ``size``: ``"timm"`` is timm's evaluation transform (resize the
            short side to ``size / crop_pct``, center crop), ``"pad"`` zero-pads smaller images evenly and uses
            timm's way for larger ones.
        crop_pct: As timm's.
        interpolation: As timm's: ``"bicubic"``, ``"bilinear"``, ``"nearest"``.
        crop_mode: As timm's: ``"center"``, ``"squash"``, ``"border"``.
        class_names: One name per output, in order; empty when unknown. For ImageNet models: WordNet ids.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    source: str
    classes: int
    channels: int = 3
    fit: Fit = "timm"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    class_names: tuple[str, ...] = ()
    crop_mode: str = "center"
