"""The device that a name stands for."""

from __future__ import annotations

import torch

from passband.core.compute import check_device
from passband.core.errors import PassbandError


def torch_device(name: str) -> str:
    """Return a torch device's name; ``"auto"`` is a GPU where there is one.

    Raises:
        PassbandError: when a GPU is named and there is none.
    """
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise PassbandError(f"--device {name}: torch finds no GPU here; use --device cpu")
    return name
