"""Where the cases of an experiment run: in this process, in a pool, on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shutil import which
from typing import Any, Protocol, TypeVar

from passband.core.errors import PassbandError, unknown
from passband.core.progress import track
from passband.sweeps.local_pool import LocalPool
from passband.sweeps.ray_executor import RayCluster
from passband.sweeps.slurm_executor import OPTIONS, Slurm
from passband.sweeps.working import needs

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Do cases somewhere. The results are those of one process after another, bit for bit, with as many threads.

    Attributes:
        threads: CPU threads of a case; 0 leaves torch's choice.
    """

    @property
    def threads(self) -> int: ...

    def map(
        self, function: Callable[[T], R], items: Sequence[T], *, describe: Callable[[T], str], title: str
    ) -> list[R]:
        """Return what a function gives for each item, in the order of the items.

        Args:
            function: What is done with one. Elsewhere than in this process it must be known by its name, or be a
                ``partial`` of such a one: it is sent.
            items: Plain values.
            describe: An item to what an error calls it.
            title: What the progress bar says.

        Raises:
            PassbandError: that which an item ended with; when an item's worker was lost time after time.
            KeyboardInterrupt: when the program was asked to stop; trainings under way were saved before.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """Do cases one after another in this process.

    Attributes:
        threads: CPU threads; 0 leaves torch's choice.
    """

    threads: int = 0

    def map(
        self, function: Callable[[T], R], items: Sequence[T], *, describe: Callable[[T], str], title: str
    ) -> list[R]:
        """Do every case; see :class:`Executor`."""
        return [function(item) for item in track(items, title)]


def executor(on: str | None, *, threads: int = 0, device: str = "auto") -> Executor:
    """Return the place that a text names.

    Args:
        on: ``local:N`` for N processes of this machine; ``ray``, or ``ray:ADDRESS``; ``slurm``, or
            ``slurm:NAME=VALUE,...`` with the names of :data:`passband.sweeps.slurm_executor.OPTIONS`; None for this
            process.
        threads: CPU threads, 0 for as many as there are: the workers of ``local:N`` share them; a case of Ray or Slurm
            has as many, or one.
        device: The device that cases ask for.

    Raises:
        PassbandError: for a text that names no place, or one whose package is missing.
    """
    if on is None:
        return InProcess(threads)
    name, _, rest = on.partition(":")
    if name not in _PLACES:
        raise unknown("place to run (--on)", name, _PLACES)
    return _PLACES[name](rest, threads, device)


def _local(rest: str, threads: int, device: str) -> Executor:
    if not (rest.isascii() and rest.isdigit() and 1 <= int(rest[:9]) <= _MOST):
        raise PassbandError(f"--on local:N takes 1 to {_MOST} processes, such as local:4; got 'local:{rest}'")
    workers = int(rest)
    return LocalPool(workers, max(1, (threads or _cores()) // workers), device)


def _ray(rest: str, threads: int, device: str) -> Executor:
    needs("ray", "ray")
    return RayCluster(rest or None, threads or 1, device)


def _slurm(rest: str, threads: int, device: str) -> Executor:
    options: dict[str, Any] = dict(_option(one) for one in rest.split(",") if rest)
    if threads and "cpus_per_task" in options:
        raise PassbandError("--threads and cpus_per_task of --on slurm say the same; leave one out")
    needs("submitit", "slurm")
    if which("srun") is None:
        raise PassbandError("--on slurm: there is no srun on this machine; take --on local:N or --on ray")
    return Slurm(options, threads or options.get("cpus_per_task", 1), device)


def _option(text: str) -> tuple[str, str | int | float]:
    name, _, value = text.partition("=")
    if name not in OPTIONS:
        raise unknown("option of --on slurm", name, OPTIONS)
    kind = OPTIONS[name]
    try:
        read: str | int | float = kind(value)
    except ValueError:
        read = ""
    if read == "" or (not isinstance(read, str) and not 0 < read < 1e9):
        what = {str: "a name", int: "a whole number above 0", float: "a number above 0"}[kind]
        raise PassbandError(f"--on slurm: {name}= takes {what}; got '{text}'")
    return name, read


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_MOST = 1024
_PLACES: dict[str, Callable[[str, int, str], Executor]] = {"local": _local, "ray": _ray, "slurm": _slurm}
