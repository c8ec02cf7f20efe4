"""How a quantized model learns: rates of its own for what a quantizer learns, and bits that come down by steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.options import defaults, parse_options
from passband.models.quantizers import ActivationQuantizer, check_bits
from passband.train.steps import Step
from passband.weights.frequency_aware import FrequencyMask
from passband.weights.learn import learned_parameters
from passband.weights.quantize import QuantizedWeight, QuantizeReport, quantize, set_bits, settings_of


@dataclass(frozen=True)
class Learning:
    """Say how a quantized model learns.

    Attributes:
        rates: Learning rates of the clips of activations, of the clips of weights, and of frequency masks; the
            schedule scales them as it does the recipe's own.
        weight_decay: Of all three.
        progressive: More bits, falling, with which the training begins: ``(32, 5)``. Empty begins with its own.
        stage_epochs: Epochs at each of them.
    """

    rates: tuple[float, float, float]
    weight_decay: float
    progressive: tuple[int, ...]
    stage_epochs: int


def learning(
    *,
    rates: tuple[float, float, float] = (0.1, 0.02, 0.02),
    weight_decay: float = 1e-4,
    progressive: tuple[int, ...] = (),
    stage_epochs: int = 1,
) -> Learning:
    """Return how a quantized model learns.

    **Source**: FAT (Tao et al. 2021), whose code has these rates under SGD, and begins with a checkpoint of more bits;
    adversarial-focus trains so at its own rate of 0.1. **Differs**: more bits are the first epochs of the same
    training, not a training of their own.

    Raises:
        PassbandError: for rates or epochs that are not positive, or bits that do not fall.
    """
    if len(rates) != 3 or not all(rate > 0 for rate in rates):
        raise PassbandError(f"quantize.rates are three numbers above 0 (activations, weights, masks); got {rates}")
    if not weight_decay >= 0 or stage_epochs < 1:
        raise PassbandError(
            f"quantize takes a weight_decay of 0 or more and stage_epochs of 1 or more; got {weight_decay:g} and "
            f"{stage_epochs}"
        )
    return Learning(rates, weight_decay, progressive, stage_epochs)


def apply(model: nn.Module, options: Mapping[str, Any]) -> QuantizeReport:
    """Quantize a model as a recipe's ``quantize`` says.

    Raises:
        PassbandError: for an unknown option, or one that :func:`passband.weights.quantize.quantize` refuses.
    """
    own = defaults(learning)
    given = {name: value for name, value in options.items() if name not in own}
    learns, parsed = how(options), parse_options(quantize, given, owner="quantize")
    bits, _ = settings_of(parsed)
    stages = (*learns.progressive, bits)
    for more in learns.progressive:
        check_bits(more, parsed.get("grid", "uniform"))
    if any(more <= less for more, less in pairwise(stages)):
        raise PassbandError(f"quantize.progressive falls, to more than {bits} bits at last; got {learns.progressive}")
    return quantize(model, **parsed)


def how(options: Mapping[str, Any]) -> Learning:
    """Return how a recipe's ``quantize`` has the model learn.

    Raises:
        PassbandError: as :func:`learning`.
    """
    own = {name: value for name, value in options.items() if name in defaults(learning)}
    return learning(**parse_options(learning, own, owner="quantize"))


def parameter_groups(model: nn.Module, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what an optimizer gets: all that learns as usual first, then what quantizers learn at their own rates."""
    kinds = _kinds(model)
    learns = how(options)
    groups: list[dict[str, Any]] = [{"params": []}] + [
        {"params": [], "lr": rate, "weight_decay": learns.weight_decay} for rate in learns.rates
    ]
    for _, parameter in learned_parameters(model):
        groups[kinds.get(id(parameter), 0)]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def _kinds(model: nn.Module) -> dict[int, int]:
    kinds = {}
    for module in model.modules():
        if isinstance(module, ActivationQuantizer):
            kinds[id(module.clip)] = 1
        elif isinstance(module, QuantizedWeight) and module.clip is not None:
            kinds[id(module.clip)] = 2
        elif isinstance(module, FrequencyMask):
            kinds[id(module.mixing)] = 3
    return kinds


def staged(step: Step, options: Mapping[str, Any], steps: int, epochs: int) -> Step:
    """Return a step that sets the model's bits before it learns, by the epoch that it belongs to.

    Args:
        step: One batch to one loss.
        options: A recipe's ``quantize``.
        steps: Of an epoch.
        epochs: Of the training.

    Raises:
        PassbandError: when the training ends before it comes down to its bits.
    """
    learns = how(options)
    before = len(learns.progressive) * learns.stage_epochs
    if before >= epochs:
        raise PassbandError(
            f"quantize.progressive takes {before} epochs and the training has {epochs}; give it more, or fewer stages"
        )
    bits, inputs = settings_of(options)
    if not learns.progressive:
        return step

    def at(model: nn.Module, images: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        stage = number // (steps * learns.stage_epochs)
        if stage < len(learns.progressive):
            more = learns.progressive[stage]
            set_bits(model, more, max(more, inputs))
        else:
            set_bits(model, bits, inputs)
        return step(model, images, targets, number)

    return at
