"""Write the pages' tables from the stored JSON: ``python docs/tables.py``. A test fails when they disagree.

``python docs/tables.py harden FOLDER ...`` first keeps the frontiers of ``passband harden`` in ``results/harden.json``.

The JSON is what these commands answered: ``passband reproduce spatial-mixing/resnet-depth --scale small`` (kept by
``docs/answers.py``) and ``python -m benchmarks.NAME --json docs/results/NAME.json`` for separable, attacks,
carlini_wagner, convmixer, mixers, bands, loading and spartan. ``results/plan.json`` is what ``docs/plan.py`` counted.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def results_table() -> str:
    """Return accuracy by data and by what learns, over the seeds that were measured, with the claims' verdicts."""
    document = json.loads((RESULTS / "spatial-mixing" / "resnet-depth" / "results.json").read_text())
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


def mixers_table() -> str:
    """Return what learns, what is frozen and what a step costs, model by model."""
    entries: list[dict[str, Any]] = json.loads((RESULTS / "mixers.json").read_text())
    lines = [
        "| model | spatial mixer | learns | parameters learned | frozen | a step (ms) "
        "| all learned / this, median [min, max] |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(entry["model"] for entry in entries):
        rows = [entry for entry in entries if entry["model"] == model]
        total = sum(sum(counts) for counts in rows[0]["roles"].values())
        everything = f"{1000 * rows[0]['theirs']:.0f}"
        lines.append(f"| {model} | {rows[0]['mixer']} | all | {total:,} | | {everything} | 1 |")
        for row in rows:
            learned = sum(learned for learned, _ in row["roles"].values())
            frozen = ", ".join(f"{role} {count:,}" for role, (_, count) in row["roles"].items() if count)
            speed = f"{1000 * row['ours']:.0f} | {_spread_of(row['ratio'])}"
            lines.append(f"| | | {row['learn']} | {learned:,} | {frozen} | {speed} |")
    return "\n".join([*lines, "", _made(entries), f"Images of {entries[0]['note'].rpartition(', ')[0]}."])


def convmixer_table() -> str:
    """Return each comparison of ConvMixer steps with its range and, where it has one, its target."""
    return _comparisons("convmixer.json")


def bands_table() -> str:
    """Return each comparison of splitting images into bands."""
    return _comparisons("bands.json")


def loading_table() -> str:
    """Return each comparison of an epoch's loading."""
    return _comparisons("loading.json")


def spartan_table() -> str:
    """Return each comparison of SpaRTAN with a plain module of the same network."""
    return _comparisons("spartan.json")


def streaming_table() -> str:
    """Return the readers' speed against timm's, and what they hold."""
    entries: list[dict[str, Any]] = json.loads((RESULTS / "streaming.json").read_text())
    note = entries[-1]["note"]
    return f"{_comparisons('streaming.json')}\n\n{note[0].upper()}{note[1:]}."


def trials_table() -> str:
    """Return how many kills fell where, and what differed."""
    found: list[dict[str, Any]] = json.loads((RESULTS / "trials.json").read_text())
    lines = ["| command | trials | kills | torn writes | where they fell | what differed |"]
    lines += ["|---|---|---|---|---|---|"]
    for one in found:
        places = ", ".join(f"{place} {count}" for place, count in one["places"].items())
        differed = "; ".join(one["differences"]) or "nothing"
        lines.append(f"| {one['name']} | {one['trials']} | {one['kills']} | {one['torn']} | {places} | {differed} |")
    return "\n".join(lines)


def fuzz_table() -> str:
    """Return how many cases each target of the fuzzing had, and what came of them."""
    found: dict[str, Any] = json.loads((RESULTS / "fuzz.json").read_text())
    lines = ["| target | cases | worked | refused | crashed |", "|---|---|---|---|---|"]
    for one in found["targets"]:
        numbers = " | ".join(f"{one[name]:,}" for name in ("cases", "worked", "refused"))
        lines.append(f"| {one['name']} | {numbers} | {len(one['crashes'])} |")
    seconds = sum(one["seconds"] for one in found["targets"])
    lines += ["", f"{found['cases']:,} cases, seed {found['seed']}, {seconds / 60:.0f} minutes on one core."]
    return "\n".join(lines)


def benchmark_table() -> str:
    """Return each comparison of separable steps with its range and, where it has one, its target."""
    return _comparisons("separable.json")


def _comparisons(name: str) -> str:
    entries: list[dict[str, Any]] = json.loads((RESULTS / name).read_text())
    lines = ["| comparison | theirs / ours, median [min, max] | target | |", "|---|---|---|---|"]
    for entry in entries:
        target, ratio = entry["target"], entry["ratio"]
        reached = "" if target is None else "reached" if ratio["median"] >= target else "missed"
        aim = "" if target is None else f"≥ {target:.2f}"
        batch = entry["note"].rpartition(", ")[2]
        name = entry["name"] + (f" ({batch})" if "bf16" in entry["name"] else "")
        lines.append(f"| {name} | {_spread_of(ratio)} | {aim} | {reached} |")
    return "\n".join([*lines, "", _made(entries)])


def _spread_of(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"


def _made(entries: list[dict[str, Any]]) -> str:
    timed = [entry for entry in entries if entry["unit"] == "s"]
    first, rounds = entries[-1], [entry["rounds"] for entry in timed or entries]
    word = "round" if set(rounds) == {1} else "rounds"
    return f"{first['processor']}, torch {first['versions']['torch']}, {_range(rounds)} {word}."


def speed_table() -> str:
    """Return each comparison of attacks with its ratio, its target, and who stands under ours and under theirs."""
    entries: list[dict[str, Any]] = json.loads((RESULTS / "attacks.json").read_text())
    lines = [
        "| comparison | theirs / ours, median [min, max] | target | | images/s, ours (theirs) | stand, ours (theirs) |",
        "|---|---|---|---|---|---|",
    ]
    for entry in entries:
        ratio, target = entry["ratio"], entry["target"]
        spread = f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
        reached = "" if target is None else "reached" if ratio["median"] >= target else "missed"
        aim = "" if target is None else f"≥ {target:.1f}"
        speed, standing = entry["images per second"], entry["standing"]
        numbers = f"{speed['ours']:.0f} ({speed['theirs']:.0f})"
        stand = f"{_range(standing['ours'])} ({_range(standing['theirs'])}) of {standing['of']}"
        lines.append(f"| {entry['name']} | {spread} | {aim} | {reached} | {numbers} | {stand} |")
    first = entries[0]
    rounds = sorted({entry["rounds"] for entry in entries})
    lines += ["", f"{first['processor']}, torch {first['versions']['torch']}, {_range(rounds)} rounds."]
    return "\n".join(lines)


def cw_table() -> str:
    """Return what CW breaks, and how near, by its options."""
    entries: list[dict[str, Any]] = json.loads((RESULTS / "carlini_wagner.json").read_text())
    lines = ["| CW, c = 1 | broken | of | | median L2 of the broken |", "|---|---|---|---|---|"]
    for entry in entries:
        share = f"{100 * entry['broken'] / entry['of']:.1f}%"
        lines.append(f"| {entry['name']} | {entry['broken']} | {entry['of']} | {share} | {entry['l2']:.3f} |")
    return "\n".join(lines)


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def harden_tables() -> str:
    """Return the frontier of each model that was hardened, the command that made it, and what it says of itself."""
    lines = []
    for entry in json.loads((RESULTS / "harden.json").read_text()):
        table, head = entry["table"], entry["head"]
        names = [column["name"] for column in table["columns"]]
        lines += [f"`{head['command']}`", "", "| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        units = [column["unit"] for column in table["columns"]]
        for row in table["rows"]:
            lines.append("| " + " | ".join(_cell(cell, unit) for cell, unit in zip(row, units, strict=True)) + " |")
        made = f"{entry['hardware']}, torch {entry['versions']['torch']}."
        lines += ["", f"{head['model']}; {head['images']:,} images. {' '.join(table['notes'])} {made}", ""]
    return "\n".join(lines).rstrip()


def _cell(cell: Any, unit: str) -> str:
    if cell is None:
        return ""
    return f"{100 * cell:.1f}%" if unit == "fraction" else f"{cell:g}" if isinstance(cell, int | float) else str(cell)


def keep_harden(folders: list[str]) -> None:
    """Take the frontiers of ``passband harden`` out of its answers' folders."""
    kept = []
    for folder in folders:
        document = json.loads((Path(folder) / "results.json").read_text())
        table = next(one for one in document["results"] if one["name"] == "harden.frontier")
        shown = {key: table[key] for key in ("title", "columns", "rows", "notes")}
        head = {key: document["head"][key] for key in ("command", "model", "data", "images")}
        kept.append({"head": head, "table": shown} | {key: table["how"][key] for key in ("hardware", "versions")})
    (RESULTS / "harden.json").write_text(json.dumps(kept, indent=1) + "\n")


GPU, CPU = 20.0, 0.25
"""Teraflops that are assumed of a GPU, and those that two CPU cores were measured at, on dense convolutions."""


def plan_table(teraflops: float = GPU) -> str:
    """Return what every table of the papers costs at full scale, by a GPU's assumed rate, and all of them together."""
    document = json.loads((RESULTS / "plan.json").read_text())
    rows: list[dict[str, Any]] = document["rows"]
    sums = ("cases", "new", "images", "flops", "disk")
    rows.append({"experiment": "**all**", "shared": 0, "memory": max(row["memory"] for row in rows)})
    rows[-1] |= {name: sum(row[name] for row in rows[:-1]) for name in sums}
    rows[-1]["alone"] = rows[-1]["flops"]
    lines = [
        f"| table or figure | cases | trainings (+ shared) | images learned from (10⁶) | PFLOP | images/s at "
        f"{teraflops:g} TFLOP/s | GPU-hours | GPU-hours alone | days of two CPU cores | runs on disk (GB) | largest "
        "decoded set (GB) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shared = f" + {row['shared']}" if row["shared"] else ""
        seconds = row["flops"] / (1e12 * teraflops)
        cells = [
            row["images"] / 1e6, row["flops"] / 1e15, row["images"] / seconds if seconds else 0, seconds / 3600,
            row["alone"] / (1e12 * teraflops) / 3600, row["flops"] / (1e12 * CPU) / 86400, row["disk"] / 1e9,
            row["memory"] / 1e9,
        ]  # fmt: skip
        numbers = " | ".join(_planned(cell) for cell in cells)
        lines.append(f"| {row['experiment']} | {row['cases']:,} | {row['new']:,}{shared} | {numbers} |")
    return "\n".join([*lines, "", _plan_note(teraflops, document["equal_seconds"])])


def _planned(cell: float) -> str:
    """Write two digits; nothing of what costs nothing."""
    if not cell:
        return ""
    return f"{cell:,.0f}" if cell >= 10 else f"{cell:.1f}" if cell >= 1 else f"{cell:.1g}"


def _plan_note(teraflops: float, equal_seconds: float) -> str:
    return (
        "A plan, computed by `python docs/plan.py` from the recipes and not measured. An image costs the FLOPs of its "
        "network's forward pass (2 for a multiply-add) times the passes of its recipe: 3 to learn from it, 2 for each "
        f"step of an attack. {teraflops:g} TFLOP/s is an assumption: nothing was timed on a GPU, and small networks "
        f"reach less; {CPU:g} TFLOP/s is what two CPU cores reach at most, on dense convolutions in float32: whole "
        "trainings of the small networks of small scale reached 0.001 to 0.06, counted in the same way, on a machine "
        "that did other work too, so that the days are a lower bound. Not counted: "
        "probes, the log's look at the test images after each epoch, reading and augmenting, and all that is no "
        "convolution or matrix product; parts that stay frozen are counted as if they learned. A training that "
        "an experiment further up has is shared; *alone* counts it again, for who makes this table only. Without "
        "trainings a table is counted or timed, and the column is empty. On disk: weights, the checkpoint, kept epochs "
        "where an experiment keeps them, no answers of probes. Decoded: the training images of one training at their "
        "final size, a file of the cache folder that is mapped into memory; scenes and streams are read when needed. "
        "The epochs of the control of equal seconds in "
        f"`convmixer-depth` follow from a step's seconds; here a step of everything takes {equal_seconds:g} times "
        "that of channels alone."
    )


PAGES = {
    "README.md": {"results": results_table, "benchmark": benchmark_table},
    "docs/mixing.md": {"mixers": mixers_table, "convmixer": convmixer_table},
    "docs/attacks.md": {"cw": cw_table, "speed": speed_table},
    "docs/hardening.md": {"harden": harden_tables},
    "docs/spartan.md": {"speed": spartan_table},
    "docs/frequency.md": {"bands": bands_table, "loading": loading_table},
    "docs/scaling.md": {"plan": plan_table, "streaming": streaming_table},
    "docs/reliability.md": {"trials": trials_table, "fuzz": fuzz_table},
}
"""Each page's tables, by their marks."""


def written(page: str) -> str:
    """Return a page with its tables put between their marks."""
    text = (ROOT / page).read_text()
    for mark, table in PAGES[page].items():
        block = f"<!-- {mark} -->\n{table()}\n<!-- /{mark} -->"
        text = re.sub(rf"<!-- {mark} -->.*?<!-- /{mark} -->", lambda _, block=block: block, text, flags=re.DOTALL)
    return text


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    if sys.argv[1:2] == ["harden"]:
        keep_harden(sys.argv[2:])
    for page in PAGES:
        (ROOT / page).write_text(written(page))
