"""Cases for the tests of executors, in a module that loads no torch: every worker imports it."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from passband.core.errors import MissingData
from passband.sweeps.executors import Executor


def case(folder: Path, item: str) -> str:
    """Do what the item says, in a worker."""
    what, _, argument = item.partition(" ")
    if what == "refuse":
        raise MissingData(argument, f"{argument} is not here")
    if what == "sleep":
        (folder / f"asleep {argument}").touch()
        time.sleep(float(argument))
    if what == "die" and not (folder / argument).exists():
        (folder / argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "always":
        os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "done").open("a") as file:
        file.write(f"{item}\n")
    return item.upper()


def ask(place: Executor, folder: Path, *items: str) -> list[str]:
    return place.map(partial(case, folder), items, describe=lambda item: f"the case {item}", title="cases")


def done(folder: Path) -> list[str]:
    """Return what was done, sorted."""
    return sorted((folder / "done").read_text().splitlines())
