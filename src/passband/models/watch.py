"""Looking at what layers take and give while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

See = Callable[[str, tuple[Any, ...], Any], object]
"""A layer's name, its inputs and its output to anything, which is not read."""


@contextmanager
def watched(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Call ``see(name, inputs, output)`` whenever a layer has run; hooks are gone on leaving, also by an error.

    What is seen must be used at once: a later layer may write into the same memory.
    """

    def look(name: str, _module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        see(name, inputs, output)

    with ExitStack() as hooks:
        for name, module in layers.items():
            hooks.callback(module.register_forward_hook(partial(look, name)).remove)
        yield
