"""Executors: what a text names, the order of results, errors, and workers that are lost."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from executed import ask, done

from passband.core.answer import Answer
from passband.core.compute import Compute
from passband.core.errors import MissingData, NotApplicable, PassbandError
from passband.core.results import Table
from passband.core.scale import Scale
from passband.experiments import catalog
from passband.experiments.reproduce import reproduce
from passband.sweeps import executors, working
from passband.sweeps.executors import InProcess, executor
from passband.sweeps.lab import Lab
from passband.sweeps.local_pool import LocalPool
from passband.sweeps.ray_executor import RayCluster
from passband.sweeps.slurm_executor import Slurm


@pytest.mark.parametrize(
    ("on", "threads", "expected"),
    [
        (None, 0, InProcess(0)),
        (None, 3, InProcess(3)),
        ("local:4", 8, LocalPool(4, 2)),
        ("local:4", 2, LocalPool(4, 1)),
        ("local:2", 0, LocalPool(2, 3)),
        ("ray", 0, RayCluster(None, 1)),
        ("ray:10.0.0.1:6379", 4, RayCluster("10.0.0.1:6379", 4)),
        ("ray:ray://head:10001", 0, RayCluster("ray://head:10001", 1)),
        ("slurm", 2, Slurm({}, 2)),
        (
            "slurm:partition=gpu,timeout_min=600,mem_gb=1.5,cpus_per_task=4", 0,
            Slurm({"partition": "gpu", "timeout_min": 600, "mem_gb": 1.5, "cpus_per_task": 4}, 4),
        ),
    ],
)  # fmt: skip
def test_a_text_names_a_place(on, threads, expected, monkeypatch) -> None:
    monkeypatch.setattr(executors, "_cores", lambda: 6)
    monkeypatch.setattr(working, "find_spec", lambda package: True)
    monkeypatch.setattr(executors, "which", lambda program: program)
    assert executor(on, threads=threads) == expected


@pytest.mark.parametrize(
    ("on", "text"),
    [
        ("loca:2", "did you mean 'local'"),
        ("", "available: local, ray, slurm"),
        ("local", "such as local:4; got 'local:'"),
        ("local:0", "got 'local:0'"),
        ("local:-1", "got 'local:-1'"),
        ("local:²", "got 'local:²'"),
        ("local:99999999999999999999", "takes 1 to 1024 processes"),
        ("slurm:partitoin=gpu", "did you mean 'partition'"),
        ("slurm:partition", "partition= takes a name; got 'partition'"),
        ("slurm:timeout_min=soon", "timeout_min= takes a whole number above 0"),
        ("slurm:timeout_min=0", "timeout_min= takes a whole number above 0"),
        ("slurm:mem_gb=nan", "mem_gb= takes a number above 0"),
        ("slurm:partition=gpu,", "unknown option of --on slurm ''"),
    ],
)
def test_a_text_that_names_no_place_is_refused_in_a_line(on, text) -> None:
    with pytest.raises(PassbandError) as refused:
        executor(on)
    assert text in str(refused.value) and "\n" not in str(refused.value)


def test_threads_said_twice_are_refused_and_a_missing_package_is_named(monkeypatch) -> None:
    with pytest.raises(PassbandError, match="say the same"):
        executor("slurm:cpus_per_task=2", threads=2)
    monkeypatch.setattr(executors, "which", lambda program: None)
    with pytest.raises(PassbandError, match="there is no srun"):
        executor("slurm")
    monkeypatch.setattr(working, "find_spec", lambda package: None)
    for on, package in (("ray", "ray"), ("slurm", "submitit")):
        with pytest.raises(PassbandError, match=rf"^--on {on} needs {package}: pip install 'passband\[{on}\]'$"):
            executor(on)


@pytest.mark.parametrize("error", [PassbandError("a"), MissingData("set", "b"), NotApplicable("c")])
def test_errors_travel(error) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error) and vars(back) == vars(error)


def test_results_come_in_the_order_of_the_items_and_lost_cases_are_redone(tmp_path) -> None:
    items = ("sleep 1", "die here", "a", "b")
    assert ask(LocalPool(2, 1, "cpu"), tmp_path, *items) == [item.upper() for item in items]
    assert done(tmp_path) == sorted(items)


def test_a_worker_gives_its_errors_and_what_is_lost_time_after_time_is_named(tmp_path) -> None:
    with pytest.raises(MissingData, match=r"^clothes is not here$") as missing:
        ask(LocalPool(1, 1, "cpu"), tmp_path, "refuse clothes")
    assert missing.value.name == "clothes"
    with pytest.raises(PassbandError, match="the worker of 'the case always' was lost 3 times"):
        ask(LocalPool(1, 1, "cpu"), tmp_path, "a", "always")
    assert done(tmp_path) == ["a"]


def rows(answer: Answer) -> tuple:
    table = answer["table"]
    assert isinstance(table, Table)
    return table.rows


@pytest.mark.slow
def test_a_pool_has_the_table_of_this_process(tmp_path) -> None:
    name = "spatial-mixing/parameter-counts"
    experiment = catalog.find(name)
    lab = Lab(Scale.SMOKE, "c", runs=tmp_path, compute=Compute(device="cpu", threads=1))
    here = reproduce(name, experiment, lab)
    pooled = reproduce(name, experiment, lab, executor=LocalPool(1, 1, "cpu"))
    assert rows(pooled) == rows(here) and pooled.claims == here.claims
    assert [result.name for result in pooled.results] == [result.name for result in here.results]
    assert pooled.head == here.head


class Nowhere:
    """An executor that must not be asked."""

    threads = 1

    def map(self, function, items, *, describe, title):
        raise AssertionError("a timed case was sent away")


def test_what_takes_times_runs_here(tmp_path) -> None:
    assert {name for name in catalog.names() if catalog.find(name).timed} == {
        "spartan/convolution-type", "spatial-mixing/convmixer-depth", "spatial-mixing/training-time",
    }  # fmt: skip
    timed = replace(catalog.find("spatial-mixing/training-time"), measure=refuse)
    with pytest.raises(PassbandError, match="measured here"):
        reproduce("spatial-mixing/training-time", timed, Lab(Scale.SMOKE, "c", runs=tmp_path), executor=Nowhere())
    with pytest.raises(AssertionError, match="sent away"):
        reproduce("x", replace(timed, timed=False), Lab(Scale.SMOKE, "c", runs=tmp_path), executor=Nowhere())


def refuse(case, lab):
    raise PassbandError("measured here")


PARENT = """
import sys
from pathlib import Path
from executed import ask
from passband.sweeps.local_pool import LocalPool

if __name__ == "__main__":
    ask(LocalPool(2, 1, "cpu"), Path(sys.argv[1]), "sleep 600", "sleep 601", "a")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(number, tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    waited(lambda: len(list(tmp_path.glob("asleep *"))) == 2)
    found = workers(parent.pid)
    assert len(found) == 3  # two, and the tracker of their locks
    parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    assert (b"KeyboardInterrupt" in said) == (number != signal.SIGKILL) and parent.returncode != 0
    waited(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found))
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "head", "127.0.0.1:99999", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said_at_once(address, tmp_path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(PassbandError, match=f"^no Ray cluster at '{address}'") as refused:
        ask(RayCluster(address), tmp_path, "a")
    assert "\n" not in str(refused.value)


def waited(reached: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
