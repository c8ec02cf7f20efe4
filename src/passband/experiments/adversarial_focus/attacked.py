"""The columns of this paper's tables: accuracy untouched and under its six attacks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from passband.core.results import Cell, Column
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject
from passband.train.run import Run

ATTACKS = {"GN": "gn", "FGSM": "fgsm", "PGD-20": "pgd", "BIM-20": "bim", "TPGD-20": "tpgd", "CW-20": "cw"}
"""The paper's name of an attack to ours."""

EPS = 8 / 255
COLUMNS = (Column(name="clean", unit="%"), *(Column(name=name, unit="%") for name in ATTACKS))
"""``clean`` is what the paper calls Natural."""

ABOUT = (Column(name="network"), Column(name="learned from"), Column(name="epochs"))
"""What :func:`about` says of a run: below full scale it stands in for the paper's."""

_OPTIONS = {"eps": (EPS,), "attacks": tuple(ATTACKS.values()), "steps": 20, "verdict": "last", "examples": 0}


def attacked(
    asked: Subject, run: Run, lab: Lab, *, limit: int | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return a model's accuracy by column of the paper's tables, in %, and its verdicts per image, 0 or 1.

    ε is 8/255 and a step 2/255; PGD starts at random, the last image is judged. GN adds noise of standard deviation
    0.1 and CW (c 1, κ 0, rate 0.01) has no ε, as in the paper's library. An image that is wrong untouched is wrong
    under attack.

    **Source**: adversarial-focus, tables 1 to 5; the arguments that it does not state are torchattacks'.
    **Differs**: there TPGD and CW may turn a wrong answer into a right one; here it stays wrong.

    Args:
        asked: The run's own model, or what an edit made of it.
        run: The run whose test images are attacked.
        lab: Measures each model once.
        limit: Fewer images than the laboratory's own limit.
    """
    found = lab.ask(asked, run, "robustness", _OPTIONS, limit=limit)["robustness.accuracy"]
    verdicts = {"clean": found.arrays["fgsm"][0].astype(float)}
    verdicts |= {name: found.arrays[key][1].astype(float) for name, key in ATTACKS.items()}
    return {column: 100 * float(right.mean()) for column, right in verdicts.items()}, verdicts


def about(run: Run) -> dict[str, Cell]:
    """Return which network a row speaks of, from how many images it learned, and for how many epochs."""
    metrics = run.metrics
    network = called(run.recipe.model.model_dump())
    return {"network": network, "learned from": metrics["train_images"], "epochs": metrics["epochs"]}


def called(model: Mapping[str, object]) -> str:
    """Return what people call a network of a recipe.

    >>> called({"name": "wide_resnet", "depth": 34, "widen": 10})
    'WRN-34-10'
    """
    name, depth, width = model["name"], model.get("depth"), model.get("width")
    if name == "wide_resnet":
        return f"WRN-{depth}-{model['widen']}"
    if name == "postact_resnet":
        return f"ResNet-{6 * int(str(depth)) + 2}, width {width}, {model['activation']}"
    if name == "small_mobilenetv2":
        return f"MobileNetV2, {width:g} of the channels"
    return f"EfficientNet-B0, {width:g} of the channels, {depth:g} of the blocks"
