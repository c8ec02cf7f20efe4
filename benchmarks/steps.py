"""One training step, as every benchmark of training times it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.side_by_side import Pair, compare, parser, show_times
from passband.experiments.timing import interleaved
from passband.models.fast import has_bf16


def step_options(description: str) -> argparse.Namespace:
    """Read what every benchmark reads, and ``--device``; set threads and seed."""
    reader = parser(description)
    reader.add_argument("--device", default="cpu", help="where the steps run: cpu, or cuda where there is one")
    arguments = reader.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    return arguments


def place(device: str) -> str:
    """Say in a note where steps run."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"


def channels_last(model: nn.Module) -> nn.Module:
    """Put a model's weights into the layout that is fastest nearly everywhere."""
    return model.to(memory_format=torch.channels_last)


def training_step(model: nn.Module, images: Tensor, labels: Tensor, bf16: bool = False) -> Callable[[], None]:
    """Return one SGD step on a fixed batch.

    Args:
        model: In training mode, on the images' device.
        images: Of shape [batch, channels, height, width].
        labels: Of shape [batch].
        bf16: Whether the forward pass runs under autocast.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

    return step


def difference(name: str, our: Tensor, their: Tensor) -> float:
    """Return the largest difference, relative to the largest value.

    Raises:
        AssertionError: when it is more than rounding in float64.
    """
    relative = float((our - their).abs().max() / their.abs().max())
    assert relative < 1e-9, f"{name} differs by {relative:.1e} of its largest value"
    return relative


def compare_precisions(
    name: str, build: Callable[[], nn.Module], images: Tensor, labels: Tensor, rounds: int, note: str
) -> dict[str, Any]:
    """Time a step in bf16 beside one in float32; more than 1 means that bf16 is faster.

    A processor without bf16 instructions computes some convolutions in bf16 tens of times slower than in float32: it
    gets two images and two rounds.

    Args:
        name: What is compared.
        build: Makes the model, the same twice.
        images: In the layout that the model is in.
        labels: Of shape [batch].
        rounds: How many are counted.
        note: What the reader must know; the number of images is added.
    """
    if images.device.type == "cpu" and not has_bf16():
        images, labels, rounds = images[:2], labels[:2], min(rounds, 2)
    variants = {key: training_step(build(), images, labels, bf16=key == "bf16") for key in ("bf16", "float32")}
    times = interleaved(variants, rounds)
    show_times(f"{name}, {len(images)} images", times, 1000, "ms")
    return compare(Pair(name, "bf16", "float32", None, f"{note}, batch {len(images)}"), times, "s")
