"""Processes for a training on several devices: started here, or found started by torchrun."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from passband.core.compute import Compute
from passband.core.errors import PassbandError
from passband.core.worker import follow_parent
from passband.train.device import several, torch_device

_PRECISION: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "float64": "64-true"}
_PATIENCE = timedelta(days=7)
"""How long a rank waits for another: an evaluation or a folder's lock may take long, and a rank that died is noticed
by whatever started it."""
_INTERRUPTED = b"interrupted"


def shared(compute: Compute) -> bool:
    """Tell whether a training has several processes, of which this may be one."""
    return compute.devices * compute.nodes > 1 or (_external() and int(os.environ["WORLD_SIZE"]) > 1)


def fabric(compute: Compute, precision: str) -> Fabric:
    """Return what knows device, precision and processes.

    Raises:
        PassbandError: for a device that is not there, or processes that do not fit together.
    """
    device = torch_device(compute.device)
    kind, _, index = device.partition(":")
    if not shared(compute):
        return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=_PRECISION[precision])
    devices, nodes = _counts(compute)
    several(device, devices)
    strategy = _Quiet(start_method="popen" if _external() else "spawn", timeout=_PATIENCE)
    return Fabric(
        accelerator=kind, devices=devices, num_nodes=nodes, strategy=strategy, precision=_PRECISION[precision]
    )


class _Quiet(DDPStrategy):  # type: ignore[misc]
    """Start every rank without a word about it; warnings and errors stay."""

    def setup_environment(self) -> None:
        """Join the process group."""
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        super().setup_environment()


def _external() -> bool:
    """Tell whether torchrun started this process, as one of several."""
    return torch.distributed.is_torchelastic_launched()


def _counts(compute: Compute) -> tuple[int, int]:
    """Return devices of a node, and nodes."""
    if _external():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        given = (compute.devices, compute.nodes)
        if given not in ((1, 1), (local, world // local)):
            raise PassbandError(
                f"torchrun started {local} processes on each of {world // local} nodes; leave --devices and --nodes "
                f"out, or give the same (got {compute.devices} and {compute.nodes})"
            )
        return local, world // local
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if compute.nodes > 1 and missing:
        raise PassbandError(
            f"--nodes {compute.nodes} needs {', '.join(missing)} in the environment of each node: the first node's "
            "address, a free port there, and this node's number from 0; or start the command by torchrun"
        )
    return compute.devices, compute.nodes


def launch(function: Callable[..., Any], compute: Compute, precision: str, *arguments: Any) -> Any:
    """Run a function in every process of a training and return what the first one returns.

    Args:
        function: Takes a fabric and the arguments; all of it goes to other processes by pickle.
        compute: How many processes, on what.
        precision: Of the training.
        *arguments: Further arguments.

    Raises:
        PassbandError: what a process refuses, or when one dies.
        KeyboardInterrupt: when the program was asked to stop; the processes stopped together.
    """
    made = fabric(compute, precision)
    if _external():
        made.launch()
        return function(made, *arguments)
    with tempfile.TemporaryDirectory(prefix="passband-") as place, _passing_on() as asked:
        try:
            # As bytes: Fabric goes through what it is given, and takes no frozen value.
            told: bytes = made.launch(_in_rank, place, pickle.dumps((function, arguments)))
        except (ProcessExitedException, ProcessRaisedException) as failure:
            if asked():
                raise KeyboardInterrupt from None
            raise _explained(Path(place), failure) from None
    if told == _INTERRUPTED:
        raise KeyboardInterrupt
    return pickle.loads(told)


def _in_rank(fabric: Fabric, place: str, work: bytes) -> bytes:
    """Run in one of the processes; an error goes to the parent by a file."""
    follow_parent()
    function, arguments = pickle.loads(work)
    try:
        told = pickle.dumps(function(fabric, *arguments))
        # One that left while another still listens would end it.
        fabric.barrier()
        torch.distributed.destroy_process_group()
        return told
    except KeyboardInterrupt:
        return _INTERRUPTED
    except PassbandError as error:
        (Path(place) / str(fabric.global_rank)).write_bytes(pickle.dumps(error))
        raise SystemExit(2) from None


@contextmanager
def _passing_on() -> Iterator[Callable[[], bool]]:
    """Pass the first SIGINT or SIGTERM on to the processes started here, and kill them at the second.

    Signals reach only a program's main thread; elsewhere nothing is passed on.
    """
    count = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        for process in multiprocessing.active_children():
            process.terminate() if count == 1 else process.kill()

    heard = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop) for number in heard}
    # What torch says of a process that it ends is said once more, in our words.
    spawning = logging.getLogger("torch.multiprocessing.spawn")
    level = spawning.level
    spawning.setLevel(logging.ERROR)
    try:
        yield lambda: count > 0
    finally:
        spawning.setLevel(level)
        for number, handler in before.items():
            signal.signal(number, handler)


def _explained(place: Path, failure: ProcessExitedException | ProcessRaisedException) -> BaseException:
    """Return the error of the first process that wrote one; else what is known of the one that failed."""
    written = sorted(place.iterdir(), key=lambda path: int(path.name))
    if written:
        error: BaseException = pickle.loads(written[0].read_bytes())
        return error
    if isinstance(failure, ProcessRaisedException):
        return RuntimeError(str(failure))
    how = failure.signal_name or f"exit code {failure.exit_code}"
    return PassbandError(
        f"process {failure.error_index} of the training was ended ({how}), as where memory runs out; give the same "
        "command again to go on"
    )
