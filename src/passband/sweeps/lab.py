"""The laboratory: trains what an experiment names, once, and measures it, once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from passband.core.compute import Compute
from passband.core.environment import versions
from passband.core.errors import PassbandError
from passband.core.plain import read_json
from passband.core.recipe import Recipe
from passband.core.results import Result
from passband.core.scale import Scale
from passband.core.store import lock, runs_folder, write_atomic
from passband.data.catalog import Split
from passband.data.dataset import Batches, ImageSet
from passband.data.scenes import SceneBatches, SceneSet
from passband.models.wrap import Classifier
from passband.sweeps.answers import measure
from passband.sweeps.resolve import DetectorSubject, Subject, detector_subject, images_for, run_name
from passband.train.build import bare_model, batches, training_set
from passband.train.detecting import batches as scene_batches
from passband.train.detecting import detects, scenes
from passband.train.device import hardware_class, torch_device
from passband.train.run import Run, load, load_detector
from passband.train.run import train as train_run

T = TypeVar("T")
WATCHED: dict[Scale, int | None] = {Scale.SMOKE: 100, Scale.SMALL: 1000, Scale.FULL: None}
"""Test images that a training's log speaks of after each epoch; None is all."""
WATCHED_SCENES: dict[Scale, int | None] = {Scale.SMOKE: 2, Scale.SMALL: 8, Scale.FULL: None}
"""The same for scenes, each of which costs a thousand times what a small image does."""


@dataclass(frozen=True)
class Lab:
    """Hold where runs, data and answers lie, and how work is done.

    Attributes:
        command: What makes the experiment's answer again; written into every result.
        limit: Test images per probe: the first of one fixed seeded permutation; None takes all.
    """

    scale: Scale
    command: str
    runs: Path | None = None
    data_dir: Path | None = None
    compute: Compute = field(default_factory=Compute)
    limit: int | None = None

    def train(self, recipe: Recipe, *, keep_epochs: bool = False) -> Run:
        """Train a recipe, or find its run done; equal recipes of two experiments share one run."""
        # The log's test score is for whoever watches: what is measured is measured by probes.
        keep = keep_epochs or self.compute.keep_epochs
        watched = (WATCHED_SCENES if detects(recipe) else WATCHED)[self.scale]
        compute = replace(self.compute, keep_epochs=keep, watched=watched)
        return train_run(recipe, compute=compute, runs=self.runs, data_dir=self.data_dir)

    def probe(
        self,
        run: Run,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        epoch: int | None = None,
        split: Split = "test",
    ) -> dict[str, Result]:
        """Probe a run on its own images and return the results by name.

        Args:
            run: A finished run.
            name: The probe.
            options: The probe's options.
            epoch: The weights after this epoch, where they were kept; None for the last.
            split: ``"train"`` asks about the images that it learned from: their part, their view, their labels,
                shuffled ones too, without augmentation.
        """
        return self.ask(self.subject(run, epoch), run, name, options, split=split)

    def ask(
        self,
        asked: Subject,
        run: Run,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        split: Split = "test",
        limit: int | None = None,
    ) -> dict[str, Result]:
        """Probe a model on a run's images and return the results by name.

        Args:
            asked: The run's own model, or what an edit made of it.
            run: The run whose images they are; the answer is kept there, by the model's weights.
            name: The probe.
            options: The probe's options.
            split: As in :meth:`probe`.
            limit: Fewer images than the laboratory's own limit, the first of the same permutation; None for that limit.
        """
        return self._ask(asked, run, name, options, self.images(asked, run, split, limit))

    def _ask(
        self,
        asked: Subject | DetectorSubject,
        run: Run,
        name: str,
        options: Mapping[str, Any] | None,
        images: Batches | SceneBatches,
    ) -> dict[str, Result]:
        results = measure(
            asked, images, name, options or {}, folder=run.folder / "answers", command=self.command,
            wait=self.compute.wait,
        )  # fmt: skip
        return {result.name: result for result in results}

    def track(
        self,
        recipe: Recipe,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        epochs: Sequence[int] | None = None,
        split: Split = "test",
    ) -> dict[int, dict[str, Result]]:
        """Probe a recipe's run after its epochs; a probe thought of later needs no new training.

        Args:
            recipe: What is trained, or was.
            name: The probe.
            options: The probe's options.
            epochs: After which ones, counted from 1; None is all.
            split: As in :meth:`probe`.

        Returns:
            Results by epoch and by name.
        """
        run = self.train(recipe, keep_epochs=True)
        chosen = range(1, run.metrics["epochs"] + 1) if epochs is None else epochs
        # The set is read once: each epoch's model takes the same images.
        images = self.images(self.subject(run), run, split)
        return {epoch: self._ask(self.subject(run, epoch), run, name, options, images) for epoch in chosen}

    def kept(self, name: str, identity: Mapping[str, Any], make: Callable[[], T]) -> T:
        """Return what was made before under the same identity, or make it now and keep it among the runs.

        It is for what would come out otherwise a second time, such as seconds: the same command goes on with the same
        numbers. Hardware, device, threads and the versions of passband and torch belong to the identity.

        Args:
            name: What kind of thing it is; a file's name begins with it.
            identity: All else that decides it, as plain JSON.
            make: Makes it, as plain JSON: mappings with text as keys, lists, numbers, text.

        Returns:
            What was made, as JSON gives it back.

        Raises:
            PassbandError: when another process makes it right now, or what was kept is damaged.
        """
        if self.compute.threads:
            torch.set_num_threads(self.compute.threads)
        known = {name: version for name, version in versions().items() if name in ("passband", "torch")}
        circumstances = {"hardware": hardware_class(self.device), "device": self.device, "versions": known}
        whole = {"name": name, **circumstances, "threads": torch.get_num_threads(), "identity": dict(identity)}
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]
        folder = (self.runs or runs_folder()) / "measured" / f"{name}-{digest}"
        path = folder / "kept.json"
        with lock(folder, wait=self.compute.wait):
            if not path.exists():
                text = json.dumps(whole | {"value": make()}, indent=1, allow_nan=False)
                write_atomic(path, text.encode())
            try:
                value: T = read_json(path.read_bytes())["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise PassbandError(f"{path} is damaged ({error}); remove it and give the same command again") from None
        return value

    def subject(self, run: Run, epoch: int | None = None) -> Subject:
        """Load a run's model."""
        model = load(run, epoch).to(self.device)
        at = "" if epoch is None else f", epoch {epoch}"
        return Subject.of(f"{run_name(run.recipe)}{at}", model)

    def edited(self, run: Run, edit: Callable[[Classifier], object]) -> Subject:
        """Load a run's model and edit it.

        Args:
            run: A finished run.
            edit: Changes the model in place and returns what it did, whose text is added to the model's name.
        """
        plain = self.subject(run)
        done = edit(plain.model)
        return Subject.of(f"{plain.name}, {done}", plain.model)

    def untrained(self, run: Run) -> Subject:
        """Make a run's model as its training found it: the control for what training adds.

        It is what the architecture does with drawn weights alone where these let each part speak: of a SpaRTAN, whose
        layer scales begin at 1e-5, only stem, patch embeddings and head do.
        """

        def begun(model: Classifier) -> str:
            with torch.random.fork_rng():
                model.inner.load_state_dict(bare_model(run.recipe, model.spec).inner.state_dict())
            return "untrained"

        return self.edited(run, begun)

    def images(self, asked: Subject, run: Run, split: Split = "test", limit: int | None = None) -> Batches:
        """Return the images of the run's own data set, as many as the limit allows; None is the laboratory's own."""
        limit = self.limit if limit is None else limit
        if split == "train":
            learned = batches(run.recipe, training_set(run.recipe, self.data_dir)).dataset
            assert isinstance(learned, ImageSet)  # of a detector, scenes() gives them
            return learned.take(min(limit or len(learned), len(learned))).batches(device=self.device)
        return images_for(asked, run.recipe.data.name, data_dir=self.data_dir, limit=limit, device=self.device)

    def detector(self, run: Run, epoch: int | None = None) -> DetectorSubject:
        """Load a run's detector."""
        model = load_detector(run, epoch).to(self.device)
        at = "" if epoch is None else f", epoch {epoch}"
        return DetectorSubject.of(f"{run_name(run.recipe)}{at}", model)

    def detector_of(self, name: str) -> DetectorSubject:
        """Make a detector by name, with the trained weights that its library has."""
        return detector_subject(name, device=self.device)

    def detect(
        self,
        asked: DetectorSubject,
        scenes: SceneSet,
        options: Mapping[str, Any] | None = None,
        *,
        run: Run | None = None,
        batch: int = 8,
    ) -> dict[str, Result]:
        """Ask a detector, by the probe ``detection``, and return the results by name.

        Args:
            asked: The detector.
            scenes: What it is asked about.
            options: The probe's options.
            run: The run that it comes from, where the answer is kept; None keeps it beside all runs.
            batch: Scenes in a batch; results do not depend on it.
        """
        folder = (self.runs or runs_folder()) if run is None else run.folder
        images = scenes.batches(batch, device=self.device)
        results = measure(
            asked, images, "detection", options or {}, folder=folder / "answers", command=self.command,
            wait=self.compute.wait,
        )  # fmt: skip
        return {result.name: result for result in results}

    def scenes(self, run: Run, split: Split = "test") -> SceneSet:
        """Return the scenes of a run's own set, as many as the laboratory's limit allows."""
        recipe = run.recipe
        if split == "train":
            found: SceneSet = scene_batches(recipe, scenes(recipe, "train", self.data_dir)).dataset
        else:
            found = scenes(recipe, "test", self.data_dir)
        return found if self.limit is None or self.limit >= len(found) else found.take(self.limit)

    @property
    def device(self) -> str:
        """The torch device that the compute's name stands for."""
        return torch_device(self.compute.device)
