"""SIGKILL at random moments: what goes on ends as if nobody had killed it. ``benchmarks/trials.py`` is the harness."""

import pytest

from benchmarks.trials import TRAININGS, probed, trained

pytestmark = pytest.mark.trials


@pytest.mark.parametrize(("name", "count"), [(name, 20 if index else 50) for index, name in enumerate(TRAININGS)])
def test_a_killed_training_ends_with_the_same_bits(tmp_path, forked, name, count) -> None:
    found = trained(name, count, tmp_path, forked)
    assert not found.differences
    assert found.trials == count
    # The harness itself: kills did fall everywhere, and some tore a file.
    assert {"start-up", "step", "checkpoint write", "log line", "epoch's end", "final writes"} <= set(found.kills)
    assert found.torn


def test_a_killed_probe_ends_with_the_same_answer(tmp_path, forked) -> None:
    found = probed(20, tmp_path, forked)
    assert not found.differences
    assert found.trials == 20 and {"measuring", "kept piece", "answer"} <= set(found.kills)
