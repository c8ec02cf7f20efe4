"""How a training is carried out: what is not meant to change its weights."""

from __future__ import annotations

from dataclasses import dataclass

from passband.core.errors import PassbandError


@dataclass(frozen=True)
class Compute:
    """Say where and how work is done; written into ``environment.json``, never hashed.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, or ``"cuda:1"``.
        threads: CPU threads; 0 leaves torch's choice. Another count is another draw: sums are rounded otherwise.
        keep_epochs: Whether every epoch's weights are kept, so that a probe can follow the training afterwards.
        checkpoint_seconds: Seconds between two checkpoints within an epoch.
    """

    device: str = "auto"
    threads: int = 0
    keep_epochs: bool = False
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.threads < 0:
            raise PassbandError(f"threads are 1 or more, or 0 for torch's choice; got {self.threads}")


def check_device(name: str) -> None:
    """Refuse a name that stands for no kind of device.

    Raises:
        PassbandError: when it is not auto, cpu, cuda, cuda:N or mps.
    """
    kind, colon, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdigit())):
        raise PassbandError(f"a device is auto, cpu, cuda, cuda:N or mps; got '{name}'")
