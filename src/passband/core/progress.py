"""One progress display for the whole program, on standard error, shown once work takes more than a moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
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

_display: Progress | None = None
_lines = 0


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and show how far they are; bars nest, and a short loop shows none.

    Args:
        items: What to go through.
        description: What is being done, for people.
        total: Number of items; ``len(items)`` where that is known.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
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
