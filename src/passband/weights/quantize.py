"""A model whose convolutions compute on few levels, weights and inputs alike, and which can learn so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError, unknown
from passband.models.layers import SeparableConv2d
from passband.models.quantizers import FLOAT, ActivationQuantizer, Grid, QuantizedInput, check_bits, clip_of, rounded
from passband.models.state import untouched
from passband.models.watch import watched
from passband.weights.frequency_aware import FrequencyMask, Scores
from passband.weights.roles import bare, classifiers

Standardize = Literal["tensor", "center", "none"]
WEIGHT_CLIP = 3.0
SIGNED_CLIP, UNSIGNED_CLIP = 1.0, 5.0
_TINY = torch.finfo(torch.float32).tiny
"""Of a layer of zeros the largest magnitude is no clip."""


class QuantizedWeight(nn.Module):
    """Make a layer's weight from what it learns: standardize, mask, quantize (a parametrization).

    1. Subtract the mean of all of it and divide by its standard deviation (unbiased), both without gradient.
    2. Transform by a :class:`FrequencyMask`, where there is one.
    3. w̃ = w/clip, cut to [−1, 1]; the answer is clip · q for q the nearest level. The gradient to w is 1 everywhere,
       beyond the clip too; to the clip it is q − w̃ inside and the sign of w outside, summed.

    **Source**: FAT (Tao et al. 2021), as its code has it.

    Args:
        bits: `FLOAT` leaves step 3 out. It is part of the state dict.
        clip: Where the learned clip begins; None takes the largest magnitude each time, and learns none.
        grid: ``"uniform"`` or ``"power-of-two"``.
        standardize: ``"tensor"`` for step 1, ``"center"`` subtracts the mean alone, ``"none"`` leaves it out.
        mask: Step 2; None leaves it out.
    """

    def __init__(
        self, bits: int, *, clip: float | None, grid: Grid, standardize: Standardize, mask: FrequencyMask | None
    ) -> None:
        super().__init__()
        self.bits, self.grid, self.standardize, self.mask = bits, grid, standardize, mask
        self.clip = None if clip is None or bits == FLOAT else nn.Parameter(torch.tensor(float(clip)))

    def get_extra_state(self) -> Tensor:
        """Return the bits, which change while a training comes down to them step by step."""
        return torch.tensor(self.bits)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the bits from a state dict."""
        self.bits = int(state)

    def standardized(self, weight: Tensor) -> Tensor:
        """Return the weight after step 1."""
        if self.standardize == "none":
            return weight
        centered = weight - weight.detach().mean()
        return centered if self.standardize == "center" else centered / weight.detach().std()

    def forward(self, weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out ..."]:
        """Return the weight that the layer computes with."""
        made = self.standardized(weight)
        if self.mask is not None:
            made = self.mask(made)
        return made if self.bits == FLOAT else self._quantized(made)

    def _quantized(self, weight: Tensor) -> Tensor:
        clip = weight.detach().abs().max().clamp(min=_TINY) if self.clip is None else clip_of(self.clip)
        scaled = (weight / clip).detach()
        level = rounded(scaled.clamp(-1, 1), self.bits, True, self.grid)
        inside = scaled.abs() <= 1
        slope = torch.where(inside, level - scaled, scaled.sign())
        value = (clip * level).detach()
        # The value of the last term, the gradients of the first two.
        return (weight - weight.detach()) + slope * (clip - clip.detach()) + value


@dataclass(frozen=True)
class QuantizedLayer:
    """Say how a layer computes.

    Attributes:
        name: Of the layer, as it was called before.
        weight_bits: Bits of a weight.
        input_bits: Bits of an activation; `FLOAT` where they pass as they are.
        signed: Whether its input has negative values.
        values: Number of weights.
        bytes: What they take, packed.
    """

    name: str
    weight_bits: int
    input_bits: int
    signed: bool
    values: int
    bytes: int


@dataclass(frozen=True)
class QuantizeReport:
    """Say what became of a model's layers, and how large it is.

    Attributes:
        layers: What was quantized, in order.
        skipped: Names of convolutions and linear layers that were not.
        bytes_before: Of all parameters and running statistics in float32.
        bytes_after: The same with each quantized weight at its bits, packed, and a clip of 4 bytes for each grid.
    """

    layers: tuple[QuantizedLayer, ...]
    skipped: tuple[str, ...]
    bytes_before: int
    bytes_after: int

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self) | {"layers": [asdict(layer) for layer in self.layers], "skipped": list(self.skipped)}

    def __str__(self) -> str:
        """Say it in one line."""
        bits = sorted({layer.weight_bits for layer in self.layers})
        return (
            f"{len(self.layers)} layers at {', '.join(map(str, bits))} bits, {len(self.skipped)} as they were, "
            f"{self.bytes_before:,} to {self.bytes_after:,} bytes"
        )


def quantize(
    model: nn.Module,
    bits: int = 4,
    *,
    activation_bits: int | None = None,
    frequency_aware: bool | Scores = False,
    grid: Grid = "uniform",
    standardize: Standardize = "tensor",
    ends: int = FLOAT,
    skip: tuple[str, ...] = (),
    signed: bool | None = None,
    weight_clip: float = WEIGHT_CLIP,
    activation_clip: float | None = None,
) -> QuantizeReport:
    """Put the weights of a model's convolutions, and what comes into them, on few levels; the model can then learn.

    Weights are computed from what learns by a parametrization (:class:`QuantizedWeight`); in front of each layer
    stands an :class:`~passband.models.quantizers.ActivationQuantizer`, so that ``conv`` becomes ``conv.quantizer`` and
    ``conv.layer``. The first convolution and the classifier stay as they are, or get weights of ``ends`` bits with a
    fixed clip and an input as it comes. Attacks compute each weight once per call. :func:`passband.weights.learn.bake`
    puts the quantized weights in place for good.

    **Source**: FAT (Tao et al. 2021); adversarial-focus, section 3.3.2, which leaves the first convolution alone.
    **Differs**: FAT's code has its ends at 8 bits with the signed maximum as their clip; here it is the largest
    magnitude. Without the mask weights are standardized too, which its ImageNet baseline does by the mean alone
    (``standardize="center"``): at 2 bits that one begins with all weights at 0.

    Args:
        model: Changed in place; a bare module, or a ``Classifier``.
        bits: Of a weight: 2 (three levels) to 16, or 32, which quantizes nothing, for the mask alone.
        activation_bits: Of an input; None takes ``bits``.
        frequency_aware: True or ``"published"`` for FAT's mask as it is, ``"rescaled"`` for one that can learn.
        grid: ``"uniform"``, or ``"power-of-two"`` up to 7 bits.
        standardize: ``"tensor"``, ``"center"`` or ``"none"``.
        ends: Bits of the first convolution's and the classifier's weights; 32 leaves them.
        skip: Patterns of names of further convolutions that stay.
        signed: Whether inputs have negative values; None looks, layer by layer, by asking the model about noise.
        weight_clip: Where the clips of weights begin, in standard deviations.
        activation_clip: Where the clips of inputs begin; None for 1 where signed and 5 where not.

    Returns:
        What was quantized.

    Raises:
        PassbandError: for an option that makes no sense, a pattern that matches nothing, a model that was quantized
            before, has no convolution but the first, or computes separable convolutions as dense ones.
    """
    _check(bits, activation_bits, grid, standardize, ends, (weight_clip, activation_clip))
    inner = bare(model)
    first, rest, heads = _layers(inner)
    chosen = _chosen(rest, skip)
    negative = _negative(model, chosen) if signed is None else dict.fromkeys(chosen, signed)
    scores: Scores | None = "published" if frequency_aware is True else frequency_aware or None
    inputs = bits if activation_bits is None else activation_bits
    for name in chosen:
        layer: Any = inner.get_submodule(name)
        usual = SIGNED_CLIP if negative[name] else UNSIGNED_CLIP
        clip = usual if activation_clip is None else activation_clip
        mask = None if scores is None else FrequencyMask(layer.weight.shape[0], scores)
        made = QuantizedWeight(bits, clip=weight_clip, grid=grid, standardize=standardize, mask=mask)
        _parametrize(layer, made)
        quantizer = ActivationQuantizer(inputs, negative[name], clip, grid).to(layer.weight.device)
        inner.set_submodule(name, QuantizedInput(quantizer, layer))
        layer.weight_bits = bits
    for name in (first, *heads) if ends != FLOAT else ():
        _quantize_end(inner.get_submodule(name), ends)
    return describe(model)


def describe(model: nn.Module) -> QuantizeReport:
    """Say what of a model is quantized, baked or not, and how large it is."""
    inner = bare(model)
    layers, skipped = [], []
    for name, module in inner.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        chain, place = _chain(module), inner.get_submodule(name.rpartition(".")[0])
        # Of a baked layer, whose chain is gone, what was noted of it.
        bits = chain[-1].bits if chain else getattr(module, "weight_bits", FLOAT)
        front = place.quantizer if isinstance(place, QuantizedInput) else None
        if front is None and bits == FLOAT:
            skipped.append(name)
            continue
        inputs, signed = (FLOAT, True) if front is None else (front.bits, front.signed)
        count = module.weight.numel()
        size = -(-count * bits // 8)
        layers.append(QuantizedLayer(name.removesuffix(".layer"), bits, inputs, signed, count, size))
    before = _bytes(inner)
    return QuantizeReport(tuple(layers), tuple(skipped), before, _packed(before, layers))


def masks(model: nn.Module) -> dict[str, dict[str, float]]:
    """Return the smallest value and the mean of each layer's frequency mask, by the layer's name."""
    found = {}
    for name, module in bare(model).named_modules():
        for made in _chain(module):
            if made.mask is not None:
                weight = module.parametrizations["weight"].original
                found[name.removesuffix(".layer")] = made.mask.range(made.standardized(weight.detach()))
    return found


def set_bits(model: nn.Module, bits: int, activation_bits: int) -> None:
    """Set the bits of every layer but the ends; `FLOAT` lets weights and inputs pass."""
    for place in quantized_inputs(model):
        layer: Any = place.layer
        place.quantizer.bits, layer.weight_bits = activation_bits, bits
        for made in _chain(layer):
            made.bits = bits


def quantized_inputs(model: nn.Module) -> list[QuantizedInput]:
    """Return the places of a model where a quantized layer stands."""
    return [module for module in model.modules() if isinstance(module, QuantizedInput)]


def _chain(module: nn.Module) -> list[QuantizedWeight]:
    if not parametrize.is_parametrized(module, "weight"):
        return []
    chain = module.parametrizations["weight"]  # type: ignore[index]
    return [step for step in chain if isinstance(step, QuantizedWeight)]


def _check(
    bits: int, activation_bits: int | None, grid: Grid, standardize: str, ends: int, clips: Sequence[float | None]
) -> None:
    for count in (bits, bits if activation_bits is None else activation_bits):
        check_bits(count, grid)
    check_bits(ends, "uniform")
    if standardize not in get_args(Standardize):
        raise unknown("way to standardize", standardize, get_args(Standardize))
    for clip in clips:
        if clip is not None and not clip > 0:
            raise PassbandError(f"a quantizer's clip begins above 0; got {clip:g}")


def _layers(inner: nn.Module) -> tuple[str, list[str], list[str]]:
    """Return the names of the first convolution, of the others, and of the classifier's layers."""
    if quantized_inputs(inner):
        raise PassbandError("the model is quantized already; make it anew to quantize it otherwise")
    if any(isinstance(module, SeparableConv2d) for module in inner.modules()):
        raise PassbandError(
            f"{type(inner).__name__} computes its separable convolutions as dense ones, whose kernel is no weight; "
            "quantize a network with plain convolutions"
        )
    heads = classifiers(inner)
    linear = [name for name, m in inner.named_modules() if id(m) in heads and isinstance(m, nn.Linear | nn.Conv2d)]
    found = [name for name, m in inner.named_modules() if isinstance(m, nn.Conv2d) and name not in linear]
    if len(found) < 2:
        raise PassbandError(
            f"quantization leaves the first convolution alone and needs others behind it; {type(inner).__name__} has "
            f"{len(found)} in all"
        )
    return found[0], found[1:], linear


def _chosen(names: Sequence[str], skip: Sequence[str]) -> list[str]:
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PassbandError(
                f"quantize: the pattern '{pattern}' matches none of the {len(names)} convolutions behind the first; "
                f"they are named like '{names[0]}'"
            )
    chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in skip)]
    if not chosen:
        raise PassbandError("quantize: every convolution behind the first is skipped; leave some out of skip")
    return chosen


def _negative(model: nn.Module, names: Sequence[str]) -> dict[str, bool]:
    """Tell which layers get negative inputs, by asking the model about noise; its running statistics stay."""
    inner, found = bare(model), dict.fromkeys(names, False)
    weight: Any = next(m for m in inner.modules() if isinstance(m, nn.Conv2d)).weight
    spec: Any = getattr(model, "spec", None)
    known = getattr(inner, "default_cfg", {}).get("input_size", (weight.shape[1], 32, 32))[1:]
    channels, size = (weight.shape[1], known) if spec is None else (spec.channels, spec.size)
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0)).to(weight)

    def look(name: str, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        found[name] |= bool(inputs[0].min() < 0)

    try:
        with watched({name: inner.get_submodule(name) for name in names}, look), untouched(model), torch.no_grad():
            model(images)
    except RuntimeError as error:  # torch's, of a size that does not fit
        raise PassbandError(
            f"quantize asks the model about noise of {list(images.shape[1:])} pixels to find out where inputs are "
            f"negative, and it cannot take that ({(str(error).splitlines() or [''])[0]}): give signed=True or False"
        ) from error
    return found


def _parametrize(layer: nn.Module, made: QuantizedWeight) -> None:
    weight: Any = layer.weight
    parametrize.register_parametrization(layer, "weight", made.to(weight.device))


def _quantize_end(layer: Any, bits: int) -> None:
    _parametrize(layer, QuantizedWeight(bits, clip=None, grid="uniform", standardize="none", mask=None))
    layer.weight_bits = bits


def _bytes(inner: nn.Module) -> int:
    """Return what the model takes in float32, without what quantizers learn."""
    own = {
        id(p) for m in inner.modules() if isinstance(m, ActivationQuantizer | QuantizedWeight) for p in m.parameters()
    }
    tensors = [p for p in inner.parameters() if id(p) not in own]
    return 4 * sum(t.numel() for t in (*tensors, *(b for b in inner.buffers() if b.is_floating_point())))


def _packed(before: int, layers: Sequence[QuantizedLayer]) -> int:
    saved = sum(4 * layer.values - layer.bytes for layer in layers)
    clips = sum((layer.weight_bits != FLOAT) + (layer.input_bits != FLOAT) for layer in layers)
    return before - saved + 4 * clips


def settings_of(options: Mapping[str, Any]) -> tuple[int, int]:
    """Return the bits of weights and of inputs that options of :func:`quantize` mean."""
    bits = int(options.get("bits", 4))
    inputs = options.get("activation_bits")
    return bits, bits if inputs is None else int(inputs)
