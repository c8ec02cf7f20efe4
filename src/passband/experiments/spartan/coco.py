"""RT-DETR on SpaRTAN and on ResNets: what it costs, and what it finds.

Counted rows are table III's, at 640 pixels, made here without data or weights, with the neck (encoder and decoder) that
each could have: the paper says "the exact training setup" of RT-DETR, and its numbers for SpaRTAN come near only with
the neck of RT-DETR-R50 (expansion 1.0, six decoder layers), where its ResNets have necks of their own (0.5, three or
four layers). So its comparison is between different detectors, which the rows with RT-DETR-R18's neck show. FLOPs are
torch's, two for a product and its sum, of a detector in evaluation; parameters are all that learn.

Trained rows at small scale: two detectors that learn **32 photographs of coco128 by heart** and are asked about these
32, to show that the whole path learns (``experiments/detectors.py``); the table's claims about accuracy are judged at
full scale alone. At full scale COCO, 70 and 72 epochs.

**Source**: spartan, section IV-B and table III.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Table, row_dicts
from passband.core.scale import Scale
from passband.experiments import detectors
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import exactly
from passband.models.detectors import create_detector
from passband.sweeps.lab import Lab

SIZE = 640
"""Side of the images that detectors are counted at."""

COUNTED: dict[str, tuple[str, str, float | None, float | None]] = {
    "RT-DETR, ResNet-18": ("r18vd", "r18", 20.2, 61.2),
    "RT-DETR, ResNet-34": ("r34vd", "r34", 31.4, 93.3),
    "RT-DETR, SpaRTAN-XT": ("spartan_xt", "r50", 20.0, 72.8),
    "RT-DETR, SpaRTAN-T": ("spartan_t", "r50", 21.5, 75.9),
    "RT-DETR, SpaRTAN-XT, neck of R18": ("spartan_xt", "r18", None, None),
    "RT-DETR, SpaRTAN-T, neck of R18": ("spartan_t", "r18", None, None),
    "RT-DETR, ResNet-50": ("r50vd", "r50", None, None),
}
"""Rows that are counted: backbone, neck, and the paper's parameters (M) and FLOPs (G), where its table has the row."""

ACCURACY: dict[str, tuple[float, ...]] = {
    "ResNet-18": (46.4, 63.7, 50.3, 28.4, 49.7, 63.0),
    "ResNet-34": (48.8, 66.7, 52.6, 30.5, 52.2, 66.0),
    "SpaRTAN-XT": (48.5, 66.1, 52.6, 30.1, 51.9, 66.0),
    "SpaRTAN-T": (50.0, 68.1, 54.0, 32.7, 53.8, 68.0),
}
"""The paper's average precisions, in the order of `NUMBERS`."""

NUMBERS = ("AP", "AP50", "AP75", "small", "medium", "large")
_WHOLE = {"radii": (128,), "centered": False, "examples": 0}
"""The probe that keeps what intervals need wants a cut, and one costs least."""

PHOTOGRAPHS = "images"
"""What scores belong to."""


def cases(scale: Scale) -> list[Case]:
    """List the rows of the table, counted, and the detectors that are trained."""
    counts: list[Case] = [{"case": name, "data": None, "seed": None} for name in COUNTED]
    return [*counts, *detectors.trainings(scale)]


def measure(case: Case, lab: Lab) -> Measured:
    """Count one detector, or train it and ask it."""
    if case["data"] is None:
        return Measured({**_counted(*COUNTED[case["case"]][:2]), "input": SIZE})
    recipe = detectors.training(
        lab.scale, detectors.BACKBONES[lab.scale][case["case"]], data=case["data"], seed=case["seed"]
    )
    run = lab.train(recipe)
    full = lab.scale is Scale.FULL
    asked, scenes = lab.detector(run), lab.scenes(run, "test" if full else "train")
    draws = 0 if lab.scale is Scale.SMOKE else 1000
    results = lab.detect(asked, scenes, _WHOLE | {"draws": draws}, run=run)
    table = results["detection.precision"]
    assert isinstance(table, Table)
    line = next(line for line in row_dicts(table) if line["images"] == "original")
    row: dict[str, Cell] = {name: _percent(line[name]) for name in NUMBERS}
    row |= {
        "parameters": sum(parameter.numel() for parameter in asked.model.parameters()) / 1e6,
        "neck": recipe.model.arguments.get("neck", "r50"), "input": recipe.data.size,
        "epochs": run.metrics["epochs"], "run": run.digest,
        "images": f"{len(scenes)}, {'unseen' if full else 'those that it learned'}",
    }  # fmt: skip
    redrawn = {"AP": 100 * table.arrays["original.redrawn"]} if draws else {}
    return Measured(row, redrawn=redrawn, drawn_from={"AP": PHOTOGRAPHS})


def _percent(number: Cell) -> float | None:
    return None if number is None else 100 * float(number)


@cache
def _counted(backbone: str, neck: str) -> dict[str, Cell]:
    """Count a detector on no device: what is counted depends on shapes alone."""
    with torch.random.fork_rng():
        inner: Any = create_detector(f"rtdetr:{backbone}", neck=neck).inner
    inner = inner.eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inner(torch.empty(1, 3, SIZE, SIZE, device="meta"))
    parameters = sum(parameter.numel() for parameter in inner.parameters())
    return {"parameters": parameters / 1e6, "FLOPs": counter.get_total_flops() / 1e9, "neck": neck}


_TABLE = "spartan, section IV-B, table III"


def _reported(case: str, column: str, number: float) -> Claim:
    unit = "M" if column == "parameters" else "G"

    def margin(rows: Rows) -> float | None:
        found = value(rows, case, column)
        return None if found is None else 0.0 - float(round(found, 1) != number)

    return exactly(
        f"{case}, {column}", f"{case}: {number} {unit} {column} (margin: -1 where the first decimal differs).", _TABLE,
        margin,
    )  # fmt: skip


def _more(name: str, sentence: str, better: str, worse: str, least: float = 0.0, **settings: Any) -> Claim:
    def margin(rows: Rows) -> float | None:
        found = difference(rows, better, worse, "AP")
        return None if found is None else found - least

    return Claim(name, sentence, _TABLE, margin, smallest=0.3, drawn=PHOTOGRAPHS, **settings)


def _claims() -> tuple[Claim, ...]:
    full: dict[str, Any] = {"judged_from": Scale.FULL}
    counted = [
        _reported(case, column, number)
        for case, (_, _, parameters, flops) in COUNTED.items()
        for column, number in (("parameters", parameters), ("FLOPs", flops))
        if number is not None
    ]
    fewer = exactly(
        "SpaRTAN-T has 10 M fewer than ResNet-34",
        "SpaRTAN-T is much more efficient than the ResNet-34 RT-DETR variant, using 10M less parameters (the paper's "
        "table: 9.9; margin: millions fewer, less 9.5).", _TABLE, _ten_fewer, unit="M",
    )  # fmt: skip
    surpassing = [
        exactly(
            f"SpaRTAN-T costs less than {peer}",
            "SpaRTAN shows a great performance gain, surpassing ResNet-18 and ResNet-34 by 3.6% and 1.1% respectively "
            f"with reduced parameter space and processing cost (here: {peer}; margin: the smaller share saved, of "
            "parameters and of FLOPs).", "spartan, section I, and table III", partial(_saved, peer=f"RT-DETR, {peer}"),
            unit="%",
        )
        for peer in ("ResNet-18", "ResNet-34")
    ]  # fmt: skip
    cheaper = exactly(
        "SpaRTAN-XT costs less than ResNet-18, one neck",
        "Control, not in the paper: with RT-DETR-R18's neck SpaRTAN-XT takes fewer FLOPs than ResNet-18.",
        _TABLE, lambda rows: difference(rows, "RT-DETR, ResNet-18", "RT-DETR, SpaRTAN-XT, neck of R18", "FLOPs"),
        unit="G",
    )  # fmt: skip
    return (
        *counted,
        fewer,
        *surpassing,
        cheaper,
        _more("SpaRTAN-XT over ResNet-18", "SpaRTAN-XT outperforms the ResNet-18 RT-DETR variant.", "SpaRTAN-XT",
              "ResNet-18", **full),
        _more("SpaRTAN-T over ResNet-34", "SpaRTAN-T outperforms the ResNet-34 RT-DETR variant by 1.2%.", "SpaRTAN-T",
              "ResNet-34", **full),
        _more("SpaRTAN-T over SpaRTAN-XT", "The increase in 1.5M parameters results in a 1.5% performance boost.",
              "SpaRTAN-T", "SpaRTAN-XT", **full),
        *(_learns(name) for name in ("SpaRTAN-XT", "ResNet-18")),
    )  # fmt: skip


def _ten_fewer(rows: Rows) -> float | None:
    found = difference(rows, "RT-DETR, ResNet-34", "RT-DETR, SpaRTAN-T", "parameters")
    return None if found is None else found - 9.5


def _saved(rows: Rows, peer: str) -> float | None:
    shares = []
    for column in ("parameters", "FLOPs"):
        theirs, less = value(rows, peer, column), difference(rows, peer, "RT-DETR, SpaRTAN-T", column)
        if theirs is None or less is None:
            return None
        shares.append(100 * less / theirs)
    return min(shares)


def _learns(case: str) -> Claim:
    def margin(rows: Rows) -> float | None:
        found = value(rows, case, "AP50")
        own = any("learned" in str(row.get("images")) for row in rows if row["case"] == case)
        return found - 50 if own and found is not None else None

    return Claim(
        f"{case} learns by heart", f"Control, not in the paper: RT-DETR on {case} learns its photographs, to an AP50 "
        "above 50% on them.", "the whole path of training", margin, exact=True,
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="RT-DETR on SpaRTAN and on ResNets",
    source="spartan, table III",
    columns=(
        Column(name="parameters", unit="M"), Column(name="FLOPs", unit="G"),
        *(Column(name=name, unit="%") for name in NUMBERS),
        *(Column(name=name) for name in ("neck", "input", "epochs", "images", "run")),
    ),
    cases=cases,
    measure=measure,
    claims=_claims(),
    reported={
        name: {"parameters": parameters, "FLOPs": flops}
        for name, (_, _, parameters, flops) in COUNTED.items() if parameters is not None and flops is not None
    } | {f"{name}, coco": dict(zip(NUMBERS, numbers, strict=True)) for name, numbers in ACCURACY.items()},
)  # fmt: skip
