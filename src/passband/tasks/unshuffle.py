"""Pixel un-shuffling: one fixed permutation of the pixels of every image, and how well a model undoes it.

**Source**: spatial-mixing, section 4.4 of both versions. **Differs**: the loss is the mean over pixels, where the paper
writes their sum: another factor, which Adam does not see. The permutation, the peak and the mean of the PSNR are not in
the paper.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from passband.core.errors import NotApplicable, PassbandError
from passband.data.dataset import permutation
from passband.tasks.task import ImageTask

SMALLEST = 2.0**-48
"""Squared error below which float32 pixels near 1 are equal, half a unit in their last place squared: 144.5 dB."""


@cache
def pixel_order(size: tuple[int, int], seed: int = 0) -> Int[Tensor, " pixels"]:
    """Return a fixed permutation of an image's positions, counted row by row.

    Pixel ``i`` of a shuffled image is pixel ``order[i]`` of the image.

    Args:
        size: Height and width in pixels.
        seed: Of the permutation, 0 or more.
    """
    return torch.from_numpy(permutation(size[0] * size[1], None, seed))


def shuffle(
    images: Float[Tensor, "batch channel height width"], order: Int[Tensor, " pixels"]
) -> Float[Tensor, "batch channel height width"]:
    """Put the pixels of every image in another order, the same for all images and channels; the layout is kept.

    Args:
        images: Any values.
        order: A permutation of the positions, as :func:`pixel_order` gives.
    """
    moved = images.flatten(2).index_select(2, order.to(images.device)).view(images.shape)
    last = torch.channels_last
    return moved.contiguous(memory_format=last) if images.is_contiguous(memory_format=last) else moved


def restore(model: nn.Module, images: Float[Tensor, "batch channel height width"], seed: int = 0) -> Any:
    """Return what a model makes of shuffled images, in the mode that it is in.

    Args:
        model: Images in, images of the same shape out.
        images: As they were before, in [0, 1].
        seed: Of the permutation.
    """
    return model(shuffle(images, pixel_order((images.shape[-2], images.shape[-1]), seed)))


def check_restored(restored: Any, images: Tensor) -> Tensor:
    """Return a model's answer, refusing what is not images like those that went in.

    Raises:
        NotApplicable: when its shape is another.
        PassbandError: when it holds NaN.
    """
    if not isinstance(restored, Tensor) or restored.shape != images.shape:
        came = list(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
        raise NotApplicable(
            f"un-shuffling needs a model that gives images {list(images.shape)} for images {list(images.shape)}, "
            f"such as conv_mixer_pixels; this one gives {came}"
        )
    if bool(torch.isnan(restored).any()):
        raise PassbandError("the model gives NaN: its weights hold NaN or overflow; train it with a lower lr")
    return restored


def loss(
    restored: Float[Tensor, "batch channel height width"], images: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, ""]:
    """Return the mean squared error over all pixels of the batch, pixels in [0, 1]."""
    return functional.mse_loss(restored.float(), images)


def psnr(
    restored: Float[Tensor, "batch channel height width"], images: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, " batch"]:
    """Return each image's peak signal-to-noise ratio in dB, with peak 1, from its mean squared error.

    An image that is restored exactly has 144.5 dB: float32 pixels tell no smaller error apart.
    """
    error = (restored.float() - images).cpu().double().square().mean((1, 2, 3))
    return -10 * error.clamp_min(SMALLEST).log10()


def mean_interval(scores: Float[Tensor, " count"]) -> tuple[float, float | None, float | None]:
    """Return the mean of some scores and its normal 95% interval, which a single score does not have."""
    values = scores.double()
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = NormalDist().inv_cdf(0.975) * float(values.std()) / math.sqrt(len(values))
    return mean, mean - half, mean + half


UNSHUFFLE = ImageTask(
    name="unshuffle",
    score="psnr",
    gives="images",
    ask=restore,
    check=check_restored,
    loss=lambda restored, images, targets: loss(restored, images),
    scores=lambda restored, images, targets: psnr(restored, images),
    summary=mean_interval,
)
