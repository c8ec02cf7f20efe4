"""Cases in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from passband.core.progress import track
from passband.core.worker import follow_parent
from passband.sweeps.working import GRACE, RETRIES, Failed, attempt, interruptible, lost, opened

# torch is imported in no line above: a worker chooses its GPU before that.
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class LocalPool:
    """Do cases in processes of this machine, a fresh one each time a worker is lost.

    Asked to stop, by Ctrl-C or SIGTERM, every worker saves its training and leaves; asked twice, it is killed. A worker
    whose parent is gone leaves at once.

    Attributes:
        workers: How many, 1 or more.
        threads: CPU threads of each, for who makes the cases: a process cannot know them before its libraries do.
        device: As :class:`passband.core.compute.Compute` has it; the workers take turns in the GPUs where it leaves
            the choice.
    """

    workers: int
    threads: int
    device: str = "auto"

    def map(
        self, function: Callable[[T], R], items: Sequence[T], *, describe: Callable[[T], str], title: str
    ) -> list[R]:
        """Do every case; see :class:`passband.sweeps.executors.Executor`."""
        results: dict[int, R] = {}
        with interruptible(), _lanes(min(self.workers, len(items)), _gpus(self.device)) as lanes:
            for index, result in track(_finished(lanes, function, items, describe), title, len(items)):
                results[index] = result
        return [results[index] for index in range(len(items))]


def _finished(
    lanes: Sequence[_Lane], function: Callable[[T], R], items: Sequence[T], describe: Callable[[T], str]
) -> Iterator[tuple[int, R]]:
    """Yield each result with its place, as they come."""
    waiting, tries = deque(range(len(items))), Counter[int]()
    idle, busy = deque(lanes), dict[Future[Any], tuple[_Lane, int]]()
    while waiting or busy:
        while waiting and idle:
            lane, index = idle.popleft(), waiting.popleft()
            busy[lane.submit(function, items[index])] = lane, index
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            lane, index = busy.pop(future)
            idle.append(lane)
            try:
                outcome: R | Failed = future.result()
            except BrokenProcessPool:
                tries[index] += 1
                if tries[index] > RETRIES:
                    raise lost(describe(items[index])) from None
                lane.renew()
                waiting.appendleft(index)
                continue
            yield index, opened(outcome)


class _Lane:
    """Hold a pool of one worker: it is known which case a lost worker had, and no other worker is touched."""

    def __init__(self, number: int, gpus: Sequence[str]) -> None:
        self.gpu = gpus[number % len(gpus)] if gpus else None
        self.renew()

    def renew(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self.gpu,))
        self.pid = self.pool.submit(os.getpid)

    def submit(self, function: Callable[[T], R], item: T) -> Future[R | Failed]:
        try:
            return self.pool.submit(_work, function, item)
        except BrokenProcessPool:  # lost while it had nothing to do
            self.renew()
            return self.pool.submit(_work, function, item)

    def send(self, number: signal.Signals) -> None:
        # One that is gone has nothing to be told.
        with suppress(BrokenProcessPool, ProcessLookupError):
            os.kill(self.pid.result(), number)


@contextmanager
def _lanes(count: int, gpus: Sequence[str]) -> Iterator[list[_Lane]]:
    lanes = [_Lane(number, gpus) for number in range(count)]
    try:
        yield lanes
    except BaseException:
        _stop(lanes)
        raise
    finally:
        for lane in lanes:
            lane.pool.shutdown()


def _stop(lanes: Sequence[_Lane]) -> None:
    """Ask every worker to save and to leave, and kill those that do not in time, or when interrupted once more."""
    timer = threading.Timer(GRACE, _kill, (lanes,))
    timer.daemon = True
    timer.start()
    try:
        for lane in lanes:
            lane.send(signal.SIGTERM)
        for lane in lanes:
            lane.pool.shutdown()
    except BaseException:
        _kill(lanes)
        raise
    finally:
        timer.cancel()


def _kill(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.send(signal.SIGKILL)


def _gpus(device: str) -> list[str]:
    """Return the GPUs that workers take turns in, as ``CUDA_VISIBLE_DEVICES`` names them; none where one is named."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(index) for index in range(count)])[:count]


_busy = False


def _begin(gpu: str | None) -> None:
    """Prepare a worker."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGTERM, _asked)
    follow_parent()


def _asked(number: int, frame: FrameType | None) -> None:
    if _busy:
        raise KeyboardInterrupt
    os._exit(128 + number)


def _work(function: Callable[[T], R], item: T) -> R | Failed:
    global _busy
    try:
        _busy = True
        return attempt(function, item)
    except KeyboardInterrupt:
        # The pool would send it home as this case's result and wait for another.
        os._exit(128 + signal.SIGTERM)
    finally:
        _busy = False
