"""One progress display for the whole program, on standard error, shown once work takes more than a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from threading import Timer
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
DELAY = 1.0
"""Seconds before a bar appears: short work stays silent."""
_PAUSE = 0.2
"""Seconds between two words to another process."""
Tell = Callable[[str, int, int | None], None]
"""Takes what is being done, how many are done, and of how many."""

_display: Progress | None = None
_lines = 0
_silent = False
_tell: Tell | None = None


def silence() -> None:
    """Show no bar in this process from now on: a worker's would be drawn over its parent's."""
    global _silent
    _silent = True


def relay(tell: Tell) -> None:
    """Show no bar in this process from now on, and tell another one, which :func:`mirrored` shows it."""
    global _tell
    _tell = tell


@contextmanager
def mirrored() -> Iterator[Tell]:
    """Lend out what shows how far another process is."""
    with _showing() as display:
        tasks: dict[str, TaskID] = {}

        def show(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = display.add_task(description, total=total)
                display.start()
            display.update(tasks[description], completed=done, total=total)

        try:
            yield show
        finally:
            for task in tasks.values():
                display.remove_task(task)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and show how far they are; bars nest, and a short loop shows none.

    Args:
        items: What to go through.
        description: What is being done, for people.
        total: Number of items; ``len(items)`` where that is known.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if _silent or _tell is not None:
        yield from _told(items, description, total)
        return
    with _showing() as display:
        task = display.add_task(description, total=total, visible=False)
        # A timer, not the next item: the first one alone can take minutes.
        timer = Timer(DELAY, _show, (display, task))
        timer.daemon = True
        timer.start()
        try:
            for item in items:
                yield item
                display.advance(task)
        finally:
            timer.cancel()
            timer.join()
            display.remove_task(task)


def _told(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if _tell is not None and time.monotonic() - said > _PAUSE:
            _tell(description, done, total)
            said = time.monotonic()


def _show(display: Progress, task: TaskID) -> None:
    display.start()
    display.update(task, visible=True)


@contextmanager
def _showing() -> Iterator[Progress]:
    global _display, _lines
    if _display is None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        _display = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    _lines += 1
    try:
        yield _display
    finally:
        _lines -= 1
        if _lines == 0:
            _display.stop()
            _display = None
