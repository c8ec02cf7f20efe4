"""Networks with and without batch norm that learn from LFC alone: what batch norm then still helps.

One network learns from LFC at each radius, copies divided by their maximum as everywhere in this paper, with and
without batch norm. Each is tested on the original images (``test``) and on the corresponding LFC (``own``).
``gap`` is ``train`` less ``own``: both on LFC. ``convergence`` is the training accuracy's mean over the epochs, that is
the area under its curve; at full scale after every epoch, below it straight between those that were measured.

Batch norm is read by the statistics of each batch, at test too (batches of 100, of one kind of copy), as the paper's
code does, and by its running statistics: two cases of one training. Networks that learn from whole images stand beside
them; no claim is about those.

On the nine merged classes of ImageNet it is ResNet-50, with norms or without (``hfc_resnet50``).

**Source**: high-frequency, section 5.2, figures 6 (CIFAR-10) and 13 (ImageNet). The figures have no numbers.
**Differs**: training accuracy is measured after an epoch (``tracking``).
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.results import Column
from passband.core.scale import Scale
from passband.experiments.high_frequency.settings import SETS, band, radii, switched, training
from passband.experiments.high_frequency.tracking import LIMIT, SEEDS, SHORT, TRAINING_IMAGES, followed, measured
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

ALL: dict[Scale, tuple[str, ...]] = SETS | {Scale.FULL: ("cifar10", "restricted-imagenet")}
WITHOUT = "without batch norm"
READ: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    WITHOUT: (None, {}),
    "batch norm, batch statistics": ({"norm": "batch"}, {"statistics": "batch"}),
    "batch norm, running statistics": ({"norm": "batch"}, {}),
}
"""A network and how it is read: what it has beyond the vanilla one, and options of the probe."""
NORMS = tuple(name for name in READ if name != WITHOUT)


def cases(scale: Scale) -> list[Case]:
    """List the networks by what they learn from: LFC at each radius, and whole images."""
    return [
        {"case": f"{_name(radius)}, {network}", "radius": radius, "network": network, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in ALL[scale]
        for radius in _learned(scale, data)
        for network in READ
    ]


def _learned(scale: Scale, data: str) -> tuple[int | None, ...]:
    """Return the radii of what is learned from, and None for whole images; at smoke two radii alone."""
    return radii(data)[:2] if scale is Scale.SMOKE else (*radii(data), None)


def _name(radius: int | None) -> str:
    return "whole images" if radius is None else f"LFC r = {radius}"


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and follow it on original images and on its own LFC."""
    model, reading = READ[case["network"]]
    radius = case["radius"]
    recipe = training(
        lab.scale, data=case["data"], seed=case["seed"], network=switched(case["data"]), model=model,
        view=None if radius is None else band(radius, "low"), **SHORT.get(lab.scale, {}),
    )  # fmt: skip
    course = followed(recipe, lab, radii=None if radius is None else (radius,), **reading)
    own = "test" if radius is None else "LFC r1"
    more = {"own": course.last[own], "convergence": course.mean_over_epochs("train")}
    found = measured(course, case, more=more, learned=("convergence",))
    gap = 100 * float(course.last["train"].mean() - more["own"].mean())
    found.row.update({"radius": radius, "network": case["network"], "gap": gap})
    return found


def help_by_radius(rows: Rows, norm: str, column: str) -> dict[int, float]:
    """Return by how much batch norm raises a column, in points, for networks that learned from LFC, by radius."""
    found: dict[tuple[int, str], float] = {
        (radius, str(row["network"])): number
        for row in rows
        if isinstance(radius := row.get("radius"), int) and isinstance(number := row.get(column), float)
    }
    radii_there = sorted({radius for radius, _ in found})
    return {
        radius: found[radius, norm] - found[radius, WITHOUT]
        for radius in radii_there
        if (radius, norm) in found and (radius, WITHOUT) in found
    }


def not_always(rows: Rows, norm: str, column: str) -> float | None:
    """Return by how much batch norm lowers a column at the radius where it helps least, in points."""
    helped = help_by_radius(rows, norm, column)
    return -min(helped.values()) if helped else None


def less_at_small(rows: Rows, norm: str, column: str) -> float | None:
    """Return by how much more batch norm helps at the largest radius than at the smallest, in points."""
    helped = help_by_radius(rows, norm, column)
    return helped[max(helped)] - helped[min(helped)] if len(helped) > 1 else None


def generalizes_less(rows: Rows, norm: str) -> float | None:
    """Return by how much batch norm lowers the accuracy on original test images, the mean over radii, in points."""
    helped = help_by_radius(rows, norm, "test")
    return -fmean(helped.values()) if helped else None


def boosts(rows: Rows, norm: str) -> float | None:
    """Return by how much batch norm raises the area under the training curve at the radius where least, in points."""
    helped = help_by_radius(rows, norm, "convergence")
    return min(helped.values()) if helped else None


def boosts_smallest_least(rows: Rows, norm: str) -> float | None:
    """Return by how much the smallest other acceleration exceeds that at the smallest radius, in points."""
    helped = help_by_radius(rows, norm, "convergence")
    others = [gain for radius, gain in helped.items() if radius != min(helped)]
    return min(others) - helped[min(helped)] if others else None


_PLACE = "high-frequency, section 5.2, figures 6 and 13"
_TESTED = {"test": "by original data", "own": "by corresponding LFC data"}


def _tested(norm: str, column: str, how: str) -> tuple[Claim, Claim]:
    return (
        Claim(
            f"does not always help, {how}, {norm}",
            "When the model is trained with only LFC, BatchNorm does not always help improve the predictive "
            f"performance (tested {how}; here it harms at one radius at least; {norm}).",
            _PLACE, lambda rows: not_always(rows, norm, column), smallest=1.0,
        ),
        Claim(
            f"helps less at smaller radii, {how}, {norm}",
            "The smaller the radius is, the less the BatchNorm helps (here less at the smallest than at the largest; "
            f"tested {how}; {norm}).",
            _PLACE, lambda rows: less_at_small(rows, norm, column), smallest=1.0,
        ),
    )  # fmt: skip


def _of(norm: str) -> tuple[Claim, ...]:
    return (
        *(claim for column, how in _TESTED.items() for claim in _tested(norm, column, how)),
        Claim(
            f"generalizes less, {norm}",
            "BatchNorm does not generalize as well as the vanilla setting (here on original test images, the mean over "
            f"radii; {norm}).",
            _PLACE, lambda rows: generalizes_less(rows, norm), smallest=1.0,
        ),
        Claim(
            f"boosts convergence, {norm}",
            "BatchNorm still seems to at least boost the convergence of training accuracy (here the area under its "
            f"curve, at every radius; {norm}).",
            _PLACE, lambda rows: boosts(rows, norm), smallest=1.0, drawn=TRAINING_IMAGES,
        ),
        Claim(
            f"boosts least at the smallest radius, {norm}",
            f"The acceleration is the smallest when r = 4 ({norm}).", _PLACE,
            lambda rows: boosts_smallest_least(rows, norm), smallest=1.0, drawn=TRAINING_IMAGES,
        ),
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Learning from LFC with and without batch norm",
    source="high-frequency, figures 6 and 13",
    columns=(
        Column(name="radius", unit="bins"), Column(name="train", unit="%"), Column(name="test", unit="%"),
        Column(name="own", unit="%"), Column(name="gap", unit="points"), Column(name="convergence", unit="%"),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=tuple(claim for norm in NORMS for claim in _of(norm)),
    limit=LIMIT,
)  # fmt: skip
