"""Run many cases of every target and say how many of which: ``python tests/fuzz --cases 100000 --json FILE``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

from fuzz_run import Ran, run
from fuzz_targets import TARGETS

from passband.core.environment import versions


def main() -> int:
    """Run and print; 1 where anything crashed."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="of all targets together, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="targets whose name has this word")
    parser.add_argument("--json", type=Path, help="where the figures go")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    targets = [target for target in TARGETS if asked.only is None or asked.only in target.name]
    shares = sum(target.share for target in targets)
    began, done = time.perf_counter(), []
    os.environ.pop("PASSBAND_DATA", None)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for target in targets:
            done.append(run(target, -(-asked.cases * target.share // shares), asked.seed))
            show(done[-1])
    everything = sum(ran.cases for ran in done)
    print(
        f"{everything:,} cases in {time.perf_counter() - began:.0f} s; {sum(len(ran.crashes) for ran in done)} crashes"
    )
    if asked.json:
        known = {name: version for name, version in versions().items() if name in ("passband", "torch")}
        head = {"cases": everything, "seed": asked.seed, "versions": known, "processor": platform.machine()}
        text = json.dumps(head | {"targets": [vars(ran) for ran in done]}, indent=1)
        asked.json.write_text(text + "\n")
    return 1 if any(ran.crashes for ran in done) else 0


def show(ran: Ran) -> None:
    """Print a target's figures."""
    print(f"{ran.name:32} {ran.cases:7,} cases, {ran.worked:6,} worked, {ran.refused:6,} refused, {ran.seconds:5.0f} s")
    for crash in ran.crashes:
        print(f"    crash: {crash}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
