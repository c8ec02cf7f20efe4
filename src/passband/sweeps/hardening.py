"""The edit that a frontier speaks for, written so that the edited model can be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passband.core.results import Result, Table
from passband.core.store import make_folder, write_atomic
from passband.models.weights_file import save_weights
from passband.models.wrap import Classifier
from passband.probes.harden import UNEDITED
from passband.sweeps.resolve import Subject, run_folder
from passband.train.run import open_run
from passband.weights.edits import EDITS, Choice, edited

WEIGHTS, WRAPPER = "hardened.safetensors", "hardened.py"


def best(results: Sequence[Result], loss: float) -> Choice | None:
    """Return the most robust edit that is judged more robust and costs little clean accuracy.

    Args:
        results: Of the probe ``harden``.
        loss: Largest fall of the clean accuracy, a fraction.

    Returns:
        None where no edit is judged more robust at that price.
    """
    rows = _rows(results)
    base = next(row for row in rows if row["edit"] == UNEDITED)
    able = [row for row in rows if row["judged"] == "more robust" and row["clean"] >= base["clean"] - loss]
    if not able:
        return None
    chosen = max(able, key=lambda row: (row["robust"], row["clean"]))
    return str(chosen["edit"]), float(chosen["strength"])


def judgment(results: Sequence[Result], choice: Choice) -> str:
    """Return what the frontier says of an edit that was tried."""
    return next(str(row["judged"]) for row in _rows(results) if (row["edit"], row["strength"]) == choice)


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    table = next(one for one in results if one.name == "harden.frontier")
    assert isinstance(table, Table)
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]


def write(asked: Subject, source: str, choice: Choice, folder: Path) -> Path:
    """Write an edited model.

    Where only weights changed, ``hardened.safetensors`` loads in plain timm and wherever the model's own weights do.
    Where something stands before the network, ``hardened.py`` makes the whole of it from the weights beside it, and
    ``folder/hardened.py:model`` is its name for every command.

    Args:
        asked: The model as it is.
        source: How it was named.
        choice: The edit and its strength.
        folder: Where to.

    Returns:
        The file that stands for the edited model.

    Raises:
        PassbandError: when the model has nothing for the edit, or the strength is out of range.
    """
    name, strength = choice
    model = edited(asked.model, name, strength)
    make_folder(folder)
    if not EDITS[name].rebuilds:
        return save_weights(model, folder / WEIGHTS)
    save_weights(asked.model, folder / WEIGHTS)
    path = folder / WRAPPER
    write_atomic(path, _wrapper(asked.model, source, name, strength).encode())
    return path


def _wrapper(model: Classifier, source: str, name: str, strength: float) -> str:
    """Return the Python file that makes a model of the weights beside it and edits it."""
    run = run_folder(source)
    if run is None:
        spec = model.spec
        given = {
            "classes": spec.classes, "channels": spec.channels, "size": spec.size, "mean": spec.mean, "std": spec.std,
            "class_names": spec.class_names,
        }  # fmt: skip
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
        imports = "from passband.models.create import create"
        made = f"create({source!r}, {arguments}, weights=WEIGHTS)"
    else:
        imports = (
            "from passband.core.recipe import Recipe\nfrom passband.core.spec import ImageSpec\n"
            "from passband.models.weights_file import load_weights\nfrom passband.train.build import bare_model"
        )
        spec_fields = {key: value for key, value in asdict(model.spec).items()}
        made = f"bare_model(Recipe.of({open_run(run).recipe.plain()!r}), ImageSpec(**{spec_fields!r}))"
    lines = [
        f'"""A hardened model: {name} of {strength:g} ({EDITS[name].strength}). `HERE/{WRAPPER}:model` is its name."""',
        "", "from pathlib import Path", "", imports, "from passband.weights.edits import edited", "",
        f"WEIGHTS = Path(__file__).with_name({json.dumps(WEIGHTS)})", "", "",
        "def model():", '    """Return the classifier: images in [0, 1] in, logits out."""', f"    classifier = {made}",
        *(["    load_weights(classifier, WEIGHTS)"] if run is not None else []),
        f"    return edited(classifier, {name!r}, {strength!r})", "",
    ]  # fmt: skip
    return "\n".join(lines)
