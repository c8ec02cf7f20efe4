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


def several(device: str, count: int) -> str:
    """Return the kind of device of which several are asked for.

    Raises:
        PassbandError: when one is named, or there are not as many.
    """
    kind, _, index = device.partition(":")
    if index:
        raise PassbandError(f"--device {device} is one device, and {count} are asked for; give --device {kind}")
    if kind == "mps":
        raise PassbandError("--device mps is a single device; leave --devices out, or take --device cpu")
    if kind == "cuda" and count > torch.cuda.device_count():
        raise PassbandError(f"--devices {count}: torch finds {torch.cuda.device_count()} GPUs here; ask for as many")
    return kind


def hardware_class(device: str) -> str:
    """Return what a torch device is: the GPU's name, else the processor and its cores."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else hardware()
