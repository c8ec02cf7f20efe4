"""Batch or layer normalization after the convolutions, and before the mixers.

Layer normalization is the released code's: over channels and positions, scaled and shifted channel by channel. The
paper does not say which it puts after convolutions: the same.

**Source**: spartan, section IV-C2 and table VII.
"""

from __future__ import annotations

from typing import Any

from passband.core.scale import Scale
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import COLUMNS, ablated, above, trainings
from passband.experiments.spartan.settings import LIMIT
from passband.sweeps.lab import Lab

NETWORKS: dict[str, dict[str, Any]] = {
    "batch, batch": {"mixer_norm": "batch"},
    "batch, layer": {},
    "layer, batch": {"conv_norm": "layer", "mixer_norm": "batch"},
    "layer, layer": {"conv_norm": "layer"},
}
"""By the normalization after convolutions and that before mixers."""


def cases(scale: Scale) -> list[Case]:
    """List the four pairs."""
    return trainings(scale, NETWORKS)


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and test it."""
    return ablated(case, lab, NETWORKS[case["case"]])


_PLACE = "spartan, section IV-C2, table VII"
_AFTER = "Batch normalization performs better than layer normalization when used after convolution"
_BEFORE = "Layer normalization, on the other hand, works well when it is used before SMixer and CMixer"

EXPERIMENT = Experiment(
    title="Normalization after convolutions and before mixers",
    source="spartan, table VII",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=(
        above("batch after convolutions, layer before mixers", f"{_AFTER} (layer normalization before the mixers).",
              _PLACE, "batch, layer", "layer, layer"),
        above("batch after convolutions, batch before mixers", f"{_AFTER} (batch normalization before the mixers).",
              _PLACE, "batch, batch", "layer, batch"),
        above("layer before mixers, batch after convolutions",
              f"{_BEFORE}: better than batch normalization (batch normalization after convolutions).", _PLACE,
              "batch, layer", "batch, batch"),
        above("layer before mixers, layer after convolutions",
              f"{_BEFORE}: better than batch normalization (layer normalization after convolutions; the paper's own "
              "numbers say the opposite).", _PLACE, "layer, layer", "layer, batch"),
    ),
    reported={
        f"{name}, imagenet": {"accuracy": accuracy}
        for name, accuracy in zip(NETWORKS, (73.1, 73.9, 72.6, 72.2), strict=True)
    },
    limit=LIMIT,
)  # fmt: skip
