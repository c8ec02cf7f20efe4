"""Measure an experiment's cases, judge its claims, and answer with one folder."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from passband.core.answer import Answer
from passband.core.claims import Judged, Rows, judge
from passband.core.environment import versions
from passband.core.errors import MissingData, PassbandError
from passband.core.results import Cell, Column, Result, Table
from passband.core.store import data_folder, make_folder, runs_folder
from passband.experiments.bootstrap import redrawn
from passband.experiments.catalog import find
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.executors import Executor, InProcess
from passband.sweeps.lab import Lab
from passband.train.device import hardware_class

_Outcome = tuple[Measured | str, str]
"""What a case gave, or why it gave nothing, and the hardware that it ran on."""


def reproduce(
    name: str, experiment: Experiment, lab: Lab, *, data: str | None = None, executor: Executor | None = None
) -> Answer:
    """Run every case of an experiment and judge its claims.

    A case whose data is not on this machine becomes a row that says so. Trainings and probe answers are kept, so
    the same call continues where it was stopped.

    Args:
        name: The experiment's name.
        experiment: The experiment.
        lab: Where trainings and answers lie, and at which scale.
        data: A set that stands in place of the one that the cases name.
        executor: Where the cases run; None for this process. An experiment that takes times runs here in any case.
            Elsewhere the experiment is found by its name, and cases that share a training wait for each other.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    cases = _with_data(experiment.cases(lab.scale), data)
    outcomes = _outcomes(name, experiment, lab, cases, executor)
    measured = [found for found, _ in outcomes]
    rows = [_row(case, found) for case, found in zip(cases, measured, strict=True)]
    claims = _judge(experiment, cases, measured, rows, lab)
    hardware = " and ".join(dict.fromkeys(place for _, place in outcomes))
    how = {"command": lab.command, "versions": versions(), "hardware": hardware}
    table = _table(name, experiment, rows, how)
    results: list[Result] = [table, *_figures(name, experiment, rows, how)]
    for case, found in zip(cases, measured, strict=True):
        if isinstance(found, Measured):
            prefix = _label(case)
            results += [result.model_copy(update={"name": f"{prefix}/{result.name}"}) for result in found.results]
    head = {
        "title": experiment.title, "experiment": name, "source": experiment.source, "scale": str(lab.scale),
        "command": lab.command, "hardware": hardware, "versions": versions(),
    }  # fmt: skip
    return Answer(head, results, claims)


def _with_data(cases: list[Case], data: str | None) -> list[Case]:
    """Put one set in place of all; cases that differed only by their set are then one, those of no set stay."""
    if data is None:
        return cases
    replaced = [case | {"data": data} if case.get("data") is not None else case for case in cases]
    return [case for index, case in enumerate(replaced) if case not in replaced[:index]]


def _outcomes(
    name: str, experiment: Experiment, lab: Lab, cases: list[Case], executor: Executor | None
) -> list[_Outcome]:
    title = f"reproduce {name}, {lab.scale}"
    if executor is None or experiment.timed or isinstance(executor, InProcess):
        here = partial(_measure, experiment, lab)
        return InProcess().map(here, cases, describe=_label, title=title)
    elsewhere = replace(
        lab,
        # A worker on another machine has another working folder and another environment.
        runs=make_folder((lab.runs or runs_folder()).absolute()),
        data_dir=(lab.data_dir or data_folder()).absolute(),
        compute=replace(lab.compute, threads=executor.threads, wait=True),
    )
    return executor.map(partial(_measure_named, name, elsewhere), cases, describe=_label, title=title)


def _measure(experiment: Experiment, lab: Lab, case: Case) -> _Outcome:
    if lab.compute.threads:
        torch.set_num_threads(lab.compute.threads)
    try:
        found: Measured | str = experiment.measure(case, lab)
    except MissingData as missing:
        found = f"not measured: needs {missing.name}"
    return found, hardware_class(lab.device)


def _measure_named(name: str, lab: Lab, case: Case) -> _Outcome:
    """Measure a case in a worker, perhaps on another machine."""
    if lab.runs is None or not lab.runs.is_dir():
        raise PassbandError(
            f"the folder of runs, {lab.runs}, is not there on {socket.gethostname()}: PASSBAND_RUNS and PASSBAND_DATA "
            "name folders that all machines share, under one path"
        )
    return _measure(find(name), lab, case)


def _row(case: Case, found: Measured | str) -> dict[str, Cell]:
    settings = {"case": case["case"], "data": case.get("data"), "seed": case.get("seed")}
    return settings | ({"note": found} if isinstance(found, str) else found.row)


def _label(case: Case) -> str:
    seed = f"seed {case['seed']}" if case.get("seed") is not None else None
    return ", ".join(filter(None, (case["case"], case.get("data"), seed)))


def _table(name: str, experiment: Experiment, rows: Rows, how: dict[str, Any]) -> Table:
    columns = [Column(name="case"), Column(name="data"), Column(name="seed"), *experiment.columns]
    if any("note" in row for row in rows):
        columns.append(Column(name="note"))
    return Table(
        name="table",
        title=f"{experiment.title} ({experiment.source})",
        how=how | {"experiment": name, "reported": experiment.reported},
        columns=tuple(columns),
        rows=tuple(tuple(row.get(column.name) for column in columns) for row in rows),
    )


def _figures(name: str, experiment: Experiment, rows: Rows, how: dict[str, Any]) -> list[Result]:
    drawn = experiment.figures(rows) if experiment.figures is not None else ()
    return [result.model_copy(update={"how": how | {"experiment": name} | result.how}) for result in drawn]


def _judge(
    experiment: Experiment, cases: Sequence[Case], measured: Sequence[Measured | str], rows: Rows, lab: Lab
) -> list[Judged]:
    """Judge each claim on each data set by itself: a margin over two sets would speak of neither."""
    judged = []
    sets = list(dict.fromkeys(case.get("data") for case in cases))
    for data in sets:
        chosen = [index for index, case in enumerate(cases) if case.get("data") == data]
        found = [(rows[index], measured[index]) for index in chosen]
        known = [(row, one) for row, one in found if isinstance(one, Measured)]
        drawable = known and all(one.verdicts or one.samples or one.redrawn for _, one in known)
        draws = cache(partial(redrawn, known)) if drawable else None
        for claim in experiment.claims:
            verdict = judge(claim, [row for row, _ in found], lab.scale, draws)
            if verdict.verdict == "not measured" and len(known) == len(found):
                continue  # It speaks of a case that this scale does not have.
            place = verdict.place if data is None else f"{verdict.place}, on {data}"
            judged.append(verdict.model_copy(update={"place": place}))
    return judged
