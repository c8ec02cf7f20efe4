"""What a target of the fuzzing is, and how many cases of it are run and counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from passband.core.errors import PassbandError, one_line

PART = 1000
"""Cases that hypothesis makes at a time; it remembers all of a part."""


@dataclass(frozen=True)
class Target:
    """Name something that takes what users give, and what must hold whatever they give.

    Attributes:
        holds: Runs one case. A PassbandError is a refusal; any other exception is a bug.
        share: Part of all cases that it gets.
        few: Cases in the default suite.
        both: Whether some cases are to be refused and some are not: else the cases would show little.
    """

    name: str
    cases: SearchStrategy[Any]
    holds: Callable[[Any], object]
    share: int = 1
    few: int = 25
    both: bool = True


@dataclass
class Ran:
    """Hold how the cases of a target went."""

    name: str
    cases: int = 0
    worked: int = 0
    refused: int = 0
    seconds: float = 0.0
    crashes: list[str] = field(default_factory=list)


def run(target: Target, cases: int, seed: int = 0) -> Ran:
    """Run so many cases of a target, always the same ones for a seed."""
    ran = Ran(target.name)

    def once(case: Any) -> None:
        ran.cases += 1
        try:
            target.holds(case)
        except PassbandError as error:
            assert one_line(str(error)), "an error without a word"
            ran.refused += 1
        else:
            ran.worked += 1

    began = time.perf_counter()
    while ran.cases < cases and len(ran.crashes) < 3:
        test = settings(
            max_examples=min(PART, cases - ran.cases),
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(given(target.cases)(once))
        try:
            hypothesis.seed(seed * 1_000_003 + ran.cases)(test)()
        except Exception as error:
            said = " | ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
            ran.crashes.append(" ".join(said.split())[:1500])
    ran.seconds = time.perf_counter() - began
    return ran
