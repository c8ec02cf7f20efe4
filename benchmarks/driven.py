"""One command of the command line in a process of its own, which notes where it is and is disturbed there."""

from __future__ import annotations

import contextlib
import linecache
import mmap
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import context, forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
TRACED = ("train/", "core/store.py", "core/answer.py", "models/weights_file.py", "attacks/shards.py", "probes/",
          "sweeps/", "data/decode.py", "reports/page.py")  # fmt: skip
"""The lines at which a command can be disturbed, and of which it notes where it is: those that write, and around."""
NOTE = 256
"""Bytes of the note that a command keeps of where it is."""
KINDS = {
    "start-up": ("recipe.yaml", "environment.json", "spec.json"),
    "checkpoint write": ("checkpoint.pt",),
    "final writes": ("weights.safetensors", "metrics.json", "DONE"),
}
"""What the files of a run belong to."""


@dataclass(frozen=True)
class Job:
    """Say what is run, and what happens to it.

    Attributes:
        arguments: Of the command line.
        folder: Where it writes ``said.txt`` (both outputs), ``note`` and ``places.txt``.
        at: The line event, counted from 1, at which it is disturbed; 0 leaves it alone.
        by: How: a name in ``DISTURBANCES``.
        where: A file or folder that the disturbance needs.
        traced: Whether it counts line events and notes where it is.
        record: Whether it writes the place of every line event to ``places.txt``.
        checkpoint_seconds: Of a training.
        log_every: Steps between two lines of a training's log within an epoch.
        environment: Variables that it sees beside its own.
    """

    arguments: tuple[str, ...]
    folder: Path
    at: int = 0
    by: str = "kill"
    where: Path | None = None
    traced: bool = True
    record: bool = False
    checkpoint_seconds: float = 0.0
    log_every: int = 1
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def said(self) -> str:
        """What the command printed, on both outputs."""
        return (self.folder / "said.txt").read_text()

    @property
    def note(self) -> str:
        """Where the command was last: a place."""
        return (self.folder / "note").read_bytes().rstrip(b"\0").decode()

    @property
    def places(self) -> list[str]:
        """The place of every line event of a recorded command."""
        return (self.folder / "places.txt").read_text().splitlines()


def server() -> context.ForkServerContext:
    """Return the context of processes that are forked from one which has imported everything."""
    forked = get_context("forkserver")
    forked.set_forkserver_preload(["benchmarks.warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    forkserver.ensure_running()
    os.environ["PYTHONPATH"] = before or ""
    return forked


@dataclass(frozen=True)
class Started:
    """Hold a command that runs.

    Attributes:
        job: What it is.
        process: Where it runs.
        speaks: Gives what it prints: a pipe, which no limit on files touches.
    """

    job: Job
    process: BaseProcess
    speaks: Connection

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Wait for its end and return its exit code, negative where a signal ended it.

        Raises:
            TimeoutError: when it does not end in time; it is killed then.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"{self.job.arguments} was in '{self.job.note}' after {seconds} s")
        with (self.job.folder / "said.txt").open("wb") as file, self.speaks:
            while said := os.read(self.speaks.fileno(), 65536):
                file.write(said)
        return self.process.exitcode


def start(job: Job, forked: context.ForkServerContext) -> Started:
    """Start a command and come back at once."""
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "note").write_bytes(bytes(NOTE))
    speaks, takes = forked.Pipe(duplex=False)
    process = forked.Process(target=carry_out, args=(job, takes), daemon=True)
    process.start()
    takes.close()
    return Started(job, process, speaks)


def run(job: Job, forked: context.ForkServerContext, seconds: float = 300) -> int:
    """Run a command to its end and return its exit code."""
    return start(job, forked).wait(seconds)


def carry_out(job: Job, says: Connection) -> None:
    """Run the command in this process, which ends with its exit code."""
    os.dup2(says.fileno(), 1)
    os.dup2(says.fileno(), 2)
    os.environ.update(job.environment)
    import passband.core.compute
    from passband.cli import main
    from passband.core.compute import Compute
    from passband.train import fit

    # The command line has no option for either, and the defaults are too long for trainings of seconds.
    quick = partial(Compute, checkpoint_seconds=job.checkpoint_seconds, watched=50)
    passband.core.compute.Compute = quick  # type: ignore[assignment, misc]
    assert hasattr(fit, "LOG_EVERY")
    fit.LOG_EVERY = job.log_every
    with _tracing(job):
        main(list(job.arguments))


@contextlib.contextmanager
def _tracing(job: Job) -> Iterator[None]:
    if not job.traced:
        yield
        return
    tracer = Tracer(job)
    sys.settrace(tracer.enter)
    try:
        yield
    finally:
        sys.settrace(None)
        if job.record:
            (job.folder / "places.txt").write_text("\n".join(tracer.places))


class Tracer:
    """Count the lines that are run, note the place of each, and disturb the command at one of them."""

    def __init__(self, job: Job) -> None:
        self.job, self.count = job, 0
        self.places: list[str] = []
        with (job.folder / "note").open("r+b") as file:
            self.note = mmap.mmap(file.fileno(), NOTE)
        self.known: dict[CodeType, bool] = {}

    def enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """Decide once per function whether its lines count."""
        code = frame.f_code
        if code not in self.known:
            _, found, path = code.co_filename.rpartition("/passband/")
            self.known[code] = bool(found) and path.startswith(TRACED)
        return self.line if self.known[code] else None

    def line(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """Count a line."""
        if event == "line":
            self.count += 1
            place = placed(frame)
            # In shared memory: it can be read when this process is dead.
            self.note[:] = place.encode()[:NOTE].ljust(NOTE, b"\0")
            if self.job.record:
                self.places.append(place)
            if self.count == self.job.at:
                DISTURBANCES[self.job.by](self.job, frame)
        return self.line


def placed(frame: FrameType) -> str:
    """Name where a command is, and the file that it writes there: ``"checkpoint write: checkpoint.pt"``."""
    names, written, log, saving = set(), "", False, False
    at: FrameType | None = frame
    while at is not None:
        name, module = at.f_code.co_name, at.f_globals.get("__name__", "")
        names.add(name)
        saving = saving or (module == "passband.train.checkpoint" and name == "save")
        log = log or (module.startswith("passband.train.") and isinstance(at.f_locals.get("log"), Path))
        if name == "write_atomic" and not written:
            written = Path(at.f_locals["path"]).name
        elif module == "passband.data.decode" and name == "_write":
            written = "pixels.uint8"
        at = at.f_back
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return _place(names, written, log, saving, text)


def _place(names: set[str], written: str, log: bool, saving: bool, text: str) -> str:
    if written:
        return f"{_kind(written)}: {written}"
    if saving and "fit" in names:
        return "checkpoint write: checkpoint.pt"
    if log:
        return "log line: log.csv"
    if "_finish" in names or "_measured" in names:
        return "final writes"
    if "fit" in names:
        return "epoch's end" if "_end_epoch" in names or "evaluate(" in text else "step"
    return "measuring" if "measure" in names else "start-up"


def _kind(written: str) -> str:
    """Say what the writing of a file belongs to."""
    for kind, files in KINDS.items():
        if written in files:
            return kind
    suffix = Path(written).suffix
    return {".safetensors": "epoch's end", ".npz": "kept piece"}.get(suffix, "answer")


def _kill(job: Job, frame: FrameType) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _tear(job: Job, frame: FrameType) -> None:
    """Leave what is being written half written, as a kill within the system call can, and die."""
    assert job.where is not None
    for path in job.where.rglob(".*.*"):
        if path.is_file():  # a temporary file, which write_atomic had not renamed
            os.truncate(path, path.stat().st_size // 2)
    for log in job.where.rglob("log.csv"):
        if not (log.parent / "DONE").exists():  # to a run that is done no line comes
            with log.open("a") as file:
                file.write("1,2,0.0")  # half of the line that would have come next
    _kill(job, frame)


def _fill(job: Job, frame: FrameType) -> None:
    """Fill the disk on which ``where`` lies, to the last byte."""
    assert job.where is not None
    with job.where.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _limit(job: Job, frame: FrameType) -> None:
    """Let no file of this process grow any more: what a quota or ``ulimit -f`` does, without a disk of its own."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def _set_back(job: Job, frame: FrameType) -> None:
    """Set the wall clock back by a day."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() - 86400
    time.time_ns = lambda: real_ns() - 86400 * 10**9


def _hold(job: Job, frame: FrameType) -> None:
    """Stay where it is for a minute, as in a step that takes long."""
    time.sleep(60)


def _lose(job: Job, frame: FrameType) -> None:
    """Remove the folder ``where`` under the running command."""
    assert job.where is not None
    shutil.rmtree(job.where)


DISTURBANCES: dict[str, Callable[[Job, FrameType], None]] = {
    "kill": _kill, "tear": _tear, "fill": _fill, "limit": _limit, "set back": _set_back, "hold": _hold,
    "lose": _lose,
}  # fmt: skip
