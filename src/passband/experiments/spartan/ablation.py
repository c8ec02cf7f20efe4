"""What the tables of this paper share: a network trained and tested, and a network counted.

A trained row holds the accuracy on all test images of the lab's limit, the parameters, and the MACs at the size of the
training's images. A counted row holds what one image of the paper's size costs, without data or training, the same at
every scale; FLOPs are fvcore's in training mode (``probes/counts.py``), which are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import timm
import torch
from torch import nn

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Measured
from passband.experiments.spartan.settings import SEEDS, SETS, network, training
from passband.probes.counts import count
from passband.sweeps.lab import Lab

ACCURACY = Column(name="accuracy", unit="%")
COUNTED = (Column(name="parameters", unit="M"), Column(name="MACs", unit="M"), Column(name="FLOPs", unit="G"))
COLUMNS = (ACCURACY, *COUNTED, Column(name="input", unit="pixels"), Column(name="epochs"), Column(name="run"))
SIZE = 224
"""Side of the images that the paper's networks are counted at."""

_BANDS = {"radii": (8,), "degrees": (), "examples": 0}
"""The probe that keeps verdicts wants a cut, and one costs least."""


def trainings(scale: Scale, names: Mapping[str, Any]) -> list[Case]:
    """List the networks of a table on each set, seed by seed."""
    sets = [(seed, data) for seed in SEEDS[scale] for data in SETS[scale]]
    return [{"case": name, "data": data, "seed": seed} for seed, data in sets for name in names]


def ablated(case: Case, lab: Lab, arguments: Mapping[str, Any]) -> Measured:
    """Train the network of the ablations and test it.

    Args:
        case: Which set and seed.
        lab: Where.
        arguments: Of :class:`passband.models.spartan.Spartan` that differ from its own.
    """
    model = network(lab.scale, **arguments)
    return trained(training(lab.scale, data=case["data"], seed=case["seed"], model=model), lab)


def trained(recipe: Recipe, lab: Lab) -> Measured:
    """Train a recipe and test it."""
    run = lab.train(recipe)
    asked = lab.subject(run)
    right = lab.ask(asked, run, "bands", _BANDS)["bands.clean"].arrays["correct"].astype(float)
    counts = count(asked.model, torch.zeros(1, 3, *asked.model.spec.size, device=lab.device))
    row: dict[str, Cell] = {"accuracy": 100 * float(right.mean()), **_row(counts.parameters, counts.macs, counts.flops)}
    row |= {"input": asked.model.spec.size[0], "epochs": run.metrics["epochs"], "run": run.digest}
    return Measured(row, verdicts={"accuracy": right})


def counted(name: str, size: int = SIZE, **arguments: Any) -> Measured:
    """Count a network of timm's registry at a size, on the processor and without data.

    Args:
        name: In timm's registry.
        size: Side of the images in pixels.
        **arguments: The network's.
    """
    return Measured({**_counted(name, size, tuple(arguments.items())), "input": size})


@cache
def _counted(name: str, size: int, arguments: tuple[tuple[str, Any], ...]) -> dict[str, Cell]:
    counts = count(made(name, **dict(arguments)), torch.zeros(1, 3, size, size))
    return _row(counts.parameters, counts.macs, counts.flops)


def made(name: str, **arguments: Any) -> nn.Module:
    """Make an untrained network of timm's registry, in the form that it has at inference, and leave chance as it was.

    Blocks that are trained in several branches and run as one convolution (MobileOne's) are that convolution.
    """
    with torch.random.fork_rng():
        model: nn.Module = timm.create_model(name, **arguments)
    whole: nn.Module = timm.utils.reparameterize_model(model)
    return whole


def _row(parameters: int, macs: int, flops: int) -> dict[str, Cell]:
    return {"parameters": parameters / 1e6, "MACs": macs / 1e6, "FLOPs": flops / 1e9}


def above(name: str, sentence: str, place: str, better: str, worse: str, smallest: float = 0.3) -> Claim:
    """Return the claim that one network is more accurate than another, in points."""
    return Claim(
        name, sentence, place, lambda rows: difference(rows, better, worse, "accuracy"), smallest=smallest
    )  # fmt: skip


def as_reported(case: str, numbers: Mapping[str, tuple[float, int]], place: str) -> Claim:
    """Return the exact claim that a counted row has the paper's numbers, rounded as there.

    Args:
        case: The row.
        numbers: By column, the paper's number and its digits behind the point.
        place: Where the paper has them.
    """
    said = ", ".join(f"{number:.{digits}f} {_unit(column)}" for column, (number, digits) in numbers.items())

    def margin(rows: Rows) -> float | None:
        found = {column: value(rows, case, column) for column in numbers}
        if None in found.values():
            return None
        return 0.0 - sum(round(found[name] or 0.0, digits) != one for name, (one, digits) in numbers.items())

    return exactly(f"{case} as reported", f"{case}: {said} (margin: minus the numbers that differ).", place, margin)


def untied(margin: float | None) -> float | None:
    """Return an exact claim's margin, -1 for a tie: "fewer" does not hold of equal numbers."""
    return -1.0 if margin == 0 else margin


def _unit(column: str) -> str:
    return f"{next(one.unit for one in COUNTED if one.name == column)} {column}"


def exactly(
    name: str, sentence: str, place: str, margin: Callable[[Rows], float | None], unit: str = "numbers"
) -> Claim:
    """Return a claim about what is counted; judged from small scale, as smoke shows only that all of it runs."""
    return Claim(name, sentence, place, margin, unit=unit, exact=True)
