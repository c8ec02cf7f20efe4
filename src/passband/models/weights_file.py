"""Weights in files: read without running code, checked whole before a network is touched, written whole."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.plain import read_json
from passband.core.store import write_atomic
from passband.models import spartan_checkpoint
from passband.models.detector import Detector
from passband.models.spartan import Spartan
from passband.models.wrap import Classifier

NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("_orig_mod.", "module.", "model.", "inner.")


@dataclass(frozen=True)
class WeightsFile:
    """Hold what a weights file says.

    Attributes:
        path: The file, as it was given.
        tensors: Tensors by name, as the file has them.
        mean: Per channel, of pixels in [0, 1], when the file's metadata has it.
        std: As ``mean``.
        class_names: When the file's metadata has them, else empty.
        source: Where mean and std came from, for people.
    """

    path: Path
    tensors: dict[str, Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] = ()
    source: str = "the weights file's metadata"


def read_weights(path: Path) -> WeightsFile:
    """Read safetensors (by suffix) or a PyTorch checkpoint, in which no code is ever run.

    A checkpoint may hold its tensors under ``state_dict_ema``, ``model_ema``, ``state_dict`` or ``model``,
    looked for in this order, as timm does.

    Raises:
        PassbandError: when the file is missing, damaged, holds code or holds no tensors.
    """
    if not path.is_file():
        raise PassbandError(f"there is no weights file {path}; check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = _read_checkpoint(path)
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    tensors = dict(found) if isinstance(found, Mapping) else {}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PassbandError(
            f"{path} holds no state dict (tensors by name, or those under {', '.join(NESTED)}); "
            "save model.state_dict() with torch.save or as safetensors"
        )
    return WeightsFile(path, tensors)


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        tensors = safetensors.torch.load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # as of a checkpoint, below
        raise _damaged(path, error) from error
    mean, std = (_list(metadata.get(key, "null"), path, float | int) for key in ("mean", "std"))
    names = _list(metadata.get("class_names", "null"), path, str)
    return WeightsFile(path, tensors, tuple(mean) if mean else None, tuple(std) if std else None, tuple(names or ()))


def _list(text: str, path: Path, kind: type | UnionType) -> list[Any] | None:
    try:
        value = read_json(text)
    except ValueError:
        value = text
    if not (value is None or (isinstance(value, list) and all(isinstance(item, kind) for item in value))):
        raise PassbandError(f"{path}: its metadata holds {text[:40]!r} where a JSON list was needed; save it again")
    return value


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = str(error)
        if "Unsupported global" in text or "Unsupported class" in text or "GLOBAL" in text:
            raise PassbandError(
                f"{path} holds Python objects beside tensors, and loading those would run code; "
                "save only model.state_dict(), as safetensors or with torch.save"
            ) from error
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged file fails in as many ways as the reader has lines
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> PassbandError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return PassbandError(f"{path} is damaged, cut short or no weights file ({reason}); fetch or make it again")


def load_weights(model: nn.Module, weights: Path | WeightsFile) -> None:
    """Load weights into a network, all of them or none.

    A prefix that every name carries (``module.``, ``model.``, ``inner.``, ``_orig_mod.``) is dropped. A
    classifier's weights are those of its inner network. SpaRTAN takes the names of its released code too.

    Raises:
        PassbandError: as ``read_weights``, when names or shapes differ, or when a value is not finite.
    """
    inner = model.inner if isinstance(model, Classifier | Detector) else model
    file = weights if isinstance(weights, WeightsFile) else read_weights(weights)
    source = str(file.path)
    own = inner.state_dict()
    tensors = _without_prefix(file.tensors, own)
    if isinstance(inner, Spartan) and spartan_checkpoint.is_released(tensors):
        tensors = spartan_checkpoint.to_ours(tensors, source)
    # Checkpoints from before PyTorch 0.4.1 have no such counters, and only momentum-free norms read them.
    counter = "num_batches_tracked"
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    counters = {norm + counter: own[norm + counter] for norm in norms if norm + counter in own}
    tensors = counters | tensors
    _check_fit(source, own, tensors)
    _check_finite(source, tensors)
    inner.load_state_dict(tensors)


def _without_prefix(tensors: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    found = True
    while found and not any(name in own for name in tensors):
        found = False
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                found = True
    return tensors


def _check_fit(source: str, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    shapes = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if not (missing or extra or shapes):
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} of the model's {len(own)} tensors are missing, first '{missing[0]}'")
    if extra:
        parts.append(f"{len(extra)} of the file's {len(tensors)} are not the model's, first '{extra[0]}'")
    if shapes:
        name = shapes[0]
        came, needed = list(tensors[name].shape), list(own[name].shape)
        parts.append(f"{len(shapes)} differ in shape, first '{name}': {came} in the file, {needed} in the model")
    raise PassbandError(f"{source} is of another architecture: {'; '.join(parts)}; give the model as it was trained")


def _check_finite(source: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            wrong = int((~tensor.isfinite()).sum())
            if wrong:
                raise PassbandError(
                    f"{source}: {wrong} of {tensor.numel()} values of '{name}' are NaN or infinite; "
                    "the training that made it diverged, use an earlier checkpoint"
                )


def save_weights(model: Classifier | Detector, path: Path) -> Path:
    """Write the inner network's weights as safetensors, with mean, std and class names as metadata.

    The file loads in plain timm, and in ``create(..., weights=path)`` without ``--mean/--std``.
    """
    spec = model.spec
    metadata = {"format": "pt", "class_names": json.dumps(spec.class_names)}
    metadata["mean"] = json.dumps(spec.mean or (0.0,) * spec.channels)
    metadata["std"] = json.dumps(spec.std or (1.0,) * spec.channels)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.inner.state_dict().items()}
    write_atomic(path, _ordered(safetensors.torch.save(tensors, metadata)))
    return path


def _ordered(data: bytes) -> bytes:
    """Put a file's metadata in order: the library writes them in one that changes from process to process."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
