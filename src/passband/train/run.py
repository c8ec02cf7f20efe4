"""A recipe to a finished run's folder, and a run's folder back to its model."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn

from passband.core.compute import Compute
from passband.core.environment import versions
from passband.core.errors import NotApplicable, PassbandError
from passband.core.recipe import Recipe
from passband.core.spec import ImageSpec
from passband.core.store import DONE, explain_disk, lock, runs_folder, write_atomic
from passband.data.dataset import Batches, ImageSet
from passband.data.scenes import SceneBatches, SceneSet
from passband.models.detector import Detector
from passband.models.weights_file import save_weights
from passband.models.wrap import Classifier
from passband.tasks import TASKS, Task
from passband.train import build, detecting, quantized
from passband.train.checkpoint import State, read
from passband.train.device import hardware_class, torch_device
from passband.train.early_stop import Watch, watch
from passband.train.fit import Plan, cut_log, fit
from passband.train.optim import make_optimizer, make_schedule
from passband.train.steps import make_scheme
from passband.weights.learn import bake, learned_parameters
from passband.weights.quantize import describe, masks

_SERVED: dict[type, int] = {ImageSet: 512, SceneSet: 8}
"""Test images in a batch, by what holds them."""


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
    dataset = build.training_set(recipe, data_dir)
    digest = recipe.digest(dataset.fingerprint)
    folder = (runs or runs_folder()) / digest[:16]
    torch_device(compute.device)
    if compute.threads:
        torch.set_num_threads(compute.threads)
    with lock(folder):
        if not is_done(folder, compute.keep_epochs):
            _Training(recipe, compute, folder, digest, dataset, data_dir).go()
        # The recipe as it was given now: where its data lies may have changed, and takes no part in the digest.
        return _measured(replace(open_run(folder), recipe=recipe), torch_device(compute.device), data_dir)


def is_done(folder: Path, keep_epochs: bool = False) -> bool:
    """Tell whether a run is whole, with every epoch's weights where they are wanted."""
    if not (folder / DONE).exists():
        return False
    return not keep_epochs or all(epoch_weights(folder, n).exists() for n in range(1, _metrics(folder)["epochs"] + 1))


def epoch_weights(folder: Path, epoch: int) -> Path:
    """Return where a kept epoch's weights lie; epochs count from 1."""
    return folder / "epochs" / f"{epoch:04d}.safetensors"


def _metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


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
    spec = json.loads((found.folder / "spec.json").read_text())
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


class _Training:
    """Hold together what one training needs, for as long as it runs."""

    def __init__(
        self,
        recipe: Recipe,
        compute: Compute,
        folder: Path,
        digest: str,
        dataset: ImageSet | SceneSet,
        data_dir: Path | None,
    ) -> None:
        self.recipe, self.compute, self.folder, self.digest = recipe, compute, folder, digest
        self.task = TASKS[recipe.task]
        self.device = torch_device(compute.device)
        kind, _, index = self.device.partition(":")
        self.fabric = Fabric(
            accelerator=kind,
            devices=[int(index)] if index else 1,
            precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        )
        self.batches = build.batches(recipe, dataset)
        self.spec = build.image_spec(recipe, dataset)
        test = build.test_set(recipe, data_dir)
        watched = min(compute.watched or len(test), len(test))
        served = _SERVED[type(test)]
        self.test = test.batches(served, device=self.fabric.device)
        self.watched = self.test
        if watched < len(test):
            self.watched = test.take(watched).batches(served, device=self.fabric.device)
        self.model, self.report = build.trainable_model(recipe, self.spec)
        self.model.to(self.fabric.device).to(memory_format=torch.channels_last)
        learned_parameters(self.model)  # refuses a model of which nothing learns
        learned = build.learned(recipe, self.model)
        ema = None if recipe.ema is None else ModelEmaV3(self.model, decay=recipe.ema.decay)
        self.state = State(self.model, make_optimizer(recipe.optimizer, learned), ema)
        self.watch: Watch | None = None

    def go(self) -> None:
        """Train to the end and write the run's files, ``DONE`` last."""
        self._describe()
        checkpoint = self.folder / "checkpoint.pt"
        if checkpoint.exists() and self.compute.keep_epochs and not self._kept(checkpoint):
            # Epochs went by without being kept: the run is trained once more.
            (self.folder / DONE).unlink(missing_ok=True)
            checkpoint.unlink()
        if checkpoint.exists():
            self.state.load(checkpoint, self.digest)
        cut_log(self.folder / "log.csv", self.state.position.log_bytes, self.task.score)
        recipe, pieces = self.recipe, self.recipe.pieces or 1
        scheme = make_scheme(recipe.scheme, recipe.attack, self.state.memory, self.task, recipe.pieces)
        step = scheme.step
        if recipe.quantize is not None:
            steps = len(self.batches) * scheme.replays * pieces
            step = quantized.staged(step, recipe.quantize, steps, recipe.epochs)
        stop = recipe.early_stop
        self.watch = None if stop is None else watch(stop, scheme.attack, *self._first_batch())
        plan = Plan(
            epochs=recipe.epochs,
            step=step,
            score=self.task.tally,
            schedule=make_schedule(recipe.schedule),
            evaluate=lambda model: self.task.evaluate(model, self.watched),
            save=lambda: self.state.save(checkpoint, self.digest),
            end_epoch=self._end_epoch,
            log=self.folder / "log.csv",
            description=f"train {recipe.model.name}, learn {recipe.learn}, seed {recipe.seed}",
            replays=scheme.replays,
            pieces=pieces,
            clip=recipe.clip,
            average=None if recipe.ema is None else recipe.ema.at,
            save_seconds=self.compute.checkpoint_seconds,
        )
        fit(self.fabric, self.state, self.batches, plan)
        self._finish()

    def _kept(self, checkpoint: Path) -> bool:
        done = int(read(checkpoint)["position"]["epoch"])
        return all(epoch_weights(self.folder, epoch).exists() for epoch in range(1, done + 1))

    def _describe(self) -> None:
        environment: dict[str, Any] = {
            "versions": versions(), "hardware": hardware_class(self.device), "compute": asdict(self.compute),
            "device": self.device, "threads": torch.get_num_threads(),
        }  # fmt: skip
        # A run that went on elsewhere says where it was before: its weights are one more draw then.
        path = self.folder / "environment.json"
        before = json.loads(path.read_text()) if path.exists() else environment
        earlier = before.pop("before", []) + ([before] if before != environment else [])
        environment |= {"before": earlier} if earlier else {}
        write_atomic(self.folder / "recipe.yaml", self.recipe.text().encode())
        write_atomic(path, _json(environment))
        write_atomic(self.folder / "spec.json", _json(asdict(self.spec)))

    def _first_batch(self) -> tuple[torch.Tensor, Any]:
        images: Any
        targets: Any
        images, targets = next(self.batches.epoch(0))
        return images.to(self.fabric.device), targets.to(self.fabric.device)

    def _end_epoch(self, epoch: int) -> str:
        if self.compute.keep_epochs:
            path = epoch_weights(self.folder, epoch)
            with explain_disk(path):
                path.parent.mkdir(exist_ok=True)
            self._write_weights(path)
        ended = "" if self.watch is None else self.watch.look(self.state, epoch)
        if ranges := masks(self.state.evaluated):
            # After the look, which may have put the epoch before back.
            self.state.memory.setdefault("masks", {})[epoch] = ranges
        return ended

    def _write_weights(self, path: Path) -> None:
        model = bake(copy.deepcopy(self.state.evaluated))
        assert isinstance(model, Classifier | Detector)
        save_weights(model, path)

    def _finish(self) -> None:
        metrics = _test_metrics(self.task, self.state.evaluated, self.test) | {
            "train_images": len(self.batches.dataset), "epochs": self.state.position.epoch,
            "seconds": round(self.state.position.seconds, 1), "learned_parameters": self.report.learned,
            "parameters": self.report.learned + self.report.frozen, "digest": self.digest,
        }  # fmt: skip
        if "early_stop" in self.state.memory:
            metrics["early_stop"] = self.state.memory["early_stop"]
        if self.recipe.quantize is not None:
            metrics["quantized"] = describe(self.state.evaluated).plain()
        if "masks" in self.state.memory:
            metrics["masks"] = self.state.memory["masks"]
        self._write_weights(self.folder / "weights.safetensors")
        write_atomic(self.folder / "metrics.json", _json(metrics))
        write_atomic(self.folder / DONE, b"")


def _measured(run: Run, device: str, data_dir: Path | None) -> Run:
    """Measure a run on the test images as they are now; its digest knows the training images alone."""
    test = build.test_set(run.recipe, data_dir)
    if run.metrics.get("test_fingerprint") == test.fingerprint:
        return run
    model = _loaded(run, None).to(device)
    found = _test_metrics(TASKS[run.recipe.task], model, test.batches(_SERVED[type(test)], device=device))
    metrics = run.metrics | found
    write_atomic(run.folder / "metrics.json", _json(metrics))
    return replace(run, metrics=metrics)


def _test_metrics(task: Task, model: nn.Module, test: Batches | SceneBatches) -> dict[str, Any]:
    return task.metrics(model, test) | {"test_fingerprint": test.dataset.fingerprint}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()
