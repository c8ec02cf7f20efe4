"""Compare a training step of ConvMixer 128/8 (kernel 8, patch 1), by what learns, with torch's own convolutions.

Theirs is the same network of ``nn.Conv2d(padding="same")`` in PyTorch's default memory layout and in channels last,
all learned; and, in channels last, with the depthwise kernels frozen and their biases left to learn: there the backward
pass computes the gradients of kernel and bias together, so freezing saves nothing. Ours is in channels last. bf16
beside float32 has no target. ``python -m benchmarks.convmixer [--quick] [--device cuda]``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.side_by_side import Pair, compare, report, show_times
from benchmarks.steps import channels_last, compare_precisions, difference, place, step_options, training_step
from passband.experiments.timing import interleaved
from passband.models.conv_mixer import ConvMixer
from passband.models.layers import DepthwiseConv2d
from passband.weights.learn import What, learn

WIDTH, DEPTH, KERNEL = 128, 8, 8
ALL, CHANNELS, SPATIAL = "ours, all learned", "ours, channels learned", "ours, spatial learned"
PLAIN, PLAIN_LAST = "nn.Conv2d, default layout", "nn.Conv2d, channels last"
TRAP, FROZEN = "nn.Conv2d, kernels frozen, biases learned", "nn.Conv2d, kernels and biases frozen"
PAIRS = (
    (CHANNELS, ALL, 1.7),
    (CHANNELS, PLAIN, 3.0),
    (CHANNELS, PLAIN_LAST, None),
    (CHANNELS, TRAP, None),
    (CHANNELS, FROZEN, None),
    (TRAP, PLAIN_LAST, None),
    (SPATIAL, ALL, None),
    (ALL, PLAIN, 1.7),
    (ALL, PLAIN_LAST, None),
)


def rival(ours: nn.Module) -> nn.Module:
    """Copy a ConvMixer with torch's own depthwise convolutions in place of ours, of the same weights."""
    model = copy.deepcopy(ours)
    for name, module in list(model.named_modules()):
        if isinstance(module, DepthwiseConv2d):
            channels, side = module.in_channels, module.kernel_size[0]
            plain = nn.Conv2d(channels, channels, side, padding="same", groups=channels)
            model.set_submodule(name, plain.to(module.weight))
    model.load_state_dict(ours.state_dict())
    return model


def learning(model: nn.Module, what: What, bias: bool = False) -> nn.Module:
    """Let a part learn, with ``bias`` also the biases of depthwise convolutions; return the model in channels last."""
    learn(model, what)
    for module in model.modules():
        if bias and isinstance(module, nn.Conv2d) and module.groups > 1 and module.bias is not None:
            module.bias.requires_grad_(True)
    return channels_last(model)


def assert_agreement() -> float:
    """Check in float64 that outputs and all gradients of ours and theirs agree, whatever learns.

    Returns:
        The largest difference, relative to the largest value of its kind.

    Raises:
        AssertionError: when one differs by more than rounding.
    """
    ours = ConvMixer(16, 3, KERNEL).double()
    theirs = rival(ours)
    images, labels = torch.rand(4, 3, 16, 16, dtype=torch.float64), torch.arange(4)
    worst = 0.0
    parts: tuple[What, ...] = ("all", "channels", "spatial")
    for what in parts:
        outputs = []
        for model in (ours, theirs):
            learn(model, what)
            model.zero_grad()
            outputs.append(model(images))
            F.cross_entropy(outputs[-1], labels).backward()
        worst = max(worst, difference("output", outputs[0].detach(), outputs[1].detach()))
        for (name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert (our.grad is None) == (their.grad is None) == (not our.requires_grad), name
            if our.grad is not None and their.grad is not None:
                worst = max(worst, difference(name, our.grad, their.grad))
    return worst


def variants(images: Tensor, labels: Tensor) -> dict[str, Callable[[], None]]:
    """Return the training steps to be compared, all of equal weights."""
    ours = ConvMixer(WIDTH, DEPTH, KERNEL).to(images.device)
    last = images.contiguous(memory_format=torch.channels_last)
    models = {
        ALL: learning(copy.deepcopy(ours), "all"),
        CHANNELS: learning(copy.deepcopy(ours), "channels"),
        SPATIAL: learning(copy.deepcopy(ours), "spatial"),
        PLAIN_LAST: learning(rival(ours), "all"),
        TRAP: learning(rival(ours), "channels", bias=True),
        FROZEN: learning(rival(ours), "channels"),
    }
    steps = {name: training_step(model, last, labels) for name, model in models.items()}
    return steps | {PLAIN: training_step(rival(ours), images, labels)}


def compare_steps(images: Tensor, labels: Tensor, rounds: int, note: str) -> list[dict[str, Any]]:
    """Time one training step of each variant."""
    times = interleaved(variants(images, labels), rounds)
    show_times("one training step", times, 1000, "ms")
    pairs = (Pair(f"ConvMixer step: {our}, against {their}", our, their, target, note) for our, their, target in PAIRS)
    return [compare(pair, times, "s") for pair in pairs]


def compare_bf16(images: Tensor, labels: Tensor, rounds: int, note: str) -> list[dict[str, Any]]:
    """Time ours in bf16 beside float32."""
    last = images.contiguous(memory_format=torch.channels_last)
    parts: tuple[What, ...] = ("all", "channels")
    return [
        compare_precisions(
            f"ConvMixer step: {what} learned, bf16 against float32",
            lambda what=what: learning(ConvMixer(WIDTH, DEPTH, KERNEL).to(images.device), what),  # type: ignore[misc]
            last,
            labels,
            rounds,
            note,
        )
        for what in parts
    ]


def main() -> None:
    """Run the whole comparison."""
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel")  # theirs, not ours
    arguments = step_options(__doc__ or "")
    batch, rounds = (1, 1) if arguments.quick else (32, 7)
    images = torch.rand(batch, 3, 32, 32, device=arguments.device)
    labels = torch.randint(10, (batch,), device=arguments.device)
    print(f"float64: outputs and all gradients agree to {assert_agreement():.1e} of the largest value")
    note = f"width {WIDTH}, depth {DEPTH}, kernel {KERNEL}, patch 1, 32 × 32, {place(arguments.device)}"
    comparisons = compare_steps(images, labels, rounds, f"{note}, batch {batch}")
    comparisons += compare_bf16(images, labels, rounds, note)
    report(comparisons, arguments.json)


if __name__ == "__main__":
    main()
