"""What the depthwise filters of a ConvMixer become, layer by layer, beside the random ones that they were.

One network learns everything; the other is its channels-only twin of the same seed, whose filters stayed as both were
drawn: so each learned filter stands beside what it was before training. Of each layer, 16 filters as pictures, the
envelope of all, and as numbers:

- ``low energy``: the share of a filter's energy below 0.25 cycles/pixel, half of the highest frequency along a row, on
  average over the layer's filters. Random filters have the disc's share of the plane, 19.6%.
- ``envelope's low energy``: the same of the squared envelope.
- ``smoothness``: 100% for a constant kernel, 0 on average for random weights, -100% for a checkerboard.
- ``low covered`` and ``high covered``: the share of the plane below 0.25 cycles/pixel, and of the rest, where the
  envelope exceeds half of its maximum: dense is what covers the one, unnecessary what covers the other.

Intervals at one seed come from drawing a layer's filters anew, the same ones before and after training: they speak of
this network's filters, not of another training. An envelope is no mean over filters: its claims have an interval over
three seeds alone, at full scale, and are undecided below.

The figures show a depth-4 ConvMixer and do not say on which set; here CIFAR-10 at full scale, Fashion-MNIST at small
scale: the depth-4 networks of ``convmixer-depth``. Envelopes are zero-padded to 128 bins (the paper's 512 are more
points of the same plane). Below full scale a pixel of a kernel is a patch of 2×2 (small) or 4×4 (smoke) pixels.

**Source**: spatial-mixing, section 4.2.2 and figure 9 of the workshop paper, figure 7 of the arXiv one. No numbers.
**Differs**: the numbers are ours; the paper shows pictures.
"""

from __future__ import annotations

from statistics import fmean

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Map, Result, Table
from passband.core.scale import Scale
from passband.experiments.curves import over
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spatial_mixing.settings import mixer
from passband.sweeps.lab import Lab

FILTERS = {"learned": "everything", "random": "channels"}
DATA = {Scale.SMOKE: "photos", Scale.SMALL: "fashion-mnist", Scale.FULL: "cifar10"}
DEPTH = {Scale.SMOKE: 1, Scale.SMALL: 4, Scale.FULL: 4}
SEEDS = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
CUTOFF = 0.25
"""Frequencies below it are low, cycles per pixel."""


def cases(scale: Scale) -> list[Case]:
    """List the layers of both networks."""
    return [
        {"case": _name(filters, layer), "filters": filters, "layer": layer, "data": DATA[scale], "seed": seed}
        for seed in SEEDS[scale]
        for filters in FILTERS
        for layer in range(1, DEPTH[scale] + 1)
    ]


def _name(filters: str, layer: int) -> str:
    return f"{filters}, layer {layer}"


def measure(case: Case, lab: Lab) -> Measured:
    """Train the network, or find it done, and measure one layer's filters."""
    learn = FILTERS[case["filters"]]
    run = lab.train(mixer(lab.scale, learn, data=case["data"], seed=case["seed"], depth=DEPTH[lab.scale]))
    layer = f"inner.blocks.{case['layer'] - 1}.depthwise.0"
    shown = lab.probe(run, "kernels", {"layer": layer, "count": 16})
    envelopes = lab.probe(run, "envelope", {"size": 128, "cutoff": CUTOFF, "every": True})
    table, plane = envelopes["envelope.coverage"], envelopes[f"envelope.layer.{layer}"]
    assert isinstance(table, Table) and isinstance(plane, Map)
    verdicts = {"low energy": table.arrays[layer], "smoothness": shown["kernels.smoothness"].arrays["smoothness"]}
    row: dict[str, Cell] = {column: 100 * float(shares.mean()) for column, shares in verdicts.items()}
    row |= {"filters": case["filters"], "layer": case["layer"], "run": run.digest} | _of_envelope(plane)
    which = f"{case['filters']} filters, layer {case['layer']}"
    titles = {which.capitalize(): shown["kernels.pictures"], f"Spectral envelope: {which}": plane}
    pictures = tuple(result.model_copy(update={"title": title}) for title, result in titles.items())
    return Measured(row, pictures, verdicts)


def _of_envelope(plane: Map) -> dict[str, Cell]:
    """Return how much of an envelope's energy lies low and what it covers, in percent."""
    low = np.hypot(np.array(plane.y.values, float)[:, None], np.array(plane.x.values, float)) <= CUTOFF
    power, covered = plane.values.astype(float) ** 2, plane.values > 0.5 * plane.values.max()
    return {
        "envelope's low energy": 100 * float(power[low].sum() / power.sum()),
        "low covered": 100 * float(covered[low].mean()),
        "high covered": 100 * float(covered[~low].mean()),
    }


def gain(rows: Rows, column: str) -> float | None:
    """Return by how much a column lies higher for learned filters than for random ones, on average over layers."""
    layers = {layer for row in rows if isinstance(layer := row.get("layer"), int)}
    gains = [difference(rows, _name("learned", layer), _name("random", layer), column) for layer in layers]
    known = [one for one in gains if one is not None]
    return fmean(known) if known and len(known) == len(gains) else None


def focus(rows: Rows) -> float | None:
    """Return how far learned envelopes cover most of the low frequencies, and more of them than of the others.

    The lesser of both, in points, mean over layers: random filters cover all of either, so they are no measure here.
    """
    found = [
        min(2 * low - 100, low - high)
        for row in rows
        if row.get("filters") == "learned"
        and isinstance(low := row.get("low covered"), float)
        and isinstance(high := row.get("high covered"), float)
    ]
    return fmean(found) if found else None


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw the low energy of filters and of envelopes over the layers."""
    layer = Column(name="layer")
    return tuple(
        curve
        for column in ("low energy", "envelope's low energy")
        for curve in over(
            rows, layer, Column(name=column, unit="%"), by="filters", name=column.replace(" ", "_"),
            title=f"{column.capitalize()}, below {CUTOFF:g} cycles/pixel, by layer",
        )
    )  # fmt: skip


_PLACE = "spatial-mixing, section 4.2.2, figure 9"
_LOW = (
    "Naturally-learned filters have dense coverage of the lower frequencies without unnecessarily capturing the high "
    "frequencies"
)


def _of_layer(layer: int) -> Claim:
    return Claim(
        f"low energy, layer {layer}",
        f"{_LOW}: here a filter's energy at low frequencies, learned above random.",
        f"{_PLACE}, layer {layer}",
        lambda rows: difference(rows, _name("learned", layer), _name("random", layer), "low energy"),
        smallest=5.0,
        drawn="filters",
    )


EXPERIMENT = Experiment(
    title="Learned depthwise filters of a ConvMixer, beside random ones",
    source="spatial-mixing, figure 9",
    columns=(
        Column(name="filters"), Column(name="layer"), Column(name="low energy", unit="%"),
        Column(name="envelope's low energy", unit="%"), Column(name="low covered", unit="%"),
        Column(name="high covered", unit="%"), Column(name="smoothness", unit="%"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        *(_of_layer(layer) for layer in range(1, DEPTH[Scale.FULL] + 1)),
        Claim(
            "low energy, mean", f"{_LOW}: here a filter's energy at low frequencies, learned above random, mean over "
            "layers.", _PLACE, lambda rows: gain(rows, "low energy"), smallest=5.0, drawn="filters",
        ),
        Claim(
            "low energy of envelopes, mean", f"{_LOW}: here the squared envelope's energy, learned above random, mean "
            "over layers.", _PLACE, lambda rows: gain(rows, "envelope's low energy"), smallest=5.0,
        ),
        Claim(
            "low covered, high not", f"{_LOW}: here the envelope covers most of the low frequencies, and more of them "
            "than of the others, mean over layers.", _PLACE, focus, smallest=5.0,
        ),
        Claim(
            "more structured", "The learned filters are clearly more structured than their random counterparts: here "
            "their smoothness, mean over layers.", "spatial-mixing (arXiv), section 4.2, figure 7",
            lambda rows: gain(rows, "smoothness"), smallest=5.0, drawn="filters",
        ),
    ),
)  # fmt: skip
