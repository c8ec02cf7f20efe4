"""The whole path once, on the built-in photographs: three networks, what learns in each, and what they run on.

Separable ResNet-8s that learn everything, only their channel mixers, or only their spatial mixers; each probed by
frequency band and attacked. The claims are the paper's; the data and the minutes are too few to judge them.

**Source**: spatial-mixing, figures 2 and 6 of the workshop paper; high-frequency, section 3, for the bands.
"""

from __future__ import annotations

from passband.core.claims import Claim
from passband.core.recipe import Recipe
from passband.core.results import Cell, Column, Result
from passband.core.scale import Scale
from passband.experiments.margins import difference, nearer
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab

LEARN = ("everything", "channels", "spatial")
RADII = (4, 8, 12, 16)
SHOWN = (8, 12)
"""The radii that stand in the table; the report has them all."""
PROBES: dict[str, dict[str, object]] = {
    # Every built-in patch has one mean and one contrast: a copy divided by its maximum would have neither.
    "bands": {"radii": RADII, "rescale": "none", "examples": 12},
    "robustness": {"eps": (1 / 255, 2 / 255, 4 / 255, 8 / 255), "steps": 10},
    "kernels": {},
    "envelope": {},
}


def cases(scale: Scale) -> list[Case]:
    """List what learns."""
    return [{"case": learn, "data": "photos", "seed": 0} for learn in LEARN]


def recipe(case: Case) -> Recipe:
    """Return the training of one case."""
    return Recipe.of(
        {
            "learn": "all" if case["case"] == "everything" else case["case"],
            "data": {"name": case["data"]},
            "epochs": 4,
            "batch": 32,
            "seed": case["seed"],
        }
    )


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network and run the four probes on it."""
    run = lab.train(recipe(case))
    found: dict[str, Result] = {}
    for probe, options in PROBES.items():
        found |= lab.probe(run, probe, options)
    cuts, robust = found["bands.accuracy"].arrays, found["robustness.accuracy"].arrays
    verdicts = {"accuracy": found["bands.clean"].arrays["correct"].astype(float)}
    for radius in SHOWN:
        for side in ("LFC", "HFC"):
            verdicts[f"{side} {radius}"] = cuts[f"{side}.correct"][RADII.index(radius)].astype(float)
    for attack in ("fgsm", "pgd"):
        # The first row is ε = 0, the image untouched: the mean is over the attacked ones.
        verdicts[attack] = robust[attack][1:].mean(axis=0)
    row: dict[str, Cell] = {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    row |= {
        "learned": run.metrics["learned_parameters"],
        "seconds": run.metrics["seconds"],
        "run": run.digest,
    }
    return Measured(row, tuple(found.values()), verdicts)


CLAIMS = (
    Claim(
        "channels near everything", "Learning only channel mixing reaches nearly the same performance.",
        "spatial-mixing, section 4.1.2, figure 2",
        lambda rows: nearer(rows, "channels", to="everything", than="spatial", column="accuracy"), judged_from=None,
    ),
    Claim(
        "spatial far below", "Networks only learning spatial mixing perform far worse than those learning only "
        "channel mixing.", "spatial-mixing, section 4.1.2, figure 2",
        lambda rows: difference(rows, "channels", "spatial", "accuracy"), smallest=1.0, judged_from=None,
    ),
    Claim(
        "channels more robust to FGSM", "Channels-only models are more naturally robust to adversarial perturbations.",
        "spatial-mixing, section 4.3.2, figure 6 (left)",
        lambda rows: difference(rows, "channels", "everything", "fgsm"), smallest=1.0, judged_from=None,
    ),
    Claim(
        "channels more robust to PGD", "Channels-only models are more naturally robust to adversarial perturbations.",
        "spatial-mixing, section 4.3.2, figure 6 (middle)",
        lambda rows: difference(rows, "channels", "everything", "pgd"), smallest=1.0, judged_from=None,
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    title="Quickstart: what learns, which frequencies it runs on, how far it can be attacked",
    source="spatial-mixing, figures 2 and 6; high-frequency, section 3",
    columns=(
        Column(name="accuracy", unit="%"),
        *(Column(name=f"{side} {radius}", unit="%") for radius in SHOWN for side in ("LFC", "HFC")),
        Column(name="fgsm", unit="%"), Column(name="pgd", unit="%"),
        Column(name="learned", unit="parameters"), Column(name="seconds", unit="s"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=CLAIMS,
    limit={scale: 1000 for scale in Scale},
)  # fmt: skip
