"""A recipe to a finished run's folder, and a run's folder back to its model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file

from passband.core.compute import Compute
from passband.core.errors import NotApplicable, PassbandError
from passband.core.recipe import Recipe
from passband.core.spec import ImageSpec
from passband.core.store import DONE, runs_folder, write_atomic
from passband.models.detector import Detector
from passband.models.wrap import Classifier
from passband.tasks import TASKS
from passband.train import build, detecting, launch
from passband.train.ranks import Ranks
from passband.train.training import SERVED, Training, as_json, epoch_weights, facts
from passband.weights.learn import bake

FILES = ("recipe.yaml", "spec.json", "weights.safetensors", "metrics.json", DONE)
"""What a finished run cannot be without."""


@dataclass(frozen=True)
class Run:
    """Point at a finished training.

    Attributes:
        folder: Where it lies.
        recipe: What made it.
        metrics: ``metrics.json``: the task's score on the test set with its interval, counts, seconds.
    """

    folder: Path
    recipe: Recipe
    metrics: dict[str, Any]

    @property
    def digest(self) -> str:
        """Name the run: the head of its recipe's digest."""
        return self.folder.name


def train(
    recipe: Recipe, *, compute: Compute | None = None, runs: Path | None = None, data_dir: Path | None = None
) -> Run:
    """Train what a recipe says, or go on with it, or find it done.

    Args:
        recipe: What decides the weights.
        compute: Where and how.
        runs: The folder of all runs; ``$PASSBAND_RUNS``, else ``./runs``.
        data_dir: The folder of all data sets; ``$PASSBAND_DATA``, else the user's cache folder.

    Raises:
        PassbandError: for whatever the user can mend.
    """
    compute = compute or Compute()
    if launch.shared(compute):
        run: Run = launch.launch(_train, compute, recipe.precision, recipe, compute, runs, data_dir)
        return run
    return _train(launch.fabric(compute, recipe.precision), recipe, compute, runs, data_dir)


def _train(fabric: Fabric, recipe: Recipe, compute: Compute, runs: Path | None, data_dir: Path | None) -> Run:
    """Train in one of the processes that share it."""
    ranks = Ranks(fabric)
    if compute.threads or ranks.world > 1:
        torch.set_num_threads(compute.threads or max(1, (os.cpu_count() or 1) // compute.devices))
    dataset = build.training_set(recipe, data_dir)
    digest = recipe.digest(dataset.fingerprint)
    ranks.agree("the training data", digest)
    folder = (runs or runs_folder()) / digest[:16]
    with ranks.locked(folder, wait=compute.wait):
        if not ranks.decided(lambda: is_done(folder, compute.keep_epochs)):
            Training(recipe, compute, ranks, folder, digest, dataset, data_dir).go()
        # The recipe as it was given now: where its data lies may have changed, and takes no part in the digest.
        return ranks.decided(lambda: _measured(replace(open_run(folder), recipe=recipe), str(fabric.device), data_dir))


def is_done(folder: Path, keep_epochs: bool = False) -> bool:
    """Tell whether a run is whole, with every epoch's weights where they are wanted."""
    if not all((folder / name).exists() for name in FILES):
        return False
    return not keep_epochs or all(epoch_weights(folder, n).exists() for n in range(1, _metrics(folder)["epochs"] + 1))


def _metrics(folder: Path) -> dict[str, Any]:
    return facts(folder / "metrics.json")


def open_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        PassbandError: when there is none, or it was not finished.
    """
    if not (folder / "recipe.yaml").exists():
        raise PassbandError(f"{folder} is no run: it holds no recipe.yaml")
    if not (folder / DONE).exists():
        raise PassbandError(
            f"the run {folder} is not finished; "
            f"`passband train {folder}/recipe.yaml --runs {folder.parent}` goes on with it"
        )
    return Run(folder, Recipe.read(folder / "recipe.yaml"), _metrics(folder))


def load(run: Run | Path | str, epoch: int | None = None) -> Classifier:
    """Give a run's whole model back, in eval mode, by repeating its recipe's edits.

    Args:
        run: A run or its folder.
        epoch: The weights after this epoch, counted from 1, where they were kept; None for the last.

    Raises:
        PassbandError: when the run is not finished, the epoch was not kept, or the weights are damaged; when it
            trained a detector.
    """
    model = _loaded(run, epoch)
    if not isinstance(model, Classifier):
        raise NotApplicable(f"{_folder(run)} is a run of a detector, and a classifier is needed here")
    return model


def load_detector(run: Run | Path | str, epoch: int | None = None) -> Detector:
    """Give a run's detector back, in eval mode, as :func:`load` does a classifier.

    Raises:
        PassbandError: as :func:`load`; when the run trained no detector.
    """
    model = _loaded(run, epoch)
    if not isinstance(model, Detector):
        raise NotApplicable(f"{_folder(run)} is no run of a detector, which is needed here; train task=detection")
    return model


def _folder(run: Run | Path | str) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _loaded(run: Run | Path | str, epoch: int | None) -> Classifier | Detector:
    found = run if isinstance(run, Run) else open_run(Path(run))
    path = found.folder / "weights.safetensors" if epoch is None else epoch_weights(found.folder, epoch)
    if not path.exists():
        raise PassbandError(f"{path} is missing; train with --keep-epochs to follow a run through its epochs")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise PassbandError(f"{path} is damaged ({error}); remove the folder {found.folder} to train anew") from None
    spec = facts(found.folder / "spec.json")
    with torch.random.fork_rng():
        # The initial weights are drawn only to be overwritten: the caller's random numbers stay as they were.
        model = _bare(found.recipe, _spec(spec))
    # A quantized weight lies in the file as it is computed with: the last of it is no parameter of a training.
    bake(model).inner.load_state_dict(weights)
    return model.eval()


def _bare(recipe: Recipe, spec: ImageSpec) -> Classifier | Detector:
    if detecting.detects(recipe):
        return detecting.detector(recipe, spec, begin=False)
    return build.bare_model(recipe, spec)


def _spec(fields: dict[str, Any]) -> ImageSpec:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return ImageSpec(**plain)


def _measured(run: Run, device: str, data_dir: Path | None) -> Run:
    """Measure a run on the test images as they are now; its digest knows the training images alone."""
    test = build.test_set(run.recipe, data_dir)
    if run.metrics.get("test_fingerprint") == test.fingerprint:
        return run
    model = _loaded(run, None).to(device)
    found = TASKS[run.recipe.task].metrics(model, test.batches(SERVED[type(test)], device=device))
    metrics = run.metrics | found | {"test_fingerprint": test.fingerprint}
    write_atomic(run.folder / "metrics.json", as_json(metrics))
    return replace(run, metrics=metrics)
