"""What made a number: versions and the class of hardware, without paths or host names."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("passband", "torch", "torchvision", "timm", "numpy", "lightning-fabric")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


@cache
def hardware() -> str:
    """Return the class of the processor: its model's name and the number of usable cores."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, f":{name}").partition(":")[2].strip()
    # Some systems cannot say which cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
