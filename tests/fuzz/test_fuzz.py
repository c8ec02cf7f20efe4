"""Whatever a user gives works, or is refused in a line: some cases of every target, the same ones each time."""

from __future__ import annotations

import pytest
from fuzz_run import Target, run
from fuzz_targets import TARGETS
from hypothesis import strategies as st

from passband.core.errors import PassbandError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PASSBAND_DATA", raising=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_some_cases_work_or_are_refused(target: Target) -> None:
    ran = run(target, target.few)
    assert ran.crashes == [] and ran.cases >= target.few


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many_cases_work_or_are_refused(target: Target) -> None:
    ran = run(target, 300 * target.share, seed=1)
    assert ran.crashes == [] and ran.cases >= 300 * target.share
    assert ran.refused and (ran.worked or not target.both)


def test_a_crash_is_found_and_a_refusal_is_none() -> None:
    def holds(number: int) -> None:
        if number > 90:
            raise PassbandError("too large")
        if number == 13:
            raise KeyError(number)

    ran = run(Target("numbers", st.integers(0, 100), holds), 500)
    assert ran.crashes and "KeyError: 13" in ran.crashes[0] and "13" in ran.crashes[0]
    assert ran.refused and ran.worked
