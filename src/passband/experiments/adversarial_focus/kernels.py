"""Kernels of natural and of adversarially trained models: as pictures, and their spectra as the paper flattens them.

The paper shows the 16 kernels of the first convolution, and frequency maps of "the first convolution weight of each
layer": here the stem and the first convolution of each of the three stages. A map is the DFT of each output channel's
weights in a row, ``[out, in · k · k]``, not shifted, so that low frequencies lie at both ends. Its numbers, means over
output channels:

- ``flat low``: the share of the energy at or below a quarter of a cycle per weight, the lower half of the
  frequencies. Independent random weights have about half of their energy there.

The order in a row mixes channels, rows and columns: a smooth kernel on many unlike channels is not smooth in a row. So
two controls measure the kernels in the plane, means over input channels:

- ``smoothness``: 100% for a constant kernel, 0 on average for independent random weights, -100% for a checkerboard;
  of the stem it is also what figure 3 claims.
- ``plane low``: the share of the energy below 0.25 cycles/pixel in all directions; 19.6% for random weights.

``alike`` is figure 3's "similar distribution in three channels": the correlation of a kernel's slices, mean over the
three pairs of channels. On gray images there is nothing to be alike: the stem's kernels are summed over the three equal
channels, for its numbers and its pictures, and ``alike`` is left out.

Intervals at one seed come from drawing kernels anew, the same places in both models, layer by layer; both models of a
seed began with the same kernels. They speak of these models, not of other trainings.

**Source**: adversarial-focus, section 3.1.2, figures 3 and 4.
**Differs**: the paper compares pictures by eye; the numbers are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.adversarial_focus.settings import COLOR, SEEDS, trained_run, training
from passband.experiments.kernel_scores import GRAY, in_gray, per_kernel
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.scores import finite
from passband.frequency.spectrum import energy_below, smoothness
from passband.probes.kernels import flattened_low
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject
from passband.train.run import Run

NATURAL, ROBUST = "natural", "robust"
LAYERS = {
    "stem": "inner.stem",
    "stage 1": "inner.stages.0.0.conv",
    "stage 2": "inner.stages.1.0.conv",
    "stage 3": "inner.stages.2.0.conv",
}
"""What a column ends with, to the convolution."""

STAGES = ("stage 1", "stage 2", "stage 3")
COUNT = 1024
"""Kernels looked at; no layer here has more output channels."""

CUTOFF = 0.25
"""Frequencies below it are low, cycles per pixel."""

FLAT, SMOOTH, PLANE, ALIKE = "flat low", "smoothness", "plane low", "alike"
_NUMBERS: dict[str, Callable[[Tensor], np.ndarray]] = {
    FLAT: lambda weight: finite(flattened_low(weight).numpy()),
    SMOOTH: lambda weight: per_kernel(smoothness, weight),
    PLANE: lambda weight: per_kernel(lambda slices: energy_below(slices, CUTOFF), weight),
}


@dataclass(frozen=True)
class _Layer:
    """Hold a layer's weights [out, in, height, width] and its results."""

    weight: Tensor
    pictures: Result
    flattened: Result


def cases(scale: Scale) -> list[Case]:
    """List both trainings on each set, seed by seed."""
    return [
        {"case": trained, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in COLOR[scale]
        for trained in (NATURAL, ROBUST)
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one model and look at its kernels, layer by layer."""
    run = trained_run(lab, training(lab.scale, data=case["data"], seed=case["seed"], robust=case["case"] == ROBUST))
    asked, gray = lab.subject(run), case["data"] in GRAY
    layers = {name: _layer(asked, run, lab, module) for name, module in LAYERS.items()}
    pictures = layers["stem"].pictures
    if gray:
        pictures = in_gray(pictures)
    met = torch.from_numpy(pictures.arrays["weight"])
    verdicts: dict[str, np.ndarray] = {}
    drawn_from: dict[str, str] = {}
    for name, layer in layers.items():
        weight = met if name == "stem" else layer.weight
        found = {f"{number}, {name}": of(weight) for number, of in _NUMBERS.items()}
        if name == "stem" and not gray:
            found[ALIKE] = finite(alike(weight).numpy())
        verdicts |= found
        drawn_from |= dict.fromkeys(found, f"kernels of {name}")
    row: dict[str, Cell] = {column: 100 * float(shares.mean()) for column, shares in verdicts.items()}
    row |= {"kernels": len(met), "run": run.digest}
    shown = [pictures, *(layer.flattened for layer in layers.values())]
    results = tuple(_titled(result, case["case"]) for result in shown)
    return Measured(row, results, verdicts, drawn_from=drawn_from)


def _layer(asked: Subject, run: Run, lab: Lab, module: str) -> _Layer:
    found = lab.ask(asked, run, "kernels", {"layer": module, "count": COUNT, "flattened": True})
    pictures = found["kernels.pictures"]
    flattened = found["kernels.flattened"]
    named = flattened.model_copy(update={"name": f"{flattened.name}.{module.removeprefix('inner.')}"})
    return _Layer(torch.from_numpy(pictures.arrays["weight"]), pictures, named)


def _titled(result: Result, case: str) -> Result:
    return result.model_copy(update={"title": f"{result.title.replace('inner.', '')}, {case}"})


def alike(weight: Tensor) -> Tensor:
    """Return how alike a kernel's slices are: their correlation, the mean over the pairs of input channels.

    Args:
        weight: [out, in, height, width].

    Returns:
        float64 [out], -1 to 1; NaN where a slice is constant.
    """
    slices = weight.flatten(2).double()
    slices = slices - slices.mean(2, keepdim=True)
    slices = slices / slices.norm(dim=2, keepdim=True)
    pairs = combinations(range(weight.shape[1]), 2)
    return torch.stack([(slices[:, one] * slices[:, other]).sum(1) for one, other in pairs]).mean(0)


def over_stages(rows: Rows, number: str) -> float | None:
    """Return by how much the robust model's number lies above the natural one's, the mean over the three stages."""
    found = [difference(rows, ROBUST, NATURAL, f"{number}, {stage}") for stage in STAGES]
    known = [margin for margin in found if margin is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


_SMOOTHER = "The weights of the robust model are distributed more smoothly than those of the natural model"
_FIG3, _FIG4 = ("adversarial-focus, section 3.1.2, figure 3", "adversarial-focus, section 3.1.2, figure 4")
_LOWER = "robust kernels have more of their energy at low frequencies and less at high ones"


def _claim(name: str, sentence: str, place: str, column: str) -> Claim:
    def margin(rows: Rows) -> float | None:
        return difference(rows, ROBUST, NATURAL, column)

    return Claim(name, sentence, place, margin, smallest=1.0, drawn="kernels")


def _stages(name: str, sentence: str, number: str) -> Claim:
    return Claim(name, sentence, _FIG4, lambda rows: over_stages(rows, number), smallest=1.0, drawn="kernels")


EXPERIMENT = Experiment(
    title="Kernels and their flattened spectra, natural and robust",
    source="adversarial-focus, figures 3 and 4",
    columns=(
        *(Column(name=f"{number}, {layer}", unit="%") for number in _NUMBERS for layer in LAYERS),
        Column(name=ALIKE, unit="%"), Column(name="kernels"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(
        _claim("smoother", f"{_SMOOTHER}.", _FIG3, f"{SMOOTH}, stem"),
        _claim(
            "channels alike", "The weights of the robust model have a more similar distribution in three channels.",
            _FIG3, ALIKE,
        ),
        _claim("lower, stem", f"In the flattened spectra {_LOWER}: first convolution.", _FIG4, f"{FLAT}, stem"),
        _stages(
            "lower, stages", f"In the flattened spectra {_LOWER}: first convolution of each stage, mean over stages.",
            FLAT,
        ),
        _claim(
            "lower in the plane, stem", f"Control, not in the paper: in the plane too, {_LOWER}: first convolution.",
            _FIG4, f"{PLANE}, stem",
        ),
        _stages(
            "lower in the plane, stages", f"Control, not in the paper: in the plane too, {_LOWER}: first convolution "
            "of each stage, mean over stages.", PLANE,
        ),
        _stages(
            "smoother, stages", "Control, not in the paper: kernels of the robust model are smoother in the plane "
            "in the first convolution of each stage too, mean over stages.", SMOOTH,
        ),
    ),
    # Kernels are the same for any image.
    limit=dict.fromkeys(Scale, 40),
)  # fmt: skip
