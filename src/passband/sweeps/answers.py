"""Probe answers, measured once and kept by what they depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from passband.core.answer import Answer
from passband.core.environment import versions
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import defaults, parse_options
from passband.core.results import Result
from passband.core.spec import ImageSpec
from passband.core.store import lock
from passband.data.dataset import Batches
from passband.data.scenes import SceneBatches
from passband.models.detector import Detector
from passband.models.state import uses_batch_statistics
from passband.models.wrap import Classifier
from passband.probes import PROBES
from passband.probes.registry import DETECTORS, TIMED
from passband.sweeps.resolve import DetectorSubject, Subject
from passband.train.device import hardware_class


@dataclass(frozen=True)
class Work:
    """Say what a probe is asked to do.

    Attributes:
        probe: Its name.
        options: All of them.
        precision: As :func:`measure` takes it.
        parts: Where what is finished is kept until all is.
    """

    probe: str
    options: Mapping[str, Any]
    precision: str
    parts: Path


def measure(
    asked: Subject | DetectorSubject,
    batches: Batches | SceneBatches,
    probe: str,
    given: Mapping[str, Any],
    *,
    folder: Path,
    command: str,
    precision: str = "float32",
    wait: bool = False,
    share: Callable[[Work], None] | None = None,
) -> tuple[Result, ...]:
    """Run a probe, or take the answer that was kept for the same weights, data, options and version.

    Args:
        asked: The model.
        batches: The images.
        probe: The probe's name.
        given: Its options as they came; the rest are its defaults.
        folder: Where answers are kept, one folder each.
        command: What makes the answer again.
        precision: ``"bf16"`` runs the model under bfloat16 autocast; verdicts then carry its rounding.
        wait: Wait for another process that measures the same, in place of refusing.
        share: Has the probe's pieces measured by several processes, where it has some; they are put together here.

    Raises:
        PassbandError: for an unknown probe or option, and whatever the probe refuses.
    """
    function = PROBES[probe]
    _check_kind(asked, probe)
    options = {**defaults(function), **parse_options(function, given, owner=f"probe {probe}")}
    spec = asked.model.spec
    exemption = _batch_statistics(asked.model, batches.size)
    identity = {
        "weights": asked.digest, "behavior": asked.behavior, "mean": spec.mean, "std": spec.std,
        "data": batches.dataset.fingerprint,
        "truth": batches.truth, "probe": probe, "options": options, "precision": precision,
        "device": batches.device.type, "version": versions()["passband"],
        "batch": batches.size if exemption else None,
    }  # fmt: skip
    if probe in TIMED:
        identity |= {"hardware": hardware_class(batches.device.type), "threads": torch.get_num_threads()}
        identity |= {"torch": versions()["torch"]}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    kept = folder / key
    with lock(kept, wait=wait):
        if (kept / "results.json").exists():
            return _recalled(kept, command)
        work = Work(probe, options, precision, kept / "parts")
        if share is not None and "resume" in inspect.signature(function).parameters:
            share(work)
        results = run(asked, batches, work)
        how = {
            "command": command, "model": asked.name, "weights": asked.digest, "data": batches.dataset.name,
            "fingerprint": batches.dataset.fingerprint, "count": batches.count, "truth": batches.truth,
            "precision": precision, "versions": versions(), "hardware": hardware_class(batches.device.type),
        }  # fmt: skip
        results = tuple(
            result.model_copy(update={"how": how | result.how, "notes": (*result.notes, *exemption)})
            for result in results
        )
        Answer({"title": f"{probe} of {asked.name}", "identity": identity}, results).save(kept)
        shutil.rmtree(work.parts, ignore_errors=True)  # the answer holds it all now
        return results


def run(asked: Subject | DetectorSubject, batches: Batches | SceneBatches, work: Work) -> tuple[Result, ...]:
    """Run a probe; what is finished is kept until all is, and what was kept is taken.

    Raises:
        PassbandError: for whatever the probe refuses.
    """
    function = PROBES[work.probe]
    takes = inspect.signature(function).parameters
    offered = {"resume": work.parts, "precision": work.precision}
    context = {name: value for name, value in offered.items() if name in takes}
    with _running_in("float32" if "precision" in takes else work.precision, asked.model, batches.device.type):
        return function(asked.model, batches, **work.options, **context)


def _check_kind(asked: Subject | DetectorSubject, probe: str) -> None:
    """Refuse a probe of classifiers for a detector, and the other way round."""
    if isinstance(asked, DetectorSubject) == (probe in DETECTORS):
        return
    if probe in DETECTORS:
        raise NotApplicable(f"probe {probe} asks detectors; {asked.name} is a classifier: take rtdetr:BACKBONE")
    raise NotApplicable(f"probe {probe} asks classifiers; {asked.name} is a detector: --only {', '.join(DETECTORS)}")


def _recalled(kept: Path, command: str) -> tuple[Result, ...]:
    try:
        results = Answer.load(kept).results
    except PassbandError as error:
        raise PassbandError(
            f"a kept answer is damaged ({error}): remove {kept} and give the same command again"
        ) from None
    return tuple(result.model_copy(update={"how": result.how | {"command": command}}) for result in results)


@contextmanager
def _running_in(precision: str, model: Classifier | Detector, device: str) -> Iterator[None]:
    """Let the model alone, and nothing that is computed of its images or weights, run in another precision."""
    if precision not in ("float32", "bf16"):
        raise PassbandError(f"precision is float32 or bf16; got '{precision}'")
    if precision == "float32":
        yield
        return
    plain = model.forward

    def forward(images: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            answer: Any = plain(images)
        return answer.float() if isinstance(answer, Tensor) else [one.float() for one in answer]

    model.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.forward


def _batch_statistics(model: nn.Module, size: int) -> tuple[str, ...]:
    """Say where a model's answers depend on which images share a batch."""
    if not uses_batch_statistics(model):
        return ()
    return (f"The model normalizes by the statistics of each batch, here of {size} images: results depend on it.",)


def describe(asked: Subject | DetectorSubject, batches: Batches | SceneBatches) -> dict[str, Any]:
    """Return what a reader of any answer must know of its model and its images."""
    spec = asked.model.spec
    return {
        "model": asked.name,
        "weights": asked.digest[:16],
        "input": f"{spec.size[0]}×{spec.size[1]} pixels, {spec.channels} channels, {_outputs(spec)}",
        "mean and std": _normalization(spec),
        "data": batches.dataset.name,
        "images": batches.count,
        **({"measured": batches.measure} if spec.classes else {}),
        "notes": list(batches.dataset.notes),
    }


def _outputs(spec: ImageSpec) -> str:
    return f"{spec.classes} classes" if spec.classes else "images out"


def _normalization(spec: ImageSpec) -> str:
    if spec.mean is None or spec.std is None:
        return f"none: pixels in [0, 1] as they are ({spec.source})"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    return f"({mean}) and ({std}), from {spec.source}"
