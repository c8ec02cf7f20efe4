from __future__ import annotations

import subprocess
import sys

CODE = """
import time
from passband.core.progress import track
for outer in track(range(2), "outer work"):
    for inner in track(iter([1]), "inner work", total=1):
        time.sleep({seconds})
print("done")
"""


def shown(seconds: float) -> str:
    command = [sys.executable, "-c", CODE.format(seconds=seconds)]
    environment = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "PATH": ""}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "done\n"
    return found.stderr


def test_a_bar_comes_while_the_first_item_is_still_worked_on_and_short_work_stays_silent() -> None:
    long = shown(1.4)
    assert "outer work" in long and "inner work" in long
    assert shown(0.01) == ""
