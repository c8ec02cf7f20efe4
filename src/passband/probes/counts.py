"""What one image costs a model in multiplications, counted from the shapes of what is really computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from passband.models.state import untouched

_ATEN: Any = torch.ops.aten
_LINEAR = {_ATEN.mm, _ATEN.addmm}
_NORMS = {
    _ATEN.native_batch_norm, _ATEN._native_batch_norm_legit, _ATEN._native_batch_norm_legit_no_training,
    _ATEN._batch_norm_no_update, _ATEN._batch_norm_with_update, _ATEN.cudnn_batch_norm, _ATEN.miopen_batch_norm,
    _ATEN.native_group_norm, _ATEN.native_layer_norm,
}  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Hold what a model has and what it multiplies for one image.

    Attributes:
        parameters: Numbers in its parameters.
        learned: Those that ask for a gradient.
        convolutions: Multiplications and additions (MACs) in convolutions.
        linear: MACs of activations with weights.
        products: MACs of activations with activations: attention.
        norms: Elements that are normalized.
        pooled: Elements that go into an average over all positions.
    """

    parameters: int
    learned: int
    convolutions: int
    linear: int
    products: int
    norms: int
    pooled: int

    @property
    def macs(self) -> int:
        """All MACs. Biases, activations, norms, pooling and elementwise products are none."""
        return self.convolutions + self.linear + self.products

    @property
    def flops(self) -> int:
        """What fvcore calls FLOPs in training mode: a MAC is 1, a normalized element 5, a pooled one 1."""
        return self.macs + 5 * self.norms + self.pooled


def count(model: nn.Module, images: Float[Tensor, "batch channel height width"]) -> Counts:
    """Count what one image costs a model, in evaluation mode.

    It is what two images cost less what one does: work on the weights alone (kernels composed before they are used,
    quantized weights) is the same for any number of images and drops out. Work in code of its own that torch does not
    see as a convolution or a matrix product is not counted.

    Args:
        model: Images in; left as it was found.
        images: One or more, on the model's device; their pixels play no part.
    """
    sample = images[:1]
    with untouched(model), torch.no_grad():
        one, two = (_counted(model, torch.cat([sample] * copies)) for copies in (1, 2))
    each = {kind: two[kind] - one[kind] for kind in two}
    numbers = [parameter.numel() for parameter in model.parameters()]
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Counts(
        sum(numbers), learned,
        *(each.get(kind, 0) for kind in ("convolutions", "linear", "products", "norms", "pooled")),
    )  # fmt: skip


def _counted(model: nn.Module, images: Tensor) -> Mapping[str, int]:
    counter = _Counter()
    with counter:
        model(images)
    return counter.counts


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up what the operations inside cost, by kind."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet in flop_registry:
            kind = "linear" if packet in _LINEAR else "convolutions" if "conv" in str(packet) else "products"
            self.counts[kind] += flop_registry[packet](*args, **(kwargs or {}), out_val=output) // 2
        elif packet in _NORMS:
            self.counts["norms"] += args[0].numel()
        elif packet is _ATEN._adaptive_avg_pool2d or (packet is _ATEN.mean and _over_positions(*args)):
            self.counts["pooled"] += args[0].numel()
        return output


def _over_positions(features: Tensor, axes: Any = (), *_: Any) -> bool:
    """Tell whether a mean over these axes is one over the positions of [batch, channel, height, width]."""
    return features.ndim == 4 and {axis % 4 for axis in axes or ()} == {2, 3}
