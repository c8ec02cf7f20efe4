"""The processes that share a training, a rank each: what they tell each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from passband.core.errors import PassbandError
from passband.core.store import lock

T = TypeVar("T")


class Joined(nn.Module):
    """Ask a model whose gradients are gathered over all ranks.

    Args:
        through: The model in its wrapper, which gathers them.
        alone: The same model in this process by itself, in the training's precision: what an attack asks.
    """

    def __init__(self, through: nn.Module, alone: nn.Module) -> None:
        super().__init__()
        self.through, self.alone = through, alone

    def forward(self, *given: Any) -> Any:
        """Return what the model gives."""
        return self.through(*given)

    @property
    def spec(self) -> Any:
        """The images that the model takes."""
        return self.alone.spec


def alone(model: nn.Module) -> nn.Module:
    """Return the model by itself, without what gathers gradients; one that no ranks share is returned as it is."""
    return model.alone if isinstance(model, Joined) else model


@dataclass(frozen=True, eq=False)
class Ranks:
    """Hold the processes of a training together; one process is the only rank.

    Attributes:
        fabric: Knows the device, the precision and the process group.
    """

    fabric: Fabric

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self.fabric.global_rank)

    @property
    def world(self) -> int:
        """How many processes there are."""
        return int(self.fabric.world_size)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def join(self, model: nn.Module, optimizer: Optimizer, *, unused: bool = False) -> tuple[nn.Module, Optimizer]:
        """Return the model and the optimizer as the loop uses them.

        Args:
            model: What learns.
            optimizer: Of its parameters.
            unused: Whether a step may leave out a parameter that learns.
        """
        if self.world == 1:
            return self.fabric.setup(model, optimizer)  # type: ignore[no-any-return]
        strategy: Any = self.fabric.strategy
        # Statistics that a forward pass updates in place are averaged between two steps, by `level`.
        strategy._ddp_kwargs |= {"forward_sync_buffers": False, "find_unused_parameters": unused}
        through, learning = self.fabric.setup(model, optimizer)
        solo = Fabric(strategy=SingleDeviceStrategy(self.fabric.device), plugins=[strategy.precision])
        return Joined(through, solo.setup_module(model, move_to_device=False)), learning

    def gathering(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return what a forward and backward pass runs in; only the last one of a step gathers the gradients."""
        if not isinstance(model, Joined) or last:
            return nullcontext()
        held: AbstractContextManager[None] = self.fabric.no_backward_sync(model.through)
        return held

    def clip(self, model: nn.Module, optimizer: Optimizer, length: float) -> None:
        """Shorten a gradient that is longer."""
        wrapped = model.through if isinstance(model, Joined) else model
        self.fabric.clip_gradients(wrapped, optimizer, max_norm=length, error_if_nonfinite=False)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all ranks, in double precision."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.fabric.device)
        total: Tensor = self.fabric.all_reduce(numbers, reduce_op="sum")
        return [float(value) for value in total.tolist()]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every rank's tensor, all of one shape, in the ranks' order, on the CPU."""
        if self.world == 1:
            return [tensor]
        own = tensor.to(self.fabric.device)
        found = [torch.empty_like(own) for _ in range(self.world)]
        distributed.all_gather(found, own)
        return [one.cpu() for one in found]

    def level(self, model: nn.Module) -> None:
        """Average the running statistics of batch norms over all ranks, which saw other images each."""
        if self.world == 1:
            return
        held = [
            buffer for module in model.modules() if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var) if buffer is not None
        ]  # fmt: skip
        if not held:
            return
        mean: Tensor = self.fabric.all_reduce(torch.cat([buffer.flatten() for buffer in held]), reduce_op="mean")
        parts = torch.split(mean, [buffer.numel() for buffer in held])
        for buffer, part in zip(held, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

    def decided(self, make: Callable[[], T]) -> T:
        """Return what the first rank makes; what it refuses, every rank refuses.

        Raises:
            PassbandError: the first rank's.
        """
        if self.world == 1:
            return make()
        answer: T | PassbandError | None = None
        if self.first:
            try:
                answer = make()
            except PassbandError as error:
                answer = error
        answer = self.fabric.broadcast(answer)
        if isinstance(answer, PassbandError):
            raise answer
        return answer

    @contextmanager
    def locked(self, folder: Path, *, wait: bool) -> Iterator[None]:
        """Hold a folder for these ranks alone: the first one does, as :func:`passband.core.store.lock`."""
        held = lock(folder, wait=wait)
        self.decided(held.__enter__)
        try:
            yield
        finally:
            if self.first:
                held.__exit__(None, None, None)

    def agree(self, what: str, value: str) -> None:
        """Refuse to go on where another rank's value is not the first one's.

        Raises:
            PassbandError: on the rank that differs.
        """
        first = self.decided(lambda: value)
        if value != first:
            raise PassbandError(f"{what} of process {self.rank} is not that of the first one; give all the same files")

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.fabric.barrier()
