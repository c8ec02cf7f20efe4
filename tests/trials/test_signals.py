"""SIGINT and SIGTERM at any moment: exit code 130, one line, no traceback, and the same command goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from benchmarks.driven import Job, run, start
from benchmarks.trials import probing, run_differences, training

pytestmark = pytest.mark.trials
INTERRUPTED = "passband: interrupted; the same command goes on from what was finished"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interrupted(job: Job, forked, number: int, moment: float) -> int:
    """Send a signal after some seconds, and return the exit code."""
    started = start(job, forked)
    started.process.join(moment)
    if started.process.exitcode is None:
        started.send(number)
    return started.wait(60)


def check(job: Job, code: int) -> None:
    assert code in (0, 130), job.said
    assert "Traceback" not in job.said, job.note
    if code:
        assert job.said.strip().splitlines()[-1] == INTERRUPTED, job.note


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_at_random_moments(tmp_path, forked, number) -> None:
    command, draw = training((), tmp_path, 60.0), random.Random(number)
    assert run(command.into(tmp_path / "whole", tmp_path / "whole-job"), forked) == 0
    began = time.monotonic()  # the first one also starts the server
    assert run(command.into(tmp_path / "timed", tmp_path / "timed-job"), forked) == 0
    lasts, codes = time.monotonic() - began, []
    for trial in range(10):
        job = command.into(tmp_path / f"out-{trial}", tmp_path / f"job-{trial}")
        codes.append(interrupted(job, forked, number, draw.uniform(0.1, 0.9) * lasts))
        check(job, codes[-1])
        assert run(replace(job, traced=False), forked) == 0, job.said
        assert not run_differences(tmp_path / "whole", tmp_path / f"out-{trial}")
    assert codes.count(130) >= 5


def test_a_first_signal_saves_where_no_checkpoint_was_due(tmp_path, forked) -> None:
    command = training((), tmp_path, 60.0)
    job = command.into(tmp_path / "whole", tmp_path / "whole-job", record=True)
    assert run(job, forked) == 0, job.said
    held = command.into(tmp_path / "out", tmp_path / "job", at=job.places.index("step") + 40, by="hold")
    started = start(held, forked)
    while started.process.exitcode is None and held.note != "step":
        started.process.join(0.01)
    started.process.join(1)
    started.send(signal.SIGTERM)
    started.process.join(1)
    assert started.process.exitcode is None  # it waits for the end of the step
    started.send(signal.SIGTERM)
    assert started.wait(20) == 130  # and the second signal does not
    check(held, 130)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_probe_at_random_moments(tmp_path, forked, number) -> None:
    command, draw = training((), tmp_path, 60.0), random.Random(number)
    assert run(command.into(tmp_path / "runs", tmp_path / "job"), forked) == 0
    asked = probing(str(next((tmp_path / "runs").iterdir())), tmp_path)
    began = time.monotonic()
    assert run(asked.into(tmp_path / "whole", tmp_path / "whole-job"), forked) == 0
    lasts = time.monotonic() - began
    for trial in range(6):
        job = asked.into(tmp_path / f"answer-{trial}", tmp_path / f"job-{trial}")
        check(job, interrupted(job, forked, number, draw.uniform(0.1, 0.9) * lasts))
        assert run(replace(job, traced=False), forked) == 0, job.said
        assert not asked.compare(tmp_path / "whole", tmp_path / f"answer-{trial}")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_reproduction_at_random_moments(tmp_path, forked, number) -> None:
    draw = random.Random(number)
    for trial in range(3):
        arguments = ("reproduce", "quickstart", "--out", str(tmp_path / f"out-{trial}"), "--device", "cpu")
        runs = (("PASSBAND_RUNS", str(tmp_path / "runs")),)
        job = Job(arguments, tmp_path / f"job-{trial}", traced=False, environment=runs)
        code = interrupted(job, forked, number, draw.uniform(0.3, 6))
        check(job, code)
        assert code == 130


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_still_imports(tmp_path, number) -> None:
    """Without the process that has imported everything: as a user starts it."""
    draw = random.Random(number)
    for _ in range(5):
        words = ["train", "--model", "separable_resnet", "--data", "photos", "--runs", str(tmp_path), "--epochs", "99"]
        process = subprocess.Popen([sys.executable, "-m", "passband", *words], stderr=subprocess.PIPE, text=True)
        time.sleep(draw.uniform(1, 5))
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert said.strip().splitlines()[-1] == INTERRUPTED and "Traceback" not in said
