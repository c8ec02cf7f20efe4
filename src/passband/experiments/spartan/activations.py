"""GELU or SiLU in the patch embeddings, and in the mixers.

What the paper calls patch embedding is here the 2×2 convolutions between stages: its text has SiLU in all patch
embeddings, its released code in these three, and GELU in the stem, which stays.

**Source**: spartan, section IV-C2 and table VI. **Differs**: the stem, as in the released code.
"""

from __future__ import annotations

from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.scale import Scale
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import COLUMNS, ablated, above, trainings
from passband.experiments.spartan.settings import LIMIT
from passband.sweeps.lab import Lab

BEST = "SiLU, GELU"
NETWORKS: dict[str, dict[str, Any]] = {
    "GELU, GELU": {"patch_act": "gelu"},
    "GELU, SiLU": {"patch_act": "gelu", "block_act": "silu"},
    BEST: {},
    "SiLU, SiLU": {"block_act": "silu"},
}
"""By the activation of the patch embeddings and that of the mixers."""


def cases(scale: Scale) -> list[Case]:
    """List the four pairs."""
    return trainings(scale, NETWORKS)


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and test it."""
    return ablated(case, lab, NETWORKS[case["case"]])


def best(rows: Rows) -> float | None:
    """Return by how much SiLU in patch embeddings with GELU in mixers lies above the best of the others, in points."""
    found = {name: value(rows, name, "accuracy") for name in NETWORKS}
    ours, others = found.pop(BEST), [one for one in found.values() if one is not None]
    return None if ours is None or len(others) < len(found) else ours - max(others)


_PLACE = "spartan, section IV-C2, table VI"
_PATCH = "The gating effect of SiLU performs best in patch embedding layers"
_BLOCK = "The training-friendly GELU function is more suitable to be used with SMixer and CMixer"

EXPERIMENT = Experiment(
    title="Activations of the patch embeddings and of the mixers",
    source="spartan, table VI",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=(
        Claim("SiLU, GELU best", f"{_PATCH}, GELU is more suitable in the mixers: the best pair of the four.", _PLACE,
              best, smallest=0.3),
        above("SiLU in patch embeddings, GELU mixers", f"{_PATCH} (GELU in the mixers).", _PLACE, BEST, "GELU, GELU"),
        above("SiLU in patch embeddings, SiLU mixers",
              f"{_PATCH} (SiLU in the mixers; the paper's own numbers say the opposite).", _PLACE, "SiLU, SiLU",
              "GELU, SiLU"),
        above("GELU in mixers, SiLU embeddings", f"{_BLOCK} (SiLU in the patch embeddings).", _PLACE, BEST,
              "SiLU, SiLU"),
        above("GELU in mixers, GELU embeddings",
              f"{_BLOCK} (GELU in the patch embeddings; the paper's own numbers say the opposite).", _PLACE,
              "GELU, GELU", "GELU, SiLU"),
    ),
    reported={
        f"{name}, imagenet": {"accuracy": accuracy}
        for name, accuracy in zip(NETWORKS, (72.8, 73.2, 73.9, 72.9), strict=True)
    },
    limit=LIMIT,
)  # fmt: skip
