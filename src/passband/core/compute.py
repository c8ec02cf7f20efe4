"""How a training is carried out: what is not meant to change its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass

from passband.core.errors import PassbandError


@dataclass(frozen=True)
class Compute:
    """Say where and how work is done; written into ``environment.json``, never hashed.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, or ``"cuda:1"``.
        threads: CPU threads; 0 leaves torch's choice. Another count is another draw: sums are rounded otherwise.
        keep_epochs: Whether every epoch's weights are kept, so that a probe can follow the training afterwards.
        watched: Test images that the log speaks of after each epoch, the first of one fixed permutation; None is all,
            which costs more than the epoch where the training set is small. The run's metrics speak of all.
        checkpoint_seconds: Seconds between two checkpoints within an epoch.
        devices: Processes that share a training or a probe on this machine: a GPU each, or their share of the cores.
        nodes: Machines that do, each with as many; the same command is given on every one of them.
        wait: Whether a folder that another process works in is waited for, as in a pool whose cases share trainings;
            else it is refused.
        skip_bad: Whether other photographs stand in for those of a stream that cannot be read, which the run's metrics
            then name; else such a one ends the training.
    """

    device: str = "auto"
    threads: int = 0
    keep_epochs: bool = False
    watched: int | None = None
    checkpoint_seconds: float = 60.0
    devices: int = 1
    nodes: int = 1
    wait: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.threads < 0:
            raise PassbandError(f"threads are 1 or more, or 0 for torch's choice; got {self.threads}")
        if self.watched is not None and self.watched < 1:
            raise PassbandError(f"watched is 1 test image or more, or None for all; got {self.watched}")
        for what, count in (("devices", self.devices), ("nodes", self.nodes)):
            if count < 1:
                raise PassbandError(f"{what} are 1 or more; got {count}")


def check_device(name: str) -> None:
    """Refuse a name that stands for no kind of device.

    Raises:
        PassbandError: when it is not auto, cpu, cuda, cuda:N or mps.
    """
    kind, colon, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdigit())):
        raise PassbandError(f"a device is auto, cpu, cuda, cuda:N or mps; got '{name}'")


def speaks() -> bool:
    """Tell whether this process is the one of a training that prints: the first, where torchrun started several."""
    return os.environ.get("RANK", "0") == "0"
