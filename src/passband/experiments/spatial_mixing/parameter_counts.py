"""How many parameters dense and separable convolutions have, counted on the modules that are trained.

Equations 1 to 3: a dense convolution has p_conv = c_in · c_out · k² weights, a separable one
p_sep = p_depth + p_point = c_in · k² · d + c_in · d · c_out, and with d = k² its pointwise part has as many as the
dense one. All columns but the equations' are counted: ``channels`` and ``spatial`` are what ``learn`` leaves to an
optimizer.

Whole networks: a separable ResNet that learns its channel mixing has as many learned parameters as the dense ResNet of
its shape, norms and classifier included. ImageNet's differ by their stem, whose 7×7 convolution has d = 9 and not 49.

No training and no data: the same rows at every scale. Claims are exact: the margin is minus the number of parameters by
which counts differ.

**Source**: spatial-mixing, arXiv version, equations 1 to 3 and section 3.3; workshop version, section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import STEM
from passband.models.cifar_resnet import CifarResNet
from passband.models.conv_mixer import ConvMixer
from passband.models.layers import SeparableConv2d
from passband.models.separable_resnet import SeparableResNet
from passband.sweeps.lab import Lab
from passband.weights.learn import learn

SHAPES = ((3, 16, 3), (16, 16, 3), (16, 32, 3), (64, 64, 3), (32, 64, 5), (64, 128, 7))
"""Input channels, output channels and k of convolutions that are counted with d = k²."""
FIXED = (16, 32, 9)
"""Input channels, output channels and d of the convolutions whose kernel alone changes."""
KERNELS = (3, 5, 7)
CIFAR_DEPTHS, IMAGENET_DEPTHS = (1, 2, 3, 5, 7, 9), (1, 2, 4)
MIXER_KERNELS = (3, 5, 7, 8, 9)


def cases(scale: Scale) -> list[Case]:
    """List single convolutions, whole ResNets and ConvMixers; each once, as counts have no seed."""
    squares = [("d = k²", (*shape, shape[2] ** 2)) for shape in SHAPES]
    thirds = [("d = 3", (16, 32, 3, 3))]
    kernels = [("only k", (FIXED[0], FIXED[1], k, FIXED[2])) for k in KERNELS]
    convolutions = [_case(kind, _convolution_name(*shape), shape) for kind, shape in (*squares, *thirds, *kernels)]
    # One convolution belongs to two questions: it is a row of each.
    networks = [_case("CIFAR", f"ResNet-{6 * n + 2}", n) for n in CIFAR_DEPTHS]
    networks += [_case("ImageNet", f"ImageNet ResNet-{8 * n + 2}", n) for n in IMAGENET_DEPTHS]
    mixers = [_case("ConvMixer", f"ConvMixer-128/8, k = {k}", k) for k in MIXER_KERNELS]
    return [*convolutions, *networks, *mixers]


def _convolution_name(inputs: int, outputs: int, k: int, d: int) -> str:
    return f"{inputs} → {outputs}, k = {k}, d = {d}"


def _case(kind: str, name: str, of: Any) -> Case:
    return {"case": f"{kind}: {name}" if kind == "only k" else name, "data": None, "seed": None, "kind": kind, "of": of}


def measure(case: Case, lab: Lab) -> Measured:
    """Count one convolution or one network; on torch's meta device, which holds shapes and no numbers."""
    count = {"CIFAR": _cifar, "ImageNet": _imagenet, "ConvMixer": _mixer}.get(case["kind"], _convolution)
    with torch.device("meta"):
        return Measured({"kind": case["kind"], **count(case["of"])})


def _convolution(shape: tuple[int, int, int, int]) -> dict[str, Cell]:
    inputs, outputs, k, d = shape
    separable = SeparableConv2d(inputs, outputs, k, multiplier=d)
    return {
        "dense": _weights(nn.Conv2d(inputs, outputs, k, bias=False)), "eq. 1": inputs * outputs * k**2,
        "depthwise": _weights(separable.depthwise), "pointwise": _weights(separable.pointwise),
        "separable": _weights(separable), "eq. 2": inputs * k**2 * d + inputs * d * outputs, **_learned(separable),
    }  # fmt: skip


def _cifar(depth: int) -> dict[str, Cell]:
    return _networks(CifarResNet(depth, 16), SeparableResNet(depth, 16, 9))


def _imagenet(depth: int) -> dict[str, Cell]:
    size: dict[str, Any] = {"stages": 4, "stem": "imagenet", "num_classes": 1000}
    return _networks(CifarResNet(depth, 64, **size), SeparableResNet(depth, 64, 9, **size))


def _networks(dense: nn.Module, separable: nn.Module) -> dict[str, Cell]:
    return {"dense": _weights(dense), "separable": _weights(separable), **_learned(separable)}


def _mixer(k: int) -> dict[str, Cell]:
    model = ConvMixer(128, 8, k, 1)
    return {"separable": _weights(model), **_learned(model, **STEM)}


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _learned(model: nn.Module, **options: Any) -> dict[str, Cell]:
    return {what: learn(model, what, **options).learned for what in ("channels", "spatial")}


def differing(rows: Rows, kind: str, gap: Callable[[dict[str, Any]], int]) -> float | None:
    """Return minus the number of parameters by which the rows of a kind differ, summed; None without such rows."""
    found = [row for row in rows if row.get("kind") == kind]
    return 0.0 - sum(abs(gap(row)) for row in found) if found else None


def spread(rows: Rows, kind: str) -> float | None:
    """Return minus the difference between the most and the fewest channel parameters among the rows of a kind."""
    found: list[Any] = [row["channels"] for row in rows if row.get("kind") == kind]
    return float(min(found) - max(found)) if found else None


def _claim(name: str, sentence: str, place: str, margin: Callable[[Rows], float | None]) -> Claim:
    place = f"spatial-mixing (arXiv), {place}"
    return Claim(name, sentence, place, margin, unit="parameters", judged_from=Scale.SMOKE, exact=True)


CLAIMS = (
    _claim(
        "p_conv", "A dense convolution has c_in · c_out · k² parameters.", "equation 1",
        lambda rows: differing(rows, "d = k²", lambda row: row["dense"] - row["eq. 1"]),
    ),
    _claim(
        "p_sep", "A separable one has p_depth + p_point = c_in · k² · d + c_in · d · c_out.", "equation 2",
        lambda rows: differing(
            rows, "d = k²",
            lambda row: abs(row["separable"] - row["eq. 2"])
            + abs(row["separable"] - row["depthwise"] - row["pointwise"]),
        ),
    ),
    _claim(
        "p_point = p_conv with d = k²", "With d = k² the pointwise convolution has as many as the dense one.",
        "equation 3", lambda rows: differing(rows, "d = k²", lambda row: row["pointwise"] - row["dense"]),
    ),
    _claim(
        "channels learns the pointwise weights", "Only the pointwise parameters are learned.", "section 3.3",
        lambda rows: differing(rows, "d = k²", lambda row: row["channels"] - row["pointwise"]),
    ),
    _claim(
        "a third with d = 3", "For 3×3 kernels d = 3 uses one third of the parameters.", "section 3.3",
        lambda rows: differing(rows, "d = 3", lambda row: 3 * row["channels"] - row["dense"]),
    ),
    _claim(
        "no k in a convolution's channels",
        "The number of trainable parameters does not depend on the size of the kernel (k).", "section 3.3",
        lambda rows: spread(rows, "only k"),
    ),
    _claim(
        "no k in a ConvMixer's channels",
        "The number of trainable parameters does not depend on the size of the kernel (k).", "section 3.3",
        lambda rows: spread(rows, "ConvMixer"),
    ),
    _claim(
        "channels as many as the dense ResNet",
        "Models with parameter counts similar to the vanilla ResNet: on CIFAR the same, counted.",
        "section 3.3", lambda rows: differing(rows, "CIFAR", lambda row: row["channels"] - row["dense"]),
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Parameters of dense and separable convolutions",
    source="spatial-mixing, equations 1 to 3",
    columns=tuple(
        Column(name=name, unit="parameters")
        for name in ("dense", "eq. 1", "depthwise", "pointwise", "separable", "eq. 2", "channels", "spatial")
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
)
