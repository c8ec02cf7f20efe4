"""Where in the spectrum PGD-20 changes images, on adversarially and on naturally trained models.

The paper looks at three pictures: the spectra of clean images, of attacked ones and of their difference. Here the
difference has numbers, per image: which share of its energy lies at low frequencies. All test images are attacked,
those that are answered wrongly untouched too; DC is part of the spectrum; each channel has its own.

Low is what lies within half of the highest frequency along a row (8 bins at 32 pixels, 7 at 28), where 19% of all bins
are; ``half`` is the disc that holds half of the bins, a second reading of the same words. The margin is the share of
the energy there less the share of the bins there, which independent changes of pixels would have: the signs that PGD
adds up are ±ε, as flat a spectrum as there is if they are independent.

Two controls, since a picture of a spectrum can mislead:

- ``random``: signs by chance in place of the attack's, clipped to [0, 1] as the attack is. Black pixels can only grow
  brighter: on Fashion-MNIST clipping alone puts a silhouette, which is of low frequency, into any difference.
- ``relative``: the difference's energy over that of the clean images, bin by bin. Images fall with frequency so fast
  that by this measure nearly any difference lies at high frequencies.

**Source**: adversarial-focus, section 3.1.1 and figure 2.
**Differs**: the normalization of the paper's pictures is not stated; ours are log(1 + amplitude), each over its own
largest value. The paper's figure is of a robust model; the natural one stands beside.
"""

from __future__ import annotations

import math

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.adversarial_focus.settings import COLOR, LIMIT, SEEDS, trained_run, training
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.scores import finite
from passband.sweeps.lab import Lab

NATURAL, ROBUST = "natural", "robust"
KINDS = {"": "difference", ", random": "random signs", ", relative": "relative", ", clean": "clean"}
"""What a column's name ends with, to what the probe `perturbation` calls it."""

_SHOWN = (
    "perturbation.spectra", "perturbation.difference", "perturbation.relative", "perturbation.bin",
    "perturbation.ring", "perturbation.relative_bin", "perturbation.share",
)  # fmt: skip


def cases(scale: Scale) -> list[Case]:
    """List both trainings on each set, seed by seed."""
    return [
        {"case": trained, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in COLOR[scale]
        for trained in (NATURAL, ROBUST)
    ]


def radii(side: int) -> dict[str, float]:
    """Return the radii in bins within which frequencies are low: by frequency, and half of the bins."""
    return {"low": side / 4, "half": side / math.sqrt(2 * math.pi)}


def measure(case: Case, lab: Lab) -> Measured:
    """Train one model, attack its test images and look at the spectra."""
    recipe = training(lab.scale, data=case["data"], seed=case["seed"], robust=case["case"] == ROBUST)
    run = trained_run(lab, recipe)
    low = radii(recipe.data.size)
    found = lab.probe(run, "perturbation", {"radii": tuple(low.values()), "steps": 20})
    arrays = found["perturbation.share"].arrays
    verdicts = {
        f"{name}{ending}": finite(arrays[kind][place])
        for ending, kind in KINDS.items()
        for place, name in enumerate(low)
    }
    row: dict[str, Cell] = {column: 100 * float(shares.mean()) for column, shares in verdicts.items()}
    row |= {f"{name}, bins": 100 * float(arrays["bins"][place]) for place, name in enumerate(low)}
    titled = (found[name].model_copy(update={"title": f"{found[name].title}, {case['case']}"}) for name in _SHOWN)
    return Measured(row | {"run": run.digest}, tuple(titled), verdicts)


def beyond(rows: Rows, case: str, column: str, reference: str) -> float | None:
    """Return by how much one of a case's numbers lies above another."""
    found = [value(rows, case, name) for name in (column, reference)]
    return None if found[0] is None or found[1] is None else found[0] - found[1]


_PLACE = "adversarial-focus, section 3.1.1, figure 2"
_LOW = "the difference is mainly distributed in the low-frequency region"


def _claim(
    name: str, sentence: str, case: str, column: str = "low", reference: str = "low, bins", level: float | None = None
) -> Claim:
    """Return a claim that one share lies above another, or above a level."""

    def margin(rows: Rows) -> float | None:
        if level is None:
            return beyond(rows, case, column, reference)
        found = value(rows, case, column)
        return None if found is None else found - level

    return Claim(name, sentence, _PLACE, margin, smallest=1.0)


EXPERIMENT = Experiment(
    title="Where in the spectrum PGD-20 changes images",
    source="adversarial-focus, figure 2",
    columns=(
        *(Column(name=f"{name}{ending}", unit="%") for name in radii(32) for ending in (*KINDS, ", bins")),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(
        _claim(
            "mainly low", f"{_LOW.capitalize()}: more of its energy than of the bins lies within half of the highest "
            "frequency (robust model).", ROBUST,
        ),
        _claim(
            "mainly low, half of the bins", f"{_LOW.capitalize()}: more of its energy than of the bins lies within the "
            "disc that holds about half of them (robust model).", ROBUST, "half", "half, bins",
        ),
        _claim(
            "mostly low", f"{_LOW.capitalize()}, read strictly: more than half of its energy lies within half of the "
            "highest frequency (robust model).", ROBUST, level=50.0,
        ),
        _claim(
            "lower than random signs", f"Control, not in the paper: {_LOW}, beyond what clipping does to random signs "
            "(robust model).", ROBUST, reference="low, random",
        ),
        _claim(
            "low relative to the images", f"Control, not in the paper: {_LOW}, relative to the images' own spectrum "
            "too (robust model).", ROBUST, "low, relative",
        ),
        _claim(
            "natural: mainly low", f"Control, not in the paper: {_LOW} on the naturally trained model too.", NATURAL,
        ),
        Claim(
            "robust lower than natural", "Control, not in the paper: more of the difference's energy is low on the "
            "adversarially trained model than on the natural one.", _PLACE,
            lambda rows: difference(rows, ROBUST, NATURAL, "low"), smallest=1.0,
        ),
    ),
    limit=LIMIT,
)  # fmt: skip
