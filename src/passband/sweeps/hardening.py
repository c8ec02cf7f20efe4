"""The edit that a frontier speaks for, written so that the edited model can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from passband.core.errors import PassbandError
from passband.core.results import Result, Table
from passband.core.store import make_folder, write_atomic
from passband.models.file_source import PATTERN
from passband.models.weights_file import save_weights
from passband.models.wrap import Classifier
from passband.probes.tried import UNEDITED
from passband.sweeps.resolve import Subject, run_folder
from passband.train.run import open_run
from passband.weights.edits import EDITS, Choice, edited

EDITED, WHOLE, MODEL = "hardened.safetensors", "unedited.safetensors", "hardened.py"


def best(results: Sequence[Result], cost: float) -> Choice | None:
    """Return the most robust edit that is judged more robust and costs little clean accuracy.

    Args:
        results: Of the probe ``harden``.
        cost: Largest fall of the clean accuracy, a fraction.

    Returns:
        None where no edit is judged more robust at that price.
    """
    rows = _rows(results)
    base = next(row for row in rows if row["edit"] == UNEDITED)
    able = [row for row in rows if row["judged"] == "more robust" and row["clean"] >= base["clean"] - cost]
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


def check_place(source: str, folder: Path) -> None:
    """Refuse to write an edited model over the file that makes the model which is edited.

    Raises:
        PassbandError: when ``source`` is that file.
    """
    match = PATTERN.fullmatch(source)
    if match and Path(match["path"]).resolve() == (folder / MODEL).resolve():
        raise PassbandError(f"{folder / MODEL} makes the model that would be edited; choose another folder with --out")


def write(asked: Subject, source: str, choice: Choice, folder: Path) -> Path:
    """Write an edited model: ``hardened.py``, whose ``model()`` makes it of the weights that lie beside it.

    Where only weights changed these are the edited ones, ``hardened.safetensors``, which load wherever the model's own
    do. Where something stands before the network they are the network's own, ``unedited.safetensors``.

    Args:
        asked: The model as it is.
        source: How it was named.
        choice: The edit and its strength.
        folder: Where to; what an earlier edit left there is replaced.

    Returns:
        The Python file; ``FILE:model`` is its name for every command.

    Raises:
        PassbandError: when the model has nothing for the edit, the strength is out of range, or ``source`` is the file
            itself.
    """
    name, strength = choice
    check_place(source, folder)
    model = edited(asked.model, name, strength)
    make_folder(folder)
    rebuilds = EDITS[name].rebuilds
    kept, stale = (WHOLE, EDITED) if rebuilds else (EDITED, WHOLE)
    save_weights(asked.model if rebuilds else model, folder / kept)
    path = folder / MODEL
    write_atomic(path, _file(asked.model, source, choice, kept).encode())
    (folder / stale).unlink(missing_ok=True)
    return path


def _file(model: Classifier, source: str, choice: Choice, weights: str) -> str:
    """Return the Python file that makes a model of the weights beside it, and edits it where they are not edited."""
    name, strength = choice
    imports: set[str] = set()
    run = run_folder(source)
    if run is None:
        imports.add("from passband.models.create import create")
        lines = [f"classifier = create({_named(source)!r}, {_arguments(model)}, weights=WEIGHTS)"]
    else:
        imports |= {
            "from passband.core.recipe import Recipe", "from passband.core.spec import ImageSpec",
            "from passband.models.weights_file import load_weights", "from passband.train.build import bare_model",
        }  # fmt: skip
        lines = [
            f"recipe = Recipe.of({open_run(run).recipe.plain()!r})",
            f"spec = ImageSpec(**{asdict(model.spec)!r})",
            "with torch.random.fork_rng():  # weights are drawn only to be overwritten",
            "    classifier = bare_model(recipe, spec)",
            "load_weights(classifier, WEIGHTS)",
        ]
    if EDITS[name].rebuilds:
        imports.add("from passband.weights.edits import edited")
        lines.append(f"classifier = edited(classifier, {name!r}, {strength!r})")
    head = f'"""A model hardened by {name} of {strength:g} ({EDITS[name].strength}): {MODEL}:model is its name."""'
    return "\n".join(
        [
            head, "", "from pathlib import Path", *(["", "import torch"] if run is not None else []), "",
            *sorted(imports), "",
            f'WEIGHTS = Path(__file__).with_name("{weights}")', "", "", "def model():",
            '    """Return the classifier: images in [0, 1] in, logits out."""',
            *(f"    {line}" for line in lines), "    return classifier.eval()", "",
        ]
    )  # fmt: skip


def _named(source: str) -> str:
    """Name the source so that the name holds from any folder."""
    match = PATTERN.fullmatch(source)
    return f"{Path(match['path']).resolve()}:{match['factory']}" if match else source


def _arguments(model: Classifier) -> str:
    spec = model.spec
    given = {
        "classes": spec.classes, "channels": spec.channels, "size": spec.size, "mean": spec.mean, "std": spec.std,
        "class_names": spec.class_names,
    }  # fmt: skip
    return ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
