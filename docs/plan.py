"""Count what the papers' tables cost before anything is trained: ``python docs/plan.py`` writes ``results/plan.json``.

Each case of each experiment is asked for its trainings by a laboratory that notes them and trains nothing. Equal
recipes are one training, of the experiment that comes first. A recipe's cost is its images, times its epochs, times the
FLOPs of its network's forward pass (2 for a multiply-add, as torch counts them), times its passes. No data is read and
nothing is timed. ``python docs/tables.py`` puts the table into ``docs/scaling.md``;
``python docs/plan.py --teraflops 60`` prints it for another rate and writes nothing.

Not counted: probes and attacks on test images, the log's look at the test images after each epoch, reading and
augmenting, norms, activations and resampling (as torch counts), a detector's denoising queries, the copies that a batch
of several sizes makes. Parts that do not learn are counted as if they did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils.flop_counter import FlopCounterMode

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.core.spec import ImageSpec
from passband.core.store import write_atomic
from passband.experiments import catalog
from passband.experiments.protocol import Case, Experiment
from passband.experiments.spartan.settings import subject_of
from passband.sweeps.lab import Lab
from passband.tasks import TASKS
from passband.train import detecting
from passband.train.build import bare_model
from passband.train.run import Run
from passband.train.steps import make_scheme

PLAN = Path(__file__).parent / "results" / "plan.json"

IMAGES = {
    "photos": 3_600, "fashion-mnist": 60_000, "mnist": 60_000, "cifar10": 50_000, "cifar10-jpeg": 50_000,
    "cifar100": 50_000, "restricted-imagenet": 12_150, "imagenet": 1_281_167,
    "pasted-photos": 24, "coco128": 128, "coco": 118_287,
}  # fmt: skip
"""Training images of each set."""
CLASSES = {"photos": 15, "cifar100": 100, "restricted-imagenet": 9, "imagenet": 1000}
"""Classes of each set of images; ten for the others."""
OBJECTS = 80
"""Classes of COCO."""
EQUAL_SECONDS = 1.6
"""How much longer a step of everything takes than one of channels alone, which decides the epochs of the control of
convmixer-depth: 8 epochs in place of 5 were measured at small scale, on two CPU cores."""
MOMENTS = {"sgd": 1, "rmsprop": 1, "adagrad": 1, "adadelta": 2, "adam": 2, "adamw": 2}
"""Numbers that an optimizer keeps for each weight, at most."""


class Planned(Exception):
    """End a case: what comes next needs a trained network."""


class Untrained(Run):
    """Stand for the run of a training that was only noted."""

    def __init__(self) -> None:
        """Hold nothing."""

    def __getattr__(self, name: str) -> NoReturn:
        """End the case."""
        raise Planned


def _end(*arguments: Any, **options: Any) -> NoReturn:
    raise Planned


@dataclass(frozen=True)
class Planner(Lab):
    """Note what would be trained, and end a case where it would be used.

    Attributes:
        noted: Recipes, and whether each epoch's weights are kept, in the order in which they were asked for.
    """

    noted: list[tuple[Recipe, bool]] = field(default_factory=list)

    def train(self, recipe: Recipe, *, keep_epochs: bool = False) -> Run:
        """Note a recipe."""
        self.noted.append((recipe, keep_epochs))
        return Untrained()

    def track(self, recipe: Recipe, *arguments: Any, **options: Any) -> NoReturn:
        """Note a recipe whose epochs are kept."""
        self.noted.append((recipe, True))
        raise Planned

    def kept(self, name: str, identity: Any, make: Any) -> Any:
        """Give the seconds of a step that are assumed; all else would be measured."""
        recipes = identity.get("recipes", {})
        if name != "steps" or set(recipes) != {"everything", "channels"}:
            raise Planned
        return {"everything": [EQUAL_SECONDS], "channels": [1.0]}

    probe = ask = subject = edited = untrained = images = detector = detector_of = detect = scenes = _end


BEFORE = {"spartan/grad-cam": subject_of}
"""Experiments that read photographs before they train, and what of them trains."""


def noted(name: str, experiment: Experiment, scale: Scale) -> tuple[list[Case], list[tuple[Recipe, bool]]]:
    """Return an experiment's cases, and the trainings that they ask for, in their order."""
    cases = experiment.cases(scale)
    lab = Planner(scale, "")
    for case in cases:
        if case.get("data") is None:
            continue  # It names the set that it needs, and who needs none trains none.
        before = len(lab.noted)
        try:
            (BEFORE.get(name) or experiment.measure)(case, lab)
        except Planned:
            continue
        raise SystemExit(f"{name}, {case['case']}: measured without a network; {len(lab.noted) - before} were noted")
    return cases, lab.noted


def plan(scale: Scale, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return what each experiment trains that no earlier one does, and what that costs."""
    found = {name: noted(name, catalog.find(name), scale) for name in names or catalog.of_papers()}
    keeps: dict[str, bool] = {}
    for _, asked in found.values():
        for recipe, keep in asked:
            keeps[recipe.digest("")] = keeps.get(recipe.digest(""), False) or keep
    rows, known = [], dict[str, Recipe]()
    for name, (cases, asked) in found.items():
        own = {recipe.digest(""): recipe for recipe, _ in asked}
        new = {digest: recipe for digest, recipe in own.items() if digest not in known}
        known |= new
        row = {"experiment": name, "cases": len(cases), "new": len(new), "shared": len(own) - len(new)}
        alone = sum(images(recipe) * training_flops(recipe) for recipe in own.values())
        rows.append(row | _sums(new, keeps) | {"alone": alone})
    mark = hashlib.sha256("".join(sorted(known)).encode()).hexdigest()
    return {"scale": str(scale), "equal_seconds": EQUAL_SECONDS, "recipes": mark, "rows": rows}


def _sums(recipes: dict[str, Recipe], keeps: dict[str, bool]) -> dict[str, int]:
    return {
        "images": sum(map(images, recipes.values())),
        "flops": sum(images(recipe) * training_flops(recipe) for recipe in recipes.values()),
        "disk": sum(disk(recipe, keeps[digest]) for digest, recipe in recipes.items()),
        "memory": max(map(memory, recipes.values()), default=0),
    }


def count(recipe: Recipe) -> int:
    """Return how many training images a recipe sees in an epoch."""
    whole = IMAGES[recipe.data.name]
    return min(whole, recipe.data.part or whole)


def images(recipe: Recipe) -> int:
    """Return how many images a training sees in all its epochs, each as often as it comes."""
    return count(recipe) * recipe.epochs


def passes(recipe: Recipe) -> int:
    """Return what an image costs in a step, in forward passes: 3 for learning, 2 for each look of an attack."""
    scheme = make_scheme(recipe.scheme, recipe.attack, {}, TASKS[recipe.task])
    named = None if recipe.scheme is None else recipe.scheme.name
    if named == "free":
        return 3 * scheme.replays
    if scheme.attack is None:
        return 3
    search: Any = scheme.attack.search()  # type: ignore[attr-defined]
    clean = 1 if search.needs_clean else 0
    return (6 if named == "trades" else 3) + clean + 2 * int(search.queries)


def training_flops(recipe: Recipe) -> int:
    """Return the FLOPs that an image costs each time it is learned from."""
    return passes(recipe) * network(recipe)[0]


def disk(recipe: Recipe, keep: bool) -> int:
    """Return the bytes of a finished run: weights, checkpoint (weights, moments, average), kept epochs."""
    moments = MOMENTS[recipe.optimizer.name]
    copies = 1 + 1 + moments + (recipe.ema is not None) + (recipe.epochs if keep else 0)
    if recipe.early_stop is not None:
        copies += 1
    return copies * network(recipe)[1]


def memory(recipe: Recipe) -> int:
    """Return the bytes of the decoded training images that are held; scenes, and what streams, are read when needed."""
    if detecting.detects(recipe) or recipe.data.stream:
        return 0
    return count(recipe) * recipe.data.size**2 * 3


def network(recipe: Recipe) -> tuple[int, int]:
    """Return the FLOPs of a forward pass of one image, and the bytes of the weights."""
    shape = {"name": recipe.data.name, "size": recipe.data.size}
    fields = {name: value for name, value in recipe.plain().items() if name in ("task", "model", "separate")}
    return _network(json.dumps(fields | {"data": shape, "batch": recipe.batch}, sort_keys=True))


@cache
def _network(fields: str) -> tuple[int, int]:
    recipe = Recipe.of(json.loads(fields))
    side, batch = recipe.data.size, recipe.batch
    if detecting.detects(recipe):
        names = tuple(map(str, range(OBJECTS)))
        spec = ImageSpec((side, side), None, None, "any", len(names), class_names=names)
        # Whatever it begins with, its size is the same.
        inner, batch = detecting.detector(recipe, spec, begin=False).inner, 1
    else:
        classes = CLASSES.get(recipe.data.name, 10) if TASKS[recipe.task].gives == "logits" else 0
        spec = ImageSpec((side, side), (0.5,) * 3, (0.25,) * 3, "any", classes, fit="pad")
        inner = bare_model(recipe, spec)
    state = inner.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in state)
    inner.eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inner(torch.empty(batch, 3, side, side, device="meta"))
    return round(counter.get_total_flops() / batch), size


def main() -> None:
    """Write the plan, or print its table for another rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teraflops", type=float, help="what a GPU is assumed to do; prints the table alone")
    rate = parser.parse_args().teraflops
    if rate is None:
        write_atomic(PLAN, (json.dumps(plan(Scale.FULL), indent=1) + "\n").encode())
        return
    from tables import plan_table  # beside this script

    print(plan_table(rate))


if __name__ == "__main__":
    main()
