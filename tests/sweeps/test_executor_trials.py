"""Trials of the executors with real trainings: killed pools, a lost node of a Ray cluster, jobs through submitit."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from executed import ask, done

from passband.core.answer import Answer
from passband.core.compute import Compute
from passband.core.errors import MissingData
from passband.core.results import Table
from passband.core.scale import Scale
from passband.core.store import DONE
from passband.experiments.catalog import find
from passband.experiments.reproduce import reproduce
from passband.sweeps.executors import Executor
from passband.sweeps.lab import Lab
from passband.sweeps.ray_executor import RayCluster
from passband.sweeps.slurm_executor import Slurm

pytestmark = pytest.mark.trials

SHARED = "high-frequency/batchnorm-on-low"
"""Six cases, four trainings: two cases each ask for the same one."""
LONG = "spatial-mixing/width"
"""Four cases, four trainings of some seconds."""
KILLS = 10


def measured(name: str, runs: Path, executor: Executor | None = None) -> Answer:
    experiment = find(name)
    compute = Compute(device="cpu", threads=1)
    lab = Lab(Scale.SMOKE, "c", runs=runs, compute=compute, limit=experiment.limit.get(Scale.SMOKE))
    return reproduce(name, experiment, lab, executor=executor)


def table(answer: Answer) -> list[dict]:
    """Return the rows of an answer, but for the seconds that trainings took."""
    found = answer["table"]
    assert isinstance(found, Table)
    names = [column.name for column in found.columns]
    return [{name: cell for name, cell in zip(names, row, strict=True) if name != "seconds"} for row in found.rows]


def weights(runs: Path) -> dict[str, str]:
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in runs.glob("*/weights.safetensors")
    }


def test_a_killed_sweep_over_a_pool_ends_with_the_same_table(tmp_path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    alone = table(measured(LONG, tmp_path / "alone")), weights(tmp_path / "alone")
    words = ["reproduce", LONG, "--on", "local:2", "--threads", "2", "--device", "cpu", "--out", str(out)]
    chance, kills, whole = random.Random(0), 0, 0
    while kills < KILLS or runs.exists():
        program = subprocess.Popen(
            [sys.executable, "-m", "passband", *words], env=os.environ | {"PASSBAND_RUNS": str(runs)},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if kills < KILLS and weights(runs).keys() != alone[1].keys() and killed(program, runs, chance.uniform(0, 5)):
            kills += len(weights(runs)) < len(alone[1])  # those that hit no training prove little
            continue
        # The trainings are done: this sweep goes to its end, and the next one begins with nothing.
        assert program.wait(600) == 0
        whole += 1
        assert (table(Answer.load(out)), weights(runs)) == alone
        shutil.rmtree(runs)
    assert whole
    print(f"{kills} kills while trainings were under way, {whole} sweeps of which each gave the same table")


def killed(program: subprocess.Popen, runs: Path, seconds: float) -> bool:
    """Kill a program and its group some seconds after it began to write; tell whether it was still at work."""
    before = newest(runs)
    while newest(runs) == before and program.poll() is None:
        time.sleep(0.02)
    try:
        program.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        return True
    return False


def newest(folder: Path) -> float:
    times = [0.0]
    for path in folder.rglob("*"):
        try:
            times.append(path.stat().st_mtime)
        except FileNotFoundError:
            continue  # a temporary file, renamed since
    return max(times)


def test_a_sweep_over_a_ray_cluster_that_loses_a_node_ends_with_the_same_table(tmp_path, monkeypatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", short)
    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    runs, lost = tmp_path / "runs", list[str]()
    try:
        node = cluster.add_node(num_cpus=1)
        watch = threading.Thread(target=lambda: lost.extend(loses(cluster, node, runs)), daemon=True)
        watch.start()
        answer = measured(SHARED, runs, RayCluster(cluster.address, 1, "cpu"))
        watch.join(60)
        deadline = time.monotonic() + 60  # who lost the case knows it sooner than the cluster's head
        while (alive := sorted(one["Alive"] for one in ray.nodes())) == [True, True]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(short, ignore_errors=True)
    assert len(lost) == 2 and alive == [False, True]
    alone = tmp_path / "alone"
    assert table(answer) == table(measured(SHARED, alone)) and weights(runs) == weights(alone)


def loses(cluster, node, runs: Path) -> list[str]:
    """Take a node of one CPU away as soon as two trainings are under way, one on each, and return their runs."""
    while len(found := under_way(runs)) < 2:
        time.sleep(0.02)
    cluster.remove_node(node, allow_graceful=False)
    return found


def under_way(runs: Path) -> list[str]:
    logs = list(runs.glob("*/log.csv"))
    return [log.parent.name for log in logs if not (log.parent / DONE).exists()]


def test_jobs_go_through_submitit(tmp_path, monkeypatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
    place = Slurm({"timeout_min": 5}, cluster="local", folder=tmp_path / "slurm")
    items = ("sleep 1", "die here", "a")
    assert ask(place, tmp_path, *items) == [item.upper() for item in items]
    assert done(tmp_path) == sorted(items)
    with pytest.raises(MissingData, match="clothes is not here"):
        ask(place, tmp_path, "refuse clothes", "sleep 600")
    assert done(tmp_path) == sorted(items)
