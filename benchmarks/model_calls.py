"""Watch what a model is asked while something runs: how often, for how many rows, for how long."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@dataclass(frozen=True, order=True)
class Query:
    """Tell one kind of question to the model from another.

    Attributes:
        gradient: Whether the gradient by the pixels was wanted.
        kind: Number format of the convolutions.
        rows: Images asked about at a time.
    """

    gradient: bool
    kind: str
    rows: int


@dataclass
class Calls:
    """Hold how often and how long a model was asked.

    Attributes:
        count: Number of calls by kind.
        seconds: Their time, the gradient's with its query.
        total: Seconds of all that was watched.
    """

    count: dict[Query, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[Query, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0

    def rows(self, gradient: bool) -> int:
        """Return how many images were asked about, filling included, with or without a gradient."""
        return sum(query.rows * count for query, count in self.count.items() if query.gradient == gradient)


@contextmanager
def watched() -> Iterator[Calls]:
    """Count the calls of every outermost module, and time them and ``torch.autograd.grad``.

    The hooks are torch's global ones, so that copies of a model and traced ones are seen too. A gradient taken by
    ``backward()`` is not seen: its time is the rest's.
    """
    calls, depth, start, asked = Calls(), 0, 0.0, Query(False, "", 0)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal depth, start, asked
        if _images(inputs):
            images = inputs[0]
            device = images.device.type
            if depth == 0:
                kind = str(images.dtype).removeprefix("torch.")
                asked = Query(torch.is_grad_enabled() and images.requires_grad, kind, len(images))
                start = _now(images)
            elif torch.is_autocast_enabled(device):  # which a model may switch on inside
                asked = replace(asked, kind=str(torch.get_autocast_dtype(device)).removeprefix("torch."))
        depth += 1

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0 and _images(inputs):
            calls.count[asked] += 1
            calls.seconds[asked] += _now(inputs[0]) - start

    backward = torch.autograd.grad

    def grad(outputs: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        begin = _now(outputs)
        found = backward(outputs, inputs, *rest, **options)
        calls.seconds[asked] += _now(outputs) - begin
        return found

    hooks = register_module_forward_pre_hook(before), register_module_forward_hook(after)
    begin = time.perf_counter()
    try:
        with mock.patch.object(torch.autograd, "grad", grad):
            yield calls
    finally:
        calls.total = time.perf_counter() - begin
        for hook in hooks:
            hook.remove()


def _images(inputs: tuple[Any, ...]) -> bool:
    """Tell a model, or a part of one, from a loss: it is given [batch, channel, height, width] first."""
    return bool(inputs) and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4


def _now(tensor: Tensor) -> float:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
