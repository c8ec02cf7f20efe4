"""A clock that is set back by a day, and two processes that want the same run."""

from __future__ import annotations

import pytest

from benchmarks.driven import run, start
from benchmarks.trials import run_differences, training

pytestmark = pytest.mark.trials


def test_a_clock_that_jumps_back_changes_nothing(tmp_path, forked) -> None:
    command = training(("ema.decay=0.9",), tmp_path, 0.0)
    whole = command.into(tmp_path / "whole", tmp_path / "whole-job", record=True)
    assert run(whole, forked) == 0, whole.said
    at = len(whole.places) // 2
    job = command.into(tmp_path / "out", tmp_path / "job", at=at, by="set back")
    assert run(job, forked) == 0, job.said
    assert not run_differences(tmp_path / "whole", tmp_path / "out")  # seconds that go back among them


def test_the_second_process_is_refused_and_the_first_one_ends(tmp_path, forked) -> None:
    command = training((), tmp_path, 0.0)
    whole = command.into(tmp_path / "whole", tmp_path / "whole-job")
    assert run(whole, forked) == 0, whole.said
    one = start(command.into(tmp_path / "out", tmp_path / "one"), forked)
    while one.job.note != "step":
        one.process.join(0.01)
        assert one.process.exitcode is None
    second = command.into(tmp_path / "out", tmp_path / "two", traced=False)
    assert run(second, forked) == 2
    assert "another process works in" in second.said and second.said.count("\n") == 1
    assert one.wait() == 0
    assert not run_differences(tmp_path / "whole", tmp_path / "out")
