"""Compare a training step of the separable ResNet-20, composed, with the same network written as two convolutions.

Theirs is a grouped convolution followed by a 1×1, in its best memory layout (channels last) and in PyTorch's default
one; the plain dense ResNet-20 of the same shape is the floor. bf16 beside float32 has no target.

A composed layer needs the gradient of its dense kernel in every mode, since both of its weights are reached through it:
freezing either mixing saves nothing there, and the three modes' steps take about as long. Two convolutions in a row do
skip what is frozen, and are slower all the same. ``python -m benchmarks.separable [--quick] [--device cuda]``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.side_by_side import Pair, compare, report, show_times
from benchmarks.steps import channels_last, compare_precisions, difference, place, step_options, training_step
from passband.experiments.timing import interleaved
from passband.models.cifar_resnet import CifarResNet
from passband.models.layers import SeparableConv2d
from passband.models.preactivation import PreActivationResNet
from passband.models.separable_resnet import SeparableResNet

DEPTH, WIDTH, MULTIPLIER = 3, 16, 9
LEARN = ("all", "channels", "spatial")
FROZEN = {"all": "", "channels": "depthwise", "spatial": "pointwise"}


def naive(depth: int = DEPTH) -> PreActivationResNet:
    """Build the rival: each separable convolution as two modules in a row."""

    def convolution(inputs: int, outputs: int, stride: int) -> nn.Module:
        middle = inputs * MULTIPLIER
        depthwise = nn.Conv2d(inputs, middle, 3, stride, 1, groups=inputs, bias=False)
        pointwise = nn.Conv2d(middle, outputs, 1, bias=False)
        return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))

    return PreActivationResNet(convolution, depth, WIDTH)


def freeze(model: nn.Module, learn: str) -> nn.Module:
    """Freeze the depthwise weights for ``"channels"``, the pointwise ones for ``"spatial"``."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not FROZEN[learn] or FROZEN[learn] not in name)
    return model


def saved_bytes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return how much memory one forward pass keeps for backward, parameters apart, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    # The storages themselves are held, or an address that is freed and taken again would be counted once.
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(model(images), labels)
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total


def assert_agreement(images: Tensor, labels: Tensor) -> float:
    """Check in float64 that outputs and all gradients of ours and theirs agree; return the largest difference.

    Raises:
        AssertionError: when one differs by more than rounding.
    """
    ours = SeparableResNet(DEPTH, WIDTH, MULTIPLIER, path="composed").double()
    theirs = naive().double()
    theirs.load_state_dict(ours.state_dict())
    outputs = []
    for model in (ours, theirs):
        outputs.append(model(images.double()))
        F.cross_entropy(outputs[-1], labels).backward()
    worst = difference("output", outputs[0].detach(), outputs[1].detach())
    for (name, our), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert our.grad is not None and their.grad is not None
        worst = max(worst, difference(name, our.grad, their.grad))
    return worst


def variants(learn: str, images: Tensor, labels: Tensor) -> dict[str, Callable[[], None]]:
    """Return the training steps to be compared, all with equal weights where the networks are equal."""
    last = images.contiguous(memory_format=torch.channels_last)
    ours = SeparableResNet(DEPTH, WIDTH, MULTIPLIER)
    assert all(m.path == "composed" for m in ours.modules() if isinstance(m, SeparableConv2d))
    rivals = naive(), naive()
    for rival in rivals:
        rival.load_state_dict(ours.state_dict())
    dense = CifarResNet(DEPTH, WIDTH)
    for model in (ours, *rivals, dense):
        model.to(images.device)
    return {
        "ours": training_step(freeze(channels_last(ours), learn), last, labels),
        "two convolutions, channels last": training_step(freeze(channels_last(rivals[0]), learn), last, labels),
        "two convolutions, default layout": training_step(freeze(rivals[1], learn), images, labels),
        "plain dense, channels last": training_step(channels_last(dense), last, labels),
    }


def compare_steps(learn: str, images: Tensor, labels: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Time one training step of each variant."""
    times = interleaved(variants(learn, images, labels), rounds)
    show_times(f"one training step, {learn} learned", times, 1000, "ms")
    name = f"separable step, {learn} learned"
    note = f"{about(images)}, batch {len(images)}"
    pairs = (
        Pair(f"{name}, against the best layout", "ours", "two convolutions, channels last", 5.0, note),
        Pair(f"{name}, against the default layout", "ours", "two convolutions, default layout", 8.0, note),
        Pair(f"{name}, against plain dense", "ours", "plain dense, channels last", 1 / 1.15, f"{note}; at most 1.15×"),
    )
    return [compare(pair, times, "s") for pair in pairs]


def compare_modes(images: Tensor, labels: Tensor, rounds: int) -> list[dict[str, Any]]:
    """Time ours by what learns: the dense kernel's gradient is needed in every mode, so freezing saves nothing."""
    last = images.contiguous(memory_format=torch.channels_last)
    models = {learn: SeparableResNet(DEPTH, WIDTH, MULTIPLIER).to(images.device) for learn in LEARN}
    times = interleaved(
        {learn: training_step(freeze(channels_last(m), learn), last, labels) for learn, m in models.items()}, rounds
    )
    show_times("one training step of ours, by what learns", times, 1000, "ms")
    note = f"{about(images)}, batch {len(images)}; composed layers need the dense gradient in every mode"
    names = {learn: f"separable step, {learn} learned, against all learned" for learn in LEARN[1:]}
    return [compare(Pair(name, learn, "all", None, note), times, "s") for learn, name in names.items()]


def about(images: Tensor) -> str:
    """Say what steps were of, and where."""
    return f"ResNet-20, multiplier {MULTIPLIER}, {place(images.device.type)}"


def compare_bf16(learn: str, images: Tensor, labels: Tensor, rounds: int) -> dict[str, Any]:
    """Time ours in bf16 beside float32."""

    def build() -> nn.Module:
        return freeze(channels_last(SeparableResNet(DEPTH, WIDTH, MULTIPLIER).to(images.device)), learn)

    last = images.contiguous(memory_format=torch.channels_last)
    name = f"separable step, {learn} learned, bf16 against float32"
    return compare_precisions(name, build, last, labels, rounds, about(images))


def compare_memory(images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compare what ours and theirs keep for backward."""
    last = images.contiguous(memory_format=torch.channels_last)
    models = {"ours": SeparableResNet(DEPTH, WIDTH, MULTIPLIER), "two convolutions": naive()}
    kept = {name: [float(saved_bytes(channels_last(m.to(images.device)), last, labels))] for name, m in models.items()}
    show_times("kept for backward", kept, 2.0**-20, "MiB")
    pair = Pair("memory kept for backward", "ours", "two convolutions", 4.0, "distinct storages, without parameters")
    return compare(pair, kept, "bytes")


def main() -> None:
    """Run the whole comparison."""
    arguments = step_options(__doc__ or "")
    batch, rounds = (16, 2) if arguments.quick else (128, 7)
    images = torch.rand(batch, 3, 32, 32, device=arguments.device)
    labels = torch.randint(10, (batch,), device=arguments.device)
    worst = assert_agreement(images[:8].cpu(), labels[:8].cpu())
    print(f"float64: outputs and all gradients agree to {worst:.1e} of the largest value")
    comparisons = [compare_memory(images, labels), *compare_modes(images, labels, rounds)]
    for learn in LEARN:
        comparisons += compare_steps(learn, images, labels, rounds)
        comparisons.append(compare_bf16(learn, images, labels, rounds))
    report(comparisons, arguments.json)


if __name__ == "__main__":
    main()
