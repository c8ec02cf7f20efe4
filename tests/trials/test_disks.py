"""A full disk, a limit on files, a folder that cannot be written or is gone: one line, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.driven import Job, run
from benchmarks.trials import Command, answer_differences, probing, training

pytestmark = pytest.mark.trials


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Path]:
    """A disk of 16 MB."""
    folder = tmp_path_factory.mktemp("disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def commands(place, forked) -> dict[str, tuple[Command, list[str]]]:
    """What is disturbed, by name, with the places of each line that it runs; what it wrote lies in whole-NAME."""
    trained = training((), place / "recipe", 60.0)
    kept = replace(trained, job=replace(trained.job, arguments=(*trained.job.arguments, "--keep-epochs")))
    assert run(trained.into(place / "runs", place / "job"), forked) == 0
    model = next((place / "runs").iterdir())
    rng = np.random.default_rng(0)
    (place / "images").mkdir()
    for index in range(20):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / "images" / f"{index}.png")
    words = ("probe", str(model), "--data", f"images:{place / 'images'}", "--truth", "prediction", "--only", "bands")
    made = {
        "train": trained,
        "keep": kept,
        "probe": probing(str(model), place),
        "decode": Command(Job((*words, "--device", "cpu", "--out", "{out}/answer"), place), answer_differences),
    }
    found = {}
    for name, command in made.items():
        job = into(command, name, place / f"whole-{name}", place / f"job-{name}", record=True)
        assert run(job, forked) == 0, job.said
        found[name] = (command, job.places)
    return found


def into(command: Command, name: str, out: Path, folder: Path, **changed: object) -> Job:
    job = command.into(out, folder, **changed)
    return replace(job, environment=(("XDG_CACHE_HOME", str(out / "cache")),)) if name == "decode" else job


WRITES = [
    ("train", "start-up: recipe.yaml"),
    ("train", "checkpoint write: checkpoint.pt"),
    ("train", "log line: log.csv"),
    ("train", "final writes: weights.safetensors"),
    ("train", "final writes: metrics.json"),
    ("keep", "epoch's end: 0002.safetensors"),
    ("probe", "kept piece"),
    ("probe", "answer: results.json"),
    ("probe", "answer: report.html"),
    ("decode", "answer: pixels.uint8"),
    ("decode", "answer: images.json"),
]
"""Commands, and the beginnings of the places of what they write."""


def first(places: list[str], wanted: str) -> tuple[int, str]:
    """Return the line event, counted from 1, at which the first write at a place begins, and the file's name."""
    for number, place in enumerate(places, 1):
        if place.startswith(wanted):
            return number, place.partition(": ")[2]
    raise AssertionError(f"{wanted} is none of {sorted(set(places))}")


def refused(job: Job, code: int, file: str) -> None:
    assert code == 2, job.said
    lines = [line for line in job.said.splitlines() if line.startswith("passband: ")]
    assert len(lines) == 1 and "Traceback" not in job.said
    assert file in lines[0], lines[0]


def goes_on(commands, name: str, job: Job, forked, place: Path, out: Path) -> None:
    assert run(replace(job, at=0, traced=False), forked) == 0, job.said
    differences = commands[name][0].compare(place / f"whole-{name}", out)
    # Kept epochs lie in a folder of their own, which a plain run does not have.
    assert [one for one in differences if one != "epochs is left over"] == []


@pytest.mark.parametrize(("name", "wanted"), [one for one in WRITES if "log.csv" not in one[1]])
def test_a_full_disk(disk, place, commands, forked, name, wanted) -> None:
    """The log is left out: a line of it fits into a block that the disk has given out already."""
    out = disk / "out"
    shutil.rmtree(out, ignore_errors=True)
    at, file = first(commands[name][1], wanted)
    job = replace(into(commands[name][0], name, out, place / "job", at=at, by="fill"), where=disk / "ballast")
    code = run(job, forked)
    (disk / "ballast").unlink()
    refused(job, code, file)
    goes_on(commands, name, job, forked, place, out)


@pytest.mark.parametrize(("name", "wanted"), WRITES)
def test_a_limit_on_the_size_of_files(tmp_path, place, commands, forked, name, wanted) -> None:
    at, file = first(commands[name][1], wanted)
    job = into(commands[name][0], name, tmp_path / "out", place / "job", at=at, by="limit")
    refused(job, run(job, forked), file)
    goes_on(commands, name, job, forked, place, tmp_path / "out")


@pytest.mark.parametrize("name", ["train", "probe", "decode"])
def test_a_folder_that_cannot_be_written(disk, place, commands, forked, name) -> None:
    out = disk / "locked"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    job = into(commands[name][0], name, out, place / "job", traced=False)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        refused(job, run(job, forked), str(out))
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    goes_on(commands, name, job, forked, place, out)


@pytest.mark.parametrize(("name", "wanted"), [("train", "checkpoint write"), ("train", "step"), ("probe", "measuring")])
def test_a_folder_that_is_removed_meanwhile(tmp_path, place, commands, forked, name, wanted) -> None:
    at, _ = first(commands[name][1], wanted)
    job = into(commands[name][0], name, tmp_path / "out", place / "job", at=at + 3, by="lose")
    code = run(job, forked)
    if name == "probe":
        assert code == 0, job.said  # it makes the folder anew, and its answer is whole
    else:
        refused(job, code, str(tmp_path / "out"))
    goes_on(commands, name, job, forked, place, tmp_path / "out")
