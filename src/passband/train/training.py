"""One training: from a recipe's parts to the files of its run."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from passband.core.compute import Compute
from passband.core.environment import versions
from passband.core.errors import PassbandError
from passband.core.plain import read_json
from passband.core.recipe import Recipe
from passband.core.store import DONE, explain_disk, write_atomic
from passband.data.dataset import Batches, ImageSet
from passband.data.scenes import SceneSet
from passband.data.seeding import generator
from passband.data.stream_source import StreamSet
from passband.models.detector import Detector
from passband.models.weights_file import save_weights
from passband.models.wrap import Classifier
from passband.tasks import TASKS
from passband.tasks.task import ImageTask
from passband.train import build, detecting, quantized
from passband.train.checkpoint import State, random_state, read
from passband.train.determinism import deterministic
from passband.train.device import hardware_class
from passband.train.early_stop import Watch, watch
from passband.train.fit import Plan, cut_log, fit
from passband.train.optim import make_optimizer, make_schedule
from passband.train.ranks import Ranks
from passband.train.shares import check_shares, over_ranks
from passband.train.steps import make_scheme
from passband.weights.learn import bake, learned_parameters
from passband.weights.quantize import describe, masks

SERVED: dict[type, int] = {ImageSet: 512, SceneSet: 8}
"""Test images in a batch, by what holds them."""


def epoch_weights(folder: Path, epoch: int) -> Path:
    """Return where a kept epoch's weights lie; epochs count from 1."""
    return folder / "epochs" / f"{epoch:04d}.safetensors"


def as_json(value: object) -> bytes:
    """Return plain data as the text of a file."""
    return json.dumps(value, indent=1).encode()


def facts(path: Path) -> dict[str, Any]:
    """Read one of the files of a run that are JSON.

    Raises:
        PassbandError: when it is missing or damaged.
    """
    try:
        found = read_json(path.read_bytes())
        reason = f"it holds {found!r:.40}"
    except (OSError, ValueError) as error:
        found, reason = None, str(error)
    if not isinstance(found, dict):
        raise PassbandError(
            f"{path} is missing or damaged ({reason}); remove it and train the same recipe again, which writes it anew"
        )
    return found


class Training:
    """Hold together what one training needs, for as long as it runs."""

    def __init__(
        self,
        recipe: Recipe,
        compute: Compute,
        ranks: Ranks,
        folder: Path,
        digest: str,
        dataset: ImageSet | SceneSet | StreamSet,
        data_dir: Path | None,
    ) -> None:
        self.recipe, self.compute, self.folder, self.digest = recipe, compute, folder, digest
        self.ranks, self.device = ranks, ranks.fabric.device
        self.task = TASKS[recipe.task]
        self.whole = build.batches(recipe, dataset, skip_bad=compute.skip_bad)
        self.spec = build.image_spec(recipe, dataset)
        test = build.test_set(recipe, data_dir)
        watched = min(compute.watched or len(test), len(test))
        served = SERVED[type(test)]
        self.test = test.batches(served, device=self.device)
        self.watched = self.test
        if watched < len(test):
            self.watched = test.take(watched).batches(served, device=self.device)
        self.model, self.report = build.trainable_model(recipe, self.spec)
        self.model.to(self.device).to(memory_format=torch.channels_last)
        if recipe.precision == "float64":
            self.model.double()
        learned_parameters(self.model)  # refuses a model of which nothing learns
        learned = build.learned(recipe, self.model)
        ema = None if recipe.ema is None else ModelEmaV3(self.model, decay=recipe.ema.decay)
        self.state = State(self.model, make_optimizer(recipe.optimizer, learned), ema)
        self.watch: Watch | None = None
        self.checkpoint = folder / "checkpoint.pt"

    def go(self) -> None:
        """Train to the end and write the run's files, ``DONE`` last.

        Raises:
            PassbandError: for whatever the user can mend.
        """
        ranks, recipe = self.ranks, self.recipe
        if ranks.rank:
            # The same draws as the first rank's would drop the same units of other images.
            torch.manual_seed(generator(recipe.seed, ranks.rank).initial_seed())
        if ranks.decided(self._prepare):
            self.state.load(self.checkpoint, self.digest, ranks.rank)
        if ranks.first:
            cut_log(self.folder / "log.csv", self.state.position.log_bytes, self.task.score)
        plan = self._plan()
        batches = self.whole if ranks.world == 1 else self.whole.share(ranks.rank, ranks.world)
        with deterministic() as met:
            fit(ranks, self.state, batches, plan)
        if ranks.first:
            self._finish(met, batches.notes)
        ranks.wait()

    def _prepare(self) -> bool:
        """Write what the run is, and tell whether there is a checkpoint to go on from."""
        # A run of which a file was lost is not done any more.
        (self.folder / DONE).unlink(missing_ok=True)
        self._describe()
        if self.checkpoint.exists() and self.compute.keep_epochs and not self._kept():
            # Epochs went by without being kept: the run is trained once more.
            self.checkpoint.unlink()
        return self.checkpoint.exists()

    def _plan(self) -> Plan:
        recipe, ranks = self.recipe, self.ranks
        scheme = make_scheme(recipe.scheme, recipe.attack, self.state.memory, self.task, recipe.pieces)
        check_shares(recipe, scheme, self.whole, ranks.world)
        step, stop = scheme.step, recipe.early_stop
        if recipe.quantize is not None:
            steps = len(self.whole) * scheme.replays * (recipe.pieces or 1)
            step = quantized.staged(step, recipe.quantize, steps, recipe.epochs)
        synchronized = bool(recipe.sync_batchnorm) and ranks.world > 1
        self.watch = None if stop is None else watch(stop, scheme.attack, *self._first_batch())
        return Plan(
            epochs=recipe.epochs,
            step=over_ranks(step) if synchronized else step,
            score=self.task.tally,
            schedule=make_schedule(recipe.schedule),
            evaluate=self._evaluate,
            save=self._save,
            kept=self._last_checkpoint,
            end_epoch=self._end_epoch,
            log=self.folder / "log.csv",
            description=f"train {recipe.model.name}, learn {recipe.learn}, seed {recipe.seed}",
            replays=scheme.replays,
            pieces=(recipe.pieces or 1) // ranks.world or 1,
            apart=recipe.pieces is not None,
            synchronized=synchronized,
            unused=detecting.detects(recipe),
            clip=recipe.clip,
            average=None if recipe.ema is None else recipe.ema.at,
            save_seconds=self.compute.checkpoint_seconds,
        )

    def _save(self) -> None:
        states = self.ranks.gather(random_state(self.device))
        if self.ranks.first:
            self.state.save(self.checkpoint, self.digest, states[1:])

    def _last_checkpoint(self) -> str:
        if not self.checkpoint.exists():
            return "no checkpoint was written before"
        at = read(self.checkpoint)["position"]
        return f"the last good checkpoint is {self.checkpoint}, of epoch {at['epoch']} and {at['step']} steps"

    def _evaluate(self, model: nn.Module) -> float:
        """Return the score on the watched test images, each rank asking about its part of them."""
        ranks, watched = self.ranks, self.watched
        if ranks.world == 1:
            return self.task.evaluate(model, self._served(watched))
        if not isinstance(self.task, ImageTask) or not isinstance(watched, Batches) or watched.count < ranks.world:
            # An average precision is no mean over images.
            return ranks.decided(lambda: self.task.evaluate(model, self._served(watched)))
        part = watched.subset(np.arange(ranks.rank, watched.count, ranks.world))
        scores = self.task.measure(model, self._served(part))
        total, count = ranks.sum([float(scores.double().sum()), len(scores)])
        return total / count

    def _served(self, batches: Any) -> Any:
        if self.recipe.precision != "float64":
            return batches
        return ((images.double(), targets) for images, targets in batches)

    def _kept(self) -> bool:
        done = int(read(self.checkpoint)["position"]["epoch"])
        return all(epoch_weights(self.folder, epoch).exists() for epoch in range(1, done + 1))

    def _describe(self) -> None:
        environment: dict[str, Any] = {
            "versions": versions(), "hardware": hardware_class(str(self.device)), "compute": asdict(self.compute),
            "device": str(self.device), "threads": torch.get_num_threads(), "processes": self.ranks.world,
            "deterministic": True,
        }  # fmt: skip
        # A run that went on elsewhere says where it was before: its weights are one more draw then.
        path = self.folder / "environment.json"
        before = facts(path) if path.exists() else environment
        earlier = before.pop("before", []) + ([before] if before != environment else [])
        environment |= {"before": earlier} if earlier else {}
        write_atomic(self.folder / "recipe.yaml", self.recipe.text().encode())
        write_atomic(path, as_json(environment))
        write_atomic(self.folder / "spec.json", as_json(asdict(self.spec)))

    def _first_batch(self) -> tuple[torch.Tensor, Any]:
        images: Any
        targets: Any
        images, targets = next(self.whole.epoch(0))
        return images.to(self.device), targets.to(self.device)

    def _end_epoch(self, epoch: int) -> str:
        if self.compute.keep_epochs and self.ranks.first:
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

    def _finish(self, nondeterministic: list[str], notes: tuple[str, ...]) -> None:
        model = self.state.evaluated
        metrics = self.task.metrics(model, self._served(self.test)) | {
            "test_fingerprint": self.test.dataset.fingerprint, "train_images": len(self.whole.dataset),
            "epochs": self.state.position.epoch,
            "seconds": round(self.state.position.seconds, 1), "learned_parameters": self.report.learned,
            "parameters": self.report.learned + self.report.frozen, "digest": self.digest,
        }  # fmt: skip
        if "early_stop" in self.state.memory:
            metrics["early_stop"] = self.state.memory["early_stop"]
        if self.recipe.quantize is not None:
            metrics["quantized"] = describe(model).plain()
        if "masks" in self.state.memory:
            metrics["masks"] = self.state.memory["masks"]
        if notes:
            metrics["notes"] = notes
        if nondeterministic:
            metrics["nondeterministic_operations"] = nondeterministic
        self._write_weights(self.folder / "weights.safetensors")
        write_atomic(self.folder / "metrics.json", as_json(metrics))
        write_atomic(self.folder / DONE, b"")
