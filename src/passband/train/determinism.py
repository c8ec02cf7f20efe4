"""Deterministic operations where torch has them, and the names of those that have none."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TOLD = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic() -> Iterator[list[str]]:
    """Have torch take deterministic operations, and gather the names of those that it has none for.

    Yields:
        The names, in the order in which they were met; filled while work goes on.
    """
    met: list[str] = []
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # cuBLAS asks for it before its first product; on a CPU nobody reads it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with warnings.catch_warnings():
        warnings.filterwarnings("always", _TOLD.pattern)
        show = warnings.showwarning

        def note(message: Warning | str, *where: Any, **more: Any) -> None:
            told = _TOLD.match(str(message))
            if told is None:
                show(message, *where, **more)
            elif told[1] not in met:
                met.append(told[1])

        warnings.showwarning = note
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory before it is written; to fill it would take time.
        memory.fill_uninitialized_memory = False
        try:
            yield met
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            memory.fill_uninitialized_memory = filled
