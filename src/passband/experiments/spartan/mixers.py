"""SMixer and CMixer, one by one and together, against a convolution and an MLP.

Six networks: what mixes positions is a convolution or the SMixer, what mixes channels an MLP, an MLP with squeeze and
excitation, or the CMixer. The paper leaves the convolution's layers open: one 3×3 convolution with norm and activation,
full in stages 1 and 2 and depthwise in 3 and 4, then a pointwise one; the MLP has the stage's ratio.

The paper's rows differ in size, and it does not say by how much: parameters and MACs are counted beside, and whether
accuracy follows them is asked as a control.

**Source**: spartan, section IV-C1 and table IV.
"""

from __future__ import annotations

from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.scale import Scale
from passband.experiments.margins import difference, rank_correlation
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import COLUMNS, ablated, above, trainings
from passband.experiments.spartan.settings import LIMIT
from passband.sweeps.lab import Lab

BASELINE, BOTH = "convolution + MLP", "SMixer + CMixer"
NETWORKS: dict[str, dict[str, Any]] = {
    BASELINE: {"spatial": "convolution", "channel": "mlp"},
    "SMixer + MLP": {"channel": "mlp"},
    "SMixer + MLP + SE": {"channel": "mlp+se"},
    "convolution + MLP + SE": {"spatial": "convolution", "channel": "mlp+se"},
    "convolution + CMixer": {"spatial": "convolution"},
    BOTH: {},
}


def cases(scale: Scale) -> list[Case]:
    """List the six networks."""
    return trainings(scale, NETWORKS)


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and test it."""
    return ablated(case, lab, NETWORKS[case["case"]])


def more_by_both(rows: Rows) -> float | None:
    """Return how much more SMixer and CMixer together gain on the baseline than SMixer on it where both have SE."""
    both = difference(rows, BOTH, BASELINE, "accuracy")
    paired = difference(rows, "SMixer + MLP + SE", "convolution + MLP + SE", "accuracy")
    return None if both is None or paired is None else both - paired


_PLACE = "spartan, section IV-C1, table IV"


def _follows(column: str) -> Claim:
    return Claim(
        f"accuracy follows {column}",
        f"Control, not in the paper: the six networks' accuracy grows with their {column} (rank correlation).",
        _PLACE, lambda rows: rank_correlation(rows, column, "accuracy", len(NETWORKS)), unit="of correlation",
        smallest=0.5,
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="SMixer and CMixer against a convolution and an MLP",
    source="spartan, table IV",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=(
        above(
            "SMixer alone", "SMixer and CMixer individually boost accuracy over the baseline (SMixer: by 0.5 points).",
            _PLACE, "SMixer + MLP", BASELINE,
        ),
        above(
            "CMixer alone", "SMixer and CMixer individually boost accuracy over the baseline (CMixer: by 0.9 points).",
            _PLACE, "convolution + CMixer", BASELINE,
        ),
        above(
            "SMixer where both have SE", "Pairing the SMixer with the SE module yields a modest gain of 0.3 points "
            "over the baseline using the SE module alone.", _PLACE, "SMixer + MLP + SE", "convolution + MLP + SE",
        ),
        above(
            "both", "Combining the SMixer with the CMixer results in an improvement of 2 points.", _PLACE, BOTH,
            BASELINE, smallest=1.0,
        ),
        Claim(
            "both more than SMixer with SE", "Combining the SMixer with the CMixer results in a more significant "
            "improvement than pairing the SMixer with the SE module.", _PLACE, more_by_both, smallest=1.0,
        ),
        *(
            above(
                f"CMixer over {rival}", "Table IV verifies the effectiveness of the CMixer compared to vanilla MLP and "
                f"MLP with an SE module ({rival}).", "spartan, section III-C, table IV", BOTH, f"SMixer + {rival}",
            )
            for rival in ("MLP", "MLP + SE")
        ),
        *(_follows(column) for column in ("parameters", "MACs")),
    ),
    reported={
        f"{name}, imagenet": {"accuracy": accuracy}
        for name, accuracy in zip(NETWORKS, (71.9, 72.4, 72.6, 72.3, 72.8, 73.9), strict=True)
    },
    limit=LIMIT,
)  # fmt: skip
