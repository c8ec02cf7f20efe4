"""Keep experiments' answers under ``docs/results`` and write their pages.

``python docs/answers.py keep FOLDER ...`` takes the answers of ``passband reproduce`` (their tables, curves, maps and a
few pictures, without what they hold per image); ``python docs/answers.py`` writes the pages again from what is kept.
A test fails when a page and its JSON disagree, and when a claim that does not hold has no remark.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image

from passband.core.answer import Answer
from passband.core.claims import Judged
from passband.core.results import Cell, Column, Curve, Gallery, Map, Picture, Result, Scalar, Table, row_dicts
from passband.core.store import write_atomic
from passband.reports.drawing import drawing
from passband.reports.heatmap import reduced
from passband.reports.text import column, interval, label, number, quantity

RESULTS = Path(__file__).parent / "results"
PICTURES, LARGE = 12, 2
"""Most pictures of a gallery that are kept, and most where they are photographs."""
WIDEST = 440
"""Pixels to which a wider picture is brought; the command makes the whole one again."""


def keep(folder: Path) -> None:
    """Copy an answer's numbers, curves, small maps and first pictures to ``docs/results/PAPER/NAME``."""
    answer = Answer.load(folder)
    if answer.head["scale"] == "smoke":
        raise SystemExit(f"{folder} was measured at smoke scale, which judges nothing; give one of small or full scale")
    thinned = [_thinned(result) for result in answer.results]
    Answer(answer.head, thinned, answer.claims).save(RESULTS / answer.head["experiment"])


def _thinned(result: Result) -> Result:
    if isinstance(result, Map):
        return reduced(result).model_copy(update={"arrays": {}})
    if isinstance(result, Gallery):
        large = any(picture.image.shape[1] > WIDEST for picture in result.pictures)
        shown = result.pictures[: LARGE if large else PICTURES]
        return result.model_copy(update={"arrays": {}, "pictures": tuple(map(_narrowed, shown))})
    return result.model_copy(update={"arrays": {}})


def _narrowed(picture: Picture) -> Picture:
    height, width = picture.image.shape[:2]
    if width <= WIDEST:
        return picture
    small = Image.fromarray(picture.image).resize((WIDEST, round(height * WIDEST / width)), Image.Resampling.BOX)
    return picture.model_copy(update={"image": np.asarray(small)})


def kept() -> list[str]:
    """Return the names of the experiments whose answers are kept."""
    return sorted(path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.glob("*/*/results.json"))


def written() -> dict[Path, str]:
    """Return every page and drawing that the kept answers make, by where it lies."""
    files: dict[Path, str] = {}
    papers: dict[str, list[Answer]] = {}
    for name in kept():
        answer = Answer.load(RESULTS / name)
        papers.setdefault(name.partition("/")[0], []).append(answer)
        files |= _page(answer, RESULTS / name)
    for paper, answers in papers.items():
        files[RESULTS / paper / "README.md"] = _index(paper, answers)
    return files


def remarks(paper: str) -> dict[str, dict[str, str]]:
    """Return what was found about claims that do not hold, by experiment and by claim."""
    path = RESULTS / paper / "remarks.json"
    found: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _page(answer: Answer, folder: Path) -> dict[Path, str]:
    files: dict[Path, str] = {}
    head = answer.head
    paper, _, name = head["experiment"].partition("/")
    lines = [f"# {head['title']}", "", f"{head['source']}; scale {head['scale']}; `{head['command']}`."]
    lines += [f"{head['hardware']}, torch {head['versions']['torch']}.", ""]
    lines += claims_table(answer.claims, remarks(paper).get(name, {}))
    for result in answer.results:
        lines += ["", f"## {result.title}", ""]
        if isinstance(result, Curve | Map):
            path = folder / "figures" / f"{_file(result.name)}.svg"
            files[path] = drawing(result) + "\n"
            lines.append(f"![{result.title}](figures/{path.name})")
        else:
            lines += _shown(result, folder)
        lines += ["", *(f"{note}  " for note in result.notes)] if result.notes else []
    files[folder / "README.md"] = "\n".join(lines).rstrip() + "\n"
    return files


def _shown(result: Table | Scalar | Gallery, folder: Path) -> list[str]:
    if isinstance(result, Table):
        return _table(result)
    if isinstance(result, Scalar):
        ends = interval(result.low, result.high, result.unit)
        return [f"**{quantity(result.value, result.unit)}**" + (f" [{ends}]" if ends else "")]
    stored = json.loads((folder / "results.json").read_text())["results"]
    pictures = next(one["pictures"] for one in stored if one["name"] == result.name)
    return [f'<img src="{one["image"]["file"]}" width="{_width(one)}" alt="{one["caption"]}">' for one in pictures]


def _width(picture: dict[str, Any]) -> int:
    """Return how wide a picture is shown, in pixels, so that its height is 96."""
    height, width = picture["image"]["shape"][:2]
    return round(96 * width / height)


def _table(table: Table) -> list[str]:
    """Return a table's rows; an experiment's are put together over its seeds."""
    names = [c.name for c in table.columns]
    if table.name == "table" and len({row[names.index("seed")] for row in table.rows}) > 1:
        columns, rows = _over_seeds(table)
    else:
        columns = list(table.columns)
        cells = [column(values, c.unit) for c, values in zip(columns, zip(*table.rows, strict=True), strict=True)]
        rows = [list(row) for row in zip(*cells, strict=True)]
    return [
        "| " + " | ".join(label(c.name, c.unit) for c in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _over_seeds(table: Table) -> tuple[list[Column], list[list[str]]]:
    """Return the columns and, for each case and set, means ± standard deviations over seeds; runs are left out."""
    names = [c.name for c in table.columns]
    groups: dict[tuple[Cell, Cell], list[tuple[Cell, ...]]] = {}
    for row in table.rows:
        groups.setdefault((row[0], row[1]), []).append(row)
    chosen = [index for index, name in enumerate(names) if name not in ("seed", "run")]
    rows = []
    for found in groups.values():
        cells = [_spread([row[index] for row in found], table.columns[index].unit) for index in chosen]
        rows.append([*cells[:2], str(len(found)), *cells[2:]])
    columns = [table.columns[index] for index in chosen]
    return [*columns[:2], Column(name="n"), *columns[2:]], rows


def _spread(cells: list[Cell], unit: str) -> str:
    """Write cells of several seeds as one: what they share, or their mean ± standard deviation."""
    if len(set(cells)) == 1:
        return column(cells[:1], unit)[0]
    numbers = [float(cell) for cell in cells if isinstance(cell, int | float)]
    if len(numbers) < len(cells):
        return "differs"
    middle, spread = column([mean(numbers), stdev(numbers)], unit)
    return f"{middle} ± {spread}"


def claims_table(claims: tuple[Judged, ...], said: dict[str, str]) -> list[str]:
    """Return the claims with verdict and margin, and below them what was found where one does not hold."""
    lines = ["| the paper says | where, on what | margin | verdict |", "|---|---|---|---|"]
    for claim in claims:
        ends = "" if claim.low is None or claim.high is None else f" [{_ends(claim)}]"
        lines.append(
            f"| {claim.sentence} | {claim.place} | {_margin(claim)}{ends}; {claim.interval} | {verdict(claim)} |"
        )
    found = [f"- *{name}*: {text}" for name, text in said.items()]
    return [*lines, "", *found] if found else lines


def verdict(claim: Judged) -> str:
    """Return a verdict, bold where the claim fails."""
    return f"**{claim.verdict}**" if claim.verdict == "fails" else claim.verdict


def _margin(claim: Judged) -> str:
    return "–" if claim.margin is None else f"{number(claim.margin, signed=True)} {claim.unit}"


def _ends(claim: Judged) -> str:
    assert claim.low is not None and claim.high is not None
    return ", ".join(number(end, signed=True) for end in (claim.low, claim.high))


def _index(paper: str, answers: list[Answer]) -> str:
    lines = [
        f"# {paper}, measured again",
        "",
        "Written by `python docs/answers.py` from the JSON beside it. One page a table or figure.",
        "",
        "| experiment | in the paper | scale | data | holds | fails | undecided |",
        "|---|---|---|---|---|---|---|",
    ]
    for answer in answers:
        head, name = answer.head, answer.head["experiment"].partition("/")[2]
        counts = [sum(claim.verdict == kind for claim in answer.claims) for kind in ("holds", "fails", "undecided")]
        source = head["source"].partition(", ")[2]
        lines.append(
            f"| [{name}]({name}/README.md) | {source} | {head['scale']} | {_sets(answer)} | "
            + " | ".join(str(count or "") for count in counts)
            + " |"
        )
    return "\n".join(lines) + "\n"


def _sets(answer: Answer) -> str:
    table = answer["table"]
    assert isinstance(table, Table)
    rows = [row for row in row_dicts(table) if row.get("data") and not row.get("note")]
    return ", ".join(dict.fromkeys(str(row["data"]) for row in rows)) or "none"


def _file(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


def main(arguments: list[str]) -> None:
    """Keep the folders that are named, and write all pages."""
    if arguments:
        if arguments[0] != "keep":
            raise SystemExit(f"give `keep FOLDER ...` or nothing; got {arguments[0]}")
        for folder in arguments[1:]:
            keep(Path(folder))
    files = written()
    for old in RESULTS.glob("*/*/figures/*.svg"):
        if old not in files:
            old.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
