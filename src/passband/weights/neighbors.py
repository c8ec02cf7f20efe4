"""Mix each weight of the first layer's kernels with its neighbors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from passband.core.errors import NotApplicable, PassbandError
from passband.models.layers import SeparableConv2d
from passband.weights.first import first_convolution


@dataclass(frozen=True)
class MixReport:
    """Say what was mixed, and by how much it made the layer's answers larger.

    Attributes:
        layer: The convolution, as ``model.named_modules()`` has it.
        rho: Share of each neighbor.
        dc_gain: Factor of a constant kernel, or of what any kernel answers to a constant image: 1 + 8ρ, or 1 with the
            gain divided out.
        rms_gain: Norm of all its kernels after, over the norm before; NaN where they were zero.
    """

    layer: str
    rho: float
    dc_gain: float
    rms_gain: float

    def __str__(self) -> str:
        """Say it in one line."""
        kept = "" if self.dc_gain != 1 or self.rho == 0 else ", gain divided out"
        return f"neighbors mixed in {self.layer}, ρ {self.rho:g}{kept}"


def mix_neighbors(model: nn.Module, rho: float, *, keep_gain: bool = True, layer: str | None = None) -> MixReport:
    """Add ρ times its eight neighbors to every weight of the first spatial convolution's kernels.

    Each kernel of an input and an output channel is mixed by itself, over its two sides; weights outside are those on
    its border, repeated. Kernels of any size are mixed, even ones too. In a separable convolution the depthwise kernels
    are: the dense kernels that both layers compose are linear in them, so those are mixed alike. A bias stays.

    The mask is not normalized: the layer's gain at zero frequency grows by 1 + 8ρ. A network without norms and
    biases then answers with logits as much larger, whose softmax saturates: gradients shrink, down to zero in
    float32, and attacks that follow them fail. ``keep_gain=False`` divides by 1 + 8ρ, and tells the one effect from
    the other.

    **Source**: high-frequency, section 6.3, equation 3. **Differs**: the authors' PyTorch port mixes over channels.

    Args:
        model: Any model; changed in place.
        rho: Share of each neighbor, 0 or more; 0 changes nothing.
        keep_gain: Whether the gain stays as the mask makes it; False divides it out.
        layer: Another convolution, by its name in ``model.named_modules()``.

    Returns:
        The layer and its gains.

    Raises:
        NotApplicable: when the model has no convolution larger than 1×1, or that one's weights are not its own
            (`mixable`).
        PassbandError: when none has the name, or for a negative or infinite ρ. The model is then unchanged.
    """
    if not 0 <= rho < math.inf:
        raise PassbandError(f"mixing neighbors needs a rho of 0 or more; got {rho}")
    name, convolution = mixable(model, layer)
    weight = convolution.weight.detach()
    new = mixed(weight, rho, keep_gain)
    before, after = (float(kernels.double().norm()) for kernels in (weight, new))
    with torch.no_grad():
        convolution.weight.copy_(new)
    return MixReport(name, rho, 1 + 8 * rho if keep_gain else 1.0, after / before if before else math.nan)


def mixed(
    kernels: Float[Tensor, "out in height width"], rho: float, keep_gain: bool = True
) -> Float[Tensor, "out in height width"]:
    """Return kernels mixed as :func:`mix_neighbors` does."""
    wide = functional.pad(kernels.double(), (1, 1, 1, 1), mode="replicate")
    # Sums of 3×3 squares, in which each weight stands with its neighbors.
    squares = functional.avg_pool2d(wide, 3, stride=1, divisor_override=1)
    new = (1 - rho) * kernels.double() + rho * squares
    return (new if keep_gain else new / (1 + 8 * rho)).to(kernels.dtype)


def mixable(model: nn.Module, layer: str | None = None) -> tuple[str, nn.Conv2d]:
    """Return the convolution that :func:`mix_neighbors` would change: a separable one's depthwise half.

    Raises:
        NotApplicable: when there is no convolution larger than 1×1, or its weights are computed from others, shared,
            standardized in each pass, or not finite: mixing would be undone, or would reach further.
        PassbandError: when none has the name.
    """
    name, found = first_convolution(model, layer)
    if isinstance(found, SeparableConv2d):
        name, found = f"{name}.depthwise".removeprefix("."), found.depthwise
    own = found._parameters.get("weight")
    reasons = {
        "are computed from other weights: mix them before that": own is None,
        "are used by another layer too": sum(p is own for _, p in model.named_parameters(remove_duplicate=False)) > 1,
        "hold NaN or infinity": own is not None and not bool(own.isfinite().all()),
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason is None and not _answers_in_proportion(found):
        reason = f"are standardized in each pass of {type(found).__name__}, which would undo the mixing"
    if reason:
        raise NotApplicable(f"the kernels of '{name}' {reason}; choose another layer or model")
    return name, found


def _answers_in_proportion(convolution: nn.Conv2d) -> bool:
    """Tell whether kernels twice as large give an answer twice as large; standardized ones give the same."""
    weight = convolution.weight.detach()
    sides = [2 * step * side for side, step in zip(convolution.kernel_size, convolution.dilation, strict=True)]
    images = torch.rand(1, convolution.in_channels, *sides, generator=torch.Generator().manual_seed(0)).to(weight)
    rest = {} if convolution.bias is None else {"bias": torch.zeros_like(convolution.bias)}
    with torch.no_grad():
        once, twice = (functional_call(convolution, {"weight": k * weight, **rest}, (images,)) for k in (1, 2))
    return torch.allclose(2 * once, twice)
