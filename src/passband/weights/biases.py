"""Keep a bias that learns from bringing back the gradient of a frozen depthwise kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from passband.core.errors import PassbandError
from passband.models.layers import BiasApartConv2d
from passband.weights.depthwise import is_depthwise


def refuse_biases(model: nn.Module, learns: Mapping[str, bool]) -> None:
    """Refuse a depthwise convolution whose bias alone would learn and whose class cannot keep the bias apart.

    Args:
        model: Any model.
        learns: Whether each parameter will learn, by its plain name; what is not named will.

    Raises:
        PassbandError: for one of another class than ``nn.Conv2d`` (its forward is its own).
    """
    for name, module in _depthwise(model):
        alone = not learns.get(f"{name}weight", True) and learns.get(f"{name}bias", True)
        if alone and module.bias is not None and not _can_be_apart(module):
            raise PassbandError(
                f"the bias '{name}bias' would learn and its kernel would not, and {type(module).__name__} computes the "
                f"gradient of both or of none: give both one role with roles={{'{name}*': 'spatial'}}"
            )


def keep_biases_apart(model: nn.Module) -> None:
    """Have every plain depthwise convolution whose bias alone learns add it outside of its call.

    It becomes a :class:`BiasApartConv2d`, in place, with the same parameters and the same state dict, and a plain
    ``nn.Conv2d`` again where that is no longer needed.
    """
    for _, module in _depthwise(model):
        if type(module) in (nn.Conv2d, BiasApartConv2d):
            alone = module.bias is not None and module.bias.requires_grad and not module.weight.requires_grad
            module.__class__ = BiasApartConv2d if alone else nn.Conv2d


def _depthwise(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """Depthwise convolutions, each with what its parameters' names begin with."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and is_depthwise(module):
            yield f"{name}." if name else "", module


def _can_be_apart(module: nn.Conv2d) -> bool:
    return type(module) is nn.Conv2d or isinstance(module, BiasApartConv2d)
