"""Names as a user gives them to a model and to the images that it is asked about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.core.recipe import Recipe
from passband.core.store import runs_folder
from passband.data import catalog, scene_catalog
from passband.data.classes import match_classes
from passband.data.dataset import Batches
from passband.data.scenes import SceneBatches
from passband.models.create import create, wrap_module
from passband.models.detector import Detector
from passband.models.detectors import create_detector, is_detector
from passband.models.digest import digest
from passband.models.file_source import PATTERN
from passband.models.rtdetr import PREFIX as RTDETR
from passband.models.rtdetr import saved_folder
from passband.models.wrap import Classifier
from passband.tasks.classification import predicted_targets, untouched
from passband.train.detecting import detects as trains_detector
from passband.train.run import load, load_detector, open_run


@dataclass(frozen=True)
class Subject:
    """Hold a model that is asked about.

    Attributes:
        name: As the user gave it, or for a run its model, what it learned, its data and its seed.
        model: As it is asked; probes put it in evaluation mode and back.
        digest: Of its weights, SHA-256 in hex.
        behavior: Of its modules and of its answer to two fixed images, SHA-256 in hex: code that changed under the
            same weights shows here.
    """

    name: str
    model: Classifier
    digest: str
    behavior: str

    @classmethod
    def of(cls, name: str, model: Classifier) -> Subject:
        """Take note of a model as it is now."""
        return cls(name, model, digest(model), behavior(model))


@dataclass(frozen=True)
class DetectorSubject:
    """Hold a detector that is asked about, as :class:`Subject` does a classifier."""

    name: str
    model: Detector
    digest: str
    behavior: str

    @classmethod
    def of(cls, name: str, model: Detector) -> DetectorSubject:
        """Take note of a detector as it is now."""
        return cls(name, model, digest(model), behavior(model))


def behavior(model: Classifier | Detector) -> str:
    """Hash what a model is made of and what it says, rounded, of two fixed images.

    Rounding may still fall differently on another machine; an answer is then measured again, never taken wrongly.
    """
    spec = model.spec
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, spec.channels, *spec.size, generator=generator)
    with untouched(model), torch.no_grad():
        answer: Any = model(images.to(next((p.device for p in model.parameters()), "cpu")))
    said: list[torch.Tensor] = [answer] if isinstance(model, Classifier) else [one.scores for one in answer]
    rounded = b"".join(one.float().cpu().to(torch.bfloat16).float().numpy().tobytes() for one in said)
    return hashlib.sha256(repr(model).encode() + rounded).hexdigest()


def subject(
    source: str | nn.Module,
    *,
    weights: Path | None = None,
    pretrained: bool = True,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    size: int | None = None,
    device: str = "cpu",
) -> Subject:
    """Find a model: a run's folder or the head of its digest, a timm name, ``torchvision:NAME``, ``file.py:factory``.

    Raises:
        PassbandError: when nothing has that name, its weights do not fit, or its mean and std can't be known.
    """
    if isinstance(source, nn.Module):
        # The user's own object: it stays where it lies and in the mode that it is in.
        model = wrap_module(source, size=size, mean=mean, std=std)
        return Subject.of(type(model.inner).__name__, model)
    folder = run_folder(source)
    if folder is None:
        # A file of the user's brings its own weights, or none.
        trained = pretrained and weights is None and not PATTERN.fullmatch(source)
        with torch.random.fork_rng():
            # Weights that are not loaded are drawn: the same command must draw the same ones.
            torch.manual_seed(0)
            model = create(source, pretrained=trained, weights=weights, size=size, mean=mean, std=std)
        name = source
    else:
        if any(option is not None for option in (weights, mean, std, size)):
            raise PassbandError(
                f"{source} is a run: it brings its own weights, size, mean and std; leave those options out"
            )
        run = open_run(folder)
        model, name = load(run), run_name(run.recipe)
    return Subject.of(name, model.to(device).eval())


def run_name(recipe: Recipe) -> str:
    """Return what a run's model is called in answers."""
    learned = "" if trains_detector(recipe) else f", learn {recipe.learn}"
    return f"{recipe.model.name}{learned}, {recipe.data.name}, seed {recipe.seed}"


def detects(source: str | nn.Module) -> bool:
    """Tell whether a name, a run or a module is a detector."""
    if isinstance(source, nn.Module):
        return isinstance(source, Detector)
    folder = run_folder(source)
    return is_detector(source) if folder is None else trains_detector(open_run(folder).recipe)


def detector_subject(
    source: str | Detector,
    *,
    weights: Path | None = None,
    pretrained: bool = True,
    size: int | None = None,
    device: str = "cpu",
) -> DetectorSubject:
    """Find a detector: a run's folder or the head of its digest, ``torchvision:NAME``, ``rtdetr:BACKBONE``.

    Raises:
        PassbandError: when nothing has that name, or its weights cannot be had or do not fit.
    """
    if isinstance(source, Detector):
        return DetectorSubject.of(type(source.inner).__name__, source)
    folder = run_folder(source)
    if folder is not None:
        if weights is not None or size is not None:
            raise PassbandError(f"{source} is a run: it brings its own weights and size; leave those options out")
        run = open_run(folder)
        return DetectorSubject.of(run_name(run.recipe), load_detector(run).to(device).eval())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        saved = source.startswith(RTDETR) and saved_folder(source.removeprefix(RTDETR)) is not None
        trained = pretrained and weights is None and not saved
        model = create_detector(source, pretrained=trained, weights=weights, size=size)
    return DetectorSubject.of(source, model.to(device).eval())


def run_folder(source: str) -> Path | None:
    """Return the folder of the run that a name means, its path or the head of its digest; None where it means none.

    Raises:
        PassbandError: when several runs begin so.
    """
    if (Path(source) / "recipe.yaml").exists():
        return Path(source)
    if len(source) < 6 or not set(source) <= set("0123456789abcdef"):
        return None
    found = sorted(path for path in runs_folder().glob(f"{source}*") if (path / "recipe.yaml").exists())
    if len(found) > 1:
        raise PassbandError(f"{len(found)} runs in {runs_folder()} begin with '{source}'; give more of the digest")
    return found[0] if found else None


def scenes_for(
    data: str,
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch: int = 8,
    device: str = "cpu",
    skip_bad: bool = False,
) -> SceneBatches:
    """Return test scenes with their objects, at their own sizes.

    Raises:
        PassbandError: when the set is not there, is damaged, or holds no boxes.
    """
    scenes = scene_catalog.load(data, "test", data_dir=data_dir, limit=limit, seed=seed, skip_bad=skip_bad)
    return scenes.batches(batch, device=device)


def images_for(
    asked: Subject,
    data: str,
    *,
    truth: str = "label",
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch: int = 256,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Batches:
    """Return test images at the model's own size, with the labels or the model's own predictions as targets.

    Raises:
        PassbandError: when the set is not there, or its classes are not the model's and ``truth`` is the label.
    """
    if truth not in ("label", "prediction"):
        raise unknown("truth", truth, ["label", "prediction"])
    spec = asked.model.spec
    dataset = catalog.load(data, "test", spec=spec, data_dir=data_dir, limit=limit, seed=seed, skip_bad=skip_bad)
    if truth == "label":
        return match_classes(dataset, spec).batches(batch, device=device)
    batches = dataset.batches(batch, device=device)
    return batches.with_targets(predicted_targets(asked.model, batches), "prediction")
