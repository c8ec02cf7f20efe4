"""A model's passing state (modes, what learns, gradients), kept while somebody else uses the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError

Mode = Literal["eval", "train"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model out in evaluation mode and take it back as it was.

    Inside, every submodule is in evaluation mode and no parameter holds a gradient; gradients can be
    computed. On leaving, also by an error, the mode of every submodule, ``requires_grad`` and ``.grad`` of
    every parameter are what they were (the same tensors). Nothing else is changed: hooks and buffers stay.

    Args:
        model: Any module.
    """
    with _kept(model):
        model.eval()
        yield model


@contextmanager
def frozen(model: nn.Module, mode: Mode = "eval") -> Iterator[nn.Module]:
    """Lend a model out as :func:`untouched` does, with no parameter asking for a gradient.

    Gradients with respect to the input then cost no weight gradients (a third of the work), and weights that are
    computed from others (parametrized, as a quantized model's are) are computed once for all calls inside.

    Args:
        model: Any module.
        mode: ``"eval"``, or ``"train"`` to put every submodule in training mode, in which batch norms
            normalize by the batch and update their running statistics, as the public recipe of fast
            adversarial training does.

    Raises:
        PassbandError: for another mode.
    """
    if mode not in ("eval", "train"):
        raise PassbandError(f"a model's mode is 'eval' or 'train'; got '{mode}'")
    with _kept(model):
        model.train(mode == "train")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with parametrize.cached():
            yield model


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in parameters:
            parameter.grad = None  # a backward pass inside must not add to the owner's gradient
        yield
    finally:
        # The flags are set one by one: train() recurses, and mixed modes would be lost.
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model out whose batch norms take the statistics of each batch, in evaluation mode too.

    What it says of an image then depends on the others in the batch. Running statistics are neither read nor changed.

    Args:
        model: Any module; as it was found on leaving, also by an error.

    **Source**: high-frequency, whose code has no other batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield model
    finally:
        for norm, mean, variance in kept:
            norm.running_mean, norm.running_var = mean, variance


@contextmanager
def exact() -> Iterator[None]:
    """Compute in each tensor's own precision: no autocast, and no TF32, which rounds float32 to ten bits on GPUs."""
    cudnn = torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with (
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        cudnn.flags(**kept, allow_tf32=False),
    ):
        yield


def uses_batch_statistics(model: nn.Module) -> bool:
    """Tell whether a norm of the model takes the statistics of each batch in evaluation mode too."""
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return any(module.running_mean is None for module in norms)
