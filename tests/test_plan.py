"""The plan of the full scale: it names the trainings that are really made, and is that of today's recipes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments import catalog
from passband.experiments.protocol import Experiment, Measured
from passband.experiments.reproduce import reproduce
from passband.sweeps.lab import Lab
from passband.train.build import training_set

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plan", DOCS / "plan.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan"] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def folders(script: ModuleType, name: str, experiment: Experiment) -> set[str]:
    _, noted = script.noted(name, experiment, Scale.SMOKE)
    return {recipe.digest(training_set(recipe).fingerprint)[:16] for recipe, _ in noted}


def made(runs: Path) -> set[str]:
    return {path.parent.name for path in runs.glob("*/DONE")}


def fake(epochs: int) -> Recipe:
    fields = {"data": {"name": "photos", "part": 8}, "batch": 8, "epochs": epochs, "model": {"name": "small_lenet"}}
    return Recipe.of(fields)


def twice(case, lab: Lab) -> Measured:
    """Train two networks, the second kept, before either is asked."""
    lab.train(fake(1))
    run = lab.train(fake(case["epochs"]), keep_epochs=True)
    found = lab.probe(run, "bands", {"radii": (8,), "examples": 0})
    lab.train(fake(1))
    return Measured({"run": run.digest, "accuracy": float(found["bands.clean"].arrays["correct"].mean())})


def test_it_names_the_runs_that_are_made(script, tmp_path) -> None:
    cases = [{"case": str(epochs), "data": "photos", "seed": 0, "epochs": epochs} for epochs in (1, 2)]
    experiment = Experiment("", "", (), lambda scale: [*cases, {"case": "no training", "data": None}], measure, ())
    reproduce("fake", experiment, Lab(Scale.SMOKE, "", runs=tmp_path, limit=8))
    assert folders(script, "fake", experiment) == made(tmp_path)
    assert len(made(tmp_path)) == 2


def measure(case, lab: Lab) -> Measured:
    return Measured({}) if case["data"] is None else twice(case, lab)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["spatial-mixing/static-filters", "adversarial-focus/similarity", "high-frequency/kernels"]
)
def test_it_names_the_runs_of_experiments(script, name, tmp_path) -> None:
    experiment = catalog.find(name)
    reproduce(name, experiment, Lab(Scale.SMOKE, "", runs=tmp_path, limit=16))
    assert folders(script, name, experiment) == made(tmp_path)


def test_no_use_of_a_network_is_left_open(script) -> None:
    public = {name for name, value in vars(Lab).items() if callable(value) and not name.startswith("_")}
    assert public <= vars(script.Planner).keys()


def test_it_is_that_of_the_recipes_as_they_are(script, monkeypatch) -> None:
    """The FLOPs, which take minutes, are left as they were counted; the trainings, their images and sharing are not."""
    kept = json.loads((DOCS / "results" / "plan.json").read_text())
    monkeypatch.setattr(script, "_network", lambda fields: (1, 1))
    now = script.plan(Scale.FULL)
    assert now["recipes"] == kept["recipes"], "run `python docs/plan.py` and `python docs/tables.py`"
    counted = ("experiment", "cases", "new", "shared", "images", "memory")
    assert [[row[name] for name in counted] for row in now["rows"]] == [
        [row[name] for name in counted] for row in kept["rows"]
    ]
    assert [row["experiment"] for row in now["rows"]] == catalog.of_papers()


def test_a_networks_flops(script) -> None:
    recipe = fake(3)
    small = {"name": "conv_mixer", "width": 4, "depth": 1, "kernel": 3, "patch": 4}
    mixer = Recipe.of(recipe.plain() | {"model": small, "data": {"name": "photos", "size": 32, "part": 8}})
    places = 8 * 8
    stem, spatial, channel, head = 4 * 3 * 16 * places, 4 * 9 * places, 4 * 4 * places, 4 * 15
    assert script.network(mixer)[0] == 2 * (stem + spatial + channel + head)
    assert script.images(mixer) == 24


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, 3),
        ({"attack": {"name": "pgd", "steps": 7}}, 17),
        ({"attack": {"name": "fgsm"}}, 5),
        ({"scheme": {"name": "trades"}}, 27),
        ({"scheme": {"name": "free", "replays": 8}}, 24),
        ({"scheme": {"name": "mixup"}}, 3),
    ],
)
def test_passes_of_a_step(script, fields, passes) -> None:
    assert script.passes(Recipe.of(fields)) == passes


def test_the_page_says_that_it_is_a_plan() -> None:
    page = (DOCS / "scaling.md").read_text()
    block = re.search(r"<!-- plan -->\n(.*)<!-- /plan -->", page, re.DOTALL)
    assert block is not None
    assert "computed by `python docs/plan.py` from the recipes and not measured" in block[1]
    assert "20 TFLOP/s is an assumption" in block[1]
