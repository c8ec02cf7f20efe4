"""The quickest copy of a model that still gives its answers, and what was done to make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.models.fold import Folded, count_norms, fold, frozen_copy
from passband.models.outputs import check_logits
from passband.models.state import frozen

Precision = Literal["float32", "bf16"]
How = dict[str, str | int | float]

TOLERANCE = 1e-3
"""How far a folded copy's logits may lie from the model's, in parts of their range."""


@dataclass(frozen=True)
class Fast:
    """Hold the quick form of a model.

    Attributes:
        module: Images [batch, channel, height, width] in [0, 1] in, logits [batch, classes] out: float32, or
            float64 for a model of float64. Gradients flow to the images alone.
        how: What was done. ``norms`` counts the model's batch norms and ``folded`` those that are gone, ``unfolded``
            says why none is; ``also_folded`` says what else is part of something, and how often. ``layout`` is
            ``"channels_last"``, ``"channels_first"`` (``layout_kept`` says why) or,
            for a model that could not be copied, ``"as it is"`` (``not_copied`` says why). ``precision`` is as asked
            for (``precision_note`` says where it costs time), ``compiled`` whether it is. ``difference`` is the
            largest between its logits and the model's on the sample, in parts of the range of the model's, and
            ``changed`` how many predictions bf16 changes there.
    """

    module: nn.Module
    how: How

    def given(self, model: nn.Module) -> nn.Module:
        """Return the model itself, given images in the layout that was found best and possible."""
        layout = torch.channels_last if self.how["layout"] == "channels_last" else torch.contiguous_format
        return _Quick(model, layout, bf16=False)


def fast(
    model: nn.Module,
    sample: Float[Tensor, "batch channel height width"],
    *,
    folding: bool = True,
    precision: Precision = "float32",
    compile: bool = False,
) -> Fast:
    """Make the quick form of a model, and hold its logits against the model's on a sample.

    The copy is in evaluation mode, asks for no weight gradient (a third of the work), has its batch norms
    folded (:func:`passband.models.fold.fold`) and its weights in ``channels_last``. Where the folded copy in
    float32 is further than 1e-3 of the logits' range from the model, an unfolded one takes its place; code
    that needs NCHW in memory (``view``) gets it; a model that cannot be copied is lent out at each call, and
    not compiled. All of it stands in ``how``. Later changes of the model do not reach the copy.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        sample: Some images that it will be asked about, on its device and of its type.
        folding: Whether to fold batch norms.
        precision: ``"bf16"`` computes convolutions and products in bfloat16, by autocast.
        compile: Whether to hand the copy to ``torch.compile``, which takes tens of seconds.

    Raises:
        PassbandError: for another precision, bf16 with a model of float64, or a model whose output is not
            logits or holds NaN.
    """
    if precision not in ("float32", "bf16"):
        raise PassbandError(f"the precision is float32 or bf16; got '{precision}'")
    with frozen(model), torch.no_grad():
        expected = check_logits(model(sample.contiguous()), len(sample))
    if precision == "bf16" and expected.dtype == torch.float64:
        raise PassbandError("bf16 needs a model of float32; this one is of float64: use model.float(), or float32")
    network, how = _network(model, sample, expected, folding)
    layout = torch.channels_last if how["layout"] == "channels_last" else torch.contiguous_format
    module = _Quick(network, layout, bf16=precision == "bf16")
    compile = compile and "not_copied" not in how
    if compile:
        network.compile()
    if compile or precision == "bf16":
        with torch.no_grad():
            logits = module(sample)
        how["difference"] = _apart(logits, expected)
    if precision == "bf16":
        how["changed"] = f"{int((logits.argmax(1) != expected.argmax(1)).sum())} of {len(sample)} predictions"
    if precision == "bf16" and sample.device.type == "cpu" and not has_bf16():
        how["precision_note"] = "this processor has no bf16 instructions: float32 is faster"
    return Fast(module, how | {"precision": precision, "compiled": compile})


class _Quick(nn.Module):
    """Give a network images in its layout, and its logits back in float32 at least."""

    def __init__(self, network: nn.Module, layout: torch.memory_format, bf16: bool) -> None:
        super().__init__()
        self.network, self.layout, self.bf16 = network, layout, bf16

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self.layout)
        logits: Tensor
        if self.bf16:
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = self.network(images)
        else:
            logits = self.network(images)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _Lent(nn.Module):
    """Ask a model that belongs to somebody else, and leave it as it was after each call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with frozen(self.model):
            logits: Tensor = self.model(images)
        return logits


def _network(model: nn.Module, sample: Tensor, expected: Tensor, folding: bool) -> tuple[nn.Module, How]:
    """Return the network to ask, and what was done to it."""
    try:
        if folding:
            network, folded = fold(model)
        else:
            network, folded = frozen_copy(model), Folded(0, count_norms(model), "not asked for")
    except PassbandError as error:
        lent = _Lent(model)
        why: How = {"norms": count_norms(model), "folded": 0, "layout": "as it is", "not_copied": str(error)}
        return lent, why | {"difference": _difference(lent, sample.contiguous(), expected)}
    how: How = {"norms": folded.norms, "folded": folded.folded}
    if folded.others:
        how["also_folded"] = ", ".join(f"{name} {count}" for name, count in folded.others.items())
    if folded.reason:
        how["unfolded"] = folded.reason
    laid = _laid_out(network, sample, expected)
    off = float(laid["difference"])
    if off <= TOLERANCE or not (folded.folded or folded.others):
        return network, how | laid
    how.pop("also_folded", None)
    how |= {"folded": 0, "unfolded": f"folded, its logits were off by {off:.2g} of their range"}
    network = frozen_copy(model)
    return network, how | _laid_out(network, sample, expected)


def has_bf16() -> bool:
    """Tell whether oneDNN, which convolves on CPUs, computes in bf16 here; else torch's plain loops do."""
    onednn: Any = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and bool(onednn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]


def _laid_out(network: nn.Module, sample: Tensor, expected: Tensor) -> How:
    """Put the weights in the layout that the network's code takes, and say which and what comes out."""
    try:
        return {"layout": "channels_last", "difference": _difference_in(torch.channels_last, network, sample, expected)}
    except RuntimeError as error:  # what `view` raises of a tensor that lies otherwise than it counts on
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    off = _difference_in(torch.contiguous_format, network, sample, expected)
    return {"layout": "channels_first", "layout_kept": why, "difference": off}


def _difference_in(layout: torch.memory_format, network: nn.Module, sample: Tensor, expected: Tensor) -> float:
    """Lay the network's weights out, which is how what its convolutions give will lie, and hold it to the model."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=layout)
    return _difference(network, sample.contiguous(memory_format=layout), expected)


@torch.no_grad()
def _difference(network: nn.Module, sample: Tensor, expected: Tensor) -> float:
    """Return how far a network's logits lie from those expected."""
    return _apart(network(sample), expected)


def _apart(logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference of logits, in parts of the range of those expected; NaN where NaN came out."""
    logits = logits.to(expected.dtype)
    off = torch.where(logits == expected, 0, (logits - expected).abs()).max()  # a class ruled out has -inf twice
    finite = expected[expected.isfinite()]
    spread = finite.max() - finite.min() if len(finite) else off
    return float(off / spread) if spread else float(off)
