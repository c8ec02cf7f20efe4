"""Compare SpaRTAN-T, folded and in training, with a plain PyTorch module of the same network.

Theirs (``benchmarks/spartan_reference.py``) is written as the network is described: complex numbers through permute and
view, nothing folded, PyTorch's default memory layout. Without a target it is also measured in channels last, and there
with a few images at a time. Outputs and all gradients agree before a clock starts. On a GPU the batch is 1,024; the
paper states 3,730 images a second on an A100. ``python -m benchmarks.spartan [--only PART] [--quick] [--device cuda]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from benchmarks.spartan_reference import Reference, copy_weights, reference_gradients
from benchmarks.steps import channels_last, difference, place, training_step
from passband.experiments.timing import interleaved, wait
from passband.models.fold import fold
from passband.models.spartan import Spartan

OURS, PLAIN = "ours", "reference"
PARTS = ("inference", "compiled", "bf16", "training")
FEW = 4
"""Images at a time that the reference is also given; ours takes about so many by itself."""
PAPER = "the paper: 3,730 images/s on an A100"
Run = Callable[[], Any]


def network(**sizes: Any) -> tuple[Spartan, Reference]:
    """Return our network and the reference with equal weights, whose scales and statistics are none of the first."""
    ours = Spartan(**sizes)
    for name, parameter in ours.named_parameters():
        if name.endswith(("scale", "gamma")):
            nn.init.normal_(parameter)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.3)
        elif "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.3, 3)  # type: ignore[arg-type]
    return ours, copy_weights(ours, Reference(**sizes))


def assert_agreement(pixels: int = 40) -> float:
    """Check in float64 that outputs, folded ones too, and all gradients of ours and the reference agree.

    Returns:
        The largest difference, relative to the largest value of its kind.

    Raises:
        AssertionError: when one differs by more than rounding.
    """
    ours, theirs = network(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_classes=7)
    ours.double()
    theirs.double()
    images, labels = torch.randn(3, 3, pixels, pixels, dtype=torch.float64), torch.arange(3)
    worst = 0.0
    with torch.no_grad():
        expected = theirs.eval()(images)
        for name, model in (("output", ours.eval()), ("folded output", fold(ours)[0])):
            worst = max(worst, difference(name, model(images), expected))
    for layout in (torch.contiguous_format, torch.channels_last):
        for model in (ours.to(memory_format=layout), theirs):
            model.train().zero_grad()
            F.cross_entropy(model(images.contiguous(memory_format=layout)), labels).backward()
        # All in one: some are zero but for rounding (of a bias that the next batch norm takes away, say).
        pairs = reference_gradients(ours, theirs).values()
        our, their = (torch.cat([pair[side].flatten() for pair in pairs]) for side in (0, 1))
        worst = max(worst, difference("gradients", our, their))
    return worst


def waited(model: nn.Module, images: Tensor, bf16: bool = False) -> Run:
    """Return a run of a model without gradients that ends when the device has done it."""

    def run() -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = model(images)
        wait(str(images.device))
        return logits

    return run


def in_last(reference: Reference) -> Reference:
    """Copy the reference with its convolutions in channels last; its complex weights have five axes and stay."""
    model = deepcopy(reference)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class Sides:
    """Hold both networks in evaluation, and the images in both layouts."""

    def __init__(self, images: Tensor, **sizes: Any) -> None:
        ours, theirs = network(**sizes)
        self.device = images.device
        self.plain, self.last = images, images.contiguous(memory_format=torch.channels_last)
        self.theirs = theirs.eval().to(images.device)
        self.unfolded = channels_last(ours.eval().to(images.device))
        self.folded = channels_last(fold(self.unfolded)[0])
        our, their = (waited(self.folded, self.last)(), waited(self.theirs, self.plain)())
        self.error = float((our - their).abs().max() / their.abs().max())
        assert self.error < (1e-4 if images.device.type == "cpu" else 1e-2), f"the logits differ by {self.error:.1e}"

    def compiled(self, network: nn.Module, images: Tensor, bf16: bool = False, few: int | None = None) -> Run:
        """Return a run of a network, compiled whole and its weights constants, on a ``few`` images at a time or all."""
        options: Any = {"freezing": True} if self.device.type == "cpu" else None
        made: Any = torch.compile(deepcopy(network), fullgraph=network is self.folded, options=options)
        if few is None:
            return waited(made, images, bf16)
        return lambda: [waited(made, part, bf16)() for part in images.split(few)]


def profiled(run: Run) -> None:
    """Print where the time of a run goes."""
    run()
    with profile() as found:
        run()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=6, max_name_column_width=40))


def measure(title: str, variants: dict[str, Run], pairs: list[Pair], images: int, rounds: int) -> list[dict[str, Any]]:
    """Time variants in turns, and print images a second and the ratios as soon as they are there."""
    times = interleaved(variants, rounds)
    show_times(title, {name: [images / one for one in seconds] for name, seconds in times.items()}, 1, "images/s")
    rows = [compare(pair, times, "s") | {"images": images} for pair in pairs]
    report(rows, None)
    return rows


def inference(sides: Sides, rounds: int, note: str) -> list[dict[str, Any]]:
    """Compare networks as they are called."""
    last = in_last(sides.theirs)
    few = "reference, channels last, few at a time"
    variants = {
        OURS: waited(sides.folded, sides.last),
        "ours, not folded": waited(sides.unfolded, sides.last),
        PLAIN: waited(sides.theirs, sides.plain),
        "reference, channels last": waited(last, sides.last),
        few: lambda: [waited(last, part)() for part in sides.last.split(FEW)],
    }
    target = 3.0 if sides.device.type == "cuda" else 1.65
    note = f"{note}, logits differ by {sides.error:.0e}"
    pairs = [Pair("SpaRTAN-T, folded, against the reference", OURS, PLAIN, target, note)]
    pairs += [Pair(f"SpaRTAN-T, folded, against: {name}", OURS, name, None, note) for name in list(variants)[3:]]
    pairs.append(Pair("SpaRTAN-T, not folded, against the reference", "ours, not folded", PLAIN, None, note))
    return measure("inference", variants, pairs, len(sides.plain), rounds)


def compiled(sides: Sides, rounds: int, note: str) -> list[dict[str, Any]]:
    """Compare networks that ``torch.compile`` has seen."""
    theirs, last, few = "the reference compiled", "the reference compiled, channels last", "ours, a few at a time"
    variants = {
        OURS: sides.compiled(sides.folded, sides.last),
        few: sides.compiled(sides.folded, sides.last, few=FEW),
        PLAIN: waited(sides.theirs, sides.plain),
        theirs: sides.compiled(sides.theirs, sides.plain),
        last: sides.compiled(in_last(sides.theirs), sides.last),
    }
    pairs = [Pair("SpaRTAN-T, folded and compiled, against the reference", OURS, PLAIN, 2.4, note)]
    pairs += [Pair(f"SpaRTAN-T, folded and compiled, against {name}", OURS, name, 1.0, note) for name in (theirs, last)]
    pairs.append(
        Pair(f"SpaRTAN-T, folded, compiled, {FEW} images at a time, against the reference", few, PLAIN, None, note)
    )
    profiled(variants[few])
    return measure("compiled", variants, pairs, len(sides.plain), rounds)


def bf16(sides: Sides, rounds: int, note: str) -> list[dict[str, Any]]:
    """Compare ours, compiled in bf16, with the reference; say how many predictions bf16 changes."""
    variants = {OURS: sides.compiled(sides.folded, sides.last, bf16=True), PLAIN: waited(sides.theirs, sides.plain)}
    changed = (variants[OURS]().argmax(1) != variants[PLAIN]().argmax(1)).float().mean()
    note = f"{note}, {float(changed):.0%} of the predictions of random weights change"
    pairs = [Pair("SpaRTAN-T, folded, compiled, bf16, against the reference in float32", OURS, PLAIN, 3.6, note)]
    return measure("bf16", variants, pairs, len(sides.plain), rounds)


def training(images: Tensor, rounds: int, note: str, **sizes: Any) -> list[dict[str, Any]]:
    """Compare a training step."""
    ours, theirs = (one.train().to(images.device) for one in network(**sizes))
    labels = torch.randint(ours.num_classes, (len(images),), device=images.device)  # type: ignore[arg-type]
    last = images.contiguous(memory_format=torch.channels_last)
    named = "reference, channels last"
    variants: dict[str, Run] = {
        named: training_step(in_last(theirs), last, labels),  # type: ignore[arg-type]
        OURS: training_step(channels_last(ours), last, labels),
        PLAIN: training_step(theirs, images, labels),
    }
    pairs = [
        Pair("SpaRTAN-T, a training step, against the reference", OURS, PLAIN, 1.5, note),
        Pair("SpaRTAN-T, a training step, against the reference in channels last", OURS, named, None, note),
    ]
    return measure("training", variants, pairs, len(images), rounds)


def options() -> argparse.Namespace:
    """Read the command line."""
    reader = parser(__doc__ or "")
    reader.add_argument("--only", choices=PARTS, help="one part instead of all")
    reader.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    reader.add_argument("--rounds", type=int, default=7, help="rounds of the whole measurement")
    return reader.parse_args()


def main() -> None:
    """Run what was asked for."""
    arguments = options()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    print(f"float64: outputs and all gradients agree to {assert_agreement():.1e} of the largest value")
    small: dict[str, Any] = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_classes": 10}
    batch, side, rounds, sizes = (2, 32, 1, small) if arguments.quick else (32, 224, arguments.rounds, {})
    if arguments.device == "cuda" and not arguments.quick:
        batch = 1024
    images = torch.randn(batch, 3, side, side, device=arguments.device)
    where = f"{place(arguments.device)}, {PAPER}" if arguments.device == "cuda" else place(arguments.device)
    note = f"{side} pixels, {where}, batch"
    sides = Sides(images, **sizes)
    # On a GPU the gradients of 1,024 images have no room beside what else is held.
    few = images if arguments.device == "cpu" else images[: batch // 2]
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "inference": partial(inference, sides, rounds, f"{note} {batch}"),
        "compiled": partial(compiled, sides, rounds, f"{note} {batch}"),
        "bf16": partial(bf16, sides, rounds, f"{note} {batch}"),
        "training": partial(training, few, rounds, f"{note} {len(few)}", **sizes),
    }
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        if arguments.only in (None, name):
            rows += part()
            if arguments.json is not None:
                report(rows, arguments.json)  # what is there is kept, whatever comes
    print(f"ours: {max(row['images'] / row['ours'] for row in rows):.0f} images/s at best")


if __name__ == "__main__":
    main()
