"""Write the README's tables from the stored JSON: ``python docs/tables.py``. A test fails when they disagree.

The JSON is what two commands answered: ``passband reproduce spatial-mixing/resnet-depth --scale small`` (its
``results.json``) and ``python -m benchmarks.separable --json docs/results/separable.json``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def results_table() -> str:
    """Return accuracy by data and by what learns, over the seeds that were measured, with the claims' verdicts."""
    document = json.loads((RESULTS / "resnet-depth-small" / "results.json").read_text())
    table = document["results"][0]
    columns = [column["name"] for column in table["columns"]]
    rows = [dict(zip(columns, row, strict=True)) for row in table["rows"]]
    lines = [
        "| data | learns | accuracy (%) | LFC, r ≤ 8 (%) | HFC, r > 8 (%) | parameters learned | seeds | epochs "
        "| seconds a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data, case in dict.fromkeys((row["data"], row["case"]) for row in rows):
        found = [row for row in rows if (row["data"], row["case"]) == (data, case) and row["accuracy"] is not None]
        numbers = [_spread([row[column] for row in found]) for column in ("accuracy", "LFC 8", "HFC 8")]
        about = f"{found[0]['learned']:,} | {len(found)} | {found[0]['epochs']}"
        seconds = round(median(row["seconds"] for row in found))
        lines.append(f"| {data} | {case.partition(',')[0]} | {' | '.join(numbers)} | {about} | {seconds} |")
    lines += ["", "| claim of the paper | judged on | margin (points) | verdict |", "|---|---|---|---|"]
    for claim in document["claims"]:
        place, _, data = claim["place"].rpartition(", on ")
        ends = "" if claim["low"] is None else f" [{claim['low']:+.1f}, {claim['high']:+.1f}]"
        margin = "–" if claim["margin"] is None else f"{claim['margin']:+.1f}{ends}"
        lines.append(f"| {claim['sentence']} ({place}) | {data} | {margin} | {claim['verdict']} |")
    head = document["head"]
    command = f"`passband reproduce {head['experiment']} --scale {head['scale']}`"
    made = f"{head['hardware']}, torch {head['versions']['torch']}"
    lines += ["", f"Mean ± standard deviation over seeds; {command}, {made}."]
    lines.append("Seconds are the median run's, training alone, on a machine that did other work beside it.")
    return "\n".join(lines)


def benchmark_table() -> str:
    """Return each comparison's median ratio with its range and its target."""
    entries: list[dict[str, Any]] = json.loads((RESULTS / "separable.json").read_text())
    lines = ["| comparison | theirs / ours, median [min, max] | target | |", "|---|---|---|---|"]
    for entry in entries:
        ratio, target = entry["ratio"], entry["target"]
        reached = "reached" if ratio["median"] >= target else "missed"
        spread = f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
        lines.append(f"| {entry['name']} | {spread} | ≥ {target:.2f} | {reached} |")
    first = entries[-1]
    lines += ["", f"{first['processor']}, torch {first['versions']['torch']}, {first['rounds']} rounds."]
    return "\n".join(lines)


def written(readme: str) -> str:
    """Return the README with both tables put between their marks."""
    for mark, table in (("results", results_table()), ("benchmark", benchmark_table())):
        block = f"<!-- {mark} -->\n{table}\n<!-- /{mark} -->"
        readme = re.sub(rf"<!-- {mark} -->.*?<!-- /{mark} -->", lambda _, block=block: block, readme, flags=re.DOTALL)
    return readme


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(written(path.read_text()))
