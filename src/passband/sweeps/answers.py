"""Probe answers, measured once and kept by what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from passband.core.answer import Answer
from passband.core.environment import hardware, versions
from passband.core.errors import PassbandError
from passband.core.options import defaults, parse_options
from passband.core.results import Result
from passband.core.spec import ImageSpec
from passband.core.store import lock
from passband.data.dataset import Batches
from passband.probes import PROBES
from passband.sweeps.resolve import Subject


def measure(
    asked: Subject,
    batches: Batches,
    probe: str,
    given: Mapping[str, Any],
    *,
    folder: Path,
    command: str,
    precision: str = "float32",
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

    Raises:
        PassbandError: for an unknown probe or option, and whatever the probe refuses.
    """
    function = PROBES[probe]
    options = {**defaults(function), **parse_options(function, given, owner=f"probe {probe}")}
    spec = asked.model.spec
    identity = {
        "weights": asked.digest, "mean": spec.mean, "std": spec.std, "data": batches.dataset.fingerprint,
        "truth": batches.truth, "probe": probe, "options": options, "precision": precision,
        "device": batches.device.type, "version": versions()["passband"],
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    kept = folder / key
    with lock(kept):
        if (kept / "results.json").exists():
            return _recalled(kept, command)
        with _autocast(precision, batches.device.type):
            results = function(asked.model, batches, **options)
        how = {
            "command": command, "model": asked.name, "weights": asked.digest, "data": batches.dataset.name,
            "fingerprint": batches.dataset.fingerprint, "count": batches.count, "truth": batches.truth,
            "precision": precision, "versions": versions(), "hardware": hardware(),
        }  # fmt: skip
        results = tuple(result.model_copy(update={"how": how | result.how}) for result in results)
        Answer({"title": f"{probe} of {asked.name}", "identity": identity}, results).save(kept)
        return results


def _recalled(kept: Path, command: str) -> tuple[Result, ...]:
    results = Answer.load(kept).results
    return tuple(result.model_copy(update={"how": result.how | {"command": command}}) for result in results)


def _autocast(precision: str, device: str) -> Any:
    if precision == "float32":
        return nullcontext()
    if precision != "bf16":
        raise PassbandError(f"precision is float32 or bf16; got '{precision}'")
    return torch.autocast(device, dtype=torch.bfloat16)


def describe(asked: Subject, batches: Batches) -> dict[str, Any]:
    """Return what a reader of any answer must know of its model and its images."""
    spec = asked.model.spec
    return {
        "model": asked.name,
        "weights": asked.digest[:16],
        "input": f"{spec.size[0]}×{spec.size[1]} pixels, {spec.channels} channels, {spec.classes} classes",
        "mean and std": _normalization(spec),
        "data": batches.dataset.name,
        "images": batches.count,
        "measured": batches.measure,
        "notes": list(batches.dataset.notes),
    }


def _normalization(spec: ImageSpec) -> str:
    if spec.mean is None or spec.std is None:
        return f"none: pixels in [0, 1] as they are ({spec.source})"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
    return f"({mean}) and ({std}), from {spec.source}"
