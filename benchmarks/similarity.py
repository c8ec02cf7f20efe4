"""Compare linear CKA between all layers of a ResNet-20 with torch-cka and pytorch-cka, in time and in memory.

All 20 convolutions and linear layers, 2,000 images in batches of 250, unbiased HSIC. The weights are untrained, drawn
from one seed: they cost what trained ones do. torch-cka runs without a graph, which it does not see to itself, and
pytorch-cka in both layouts, compared with the faster and with the smaller one. What they give must be what ours gives,
where they are right: pytorch-cka sets CKA below 0, which the unbiased estimate can have, to 0, so ours is cut for the
comparison.

Peak memory is that of a fresh process for each: how far the largest resident set (Linux's ``VmHWM``, set back before)
lies over what imports, images and a first small pass left.

    pip install pytorch-cka                                          # the bench extra
    pip install --no-deps torch-cka==0.21 && pip install matplotlib  # alone: it names nothing that it needs
    python -m benchmarks.similarity [--json FILE] [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from passband.core.results import Map
from passband.data.dataset import ImageSet
from passband.experiments.timing import interleaved
from passband.models.create import create
from passband.probes.similarity import similarity

BATCH = 250
ALLOWED = 1e-4
"""Largest difference of a CKA."""

OURS, TORCH_CKA = "passband", "torch-cka"
LAYOUTS = {"pytorch-cka": torch.contiguous_format, "pytorch-cka, channels_last": torch.channels_last}
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Variant = Callable[[], np.ndarray]


def network(depth: int = 3) -> nn.Module:
    """Return an untrained network of 6 · depth + 2 layers, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create("postact_resnet", pretrained=False, size=32, mean=(0.5,), std=(0.25,), depth=depth).eval()


def pictures(count: int) -> ImageSet:
    """Return smooth random images: on white noise, unlike images, deep layers hardly differ."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(coarse, size=32, mode="bilinear", align_corners=False)
    pixels = smooth.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return ImageSet("smooth", pixels, np.arange(count) % 10, tuple("0123456789"), "smooth")


class Loaded:
    """Give batches that lie in memory, ``(images,)`` each, as the rivals take a loader."""

    def __init__(self, images: ImageSet, layout: torch.memory_format) -> None:
        self.dataset = images.name
        self.batches = [(one.contiguous(memory_format=layout),) for one, _ in images.batches(BATCH)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def layers(model: nn.Module) -> list[str]:
    """Return the names of the convolutions and linear layers."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def variant(name: str, images: ImageSet, depth: int = 3) -> Variant:
    """Return what one of the three does, with its own network: torch-cka leaves its hooks in it."""
    model = network(depth)
    if name == OURS:
        batches = images.batches(BATCH)

        def ours() -> np.ndarray:
            found = similarity(model, batches, batch=BATCH)[0]
            assert isinstance(found, Map)
            return found.values

        return ours
    return _torch_cka(model, images) if name == TORCH_CKA else _pytorch_cka(model, images, LAYOUTS[name])


def _torch_cka(model: nn.Module, images: ImageSet) -> Variant:
    from torch_cka import cka as theirs

    theirs.tqdm = lambda batches, **_: batches  # its bars cannot be switched off
    loaded, names = Loaded(images, torch.contiguous_format), layers(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that both networks are the same one
        measured = theirs.CKA(model, model, "a", "b", names, names, device="cpu")

    def run() -> np.ndarray:
        with torch.no_grad():
            measured.compare(loaded, loaded)
        return np.asarray(measured.export()["CKA"])

    return run


def _pytorch_cka(model: nn.Module, images: ImageSet, layout: torch.memory_format) -> Variant:
    from cka import compute_cka

    model = model.to(memory_format=layout)
    loaded, names = Loaded(images, layout), layers(model)

    def run() -> np.ndarray:
        (found,) = compute_cka(model, model, loaded, layers=names, device="cpu", progress=False)
        values: Tensor = found
        return values.numpy()

    return run


def assert_agreement(variants: Mapping[str, Variant]) -> dict[str, float]:
    """Check that all give what ours gives; return the largest difference of each.

    Raises:
        AssertionError: when one is `ALLOWED` or more.
    """
    ours = variants[OURS]()
    assert np.isfinite(ours).all()
    off = {}
    for name, run in variants.items():
        if name != OURS:
            theirs = run()
            off[name] = float(np.abs(theirs - (ours if name == TORCH_CKA else ours.clip(0, 1))).max())
            assert off[name] < ALLOWED, f"{name} differs by {off[name]:.1e}"
    return off


def grown(name: str, count: int, depth: int) -> int:
    """Return by how many KiB this process's largest resident set exceeds the present one while one of them measures."""
    variant(name, pictures(8), depth)()  # loads what the libraries load when they are first used
    run = variant(name, pictures(count), depth)
    RESET.write_text("5")  # the largest so far, that of the imports, would hide what comes
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def peaks(name: str, count: int, depth: int, rounds: int, threads: int) -> list[float]:
    """Return :func:`grown` in MiB, each time in a process of its own."""
    found = []
    for _ in range(rounds):
        words = ["--peak", name, "--count", str(count), "--depth", str(depth), "--threads", str(threads)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.similarity", *words], check=True, capture_output=True, text=True
        )
        found.append(float(done.stdout.split()[-1]) / 1024)
    return found


def main() -> None:
    """Run the whole comparison."""
    reader = parser(__doc__ or "")
    reader.add_argument("--rounds", type=int, default=5, help="rounds of the whole measurement")
    reader.add_argument("--count", type=int, help="images; 2,000 unless told otherwise")
    reader.add_argument("--depth", type=int, help="of the network, 6 · depth + 2 layers; 3 unless told otherwise")
    reader.add_argument("--peak", help="print how many KiB one of them takes, and nothing else")
    arguments = reader.parse_args()
    torch.set_num_threads(arguments.threads)
    count = arguments.count or (500 if arguments.quick else 2000)
    depth = arguments.depth or (1 if arguments.quick else 3)
    if arguments.peak:
        print(grown(arguments.peak, count, depth))
        return
    variants = {name: variant(name, pictures(count), depth) for name in (OURS, TORCH_CKA, *LAYOUTS)}
    off = assert_agreement(variants)
    print("largest difference from ours:", ", ".join(f"{name} {value:.1e}" for name, value in off.items()))
    rounds = 1 if arguments.quick else arguments.rounds
    note = f"{6 * depth + 2} layers, {count:,} images in batches of {BATCH}, {arguments.threads} threads"
    report(_compared(variants, count, depth, rounds, arguments.threads, note), arguments.json)


def _compared(
    variants: Mapping[str, Variant], count: int, depth: int, rounds: int, threads: int, note: str
) -> list[dict[str, Any]]:
    times = interleaved(variants, rounds)
    show_times(f"linear CKA between all layers, {note}", times, 1, "s")
    best = min(LAYOUTS, key=lambda name: statistics.median(times[name]))
    memory = {name: peaks(name, count, depth, rounds, threads) for name in (OURS, *LAYOUTS)}
    show_times(f"peak memory, {note}", memory, 1, "MiB")
    least = min(LAYOUTS, key=lambda name: statistics.median(memory[name]))
    return [
        compare(Pair("time, against torch-cka", OURS, TORCH_CKA, 11.0, note), times, "s"),
        compare(Pair(f"time, against {best}", OURS, best, 0.95, note), times, "s"),
        compare(Pair(f"peak memory, against {least}", OURS, least, 2.0, note), memory, "MiB"),
    ]


if __name__ == "__main__":
    main()
