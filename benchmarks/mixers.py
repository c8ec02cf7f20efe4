"""Compare a training step of timm's models when everything learns with one where a single kind of mixing does.

Their spatial mixers are depthwise convolutions in three forms, attention, layers along the tokens, and pooling, which
has no parameters to learn. ``python -m benchmarks.mixers [--quick] [--device cuda]``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmarks.side_by_side import Pair, compare, report, show_times
from benchmarks.steps import channels_last, place, step_options, training_step
from passband.experiments.timing import interleaved
from passband.weights.learn import LearnReport, What, learn

SIZED = ("vit", "mixer")
MODELS: dict[str, tuple[str, tuple[What, ...]]] = {
    "convnext_atto": ("depthwise 7×7", ("all", "channels", "spatial")),
    "mobilenetv2_100": ("depthwise 3×3", ("all", "channels", "spatial")),
    "efficientnet_b0": ("depthwise 3×3 and 5×5", ("all", "channels", "spatial")),
    "vit_tiny_patch16_224": ("attention", ("all", "channels", "spatial")),
    "mixer_s16_224": ("layers along tokens", ("all", "channels", "spatial")),
    "poolformer_s12": ("pooling", ("all", "channels")),
}
"""Each model's spatial mixer, and what is let learn."""


def network(name: str, size: int) -> nn.Module:
    """Build a model for ten classes; those with positions are told the images' size."""
    options = {"img_size": size} if name.startswith(SIZED) else {}
    model: nn.Module = timm.create_model(name, num_classes=10, **options)
    return model


def compare_model(name: str, images: Tensor, labels: Tensor, rounds: int, note: str) -> list[dict[str, Any]]:
    """Time one training step of a model for each part that is let learn, and say what that part is."""
    mixer, parts = MODELS[name]
    model = network(name, images.shape[-1]).to(images.device)
    last = images.contiguous(memory_format=torch.channels_last)
    said: dict[str, LearnReport] = {}
    steps: dict[str, Callable[[], None]] = {}
    for what in parts:
        copied = copy.deepcopy(model)
        said[what] = learn(copied, what)
        print(f"{name}: {said[what]}")
        steps[what] = training_step(channels_last(copied), last, labels)
    times = interleaved(steps, rounds)
    show_times(f"{name}, one training step", times, 1000, "ms")
    return [
        compare(Pair(f"{name}, {what} learned, against all learned", what, "all", None, note), times, "s")
        | {"model": name, "mixer": mixer, "learn": what, "roles": dict(said[what].by_role)}
        for what in parts[1:]
    ]


def main() -> None:
    """Run the whole comparison."""
    arguments = step_options(__doc__ or "")
    size, batch, rounds = (64, 2, 1) if arguments.quick else (96, 16, 7)
    images = torch.rand(batch, 3, size, size, device=arguments.device)
    labels = torch.randint(10, (batch,), device=arguments.device)
    note = f"{size} × {size}, batch {batch}, {place(arguments.device)}"
    report([row for name in MODELS for row in compare_model(name, images, labels, rounds, note)], arguments.json)


if __name__ == "__main__":
    main()
