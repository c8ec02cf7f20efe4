"""Kill trainings and probes at random moments, go on with each, and compare with one that nobody killed.

Half of the kills come at a random time from outside; the others are aimed, so that every kind of place is met: a
process dies at a random one of the lines that write checkpoint, log, weights and answers, or within the write. A trial
kills a command one to three times.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from signal import SIGKILL
from typing import Any

from benchmarks.driven import Job, run, server, start
from passband.core.environment import hardware, versions
from passband.core.recipe import Recipe
from passband.core.store import write_atomic

TINY = Recipe.of(
    {
        "model": {"name": "separable_resnet", "depth": 1, "width": 4, "multiplier": 2},
        "data": {"name": "photos", "part": 150},
        "epochs": 3,
        "batch": 32,
    }
)
TRAININGS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "adversarial, moving average, early stop": (
        "attack={name: pgd, steps: 2}", "ema.decay=0.9", "early_stop.steps=2",
    ),
    "free adversarial, AdamW, augmented": (
        "scheme={name: free, replays: 2, eps: 8/255}", "optimizer={name: adamw, lr: 0.001}", "augment=[{name: flip}]",
        "data.part=100",
    ),
}  # fmt: skip
"""Trainings by name: what they add to ``TINY``."""
PROBE = ("--only", "bands,robustness", "--set", "robustness.steps=2", "--limit", "60", "--device", "cpu")
SAVES = (0.0, 60.0)
"""Seconds between two checkpoints within an epoch: one after every step, or at the epoch's end alone."""
TORN = ("checkpoint write", "log line", "final writes", "answer", "epoch's end", "kept piece")
"""Places where a kill may leave a file half written."""
OWN = {"recipe.yaml", "environment.json", "spec.json", "log.csv", "checkpoint.pt", "weights.safetensors",
       "metrics.json", "DONE", ".lock"}  # fmt: skip
"""The files of a finished run."""


@dataclass
class Found:
    """Hold what a series of trials found.

    Attributes:
        name: What was killed.
        trials: Commands that were killed and went on.
        kills: How often, by where the kill fell.
        torn: How many of the kills left a file half written.
        differences: What was not as in the command that nobody killed, a line each.
        seconds: Of all trials.
    """

    name: str
    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "name": self.name, "trials": self.trials, "kills": sum(self.kills.values()), "torn": self.torn,
            "places": dict(sorted(self.kills.items())), "differences": self.differences,
            "seconds": round(self.seconds, 1), "versions": versions(), "processor": hardware(),
        }  # fmt: skip


@dataclass(frozen=True)
class Command:
    """Say what is killed.

    Attributes:
        job: The command, unharmed; ``{out}`` in its arguments is where it writes.
        compare: The two folders that it filled to what differs.
    """

    job: Job
    compare: Callable[[Path, Path], list[str]]

    def into(self, out: Path, folder: Path, **changed: Any) -> Job:
        """Return the job that writes to ``out``."""
        arguments = tuple(word.format(out=out) for word in self.job.arguments)
        return replace(self.job, arguments=arguments, folder=folder, where=out, **changed)


def training(settings: Sequence[str], folder: Path, saves: float) -> Command:
    """Return the command that trains ``TINY`` with settings."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(TINY.with_settings(list(settings)).text())
    arguments = ("train", str(path), "--runs", "{out}", "--device", "cpu", "--threads", "1")
    return Command(Job(arguments, folder, checkpoint_seconds=saves), run_differences)


def run_differences(whole: Path, parts: Path) -> list[str]:
    """Compare two folders of one finished run each; seconds alone may differ."""
    left, right = _only(whole), _only(parts)
    found = [f"{name} is missing" for name in OWN if not (right / name).exists()]
    found += [f"{path.name} is left over" for path in right.iterdir() if path.name not in OWN]
    if found:
        return found
    found += [
        f"{name} differs"
        for name in ("weights.safetensors", "recipe.yaml", "spec.json", "environment.json")
        if (left / name).read_bytes() != (right / name).read_bytes()
    ]
    rows, seconds = _log(left / "log.csv")[0], _log(right / "log.csv")[1]
    if rows != _log(right / "log.csv")[0]:
        found.append("log.csv differs")
    if seconds != sorted(seconds) or min(seconds, default=0) < 0:
        found.append(f"the seconds of log.csv go back: {seconds}")
    measured = [json.loads((one / "metrics.json").read_text()) for one in (left, right)]
    if measured[1].pop("seconds") < 0 or measured[0].pop("seconds") < 0 or measured[0] != measured[1]:
        found.append(f"metrics.json differs: {measured[1]}")
    return found


def _only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def _log(path: Path) -> tuple[list[str], list[float]]:
    """Read a log: its lines without their seconds, and the seconds."""
    lines = path.read_text().splitlines()
    parted = [line if line.startswith("#") else line.rpartition(",")[0] for line in lines]
    return parted, [float(line.rpartition(",")[2]) for line in lines[1:] if not line.startswith("#")]


def probing(model: str, folder: Path) -> Command:
    """Return the command that probes ``model`` on photographs."""
    arguments = ("probe", model, "--data", "photos", *PROBE, "--out", "{out}")
    return Command(Job(arguments, folder), answer_differences)


def answer_differences(whole: Path, parts: Path) -> list[str]:
    """Compare two folders of one answer each, file by file; where they lie stands in them."""
    left, right = _files(whole), _files(parts)
    found = [f"{name} is {'missing' if name in left else 'left over'}" for name in left.keys() ^ right.keys()]
    return found + [f"{name} differs" for name in left.keys() & right.keys() if left[name] != right[name]]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b"OUT")
        for path in folder.rglob("*")
        if path.is_file()
    }


@dataclass
class Series:
    """Kill one command many times.

    Attributes:
        command: What is killed.
        folder: Where all of it happens.
        draw: The random numbers.
        forked: Makes processes.
    """

    command: Command
    folder: Path
    draw: random.Random
    forked: ForkServerContext
    places: list[str] = field(default_factory=list)
    lasts: float = 0.0

    def __post_init__(self) -> None:
        job = self.command.into(self.folder / "whole", self.folder / "whole-job", record=True)
        began = time.monotonic()
        code = run(job, self.forked)
        self.lasts = time.monotonic() - began
        assert code == 0, job.said
        self.places = job.places

    def trial(self, number: int, found: Found) -> None:
        """Kill the command once to three times, let it end, and compare."""
        out, job_folder = self.folder / f"out-{number}", self.folder / f"job-{number}"
        wanted, late = self.draw.choice((1, 1, 2, 3)), 0
        history: list[str] = []
        while len(history) < wanted and late < 5:
            job, code = self._killed(out, job_folder, aimed=(number + len(history)) % 2 == 0)
            if code == 0:
                # It ended before the moment came: another draw, on a command that begins anew.
                late, history = late + 1, []
                shutil.rmtree(out)
                continue
            if code != -SIGKILL:
                found.differences.append(f"trial {number}, after {history}: exit code {code}: {job.said.strip()}")
                return
            history.append(job.note)
            found.torn += job.by == "tear"
        if not history:
            return
        found.trials += 1
        found.kills.update(place.partition(":")[0] or "start-up" for place in history)
        last = self.command.into(out, job_folder, traced=False)
        code = run(last, self.forked)
        wrong = self.command.compare(self.folder / "whole", out) if code == 0 else [f"exit code {code}: {last.said}"]
        found.differences += [f"trial {number}, killed at {history}: {one}" for one in wrong]
        shutil.rmtree(out)
        shutil.rmtree(job_folder)

    def _killed(self, out: Path, folder: Path, aimed: bool) -> tuple[Job, int]:
        if aimed:
            kind = self.draw.choice(sorted({place.partition(":")[0] for place in self.places}))
            at = self.draw.choice([n for n, place in enumerate(self.places, 1) if place.partition(":")[0] == kind])
            by = "tear" if kind in TORN and self.draw.random() < 0.4 else "kill"
            job = self.command.into(out, folder, at=at, by=by)
            return job, run(job, self.forked)
        job = self.command.into(out, folder)
        moment = self.draw.uniform(0, 0.95 * self.lasts)
        started = start(job, self.forked)
        started.process.join(moment)
        if started.process.exitcode is None:
            started.send(SIGKILL)
        return job, started.wait()


def series(name: str, commands: Sequence[Series], count: int) -> Found:
    """Run ``count`` trials, in turn on each of some forms of one command."""
    found, began = Found(name), time.monotonic()
    number = 0
    while found.trials < count and number < 2 * count and len(found.differences) < 10:
        commands[number % len(commands)].trial(number, found)
        number += 1
    found.seconds = time.monotonic() - began
    return found


def trained(name: str, count: int, folder: Path, forked: ForkServerContext, seed: int = 0) -> Found:
    """Kill a training ``count`` times."""
    commands = [
        Series(training(TRAININGS[name], folder / f"{index}", saves), folder / f"{index}", random.Random(seed), forked)
        for index, saves in enumerate(SAVES)
    ]
    return series(f"train, {name}", commands, count)


def probed(count: int, folder: Path, forked: ForkServerContext, seed: int = 0) -> Found:
    """Kill a probe ``count`` times."""
    command = training((), folder / "train", 60.0)
    job = command.into(folder / "runs", folder / "train")
    assert run(job, forked) == 0, job.said
    made = probing(str(_only(folder / "runs")), folder / "probe")
    return series("probe, bands and robustness", [Series(made, folder / "probe", random.Random(seed), forked)], count)


def main() -> None:
    """Run all trials and print what they found."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--json", type=Path, help="write what was found to this file")
    reader.add_argument("--quick", action="store_true", help="four trials each")
    reader.add_argument("--seed", type=int, default=0, help="of the moments; those by time fall anew in each run")
    arguments = reader.parse_args()
    forked, found = server(), []
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(TRAININGS):
            count = 4 if arguments.quick else 20 if index else 50
            found.append(trained(name, count, Path(folder) / f"{index}", forked, arguments.seed))
            print(json.dumps(found[-1].plain()), flush=True)
        found.append(probed(4 if arguments.quick else 20, Path(folder) / "probes", forked, arguments.seed))
        print(json.dumps(found[-1].plain()), flush=True)
    if arguments.json:
        write_atomic(arguments.json, json.dumps([one.plain() for one in found], indent=1).encode())


if __name__ == "__main__":
    main()
