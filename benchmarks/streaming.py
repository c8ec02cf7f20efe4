"""Compare a stream of photographs with timm's own loader on the same shards and the same folder, and watch its memory.

Both cut a window of 224 pixels out of each photograph (RandomResizedCrop, bilinear), mirror half of them, and give
float batches; both with two processes that read. Theirs is timm's `create_loader` with its prefetcher, whose processes
stay from epoch to epoch. The memory is that of the program and the processes that read, over one epoch of 10,000
images: the sample images, ten times. ``python -m benchmarks.streaming [--quick]``; the photographs are the ImageNet
samples in ``$PASSBAND_DATA/imagenet-samples``, or photographs of random pixels where those are not there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.data import create_dataset, create_loader

from benchmarks.side_by_side import Pair, compare, parser, report, show_times
from passband.core.store import data_folder
from passband.data.augment import flip
from passband.data.catalog import stream
from passband.data.shard_pack import pack
from passband.data.stream import TrainStream
from passband.data.stream_samples import window
from passband.experiments.timing import interleaved

SIDE, BATCH, HELPERS, TIMES = 224, 64, 2, 10
EACH, SETTLED = 1000, 2
"""Images between two looks at the memory, and how many looks its queues and allocators have to fill."""
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def photographs(folder: Path, few: int | None) -> str:
    """Put class folders at ``folder/train``: the ImageNet samples, or so many photographs of random pixels."""
    samples = data_folder() / "imagenet-samples" / "val"
    if few is None and samples.is_dir():
        (folder / "train").symlink_to(samples.resolve())
        return "the 1,000 ImageNet sample images"
    chance, count = np.random.default_rng(0), few or 1000
    for number in range(count):
        path = folder / "train" / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Random pixels at a sixteenth of the size: as smooth as a photograph, or decoding would take longer.
        Image.fromarray(chance.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375)).save(path, quality=90)
    return f"{count:,} images of random pixels"


def repeated(place: Path, to: Path, times: int) -> Path:
    """Make a place that has each shard of another one several times."""
    info = json.loads((place / "_info.json").read_text())
    split = info["splits"]["train"]
    names = {f"{time}-{name}": name for time in range(times) for name in split["filenames"]}
    to.mkdir()
    for name, one in names.items():
        (to / name).symlink_to(place / one)
    split |= {"filenames": list(names), "shard_lengths": split["shard_lengths"] * times, "shard_digests": None}
    split["num_samples"] *= times
    (to / "_info.json").write_text(json.dumps(info))
    return to


def ours(name: str) -> TrainStream:
    """Return our stream of a set."""
    size = (SIDE, SIDE)
    return TrainStream(stream(name, size=size), BATCH, (flip(),), cut=window(size, SCALE, RATIO), helpers=HELPERS)


def theirs(name: str, root: Path) -> Any:
    """Return timm's loader of a folder (an empty name) or of shards (``wds/``)."""
    dataset = create_dataset(name, root=str(root), split="train", is_training=True, batch_size=BATCH)
    return create_loader(
        dataset, (3, SIDE, SIDE), BATCH, is_training=True, scale=SCALE, ratio=RATIO, hflip=0.5, color_jitter=None,
        interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), num_workers=HELPERS,
        use_prefetcher=True, device=torch.device("cpu"), persistent_workers=True,
    )  # fmt: skip


def compare_speed(folder: Path, place: Path, what: str, rounds: int) -> list[dict[str, Any]]:
    """Time one epoch of each, in seconds an image."""
    streams = {"ours, shards": ours(f"shards:{place}"), "ours, folder": ours(f"folder:{folder}")}
    loaders = {"timm, shards": theirs("wds/", place), "timm, folder": theirs("", folder / "train")}
    served: dict[str, int] = {}

    def epoch(name: str) -> Callable[[], None]:
        def run() -> None:
            batches = streams[name].epoch(0) if name in streams else loaders[name]
            served[name] = sum(len(images) for images, _ in batches)

        return run

    whole = interleaved({name: epoch(name) for name in [*streams, *loaders]}, rounds)
    times = {name: [seconds / served[name] for seconds in found] for name, found in whole.items()}
    show_times(f"one image of {what}", times, 1000, "ms")
    note = f"{what}, {SIDE} pixels, batches of {BATCH}, {HELPERS} processes that read"
    kinds = ("shards", "folder")
    pairs = [Pair(f"an image from {kind}", f"ours, {kind}", f"timm, {kind}", 1.0, note) for kind in kinds]
    return [compare(pair, times, "s") for pair in pairs]


def memory() -> tuple[float, float]:
    """Return what this program and its children hold, in megabytes.

    Returns:
        Resident memory, where a page that they share counts for each of them; and their shares, where it counts once.
        The second also grows as a forked process writes to what it shares.
    """
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    held = {"Rss:": 0, "Pss:": 0}
    for process in ["self", *children]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except ProcessLookupError:  # it has ended, and holds nothing
            continue
        for kind, _, kilobytes, *_ in (line.replace(":", ": -", 1).split() for line in lines[1:]):
            if kind in held:
                held[kind] += int(kilobytes)
    return held["Rss:"] / 1024, held["Pss:"] / 1024


def watch_memory(place: Path, times: int, what: str) -> dict[str, Any]:
    """Go through so many thousand images of one epoch, and compare the resident memory early and late."""
    batches, seen = ours(f"shards:{place}"), 0
    held: list[tuple[float, float]] = []
    for images, _ in batches.epoch(0):
        seen += len(images)
        if seen // EACH > len(held):
            held.append(memory())
        if len(held) == times:  # before the readers end, and with them what they hold
            break
    table = Table("images", "resident, MB", "shared pages once, MB", title=f"memory over {seen:,} images of one epoch")
    for number, (whole, once) in enumerate(held, 1):
        table.add_row(f"{number * EACH:,}", f"{whole:.0f}", f"{once:.0f}")
    Console().print(table)
    early = min(SETTLED, times)
    ends = {"late": [held[-1][0]], "early": [held[early - 1][0]]}
    resident, shares = (", ".join(f"{one[kind]:.0f}" for one in held) for kind in (0, 1))
    note = (
        f"{what}, again and again; resident megabytes of the program and {HELPERS} readers after each {EACH:,}: "
        f"{resident}; with pages that they share counted once: {shares}"
    )
    name = f"resident memory after {early * EACH:,} images over that after {times * EACH:,}"
    return compare(Pair(name, "late", "early", 0.95, note), ends, "MB")


def main() -> None:
    """Run the whole comparison."""
    reader = parser(__doc__ or "")
    reader.add_argument("--rounds", type=int, default=3, help="rounds of the whole measurement")
    arguments = reader.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = Path(tempfile.mkdtemp(prefix="streaming."))
    try:
        what = photographs(folder, 256 if arguments.quick else None)
        place = pack(folder, folder / "shards", size_mb=1)
        rows = compare_speed(folder, place, what, 1 if arguments.quick else arguments.rounds)
        times, held = (1, 256) if arguments.quick else (TIMES, 1000)
        # A little more than is looked at: the readers end before the epoch does.
        rows.append(watch_memory(repeated(place, folder / "repeated", (times + 1) * EACH // held + 1), times, what))
        report(rows, arguments.json)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
