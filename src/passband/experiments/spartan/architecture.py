"""The stages of both networks, counted, and the waves of figure 4 from the formula.

A stage's row has the side of its features at 224 pixels, its channels, blocks and expansion ratio, read off the network
that is trained, and its parameters and MACs, its patch embedding (in stage 1 the stem) included.

The waves are the paper's equations 8 and 9, with real cosines: c = |a|·e^{iθ}, superposed with a strongest wave of
amplitude 1, and turned by complex weights. No cosine is in the network: its phase is a pointwise convolution with an
activation, and what it adds to all channels is the product at the channel where the *input* is largest, which need not
be the largest wave. So these rows speak of the formula, but for one: eq. 9 is asked of the network's own function. The
paper says that modulation "generates waves with varying frequencies"; a·cos θ - b·sin θ is |w|·cos(θ + arg w), whose
frequency is θ's: here the share of its energy at any other frequency.

No training and no data: the same rows at every scale. Claims are exact.

**Source**: spartan, sections III-C and III-D, equations 8 and 9, table I, figure 4 b to d.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.claims import Claim, Rows
from passband.core.results import Axis, Cell, Column, Curve, Result, Series
from passband.core.scale import Scale
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import SIZE, as_reported, counted, exactly, made
from passband.models.spartan import SpartanBlock
from passband.models.wave_mixer import modulated
from passband.probes.counts import count
from passband.sweeps.lab import Lab

NETWORKS = {"XT": "spartan_xt", "T": "spartan_t"}
TABLE: dict[str, tuple[tuple[int, ...], ...]] = {
    "XT": ((56, 32, 3, 4), (28, 64, 3, 4), (14, 96, 10, 2), (7, 192, 2, 2)),
    "T": ((56, 32, 3, 4), (28, 64, 3, 4), (14, 128, 12, 2), (7, 256, 2, 2)),
}
"""Table I: of each stage the side at 224 pixels, channels, blocks and ratio."""
SHAPE = ("side", "channels", "blocks", "ratio")
WAVES = ("superposition", "modulation", "equation 9")
POINTS = 64
WEIGHTS = tuple(complex(real, imaginary) for real in (-1.5, 0.5, 1.0) for imaginary in (-1.0, 0.25, 2.0))
"""The complex weights that waves are turned by."""
PHASES = np.arange(POINTS) * 2 * np.pi / POINTS
AMPLITUDES = (0.25, 0.5, 1.0)
"""Of the wave that is superposed with the strongest, whose amplitude is 1."""


def cases(scale: Scale) -> list[Case]:
    """List the stages of both networks, the whole networks, and the waves."""
    stages = [(f"{name}, stage {place + 1}", name, place) for name in NETWORKS for place in range(4)]
    rows = [*stages, *((name, name, None) for name in NETWORKS), *((name, "waves", None) for name in WAVES)]
    return [{"case": case, "data": None, "seed": None, "of": of, "place": place} for case, of, place in rows]


def measure(case: Case, lab: Lab) -> Measured:
    """Count a stage or a network, or draw waves."""
    if case["of"] == "waves":
        return {"superposition": _superposition, "modulation": _modulation, "equation 9": _equation_9}[case["case"]]()
    name = NETWORKS[case["of"]]
    return counted(name) if case["place"] is None else Measured(_stage(name, case["place"]))


def _stage(name: str, place: int) -> dict[str, Cell]:
    network: Any = made(name)
    parts = nn.Sequential(network.stem, network.stages[0]) if place == 0 else network.stages[place]
    before = 3 if place == 0 else network.feature_info[place - 1]["num_chs"]
    given = SIZE if place == 0 else SIZE // network.feature_info[place - 1]["reduction"]
    features = torch.zeros(1, before, given, given)
    with torch.no_grad():
        side = parts.eval()(features).shape[-1]
    counts = count(parts, features)
    blocks = [part for part in parts.modules() if isinstance(part, SpartanBlock)]
    channel: Any = blocks[0].channel
    channels = channel.project.out_channels
    return {
        "side": side, "channels": channels, "blocks": len(blocks), "ratio": channel.amplitude.out_channels // channels,
        "parameters": counts.parameters / 1e6, "MACs": counts.macs / 1e6, "FLOPs": counts.flops / 1e9,
    }  # fmt: skip


def _superposition() -> Measured:
    """Superpose waves with a strongest one, in the complex domain and in the real one."""
    waves = np.outer(AMPLITUDES, np.exp(1j * PHASES))
    together = 1 + waves
    inside = (np.abs(PHASES) > 0) & (np.abs(PHASES - np.pi) > 1e-9)
    nearer = np.abs(np.angle(together[:, inside])) < np.abs(np.angle(waves[:, inside]))
    row: dict[str, Cell] = {
        "in phase": float(np.abs(together[:, 0]).min() - 1),
        "out of phase": float(1 - np.abs(together[:, POINTS // 2]).max()),
        "not aligned": int((~nearer).sum()),
    }
    time = np.cos(PHASES)
    real = {name: time + np.cos(PHASES + shift) for name, shift in _SHIFTS.items()}
    return Measured(
        row,
        (
            _curve("complex", "Superposition with a wave of amplitude 1, complex domain", "phase between them",
                   "amplitude", {f"amplitude {one:g}": np.abs(line) for one, line in zip(AMPLITUDES, together,
                                                                                        strict=True)}),
            _curve("real", "Superposition of two equal waves, real domain", "θ", "value", {"one wave": time, **real}),
        ),
    )  # fmt: skip


_SHIFTS = {"in phase": 0.0, "a quarter apart": np.pi / 2, "out of phase": np.pi}


def _modulation() -> Measured:
    """Turn a wave by complex weights, and look for other frequencies in it."""
    lines = {f"{weight:g}": weight.real * np.cos(PHASES) - weight.imag * np.sin(PHASES) for weight in WEIGHTS}
    energies = np.abs(np.fft.rfft(np.stack(list(lines.values())))) ** 2
    elsewhere = 1 - energies[:, 1] / energies.sum(1)
    drawn = {"before": np.cos(PHASES)} | {f"by {name}": line for name, line in list(lines.items())[::4]}
    shown = _curve("modulation", "A wave's real part, modulated by complex weights", "θ", "value", drawn)
    # A share that rounding alone makes is none.
    return Measured({"unchanged": int((elsewhere < 1e-12).sum())}, (shown,))


def _equation_9() -> Measured:
    """Hold what the network does with pairs of channels to complex multiplication, on whole numbers: nothing rounds."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randint(-9, 10, (2, 8, 3, 3), generator=generator).double()
    weights = torch.randint(-9, 10, (4, 2), generator=generator).double()
    ours = modulated(waves, weights)
    pairs = torch.view_as_complex(waves.reshape(2, 4, 2, 3, 3).movedim(2, -1).contiguous())
    turned = pairs * torch.view_as_complex(weights)[:, None, None]
    theirs: Tensor = torch.view_as_real(turned).movedim(-1, 2).flatten(1, 2)
    return Measured({"differing": int((ours != theirs).sum())})


def _curve(name: str, title: str, x: str, y: str, lines: dict[str, np.ndarray]) -> Result:
    return Curve(
        name=name, title=title, x=Axis(name=x, unit="radians", values=tuple(PHASES.tolist())), y=Axis(name=y),
        series=tuple(Series(name=line, values=tuple(values.tolist())) for line, values in lines.items()),
    )  # fmt: skip


def shaped(rows: Rows, name: str) -> float | None:
    """Return minus the cells of a network's column of table I that are others."""
    found = [[value(rows, f"{name}, stage {place + 1}", cell) for cell in SHAPE] for place in range(4)]
    if any(None in stage for stage in found):
        return None
    pairs = ((ours, theirs) for stage, said in zip(found, TABLE[name], strict=True)
             for ours, theirs in zip(stage, said, strict=True))  # fmt: skip
    return 0.0 - sum(ours != theirs for ours, theirs in pairs)


def _number(case: str, column: str, sign: float = 1.0) -> Callable[[Rows], float | None]:
    def margin(rows: Rows) -> float | None:
        found = value(rows, case, column)
        return None if found is None else sign * found + 0.0

    return margin


_WAVES = "spartan, section III-C"
_PHASE = "The features are enhanced when they are in phase and suppressed when they are completely out of phase"

CLAIMS: tuple[Claim, ...] = (
    *(
        exactly(f"{name} as in table I", f"Stages of SpaRTAN-{name}: output sizes, channels, blocks and expansion "
                "ratios (margin: minus the cells that differ).", "spartan, table I",
                partial(shaped, name=name), unit="cells")
        for name in NETWORKS
    ),
    as_reported("XT", {"parameters": (2.2, 1)}, "spartan, table II"),
    as_reported("T", {"parameters": (3.8, 1)}, "spartan, table II"),
    exactly("enhanced in phase", f"{_PHASE} (in phase: by how much the amplitude exceeds the strongest wave's).",
            f"{_WAVES}, figure 4 b and c", _number("superposition", "in phase"), unit="of the strongest wave"),
    exactly("suppressed out of phase", f"{_PHASE} (out of phase: by how much the amplitude falls below the strongest "
            "wave's).", f"{_WAVES}, figure 4 b and c", _number("superposition", "out of phase"),
            unit="of the strongest wave"),
    exactly("aligned with the strongest", "The resultant vectors are more aligned with F_max (margin: minus the "
            "phases and amplitudes at which they are not).", f"{_WAVES}, figure 4 b",
            _number("superposition", "not aligned", -1.0), unit="waves"),
    exactly("equation 9", "Complex multiplication initiates superposition on both the real and imaginary part: what "
            "the network computes is that (margin: minus the numbers that differ).", f"{_WAVES}, equation 9",
            _number("equation 9", "differing", -1.0)),
    exactly("varying frequencies", "Modulation generates waves with varying frequencies (as a function of θ; margin: "
            "minus the complex weights that leave the wave its one frequency).", f"{_WAVES}, figure 4 d",
            _number("modulation", "unchanged", -1.0), unit="weights"),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="SpaRTAN's stages, and its waves from the formula",
    source="spartan, table I and figure 4",
    columns=(
        Column(name="side", unit="pixels"), *(Column(name=name) for name in SHAPE[1:]),
        Column(name="parameters", unit="M"), Column(name="MACs", unit="M"), Column(name="FLOPs", unit="G"),
        Column(name="in phase"), Column(name="out of phase"), Column(name="not aligned", unit="waves"),
        Column(name="unchanged", unit="weights"), Column(name="differing", unit="numbers"),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    reported={
        f"{name}, stage {place + 1}": dict(zip(SHAPE, map(float, stage), strict=True))
        for name, stages in TABLE.items() for place, stage in enumerate(stages)
    },
)  # fmt: skip
