"""Ctrl-C and SIGTERM, answered between two steps, so that what is saved is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Remember that the program was asked to stop."""

    asked = False


@contextmanager
def deferred() -> Iterator[Interrupt]:
    """Hold back the first SIGINT or SIGTERM, for whoever looks at what was ``asked``; a second one acts at once.

    Signals reach only a program's main thread; elsewhere nothing is held back. One that the program ignores it goes on
    to ignore.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    own = os.getpid()

    def remember(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            # A helper that was forked off inherits this: whoever forked it ends it.
            os._exit(128 + number)
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in heard}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
