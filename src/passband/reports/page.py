"""An answer as one HTML file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from passband.core.answer import Answer
from passband.core.claims import Judged
from passband.core.results import Result, Table
from passband.core.store import write_atomic
from passband.reports.figures import Figure, figure
from passband.reports.overlay import overlays
from passband.reports.text import anchor, interval, plain, quantity, words

SCRIPTS = ("fourier.js", "page.js")
# Shown elsewhere on the page than in the list at its head.
ELSEWHERE = ("title", "command", "digest", "notes")


@dataclass(frozen=True)
class Section:
    """Hold the figures of one probe, of one case where the answer has several."""

    case: str
    probe: str
    anchor: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Ruling:
    """Hold a judged claim in the words of the page."""

    claim: Judged
    margin: str
    interval: str
    smallest: str
    seeds: str


def write(folder: Path) -> Path:
    """Make ``report.html`` from the answer in ``folder``, from its files alone, and return its path.

    Raises:
        PassbandError: when ``folder`` holds no valid answer or cannot be written.
    """
    path = folder / "report.html"
    write_atomic(path, render(Answer.load(folder)).encode())
    return path


def render(answer: Answer) -> str:
    """Return an answer as one self-contained HTML page; the same answer gives the same page.

    Args:
        answer: The answer; of its head ``title``, ``command``, ``digest`` and ``notes`` have places of their
            own, every other field stands in the list at the page's head.
    """
    command = str(answer.head.get("command", ""))
    first, rest = _parted(answer)
    sections = [*_overlaid(rest, command), *_sections(rest, command)]
    script = "\n".join(_source(name) for name in SCRIPTS)
    return _environment().get_template("page.html.j2").render(
        title=str(answer.head.get("title") or "passband report"),
        head=[(words(key), plain(value)) for key, value in answer.head.items() if key not in ELSEWHERE],
        notes=_lines(answer.head.get("notes")),
        command=command,
        digest=str(answer.head.get("digest", "")),
        rulings=[_ruling(claim) for claim in answer.claims],
        summary=[figure(result, command) for result in first],
        sections=sections,
        contents=[(case, list(members)) for case, members in groupby(sections, lambda section: section.case)],
        style=_source("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _source(name: str) -> str:
    return (files("passband.reports") / name).read_text(encoding="utf-8")


def _lines(value: Any) -> list[str]:
    return [plain(line) for line in value] if isinstance(value, list | tuple) else [plain(value)] if value else []


def _parted(answer: Answer) -> tuple[list[Result], list[Result]]:
    """Part the tables that sum the answer up from the rest.

    They are the tables that belong to no case, in an answer that has claims or cases.
    """
    if not answer.claims and not any("/" in result.name for result in answer.results):
        return [], list(answer.results)
    first: list[Result] = []
    rest: list[Result] = []
    for result in answer.results:
        sums_up = isinstance(result, Table) and "/" not in result.name
        (first if sums_up else rest).append(result)
    return first, rest


def _sections(results: Sequence[Result], command: str) -> Iterator[Section]:
    """Group figures by case, then by probe, each in the order of its first appearance."""
    groups: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        case, _, name = result.name.rpartition("/")
        groups.setdefault(case, {}).setdefault(name.partition(".")[0], []).append(result)
    for case, probes in groups.items():
        for probe, members in probes.items():
            place = anchor("section", f"{case}/{probe}")
            yield Section(case, probe, place, tuple(figure(result, command) for result in members))


def _overlaid(results: Sequence[Result], command: str) -> Iterator[Section]:
    if drawings := overlays(results):
        figures = tuple(figure(drawing, command, "overlay") for drawing in drawings)
        yield Section("", "Side by side", "side-by-side", figures)


def _ruling(claim: Judged) -> Ruling:
    seeds = f"{claim.seeds} seed" + ("" if claim.seeds == 1 else "s")
    return Ruling(
        claim=claim,
        margin=quantity(claim.margin, claim.unit, signed=True),
        interval=interval(claim.low, claim.high, claim.unit, signed=True),
        smallest=quantity(claim.smallest, claim.unit) if claim.smallest else "",
        seeds="" if claim.interval == "exact" or str(claim.seeds) in claim.interval.split() else seeds,
    )
