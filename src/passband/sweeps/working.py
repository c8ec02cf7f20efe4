"""What a worker does with a case, and what is said of one that is lost, wherever it runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, TypeVar

from passband.core.errors import PassbandError
from passband.core.progress import silence

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 2
"""How often a case is given to another worker after its own was lost."""
GRACE = 60.0
"""Seconds that a worker has to save what it does, once it is asked to stop."""


@dataclass(frozen=True)
class Failed:
    """Carry an error that the user can mend out of a worker as a value: schedulers wrap those that are raised.

    Attributes:
        error: The error itself.
    """

    error: PassbandError


def attempt(function: Callable[[T], R], item: T) -> R | Failed:
    """Do a case in a worker, without progress bars: the program that waits for it shows one."""
    silence()
    try:
        return function(item)
    except PassbandError as error:
        return Failed(error)


def opened(outcome: R | Failed) -> R:
    """Return what a worker gave.

    Raises:
        PassbandError: that which the case ended with.
    """
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


def lost(case: str) -> PassbandError:
    """Build the error for a case whose workers were lost time after time."""
    return PassbandError(
        f"the worker of '{case}' was lost {RETRIES + 1} times (killed, or out of memory); fewer workers leave more "
        "memory to each, and the same command goes on from what was finished"
    )


def needs(package: str, place: str) -> None:
    """Refuse a place to run whose package is not installed.

    Raises:
        PassbandError: when it is not.
    """
    if find_spec(package) is None:
        raise PassbandError(f"--on {place} needs {package}: pip install 'passband[{place}]'")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does. Signals reach only a program's main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
