"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from timm.optim import param_groups_weight_decay
from torch import nn, optim

from passband.core.errors import PassbandError
from passband.core.options import parse_options
from passband.core.recipe import Part
from passband.core.registry import Registry

Schedule = Callable[[float, int], float]
"""Epoch (fractional) and number of epochs to the factor of the learning rate."""

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
"""What learns, or groups of it with rates of their own, as torch's optimizers take them."""

OPTIMIZERS: Registry[Callable[..., optim.Optimizer]] = Registry("optimizer")
SCHEDULES: Registry[Callable[..., float]] = Registry("schedule")


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Parameters,
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    nesterov: bool = False,
) -> optim.Optimizer:
    """Make torch's SGD."""
    return optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Parameters,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> optim.Optimizer:
    """Make torch's AdamW."""
    return optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@OPTIMIZERS.register("adam")
def adam(
    parameters: Parameters,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optim.Optimizer:
    """Make torch's Adam; its weight decay is an L2 penalty, not AdamW's."""
    return optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@OPTIMIZERS.register("adagrad")
def adagrad(
    parameters: Parameters,
    *,
    lr: float = 0.01,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
) -> optim.Optimizer:
    """Make torch's Adagrad."""
    return optim.Adagrad(parameters, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)


@OPTIMIZERS.register("adadelta")
def adadelta(
    parameters: Parameters,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> optim.Optimizer:
    """Make torch's Adadelta."""
    return optim.Adadelta(parameters, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    parameters: Parameters,
    *,
    lr: float = 0.01,
    alpha: float = 0.99,
    momentum: float = 0.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optim.Optimizer:
    """Make torch's RMSprop."""
    return optim.RMSprop(parameters, lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay)


@SCHEDULES.register("constant")
def constant(epoch: float, epochs: int) -> float:
    """Keep the learning rate."""
    return 1.0


@SCHEDULES.register("cosine")
def cosine(
    epoch: float,
    epochs: int,
    *,
    warmup: float = 0.0,
    start: float = 0.0,
    final: float = 0.0,
    prefix: bool = True,
) -> float:
    """Rise linearly from ``start`` for ``warmup`` epochs, then fall along half a cosine to ``final`` (both factors).

    The cosine begins where the warm-up ends; without ``prefix``, as timm has it by default, it begins with the training
    and the warm-up stands in the place of its first epochs.
    """
    if epoch < warmup:
        return start + (1 - start) * epoch / warmup
    before = warmup if prefix else 0.0
    done = (epoch - before) / max(epochs - before, 1e-12)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@SCHEDULES.register("multistep")
def multistep(
    epoch: float, epochs: int, *, milestones: tuple[float, ...] = (), gamma: tuple[float, ...] = (0.1,)
) -> float:
    """Multiply by ``gamma`` at each milestone, in epochs; one gamma for all or one each."""
    factors = gamma * len(milestones) if len(gamma) == 1 else gamma
    if len(factors) != len(milestones):
        raise PassbandError(f"multistep takes one gamma or {len(milestones)} (one a milestone); got {len(gamma)}")
    return math.prod(factor for at, factor in zip(milestones, factors, strict=True) if epoch >= at)


@SCHEDULES.register("piecewise-linear")
def piecewise_linear(
    epoch: float,
    epochs: int,
    *,
    at: tuple[float, ...] = (0.0, 0.4, 0.8, 1.0),
    factors: tuple[float, ...] = (0.0, 1.0, 0.05, 0.0),
) -> float:
    """Go in straight lines through ``factors`` at fractions ``at`` of the training.

    **Source**: the ConvMixer authors' CIFAR recipe, whose corners are the defaults.
    """
    if len(at) != len(factors):
        raise PassbandError(f"piecewise-linear takes as many factors as corners; got {len(factors)} for {len(at)}")
    return float(np.interp(epoch / epochs, at, factors))


def make_optimizer(part: Part, parameters: Parameters) -> optim.Optimizer:
    """Make the optimizer that a recipe names.

    Args:
        part: The optimizer's name and arguments; ``decay`` and ``backbone`` beside them say what its groups are
            (:func:`decayed`, :func:`apart`).
        parameters: What it moves.

    Raises:
        PassbandError: for an unknown name or argument.
    """
    make = OPTIMIZERS[part.name]
    arguments = {key: value for key, value in part.arguments.items() if key not in ("decay", "backbone")}
    return make(parameters, **parse_options(make, arguments, owner=f"optimizer {part.name}"))


def decayed(part: Part, model: nn.Module) -> Parameters:
    """Return what of a network learns, in groups where the recipe decays ``kernels`` alone.

    ``{name: adamw, weight_decay: 0.03, decay: kernels}`` leaves out of the decay what timm does: vectors (biases, the
    scales and shifts of norms) and what the network's ``no_weight_decay`` names. ``decay: all`` decays everything.

    Args:
        part: The recipe's optimizer.
        model: The network itself, whose ``no_weight_decay`` is asked.

    Raises:
        PassbandError: when ``decay`` is neither of the two.
    """
    decay = part.arguments.get("decay", "all")
    if decay not in ("all", "kernels"):
        raise PassbandError(f"an optimizer's decay is all or kernels; got '{decay}'")
    if decay == "all":
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    named: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    groups = param_groups_weight_decay(model, 1.0, no_weight_decay_list=named())
    # A group without a decay of its own has the optimizer's.
    return [group if group["weight_decay"] == 0 else {"params": group["params"]} for group in groups]


def apart(parameters: Parameters, backbone: nn.Module, rate: Any) -> list[dict[str, Any]]:
    """Return groups in which a backbone's parameters have a learning rate of their own.

    Args:
        parameters: All that learns, or groups of it, which are kept apart.
        backbone: Part of the model.
        rate: Its learning rate, above 0.

    Raises:
        PassbandError: when the rate is no number above 0.
    """
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise PassbandError(f"optimizer.backbone is a learning rate above 0, such as 1.0e-5; got {rate!r}")
    inside = {id(parameter) for parameter in backbone.parameters()}
    given: list[Any] = list(parameters)
    whole: list[dict[str, Any]] = given if given and isinstance(given[0], dict) else [{"params": given}]
    groups: list[dict[str, Any]] = []
    for group in whole:
        own = [one for one in group["params"] if id(one) in inside]
        rest = [one for one in group["params"] if id(one) not in inside]
        groups += [{**group, "params": rest}] if rest else []
        groups += [{**group, "params": own, "lr": float(rate)}] if own else []
    return groups


def make_schedule(part: Part) -> Schedule:
    """Make the schedule that a recipe names.

    Raises:
        PassbandError: for an unknown name or argument.
    """
    schedule = SCHEDULES[part.name]
    return partial(schedule, **parse_options(schedule, part.arguments, owner=f"schedule {part.name}"))
