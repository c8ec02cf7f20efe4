"""The device that a name stands for, and what it is."""

from __future__ import annotations

import torch

from passband.core.compute import check_device
from passband.core.environment import hardware
from passband.core.errors import PassbandError


def torch_device(name: str) -> str:
    """Return a torch device's name; ``"auto"`` is a GPU where there is one.

    Raises:
        PassbandError: for no name of a device, or a device that is not there.
    """
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise PassbandError(
            f"device {name}: torch finds {torch.cuda.device_count()} GPUs here; take --device cpu or auto"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise PassbandError("device mps: torch finds no such GPU here; take --device cpu or auto")
    return name


def hardware_class(device: str) -> str:
    """Return what a torch device is: the GPU's name, else the processor and its cores."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else hardware()
