"""Cases as tasks of a Ray cluster."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.sweeps.working import GRACE, RETRIES, attempt, interruptible, lost, opened

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RayCluster:
    """Do cases as tasks of a Ray cluster; those of a lost worker or node are done again.

    Without an address a cluster of this machine alone is started, and ends with the program. On one of several machines
    passband is installed on each, at one version; the folders of runs and of data lie on a disk that all share, under
    one absolute path, and the disk has ``flock`` across machines, since two cases may want one training. A case takes
    ``threads`` CPUs, and a GPU where the device asks for one, or leaves the choice and the cluster has some.

    **Source**: https://docs.ray.io/en/latest/ray-core/fault_tolerance/tasks.html

    Attributes:
        address: Of a cluster, such as ``10.0.0.1:6379``, ``ray://10.0.0.1:10001``, or ``auto``; None starts one.
        threads: CPUs of a case, 1 or more.
        device: As :class:`passband.core.compute.Compute` has it.
    """

    address: str | None = None
    threads: int = 1
    device: str = "auto"

    def map(
        self, function: Callable[[T], R], items: Sequence[T], *, describe: Callable[[T], str], title: str
    ) -> list[R]:
        """Do every case; see :class:`passband.sweeps.executors.Executor`."""
        ray = _connected(self.address)
        task = ray.remote(attempt).options(
            num_cpus=self.threads, num_gpus=self._gpus(ray), max_retries=RETRIES, retry_exceptions=False
        )
        waiting = {task.remote(function, item): index for index, item in enumerate(items)}
        results: dict[int, R] = {}
        with interruptible():
            try:
                for index, result in track(_finished(ray, waiting, items, describe), title, len(items)):
                    results[index] = result
            except BaseException:
                _stop(ray, waiting)
                raise
        return [results[index] for index in range(len(items))]

    def _gpus(self, ray: Any) -> int:
        """Return the GPUs of a case.

        Raises:
            PassbandError: when no node has room for a case: it would wait forever.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = {kind: int(max((node.get(kind, 0) for node in nodes), default=0)) for kind in ("CPU", "GPU")}
        gpus = int(self.device.startswith("cuda") or (self.device == "auto" and most["GPU"] > 0))
        if not any(node.get("CPU", 0) >= self.threads and node.get("GPU", 0) >= gpus for node in nodes):
            raise PassbandError(
                f"a case needs {self.threads} CPUs and {gpus} GPUs at once, and no node of the Ray cluster has them "
                f"(at most {most['CPU']} CPUs, {most['GPU']} GPUs): take other --threads or --device, or add nodes"
            )
        return gpus


def _finished(
    ray: Any, waiting: dict[Any, int], items: Sequence[T], describe: Callable[[T], str]
) -> Iterator[tuple[int, Any]]:
    """Yield each result with its place, as they come, and take it out of what is waited for."""
    gone = (
        ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
    )  # fmt: skip
    while waiting:
        # What is finished is fetched at once: its node may be the next to go.
        (done,), _ = ray.wait(list(waiting))
        index = waiting.pop(done)
        try:
            outcome = ray.get(done)
        except gone:
            raise lost(describe(items[index])) from None
        yield index, opened(outcome)


def _stop(ray: Any, waiting: dict[Any, int]) -> None:
    """Interrupt every case, and wait until its training is saved."""
    for reference in waiting:
        ray.cancel(reference)
    if waiting:
        ray.wait(list(waiting), num_returns=len(waiting), timeout=GRACE)


def _connected(address: str | None) -> Any:
    """Return the module ``ray``, connected: as the program already is, or to a cluster, or to a new one."""
    import ray

    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # Not $TMPDIR: the names of Ray's sockets lie below, and a socket's name has 107 letters at most.
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        ray.init("local", include_dashboard=False, _temp_dir=folder, **quiet)
        atexit.register(ray.shutdown)
        return ray
    try:
        if address != "auto":
            _knock(address)
        ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()
        raise PassbandError(
            f"no Ray cluster at '{address}' ({reason[0] if reason else type(error).__name__}); `ray start --head` "
            "starts one and says its address, --on ray starts one of this machine alone"
        ) from None
    atexit.register(ray.shutdown)
    return ray


def _knock(address: str) -> None:
    """Raise what the system says where nobody answers at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT or auto")
    with socket.create_connection((host, int(port)), timeout=10):
        pass
