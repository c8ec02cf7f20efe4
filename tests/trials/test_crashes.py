"""The few of the trials that every test run makes: kills, a signal, a limit; and a run's folder that was damaged."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.driven import run, start
from benchmarks.trials import TINY, Command, run_differences, training
from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.train.run import load, open_run, train

SMALL = ("data.part=64", "epochs=2")
INTERRUPTED = "passband: interrupted; the same command goes on from what was finished"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def command(place) -> Command:
    return training(SMALL, place / "recipe", 0.0)


@pytest.fixture(scope="module")
def whole(place, command, forked) -> tuple[Path, list[str]]:
    """A training that nobody disturbed: its folder of runs, and where it was line by line."""
    job = command.into(place / "whole", place / "whole-job", record=True)
    assert run(job, forked) == 0, job.said
    return place / "whole", job.places


def middle(places: list[str], wanted: str) -> int:
    """Return the line event, counted from 1, in the middle of those at a place."""
    found = [number for number, place in enumerate(places, 1) if place == wanted]
    assert found, f"{wanted} is none of {sorted(set(places))}"
    return found[len(found) // 2]


@pytest.mark.parametrize(
    ("where", "by"),
    [("checkpoint write: checkpoint.pt", "tear"), ("log line: log.csv", "kill"), ("final writes: DONE", "kill")],
)
def test_killed_in_a_write_and_gone_on(place, command, whole, forked, where, by) -> None:
    out, folder = place / f"out-{where}", place / f"job-{where}"
    job = command.into(out, folder, at=middle(whole[1], where), by=by)
    assert run(job, forked) == -signal.SIGKILL and job.note == where
    assert run(command.into(out, folder, traced=False), forked) == 0
    assert not run_differences(whole[0], out)


def test_sigterm_saves_says_so_and_the_same_command_goes_on(place, command, whole, forked) -> None:
    job = command.into(place / "out-term", place / "job-term", at=middle(whole[1], "step"), by="hold")
    started = start(job, forked)
    while job.note != "step" or not list(place.glob("out-term/*/checkpoint.pt")):
        started.process.join(0.01)
        assert started.process.exitcode is None
    started.send(signal.SIGTERM)
    started.process.join(0.3)
    assert started.process.exitcode is None, "the first signal did not wait for the step's end"
    started.send(signal.SIGTERM)
    assert started.wait(20) == 130
    assert job.said.strip() == INTERRUPTED
    assert run(replace(job, at=0), forked) == 0
    assert not run_differences(whole[0], place / "out-term")


def test_a_file_that_may_not_grow_is_named_and_nothing_is_lost(place, command, whole, forked) -> None:
    at = middle(whole[1], "checkpoint write: checkpoint.pt")
    job = command.into(place / "out-limit", place / "job-limit", at=at - 20, by="limit")
    assert run(job, forked) == 2, job.said
    assert job.said.strip().startswith("passband: ") and "\n" not in job.said.strip()
    assert "checkpoint.pt" in job.said or "log.csv" in job.said
    assert run(replace(job, at=0), forked) == 0
    assert not run_differences(whole[0], place / "out-limit")


def again(folder: Path) -> None:
    train(
        TINY.with_settings(list(SMALL)),
        compute=Compute(device="cpu", threads=1, checkpoint_seconds=0.0, watched=50),
        runs=folder,
    )


@pytest.fixture
def damaged(whole, tmp_path, monkeypatch) -> Path:
    """The copy of a finished run, to be damaged."""
    from passband.train import fit

    monkeypatch.setattr(fit, "LOG_EVERY", 1)
    shutil.copytree(whole[0], tmp_path / "runs")
    return next((tmp_path / "runs").iterdir())


def unfinished(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        (folder / "DONE").unlink()
        change(folder)

    return changed


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights.safetensors").unlink(),
        lambda folder: (folder / "metrics.json").unlink(),
        lambda folder: (folder / "recipe.yaml").unlink(),
        lambda folder: (folder / "spec.json").unlink(),
        unfinished(lambda folder: (folder / "checkpoint.pt").unlink()),
        unfinished(lambda folder: (folder / "environment.json").unlink()),
        unfinished(lambda folder: (folder / "log.csv").open("a").write("9,9,0.1,0.1,0.1,,0.1\n9,")),
        unfinished(lambda folder: (folder / ".lock").write_text("a process that died")),
        unfinished(lambda folder: (folder / ".checkpoint.pt.a1b2c3d4.part").write_bytes(b"half a checkpoint")),
    ],
    ids=[
        "no weights", "no metrics", "no recipe", "no spec", "no checkpoint", "no environment", "longer log",
        "stale lock", "half a write",
    ],
)  # fmt: skip
def test_what_can_be_made_again_is(whole, damaged, damage) -> None:
    damage(damaged)
    again(damaged.parent)
    assert not run_differences(whole[0], damaged.parent)
    load(open_run(damaged))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: cut(folder / "metrics.json", 0), "metrics.json"),
        (lambda folder: cut(folder / "metrics.json", 20), "metrics.json"),
        (unfinished(lambda folder: cut(folder / "environment.json", 20)), "environment.json"),
        (unfinished(lambda folder: cut(folder / "log.csv", 60)), "log.csv"),
        (unfinished(lambda folder: (folder / "log.csv").unlink()), "log.csv"),
        (unfinished(lambda folder: cut(folder / "checkpoint.pt", 900)), "checkpoint.pt"),
    ],
    ids=["empty metrics", "cut metrics", "cut environment", "shorter log", "no log", "cut checkpoint"],
)
def test_what_cannot_is_named_with_the_cure(damaged, damage, named) -> None:
    damage(damaged)
    with pytest.raises(PassbandError) as caught:
        again(damaged.parent)
    assert str(damaged / named) in str(caught.value) and "remove" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["spec.json", "metrics.json", "recipe.yaml"])
def test_a_run_with_an_empty_file_is_not_loaded(damaged, name) -> None:
    (damaged / name).write_bytes(b"")
    with pytest.raises(PassbandError, match=name) as caught:
        load(open_run(damaged))
    assert "\n" not in str(caught.value)


def test_the_metrics_of_a_copy_are_those_of_the_run(whole, damaged) -> None:
    again(damaged.parent)
    metrics = json.loads((damaged / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and not run_differences(whole[0], damaged.parent)
