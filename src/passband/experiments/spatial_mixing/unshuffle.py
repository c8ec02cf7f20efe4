"""Pixel un-shuffling: ConvMixers that learn everything, only channel or only spatial mixing put images back in order.

One fixed permutation moves the pixels of every image, the same in all channels; a patch-1 ConvMixer with a linear head
is to give the image back. Width, depth and kernel vary one at a time around one network.

The choices where the paper is silent: pixels in [0, 1], mean squared error, PSNR with peak 1 of each image, averaged
over the test images; Adam at 1e-3 falling along a cosine, batch 128, no augmentation, 30 epochs at full scale; the head
learns in every mode, and the 1×1 stem stays as it was drawn unless everything learns.

At small scale MNIST and Fashion-MNIST, one seed, spatial of the center alone, images of 14×14 pixels, 10,000 of them
for 8 epochs: a twentieth of the full scale's steps, so the rate is 1e-2, at which this paper's other small ConvMixers
learn. MNIST's and Fashion-MNIST's gray is repeated in three channels, in and out. CIFAR-10 is measured at full scale;
``--data cifar10-jpeg`` takes its copy through JPEG, which alters high frequencies.

That only *spatial* mixing un-shuffles, as the introduction has it, is no claim: section 4.4 says channels.

**Source**: spatial-mixing, section 4.4, figures 10 and 11 of the workshop paper, 10 to 13 of the arXiv one. The figures
have no numbers.
**Differs**: beside the PSNR stands that of the mean test image in every image's place, which restores nothing.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Cell, Column, Result, Scalar
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import LEARN, STEM
from passband.sweeps.lab import Lab

AXES = {"width": "channels", "depth": "blocks", "kernel": "pixels"}
"""What a ConvMixer varies in, and its units."""
Network = dict[str, int]
"""A ConvMixer: a number for each of :data:`AXES`."""

DATA: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist", "mnist"),
    Scale.FULL: ("mnist", "fashion-mnist", "cifar10"),
}
CENTER: dict[Scale, Network] = {
    Scale.SMOKE: {"width": 16, "depth": 2, "kernel": 5},
    Scale.SMALL: {"width": 32, "depth": 4, "kernel": 5},
    Scale.FULL: {"width": 256, "depth": 8, "kernel": 7},
}
SWEEPS: dict[Scale, dict[str, tuple[int, ...]]] = {
    Scale.SMOKE: {"width": (8, 16)},
    Scale.SMALL: {"width": (16, 32, 64), "depth": (2, 4), "kernel": (3, 5, 7)},
    Scale.FULL: {"width": (64, 128, 256, 512), "depth": (4, 8, 16), "kernel": (3, 5, 7, 9)},
}
LARGE: Network = {"width": 512, "depth": 16, "kernel": 7}
"""The paper's best network, whose reconstructions it shows."""

_TRAINING: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {"part": 512, "epochs": 1, "batch": 32, "lr": 1e-2},
    Scale.SMALL: {"part": 10000, "epochs": 8, "batch": 128, "lr": 1e-2},
    Scale.FULL: {"part": None, "epochs": 30, "batch": 128, "lr": 1e-3},
}


def networks(scale: Scale) -> list[Network]:
    """List the networks: the center first, then each sweep's others, and at full scale the paper's largest."""
    center = CENTER[scale]
    swept = [center | {name: value} for name, values in SWEEPS[scale].items() for value in values]
    large = [LARGE] if scale is Scale.FULL else []
    return [center, *(network for network in swept if network != center), *large]


def cases(scale: Scale) -> list[Case]:
    """List the three modes of each network, one set after another; at small scale spatial of the center alone."""
    return [
        {"case": _name(learn, network), "learn": learn, **network, "data": data, "seed": seed}
        for seed in ((0, 1, 2) if scale is Scale.FULL else (0,))
        for data in DATA[scale]
        for network in networks(scale)
        for learn in LEARN
        if learn != "spatial" or scale is not Scale.SMALL or network == CENTER[scale]
    ]


def _name(learn: str, network: Network) -> str:
    return f"{learn}, w {network['width']}, d {network['depth']}, k {network['kernel']}"


def _network(case: Case) -> Network:
    return {axis: case[axis] for axis in AXES}


def recipe(scale: Scale, case: Case) -> Recipe:
    """Return the training of one case."""
    settings = _TRAINING[scale]
    return Recipe.of(
        {
            "task": "unshuffle",
            "model": {"name": "conv_mixer_pixels", **_network(case)},
            "learn": LEARN[case["learn"]],
            "learn_options": None if case["learn"] == "everything" else STEM,
            "data": {"name": case["data"], "size": _side(scale, case["data"]), "part": settings["part"]},
            "augment": (),
            # AdamW that decays nothing is Adam.
            "optimizer": {"name": "adamw", "lr": settings["lr"], "weight_decay": 0.0},
            "epochs": settings["epochs"],
            "batch": settings["batch"],
            "seed": case["seed"],
        }
    )


def _side(scale: Scale, data: str) -> int:
    """Return the images' side in pixels: at full scale their own."""
    if scale is not Scale.FULL:
        return 14
    return 28 if data.endswith("mnist") else 32


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and measure it on all test images; the center's, and the largest's, are shown."""
    run = lab.train(recipe(lab.scale, case))
    shown = _network(case) in (CENTER[lab.scale], LARGE)
    found = lab.probe(run, "unshuffle", {"examples": 4 if shown else 0})
    row: dict[str, Cell] = {"learns": case["learn"], **_network(case)}
    samples = {}
    for column, name in (("PSNR", "psnr"), ("mean image", "mean_image")):
        scalar = found[f"unshuffle.{name}"]
        assert isinstance(scalar, Scalar)
        row[column], samples[column] = scalar.value, scalar.arrays["psnr"]
    about = {"learned": run.metrics["learned_parameters"], "seconds": run.metrics["seconds"], "run": run.digest}
    return Measured(row | about, (found["unshuffle.examples"],) if shown else (), samples=samples)


def sweep(rows: Rows, axis: str) -> list[dict[str, Cell]]:
    """Return the rows that vary along one axis: of those that agree on the others, the ones with most of its values."""
    groups: dict[tuple[Cell, ...], list[dict[str, Cell]]] = defaultdict(list)
    for row in rows:
        if axis in row:  # a row that was not measured has none
            groups[tuple(row[other] for other in AXES if other != axis)].append(row)
    return max(groups.values(), key=lambda group: len({row[axis] for row in group}), default=[])


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw PSNR over width, depth and kernel by what learns."""
    psnr = Column(name="PSNR", unit="dB")
    drawn: list[Result] = []
    for axis, unit in AXES.items():
        swept = sweep(rows, axis)
        if len({row[axis] for row in swept}) > 1:
            x = Column(name=axis, unit=unit)
            drawn += over(swept, x, psnr, by="learns", name=f"PSNR.{axis}", title=f"PSNR over {axis}")
    return tuple(drawn)


def psnr_by_network(rows: Rows) -> list[dict[Cell, float]]:
    """Return of each network its PSNR by what learned; networks without everything or channels are left out."""
    networks: dict[tuple[Cell, ...], dict[Cell, float]] = defaultdict(dict)
    for row in rows:
        if isinstance(value := row.get("PSNR"), float):
            networks[tuple(row[axis] for axis in AXES)][row["learns"]] = value
    return [found for found in networks.values() if {"everything", "channels"} <= found.keys()]


def nearest(rows: Rows) -> float | None:
    """Return how much nearer channels lies to everything than to spatial, in dB, for the network where least."""
    found = [
        2 * one["channels"] - one["spatial"] - one["everything"] for one in psnr_by_network(rows) if "spatial" in one
    ]
    return min(found, default=None)


def within(rows: Rows, bound: float) -> float | None:
    """Return by how much the gap from everything to channels stays below a bound, in dB, for the largest gap."""
    found = [bound - (one["everything"] - one["channels"]) for one in psnr_by_network(rows)]
    return min(found, default=None)


def restored(rows: Rows) -> float | None:
    """Return by how much channels-only beats the mean image given as every answer, in dB, where it does so least."""
    found = [
        psnr - mean
        for row in rows
        if row.get("learns") == "channels"
        and isinstance(psnr := row.get("PSNR"), float)
        and isinstance(mean := row.get("mean image"), float)
    ]
    return min(found, default=None)


def _along(rows: Rows, axis: str, column: str) -> list[float]:
    """Return the channels-only networks' numbers along a sweep; none where there is no sweep."""
    swept = sweep([row for row in rows if row.get("learns") == "channels"], axis)
    found: dict[Any, Any] = {row[axis]: row[column] for row in swept}
    return [found[place] for place in sorted(found)] if len(found) > 1 else []


def growth(rows: Rows, axis: str) -> float | None:
    """Return by how much the PSNR of channels-only networks grows along a sweep, in dB, at the step where least."""
    return min((after - before for before, after in pairwise(_along(rows, axis, "PSNR"))), default=None)


def without_kernel(rows: Rows) -> float | None:
    """Return minus the number of learned parameters that the largest kernel adds to channels-only."""
    found = _along(rows, "kernel", "learned")
    return float(min(found) - max(found)) if found else None


_PLACE = "spatial-mixing, section 4.4, figure 10"


def _grows(axis: str) -> Claim:
    return Claim(
        f"PSNR grows with {axis}", f"The performance of channels-only increases with its {axis}.", _PLACE,
        lambda rows: growth(rows, axis), unit="dB", smallest=0.1,
    )  # fmt: skip


CLAIMS = (
    # What is slight needs no tolerance where the third mode gives a scale.
    Claim(
        "channels near everything",
        "Channels-only models only lag slightly behind their fully-learned counterparts over a wide variety of network "
        "sizes.",
        _PLACE, nearest, unit="dB",
    ),
    # 3 dB is twice the squared error.
    Claim(
        "channels within 3 dB of everything",
        "The quantitative test-set results for both model types are strikingly close (here: within 3 dB).",
        "spatial-mixing, section 4.4", lambda rows: within(rows, 3.0), unit="dB",
    ),
    *(_grows(axis) for axis in AXES),
    Claim(
        "channels above the mean image",
        "Control, not in the paper: channels-only restores more than the mean image given as every answer.",
        _PLACE, restored, unit="dB",
    ),
    Claim(
        "channels learns nothing of the kernel's size",
        "The parameter count of channels-only models does not scale at all with kernel size.", _PLACE,
        without_kernel, unit="parameters", exact=True,
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Pixel un-shuffling by ConvMixers",
    source="spatial-mixing, figures 10 and 11",
    columns=(
        Column(name="PSNR", unit="dB"), Column(name="mean image", unit="dB"),
        Column(name="learned", unit="parameters"), Column(name="seconds", unit="s"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    figures=figures,
)  # fmt: skip
