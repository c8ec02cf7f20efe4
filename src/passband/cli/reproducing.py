"""What ``passband reproduce`` does once its words are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """Hold what was asked for, beside the experiment's name.

    Attributes:
        scale: ``"smoke"``, ``"small"`` or ``"full"``.
        data: A set in place of the experiment's own.
        data_dir: The folder of all data sets.
        device: The device's name.
        on: Where cases run, as it was given; None for this process.
        threads: CPU threads; 0 for no limit.
    """

    scale: str
    data: str | None = None
    data_dir: Path | None = None
    device: str = "auto"
    on: str | None = None
    threads: int = 0


def one(name: str, wanted: Wanted, out: Path, command: str) -> int:
    """Measure one experiment, print it, and return the exit code.

    Args:
        name: The experiment's.
        wanted: What was asked for.
        out: The folder of the answer.
        command: What makes the answer again.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    from passband.cli import show
    from passband.core.compute import Compute
    from passband.core.errors import unknown
    from passband.core.results import Table
    from passband.core.scale import Scale
    from passband.core.store import lock, make_folder
    from passband.reports import page
    from passband.sweeps.executors import executor

    if wanted.scale not in list(Scale):
        raise unknown("scale", wanted.scale, list(Scale))
    compute = Compute(device=wanted.device, threads=wanted.threads)
    place = executor(wanted.on, threads=wanted.threads, device=wanted.device)  # refused before torch is loaded

    from passband.experiments.catalog import find
    from passband.experiments.reproduce import reproduce
    from passband.sweeps.lab import Lab

    experiment, scale = find(name), Scale(wanted.scale)
    if experiment.timed and wanted.on is not None:
        show.line(f"{name} takes times: its cases run one after another in this process")
    lab = Lab(scale, command, data_dir=wanted.data_dir, compute=compute, limit=experiment.limit.get(scale))
    make_folder(out)
    answer = reproduce(name, experiment, lab, data=wanted.data, executor=place)
    with lock(out, wait=True):
        answer.save(out)
        where = page.write(out)
    for result in answer.results:
        if isinstance(result, Table) and result.name == "table":
            show.table(result)
    show.claims(answer.claims)
    show.path("report", where)
    return 1 if any(claim.verdict == "fails" for claim in answer.claims) else 0


def every(wanted: Wanted, folder: Callable[[str], Path], command: Callable[[str, Path], str]) -> int:
    """Measure every table and figure of the papers, one after another, and return the worst exit code.

    Args:
        wanted: What was asked for.
        folder: An experiment's name to the folder of its answer.
        command: An experiment's name and that folder to what makes the answer again.

    Raises:
        PassbandError: as :func:`one`.
    """
    from passband.cli import show
    from passband.experiments.catalog import of_papers

    codes = []
    for name in of_papers():
        show.line(f"\n{name}")
        codes.append(one(name, wanted, folder(name), command(name, folder(name))))
    show.line(f"\n{len(codes)} experiments; in {sum(codes)} of them a claim fails")
    return max(codes)
