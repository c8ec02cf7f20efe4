"""The first layer's kernels of natural and adversarial models, as they are and smoothed at ρ = 1.

The paper shows pictures. Here each kernel has two numbers besides, mean over its input channels:

- ``smoothness``: 100% for a constant kernel, 0 on average for independent random weights, -100% for a checkerboard.
- ``low energy``: the share of its energy below 0.25 cycles/pixel, half of the highest frequency along a row. Random
  kernels have the disc's share of the plane on average, 19.6%. It is a control: a second reading of "smooth", in the
  words of the paper's section 6.1.

MNIST and Fashion-MNIST are gray, and the networks are given the same image in three channels: a kernel is then the sum
over its input channels, which is all that such images meet; how the three differ is as it was drawn, and natural
training does not touch it. Attacks may change each channel by itself, so that adversarial training does: ``by channel``
is the smoothness of the kernels channel by channel, as for natural images.

A kernel that is zero for an input channel has neither number there; ``dead`` counts those slices, and means leave them
out. ``norm`` is that of all kernels together: ρ = 1 multiplies a constant kernel by 9.

Intervals at one seed come from drawing the kernels anew, the same places in every model: natural and adversarial models
of one seed began with the same kernels. A kernel that is zero altogether keeps its place (`per_kernel`). Intervals
speak of these models, not of other trainings.

Smoothing (equation 3, `passband.weights.neighbors.mix_neighbors`) is a low-pass: its claims hold nearly by
construction, and are kept because the paper states them.

The paper's adversarial training moves and mirrors images, its natural one does not. A control trains naturally on moved
and mirrored images. Another network, whose first kernels are 5×5 (LeNet), stands beside, as the paper says that "the
message is delivered more clearly" there (it does not name the network).

**Source**: high-frequency, sections 6.1 to 6.3, figures 7, 14, 21 and 22.
**Differs**: the numbers are ours.
"""

from __future__ import annotations

from typing import Any

import torch

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import COLOR, MOVED, training
from passband.experiments.kernel_scores import GRAY, in_gray, per_kernel
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.frequency.spectrum import energy_below, smoothness
from passband.sweeps.lab import Lab
from passband.weights.neighbors import mix_neighbors

NATURAL, ADVERSARIAL, MOVED_ONLY = "natural", "adversarial", "natural, moved"
TRAININGS: dict[str, dict[str, Any]] = {
    NATURAL: {},
    ADVERSARIAL: {"adversarial": True},
    MOVED_ONLY: {"augment": list(MOVED)},
    f"5×5, {NATURAL}": {"network": "small_lenet"},
    f"5×5, {ADVERSARIAL}": {"network": "small_lenet", "adversarial": True},
}
SEEDS = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
RHO = 1.0
COUNT = 64
"""Kernels looked at; no first layer here has more."""
CUTOFF = 0.25
"""Frequencies below it are low, cycles per pixel."""


def trainings(scale: Scale, data: str) -> tuple[str, ...]:
    """Return which trainings a set has at a scale; below full scale photographs are not trained against attacks."""
    if data == "cifar10-jpeg":
        return (NATURAL,)
    if scale is Scale.SMOKE:
        return NATURAL, ADVERSARIAL
    # Nine merged classes of ImageNet have one network, ResNet-50, whatever is asked for.
    return (NATURAL, ADVERSARIAL, MOVED_ONLY) if data == "restricted-imagenet" else tuple(TRAININGS)


def recipe(case: Case, scale: Scale) -> Recipe:
    """Return the training of a case."""
    return training(scale, data=case["data"], seed=case["seed"], **TRAININGS[case["trained"]])


def smoothed(name: str, rho: float = RHO) -> str:
    """Return a case's name."""
    return f"{name}, ρ {rho:g}"


def cases(scale: Scale) -> list[Case]:
    """List the models, each as it is and smoothed, but for the control."""
    return [
        {"case": smoothed(trained, rho), "trained": trained, "rho": rho, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in COLOR[scale]
        for trained in trainings(scale, data)
        for rho in ((0.0,) if trained == MOVED_ONLY else (0.0, RHO))
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one model, smooth its first layer, and look at the kernels."""
    run = lab.train(recipe(case, lab.scale))
    asked = lab.edited(run, lambda model: mix_neighbors(model, case["rho"]))
    pictures = lab.ask(asked, run, "kernels", {"count": COUNT})["kernels.pictures"]
    channels = torch.from_numpy(pictures.arrays["weight"])
    if case["data"] in GRAY:
        pictures = in_gray(pictures)
    met = torch.from_numpy(pictures.arrays["weight"])
    verdicts = {
        "smoothness": per_kernel(smoothness, met),
        "by channel": per_kernel(smoothness, channels),
        "low energy": per_kernel(lambda slices: energy_below(slices, CUTOFF), met),
    }
    row: dict[str, Cell] = {column: 100 * float(shares.mean()) for column, shares in verdicts.items()}
    row |= {"norm": float(met.norm()), "kernels": len(met), "run": run.digest}
    row["dead"] = int((met.flatten(2) == 0).all(2).sum())
    title = f"Kernels of the first layer: {case['case']}"
    drawn_from = dict.fromkeys(verdicts, "kernels")
    return Measured(row, (pictures.model_copy(update={"title": title}),), verdicts, drawn_from=drawn_from)


_NATURAL, _ADVERSARIAL = smoothed(NATURAL, 0), smoothed(ADVERSARIAL, 0)
_ROBUST = "kernels of adversarially trained models tend to show a more smooth pattern"
_SMOOTH = "The resulting kernels tend to show a significantly smoother pattern"


def _claim(name: str, sentence: str, place: str, better: str, worse: str, column: str = "smoothness") -> Claim:
    def margin(rows: Rows) -> float | None:
        return difference(rows, better, worse, column)

    return Claim(name, sentence, f"high-frequency, {place}", margin, smallest=5.0, drawn="kernels")


EXPERIMENT = Experiment(
    title="Kernels of the first layer, natural and adversarial, plain and smoothed",
    source="high-frequency, figures 7, 14, 21 and 22",
    columns=(
        Column(name="smoothness", unit="%"), Column(name="by channel", unit="%"),
        Column(name="low energy", unit="%"), Column(name="norm"), Column(name="kernels"),
        Column(name="dead"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(
        _claim(
            "adversarial smoother", f"The {_ROBUST}.", "section 6.2, figures 7, 14, 21 and 22", _ADVERSARIAL, _NATURAL,
        ),
        _claim(
            "adversarial smoother, 5×5", f"The {_ROBUST}, more clearly where the first kernels are 5×5.",
            "section 6.2", smoothed(f"5×5, {ADVERSARIAL}", 0), smoothed(f"5×5, {NATURAL}", 0),
        ),
        _claim(
            "natural smoothed", f"{_SMOOTH}: natural at ρ = 1.", "section 6.3, figures 7, 14, 21 and 22",
            smoothed(NATURAL), _NATURAL,
        ),
        _claim(
            "adversarial smoothed", f"{_SMOOTH}: adversarial at ρ = 1.", "section 6.3, figures 7, 14, 21 and 22",
            smoothed(ADVERSARIAL), _ADVERSARIAL,
        ),
        _claim(
            "adversarial lower", "Control, not in the paper: the kernels of adversarially trained models have more of "
            "their energy at low frequencies.", "section 6.1", _ADVERSARIAL, _NATURAL, "low energy",
        ),
        _claim(
            "adversarial smoother, by channel", f"Control, not in the paper: the {_ROBUST}, each input "
            "channel by itself, on gray images too.", "section 6.2", _ADVERSARIAL, _NATURAL, "by channel",
        ),
        _claim(
            "natural smoothed, lower", "Control, not in the paper: smoothed at ρ = 1, natural kernels have more of "
            "their energy at low frequencies.", "section 6.1", smoothed(NATURAL), _NATURAL, "low energy",
        ),
        _claim(
            "not for being moved", f"Control, not in the paper: the {_ROBUST} than those of models trained "
            "naturally on images moved and mirrored as theirs are.", "section 6.2", _ADVERSARIAL,
            smoothed(MOVED_ONLY, 0),
        ),
    ),
    # Kernels are the same for any image.
    limit=dict.fromkeys(Scale, 40),
)  # fmt: skip
