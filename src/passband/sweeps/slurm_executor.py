"""Cases as jobs of a Slurm cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from passband.core.progress import track
from passband.core.store import make_folder, runs_folder
from passband.sweeps.working import RETRIES, attempt, interruptible, lost, opened

T = TypeVar("T")
R = TypeVar("R")

OPTIONS: dict[str, type] = {
    "partition": str, "account": str, "qos": str, "constraint": str, "nodelist": str, "exclude": str,
    "array_parallelism": int, "timeout_min": int, "mem_gb": float, "cpus_per_task": int, "gpus_per_node": int,
}  # fmt: skip
"""What ``--on slurm:`` takes, as submitit names it."""
_SHARED = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
"""Those that submitit knows for every kind of cluster."""
_TIMEOUT = 240
_POLL = 0.5


@dataclass(frozen=True)
class Slurm:
    """Do cases as jobs of a Slurm cluster, one job each, through submitit.

    What :class:`passband.sweeps.ray_executor.RayCluster` says of shared folders holds here. A job out of time, or
    preempted, goes on from its last checkpoint in another; one whose node failed is given again. Interrupted, the
    program cancels its jobs; killed, it leaves them to end by themselves, and the same command finds what they made.

    Attributes:
        options: By the names of `OPTIONS`; without ``timeout_min`` a job has four hours.
        threads: CPUs of a case, 1 or more.
        device: As :class:`passband.core.compute.Compute` has it; ``cuda`` asks for a GPU.
        cluster: submitit's name for the kind of cluster; ``"local"`` is this machine.
        folder: Where submitit keeps its files; a folder ``slurm`` beside the runs where none is given.
    """

    options: Mapping[str, str | int | float] = field(default_factory=dict)
    threads: int = 1
    device: str = "auto"
    cluster: str = "slurm"
    folder: Path | None = None

    def map(
        self, function: Callable[[T], R], items: Sequence[T], *, describe: Callable[[T], str], title: str
    ) -> list[R]:
        """Do every case; see :class:`passband.sweeps.executors.Executor`."""
        executor = self._executor()
        case = _case(function)
        with executor.batch():
            jobs = [executor.submit(case, item) for item in items]
        waiting, results = dict(enumerate(jobs)), dict[int, R]()
        finished = _finished(waiting, lambda index: executor.submit(case, items[index]), items, describe)
        with interruptible():
            try:
                for index, result in track(finished, title, len(items)):
                    results[index] = result
            except BaseException:
                for job in waiting.values():
                    job.cancel(check=False)
                raise
        return [results[index] for index in range(len(items))]

    def _executor(self) -> Any:
        import submitit

        folder = make_folder((self.folder or runs_folder() / "slurm").absolute())
        executor = submitit.AutoExecutor(folder / "%j", cluster=self.cluster)
        given = {"timeout_min": _TIMEOUT, "cpus_per_task": self.threads, **self.options}
        if self.device.startswith("cuda"):
            given.setdefault("gpus_per_node", 1)
        executor.update_parameters(
            name="passband", **{key if key in _SHARED else f"slurm_{key}": value for key, value in given.items()}
        )
        return executor


def _case(function: Callable[[T], R]) -> Any:
    from submitit.helpers import Checkpointable

    class Case(Checkpointable):  # type: ignore[misc]
        """A call that submitit gives again, as it is, when a job's time is over: the training goes on from its file."""

        def __call__(self, item: Any) -> Any:
            return attempt(function, item)

    return Case()


def _finished(
    waiting: dict[int, Any], again: Callable[[int], Any], items: Sequence[T], describe: Callable[[T], str]
) -> Iterator[tuple[int, Any]]:
    """Yield each result with its place, as they come, and take it out of what is waited for."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    tries = Counter[int]()
    while waiting:
        done = [index for index, job in waiting.items() if job.done()]
        for index in done:
            try:
                outcome = waiting[index].result()
            except FailedJobError:
                raise
            except UncompletedJobError:
                tries[index] += 1
                if tries[index] > RETRIES:
                    raise lost(describe(items[index])) from None
                waiting[index] = again(index)
                continue
            del waiting[index]
            yield index, opened(outcome)
        if not done:
            time.sleep(_POLL)
