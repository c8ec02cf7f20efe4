"""Batch norms that normalize by the statistics of a batch whose images lie on several devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class SynchronizedBatchNorm(TorchFunctionMode):
    """Have every batch norm within take mean and variance over all ranks, as one device with the whole batch would.

    The modules stay what they are (their names, their folding, their roles): the one function that they all call is
    answered otherwise. All ranks must come by here as often.

    **Differs**: from torch's SyncBatchNorm, which knows GPUs alone and replaces modules; the variance is of the
    differences from the common mean, in two messages, which loses no digits.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer ``batch_norm`` in training; leave everything else as it is."""
        if func is functional.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    dims, shape = [0, *range(2, input.ndim)], (1, -1, *[1] * (input.ndim - 2))
    values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    count = values.new_full((1,), input.numel() // input.shape[1])
    total = _Sum.apply(torch.cat([values.sum(dims), count]))
    count = total[-1].detach()
    mean = total[:-1] / count
    centered = values - mean.view(shape)
    variance = _Sum.apply(centered.square().sum(dims)) / count
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((variance.detach() * count / (count - 1)).to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    found = centered * (scale if weight is None else scale * weight).view(shape)
    if bias is not None:
        found = found + bias.view(shape)
    return found.to(input.dtype)  # type: ignore[no-any-return]


class _Sum(torch.autograd.Function):
    """Sum over all ranks; a rank's part of the sum has the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
