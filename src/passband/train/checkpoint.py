"""A training's state on disk: whole or not there, and safe to load."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn, optim

from passband.core.errors import PassbandError
from passband.core.store import write_atomic


@dataclass
class Position:
    """Say where a training stands.

    Attributes:
        epoch: Epochs that are complete.
        step: Steps done in the epoch under way.
        loss_sum: Summed loss over the epoch's samples so far.
        score_sum: Summed score of the epoch's samples so far, while the weights moved; of a classification, how many
            were right.
        seen: Samples of the epoch so far.
        log_bytes: Length of ``log.csv`` at this point; what was written later is cut off on resuming.
        seconds: Seconds of training so far, over all its processes.
        ended: Why it ended before its last epoch; empty while it goes on.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    score_sum: float = 0.0
    seen: int = 0
    log_bytes: int = 0
    seconds: float = 0.0
    ended: str = ""


@dataclass
class State:
    """Hold what a training changes.

    Attributes:
        model: The network whose weights learn.
        optimizer: With its moments.
        ema: The moving average of the weights.
        position: Where the training stands.
        memory: What its scheme and its early stop keep from step to step: tensors and plain values, by name.
    """

    model: nn.Module
    optimizer: optim.Optimizer
    ema: ModelEmaV3 | None = None
    position: Position = field(default_factory=Position)
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A loaded optimizer state must not bring the decayed rate in as the one to start from.
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    @property
    def evaluated(self) -> nn.Module:
        """The model whose accuracy counts: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def weights(self) -> dict[str, Any]:
        """Return the weights and their moving average, not copied."""
        return {"model": self.model.state_dict(), "ema": None if self.ema is None else self.ema.state_dict()}

    def put_back(self, weights: Mapping[str, Any]) -> None:
        """Set the weights and their moving average to what :meth:`weights` gave."""
        self.model.load_state_dict(weights["model"])
        if self.ema is not None:
            self.ema.load_state_dict(weights["ema"])

    def save(self, path: Path, digest: str, others: Sequence[Tensor] = ()) -> None:
        """Write everything, with the random generators' states, to ``path`` in one rename.

        Args:
            path: The checkpoint.
            digest: The run's.
            others: What :func:`random_state` gave in the other processes of the training, in their order.
        """
        buffer = io.BytesIO()
        torch.save(
            {
                "digest": digest,
                "position": asdict(self.position),
                **self.weights(),
                "optimizer": self.optimizer.state_dict(),
                "memory": self.memory,
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "random_others": list(others),
            },
            buffer,
        )
        write_atomic(path, buffer.getvalue())

    def load(self, path: Path, digest: str, rank: int = 0) -> None:
        """Read everything back.

        Args:
            path: The checkpoint.
            digest: The run's.
            rank: This process's number; where it was saved with fewer, this one's random numbers are new ones.

        Raises:
            PassbandError: when the file is damaged or belongs to another recipe.
        """
        saved = read(path)
        if saved.get("digest") != digest:
            raise PassbandError(f"{path} belongs to another recipe; remove it to train anew")
        self.put_back(saved)
        self.optimizer.load_state_dict(saved["optimizer"])
        # Checkpoints from before there were schemes have no memory.
        self.memory.update(saved.get("memory", {}))
        if rank == 0:
            torch.set_rng_state(saved["random"])
        if rank == 0 and saved["random_cuda"]:
            # Resumed where fewer devices are seen, the states of the others have nobody to go to.
            torch.cuda.set_rng_state_all(saved["random_cuda"][: torch.cuda.device_count()])
        # Checkpoints from before there were several processes have no others.
        if 0 < rank <= len(others := saved.get("random_others", [])):
            _set_random_state(others[rank - 1])
        position = dict(saved["position"])
        if "correct" in position:
            # So checkpoints from before there was another task call it.
            position["score_sum"] = position.pop("correct")
        self.position = Position(**position)


def random_state(device: torch.device) -> Tensor:
    """Return the states of the generators of the CPU and, behind it, of a GPU that is the device, uint8 [N]."""
    own = torch.get_rng_state()
    return own if device.type != "cuda" else torch.cat([own, torch.cuda.get_rng_state(device)])


def _set_random_state(state: Tensor) -> None:
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length])
    if len(state) > length and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[length:])


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values; code in it is refused, never run.

    Raises:
        PassbandError: when the file is truncated, damaged or holds anything else.
    """
    try:
        saved = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as its reader has lines
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PassbandError(f"{path} is damaged ({reason}); remove it to train anew") from None
    if not isinstance(saved, dict):
        raise PassbandError(f"{path} is not a checkpoint of a training; remove it to train anew")
    return saved
