"""A frozen copy of a network for evaluation, with fewer passes over its activations and the same function."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import jaxtyping
import torch
from timm.layers import BatchNormAct2d, get_notrace_functions, get_notrace_modules
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from passband.core.errors import PassbandError
from passband.models.layers import BiasApartConv2d, DepthwiseConv2d, parameter_free_shortcut
from passband.models.quantizers import ActivationQuantizer

# Exact types: a subclass may do something else with its weight (standardize it, say).
TAKES: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.Linear: (nn.BatchNorm1d,),
    nn.Conv1d: (nn.BatchNorm1d,),
    nn.Conv2d: (nn.BatchNorm2d, BatchNormAct2d),
    Conv2dSame: (nn.BatchNorm2d, BatchNormAct2d),
    BiasApartConv2d: (nn.BatchNorm2d, BatchNormAct2d),
    DepthwiseConv2d: (nn.BatchNorm2d, BatchNormAct2d),
    nn.Conv3d: (nn.BatchNorm3d,),
}
"""The layers whose weight can take over a batch norm, and the norms that each takes over."""

Model = TypeVar("Model", bound=nn.Module)
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@dataclass(frozen=True)
class Folded:
    """Say how far folding went.

    Attributes:
        folded: Batch norms that became part of the layer before them.
        norms: Batch norms that the model has.
        reason: Why what follows what was not looked at; empty where it was.
        others: What else was folded, and how often.
    """

    folded: int
    norms: int
    reason: str = ""
    others: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in one line."""
        others = "".join(f", {name} {count}" for name, count in self.others.items())
        why = f" ({self.reason})" if self.reason else ""
        return f"folded: batch norms {self.folded} of {self.norms}{others}{why}"


@runtime_checkable
class Foldable(Protocol):
    """A module that knows what it is in evaluation with fixed weights."""

    def inference_form(self) -> tuple[nn.Module, Mapping[str, int]] | None:
        """Return a module with the same function, and what was folded into it, how often.

        It is asked of a frozen copy without hooks or parametrizations, of which no part stands in a second place, and
        may use its parts. None where it stays as it is.
        """


def fold(model: nn.Module) -> tuple[nn.Module, Folded]:
    """Copy a model for evaluation and fold what is fixed in it: batch norms into the layers before them, and more.

    With fixed statistics a batch norm is affine per channel, as is the bias of a convolution, so a
    convolution (or a linear layer on [batch, features]) followed by it is one convolution with other weights,
    computed in float64 and rounded once. Folded is a norm with running statistics whose input is the output
    of one such layer that nothing else reads, where both stand in one place of the model and are called once.
    A module that says itself what it is in evaluation (:class:`Foldable`: a separable convolution, a SpaRTAN block)
    becomes that. Else the copy keeps the model's own classes and Python code: symbolic tracing only finds out what
    follows what.

    A model with hooks, parametrized weights or a replaced ``forward``, and one that cannot be traced
    (its code looks at values), is copied and not folded; the second value says why.

    Args:
        model: Any module; left as it is.

    Returns:
        The copy, in evaluation mode with no parameter asking for a gradient, and how far folding went.

    Raises:
        PassbandError: when the model cannot be copied.
    """
    network = frozen_copy(model)
    norms = count_norms(network)
    reason = _obstacle(network)
    if reason:
        return network, Folded(0, norms, reason)
    others, forms = _put_forms(network)
    left = count_norms(network)
    found = _pairs(network, forms) if left else []
    if isinstance(found, str):
        return network, Folded(norms - left, norms, found, others)
    for layer, norm in found:
        _fuse(network, layer, norm)
    return network, Folded(norms - left + len(found), norms, others=others)


def count_norms(model: nn.Module) -> int:
    """Return how many batch norms a model has."""
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def copied(model: Model) -> Model:
    """Copy a model.

    Raises:
        PassbandError: when it cannot be copied.
    """
    try:
        with torch.no_grad():  # a scripted module clones its parameters as an operation like any other
            return deepcopy(model)
    except Exception as error:  # copying runs the __deepcopy__ of whatever the model holds
        line = (str(error).splitlines() or [""])[0]
        raise PassbandError(
            f"the model cannot be copied ({type(error).__name__}: {line}); keep what cannot be copied out of it"
        ) from error


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy a model, put the copy in evaluation mode and have none of its parameters ask for a gradient.

    Args:
        model: Any module; left as it is.

    Raises:
        PassbandError: when the model cannot be copied.
    """
    network = copied(model)
    for parameter in network.eval().parameters():  # one by one: a scripted module has no requires_grad_()
        parameter.requires_grad_(False)
    return network


def _obstacle(model: nn.Module) -> str:
    """Say what may change the model's answer where no graph shows it; empty where nothing does."""
    for name, module in model.named_modules():
        where = f"'{name}'" if name else "the model itself"
        if any(getattr(module, kind, None) for kind in HOOKS):
            return f"{where} has hooks, which may change what it gives"
        if is_parametrized(module):
            return f"{where} has parametrized weights"
        if "forward" in vars(module):
            return f"{where} has had its forward replaced"
    return ""


def _placed_once(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have one name."""
    places = list(model.named_modules(remove_duplicate=False))
    count = Counter(id(module) for _, module in places)
    return {name: module for name, module in places if count[id(module)] == 1}


def _put_forms(model: nn.Module) -> tuple[dict[str, int], set[type[nn.Module]]]:
    """Put what modules are in evaluation in their places; return what was folded how often, and the forms' types."""
    alone = _placed_once(model)
    once = {id(module) for module in alone.values()}
    counts: Counter[str] = Counter()
    types: set[type[nn.Module]] = set()
    changed: list[str] = []
    for name, module in alone.items():
        if not name or not isinstance(module, Foldable) or any(name.startswith(f"{one}.") for one in changed):
            continue
        found = module.inference_form() if all(id(part) in once for part in module.modules()) else None
        if found is not None:
            model.set_submodule(name, found[0].eval())
            changed.append(name)
            counts.update(found[1])
            types.add(type(found[0]))
    return dict(counts), types


def _pairs(model: nn.Module, whole: set[type[nn.Module]]) -> list[tuple[str, str]] | str:
    """Return the names of layers and the norms that they take over, or why the model cannot be traced.

    Args:
        model: Any.
        whole: Types that are not looked into.
    """
    try:
        nodes = _traced(deepcopy(model), whole)  # a module may keep what it saw last, which here are no tensors
    except Exception as error:  # the model's own code runs on stand-ins for tensors, and may raise anything
        line = (str(error).splitlines() or [""])[0]
        return f"cannot be traced ({type(error).__name__}: {line})"
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    # A module is looked into where one of its tensors or parts is used and not just the whole.
    looked_into = {str(node.target).rpartition(".")[0] for node in nodes if node.op in ("call_module", "get_attr")}
    alone = {name: module for name, module in _placed_once(model).items() if calls[name] == 1}
    free = {name: module for name, module in alone.items() if name not in looked_into}
    pairs = []
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = str(before.target), str(node.target)
        if layer in free and norm in free and takes_over(free[layer], free[norm]):
            pairs.append((layer, norm))
    return pairs


def takes_over(layer: nn.Module, norm: nn.Module) -> bool:
    """Tell whether a layer can take over a norm that alone reads it."""
    if not isinstance(norm, _BatchNorm) or type(norm) not in TAKES.get(type(layer), ()):
        return False
    statistics = norm.running_mean is not None and norm.running_var is not None and not norm.training
    # A linear layer's features are its last axis, a norm's its second.
    return statistics and isinstance(layer.weight, Tensor) and len(layer.weight) == norm.num_features


def _fuse(model: nn.Module, layer_name: str, norm_name: str) -> None:
    layer: Any = model.get_submodule(layer_name)
    norm: Any = model.get_submodule(norm_name)
    weight = layer.weight
    fused = absorbed(exact(weight), exact(layer.bias), norm)
    layer.weight, layer.bias = (nn.Parameter(tensor.to(weight), requires_grad=False) for tensor in fused)
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    model.set_submodule(norm_name, rest.eval())


def absorbed(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias in float64 of a layer together with the batch norm after it.

    Args:
        weight: In float64. A linear layer's, [out, in], is that of a convolution without pixels.
        bias: In float64; None for none.
        norm: A batch norm with running statistics.
    """
    fused: Any = fuse_conv_bn_weights(
        weight, bias, exact(norm.running_mean), exact(norm.running_var), norm.eps, exact(norm.weight),
        exact(norm.bias),
    )  # fmt: skip
    return fused[0], fused[1]


def exact(tensor: Tensor | None) -> Any:
    """Return a tensor in float64, on the CPU: not every device has it."""
    return None if tensor is None else tensor.detach().to("cpu", torch.float64)


class _Tracer(fx.Tracer):
    """Trace through everything but the layers that fold and what timm says not to trace through."""

    def __init__(self, model: nn.Module, whole: set[type[nn.Module]]) -> None:
        # Functions that look at shapes, which a stand-in does not have.
        super().__init__(autowrap_functions=(parameter_free_shortcut, *get_notrace_functions()))
        # fx looks for their names beside each forward; a decorated forward stands somewhere else.
        files = {sys.modules.get(type(module).__module__) for module in model.modules()}
        self._autowrap_search += [file for file in files if file is not None]
        self.leaves = {*TAKES, ActivationQuantizer, *get_notrace_modules(), *whole}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module, whole: set[type[nn.Module]]) -> list[fx.Node]:
    """Return what a model does, with the defaults of its further arguments."""
    _, _, *further = inspect.signature(type(model).forward).parameters.values()
    defaults = {one.name: one.default for one in further if one.default is not one.empty}
    with _unchecked_shapes():
        return list(_Tracer(model, whole).trace(model, defaults).nodes)


@contextmanager
def _unchecked_shapes() -> Iterator[None]:
    """Have jaxtyping's annotations let the stand-ins for tensors pass."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
