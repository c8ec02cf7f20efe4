"""What a process does that works for another one of this machine."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process


def follow_parent() -> None:
    """Leave when the parent is gone, however it ended, and leave it to the parent to answer Ctrl-C.

    For processes that :mod:`multiprocessing` started. A terminal's Ctrl-C reaches each of them; the parent then asks
    them, once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave, daemon=True).start()


def _leave() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    # Nothing is lost: what is on disk is whole at any moment.
    os._exit(1)
