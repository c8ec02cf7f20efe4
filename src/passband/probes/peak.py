"""How much memory a piece of work needs at its worst moment."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak(work: Callable[[], object], device: torch.device) -> int:
    """Return the largest number of bytes that tensors made by some work take at one time.

    On a CUDA device it is what torch's allocator says, beyond what was allocated before. Elsewhere it is counted: the
    storages of all tensors that are alive, those that autograd keeps among them. What a kernel takes for itself while
    it runs (a library's scratch memory) is in the first and not in the second.

    Args:
        work: What is done, once.
        device: Where.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        most: int = torch.cuda.max_memory_allocated(device) - before
        return most
    alive = _Alive()
    with alive:
        work()
    return alive.most


def held(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, each storage once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow the storages that the operations inside make, from the first tensor on each to the last."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        output = function(*args, **(kwargs or {}))
        for one in tree_leaves(output):
            if isinstance(one, Tensor):
                self._note(one.untyped_storage(), given)
        return output

    def _note(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """Count a storage that is neither an input's (a view, a result in place) nor counted."""
        if id(storage) in given | self._known:
            return
        self._known.add(id(storage))
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, id(storage), storage.nbytes()).atexit = False

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
