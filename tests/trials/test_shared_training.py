"""A training in two processes, of which any may be killed, and a program that is told to stop."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.trials

DRIVER = """
import sys
from pathlib import Path

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.train.run import train

if __name__ == "__main__":
    compute = Compute(device="cpu", devices=2, threads=1, checkpoint_seconds=0.2)
    try:
        train(Recipe.read(Path(sys.argv[1])), compute=compute, runs=Path(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
    except PassbandError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
"""
RECIPE = """
model: {name: separable_resnet, depth: 1, width: 4, multiplier: 1}
data: {name: photos, part: 320, size: 16}
batch: 8
epochs: 3
ema: {decay: 0.9}
attack: {name: pgd, steps: 1}
"""


def start(folder: Path, runs: str) -> subprocess.Popen:
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(folder / "driver.py"), str(folder / "recipe.yaml"), str(folder / runs)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def weights(folder: Path) -> bytes:
    (path,) = folder.glob("*/weights.safetensors")
    return path.read_bytes()


def children(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in map(int, found.split())}
    return [pid for pid, name in names.items() if b"spawn_main" in name]


def wait_for_steps(process: subprocess.Popen, runs: Path, count: int) -> bool:
    """Wait until the checkpoint was written so many times; False where the training ended before."""
    seen, before = 0, None
    while seen < count:
        if process.poll() is not None:
            return False
        for path in runs.glob("*/checkpoint.pt"):
            now = path.stat().st_mtime_ns
            seen, before = (seen + 1, now) if now != before else (seen, before)
        time.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("shared")
    process = start(folder, "whole")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    return folder, weights(folder / "whole")


def killed(process: subprocess.Popen, how: str) -> int:
    ranks = children(process)
    assert len(ranks) == 2
    if how == "the program":
        process.kill()
    elif how == "a rank":
        os.kill(ranks[1], signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
    code = process.wait(60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline, "a process of a dead training goes on"
        time.sleep(0.05)
    return code


@pytest.mark.parametrize("how", ["the program", "a rank", "SIGTERM", "SIGINT"])
def test_the_same_command_goes_on_to_the_same_weights(how: str, unbroken) -> None:
    folder, expected = unbroken
    runs, chance = folder / how.replace(" ", "-"), random.Random(how)
    stops = 0
    for _ in range(3):
        process = start(folder, runs.name)
        if not wait_for_steps(process, runs, chance.randint(1, 4)):
            break
        code, stops = killed(process, how), stops + 1
        said = process.stderr.read() if process.stderr else ""
        if how == "a rank":
            assert code == 2 and "was ended (SIGKILL)" in said and "Traceback" not in said, said
        elif how != "the program":
            assert code == 130 and "Traceback" not in said, said
    assert stops
    assert start(folder, runs.name).wait(300) == 0
    assert weights(runs) == expected
    log = next(runs.glob("*/log.csv")).read_text().splitlines()
    assert [line.split(",")[0] for line in log[1:] if line.split(",")[5]] == ["1", "2", "3"]
