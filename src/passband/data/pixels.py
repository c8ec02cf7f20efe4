"""The range check of images that come in as tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from passband.core.errors import PassbandError


def check_pixels(images: Tensor, channels: int = 3, name: str = "images") -> Tensor:
    """Return ``images`` when they are float [N, ``channels``, H, W] in [0, 1], and refuse them otherwise.

    A model never checks its input; readers, attacks and training on plain images call this.

    Args:
        images: What came.
        channels: What the model takes.
        name: What the images are called in the message.

    Raises:
        PassbandError: naming what came and the cure.
    """
    shape = list(images.shape)
    if images.ndim != 4:
        raise PassbandError(
            f"{name} have shape {shape}, and [N, {channels}, H, W] is needed; images[None] adds the batch axis"
        )
    if not images.is_floating_point():
        raise PassbandError(f"{name} are {images.dtype}, and floats in [0, 1] are needed; use images.float() / 255")
    if images.shape[1] != channels:
        raise PassbandError(
            f"{name} have {images.shape[1]} channels (shape {shape}), and {channels} are needed; "
            + _channel_cure(images, channels)
        )
    if not images.numel():
        raise PassbandError(f"{name} are empty (shape {shape}); give at least one image")
    low, high = (float(v) for v in torch.aminmax(images))
    if low != low or high != high:
        raise PassbandError(f"{name} hold NaN; remove such images before they reach a model")
    if low < 0 or high > 1:
        raise PassbandError(f"{name} lie in [{low:g}, {high:g}], and [0, 1] is needed; " + _range_cure(low, high))
    return images


def _channel_cure(images: Tensor, channels: int) -> str:
    if images.shape[3] == channels:
        return "the channels come last here: use images.permute(0, 3, 1, 2)"
    if images.shape[1] == 1:
        return f"repeat the gray channel: images.expand(-1, {channels}, -1, -1)"
    if images.shape[1] == 4 and channels == 3:
        return "drop the transparency: images[:, :3]"
    return "give images with as many channels as the model takes"


def _range_cure(low: float, high: float) -> str:
    if low >= 0 and high <= 255:
        return "divide by 255"
    if low < 0 and abs(low) < 10 and high < 10:
        return "give images before their normalization: mean and std belong into the model"
    return "scale them to [0, 1]"
