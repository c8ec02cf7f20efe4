"""Probes whose images several processes of this machine share: each measures the pieces that no other has in hand."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from passband.attacks.pieces import Unfinished
from passband.core.errors import NotApplicable, PassbandError
from passband.core.progress import mirrored, relay, silence
from passband.core.worker import follow_parent
from passband.data.dataset import Batches
from passband.data.scenes import SceneBatches
from passband.sweeps.answers import Work, run
from passband.sweeps.resolve import DetectorSubject, Subject
from passband.train.device import several

Asked = tuple[Subject | DetectorSubject, Batches | SceneBatches]
"""A model and the images that it is asked about."""
Prepare = Callable[..., Asked]
"""Makes them again in another process: ``prepare(device="cuda:1")``. It goes there by pickle."""
Share = Callable[[Work], None]
"""Measures and keeps all pieces of a probe."""
_READY, _DONE, _REFUSED, _TOLD = "ready", "done", "refused", "told"
_PATIENCE = 5.0
"""Seconds that a worker has to end before it is killed."""


@dataclass(frozen=True)
class Places:
    """Say where the workers work.

    Attributes:
        devices: The torch device of each.
        threads: CPU threads of each, and of who puts the pieces together: rounding depends on their number.
    """

    devices: tuple[str, ...]
    threads: int


def places(device: str, devices: int, threads: int) -> Places:
    """Plan where workers work: on a GPU each, or each with its share of the CPU's threads.

    Args:
        device: A torch device's name.
        devices: How many workers, 1 or more.
        threads: CPU threads of each; 0 shares torch's choice among them.

    Raises:
        PassbandError: for numbers out of range, or more devices than there are.
    """
    if devices < 1 or threads < 0:
        raise PassbandError(f"devices are 1 or more, and threads 0 or more; got {devices} and {threads}")
    count = threads or max(1, torch.get_num_threads() // devices)
    if devices == 1:
        return Places((device,), count)
    kind = several(device, devices)
    return Places(tuple(f"cuda:{at}" if kind == "cuda" else kind for at in range(devices)), count)


@contextmanager
def threads_set(count: int) -> Iterator[None]:
    """Let torch work with so many CPU threads in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def crew(prepare: Prepare, where: Places, asked: Asked) -> Iterator[Share | None]:
    """Lend out workers that share a probe's pieces; they start with the first probe, and stop however this ends.

    Args:
        prepare: Makes model and images again in each of them.
        where: Their devices; for a single one there are no workers, and None is lent.
        asked: What ``prepare`` has to give.

    Raises:
        PassbandError: when the model cannot be sent to other processes, what a worker refuses, or when one dies.
    """
    if len(where.devices) == 1:
        yield None
        return
    made = _Crew(prepare, where, _identity(asked))
    try:
        yield made.share
    finally:
        made.stop()


class _Crew:
    def __init__(self, prepare: Prepare, where: Places, identity: tuple[str, str]) -> None:
        self.prepare, self.where, self.identity = prepare, where, identity
        self.workers: dict[Connection, BaseProcess] = {}

    def share(self, work: Work) -> None:
        if not self.workers:
            self._start()
        for pipe in self.workers:
            self._send(pipe, pickle.dumps(work))
        self._wait()

    def stop(self) -> None:
        for process in self.workers.values():
            process.terminate()
        for process in self.workers.values():
            process.join(_PATIENCE)
            process.kill()
            process.join()

    def _start(self) -> None:
        try:
            content = pickle.dumps(self.prepare)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise PassbandError(
                f"several devices need a model that other processes can make again, and this one cannot be sent there "
                f"({error}); give a name, such as file.py:factory"
            ) from None
        context = multiprocessing.get_context("spawn")
        for number, device in enumerate(self.where.devices):
            ours, theirs = context.Pipe()
            setting = (theirs, device, self.where.threads, number == 0)
            process = context.Process(target=serve, args=setting, daemon=True, name=f"passband worker {number}")
            process.start()
            theirs.close()  # so that its end is seen here when the worker ends
            self.workers[ours] = process
        for pipe in self.workers:
            self._send(pipe, content)
        if any(identity != self.identity for identity in self._wait()):
            raise PassbandError(
                "a worker found other weights or images than this process: did a file change meanwhile?"
            )

    def _send(self, pipe: Connection, content: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # one that is gone is found so when it is listened to
            pipe.send_bytes(content)

    def _wait(self) -> list[Any]:
        """Listen to the workers until each has answered."""
        waiting, answers, refused = dict(self.workers), [], []
        with mirrored() as show:
            while waiting:
                for pipe in connection.wait(list(waiting)):
                    assert isinstance(pipe, Connection)
                    try:
                        kind, what = pipe.recv()
                    except (EOFError, ConnectionResetError):
                        raise _ended(waiting[pipe]) from None
                    if kind == _TOLD:
                        show(*what)
                        continue
                    del waiting[pipe]
                    if kind != _REFUSED:
                        answers.append(what)
                    # What does not apply is refused by all of them, and why a piece is not there another one knows.
                    elif isinstance(what, NotApplicable | Unfinished):
                        refused.append(what)
                    else:
                        raise what
        if refused:
            raise refused[0]
        return answers


def _ended(process: BaseProcess) -> PassbandError:
    process.join(_PATIENCE)
    code = process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    cure = "" if code is None or code < 0 else " (a script keeps its own work under `if __name__ == '__main__':`)"
    return PassbandError(
        f"{process.name} was ended ({how}), as where memory runs out{cure}; what was finished is kept: give the same "
        "command again to go on"
    )


def serve(pipe: Connection, device: str, threads: int, tells: bool) -> None:
    """Work in a process of its own: make model and images, then measure the pieces of one probe after another.

    Args:
        pipe: Brings a pickled :data:`Prepare`, then a pickled :class:`passband.sweeps.answers.Work` for each probe.
        device: Where work is done.
        threads: CPU threads.
        tells: Whether the parent is told how far this worker is.
    """
    follow_parent()
    torch.set_num_threads(threads)
    if tells:
        relay(lambda *far: pipe.send((_TOLD, far)))
    else:
        silence()
    try:
        prepare: Prepare = pickle.loads(pipe.recv_bytes())
        asked = prepare(device=device)
    except Exception as error:
        pipe.send((_REFUSED, _portable(error)))
        return
    pipe.send((_READY, _identity(asked)))
    while True:
        try:
            work: Work = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            run(*asked, work)
            pipe.send((_DONE, None))
        except Exception as error:
            pipe.send((_REFUSED, _portable(error)))


def _identity(asked: Asked) -> tuple[str, str]:
    return asked[0].digest, asked[1].dataset.fingerprint


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: itself, or one that says as much."""
    if not isinstance(error, PassbandError):
        error.add_note("In a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error's own parts make of pickling
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
