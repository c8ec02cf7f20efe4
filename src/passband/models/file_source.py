"""Networks from the user's own Python files: the one place where code that comes with a model is run.

Weights, checkpoints, answers, recipes and data sets are read as data; a pickle with code in it is refused, and models
of the hub come as timm's or transformers' own classes, never with ``trust_remote_code``. A file named here is run as
Python is, with all that the user may do: give only files that you trust.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.core.spec import ImageSpec
from passband.models.origin import Arguments, Origin, Size, call_factory, class_names, from_cfg
from passband.models.wrap import Classifier

PATTERN = re.compile(r"(?P<path>.+\.py):(?P<factory>\w+)")


def from_file(name: str, classes: int | None, channels: int, size: Size | None, arguments: Arguments) -> Origin:
    """Make a network with a factory of the user's, ``path/to/file.py:factory``: the file is run.

    ``num_classes`` and ``in_chans`` are passed where the factory names them. What its images are is read from
    the module's ``spec``, ``pretrained_cfg`` or ``default_cfg``, or ``mean`` and ``std``.

    Raises:
        PassbandError: when file or factory are not there, either raises, or no module comes back.
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        raise PassbandError(f"a model of your own is path/to/file.py:factory; got '{name}'")
    factory = _factory(Path(match["path"]), match["factory"])
    asked = {key: value for key, value in {"num_classes": classes, "in_chans": channels}.items() if value}
    accepted = inspect.signature(factory).parameters
    asked = {key: value for key, value in asked.items() if key in accepted} | arguments
    try:
        inner = call_factory(name, factory, asked)
    except PassbandError:
        raise
    except Exception as error:
        raise _raised(name, error) from error
    origin = metadata_of(inner)
    return origin if size is None else replace(origin, size=size)


def _factory(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise PassbandError(f"there is no file {path}; a model of your own is path/to/file.py:factory")
    module = _load(path.resolve())
    factory = getattr(module, name, None)
    if not callable(factory):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"factory in {path}", name, found)
    function: Callable[..., Any] = factory
    return function


class _Source(SourceFileLoader):
    """Read the file itself: Python takes what it compiled before for a file of the same size and second."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the file as it is now."""
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(path: Path) -> ModuleType:
    name = f"passband_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    if path.suffix != ".py" or spec is None or spec.loader is None:
        raise PassbandError(f"{path} is not a Python file; a model of your own is path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(path.parent))  # the file may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _raised(str(path), error) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _raised(what: str, error: Exception) -> PassbandError:
    line = (str(error).splitlines() or [""])[0]
    return PassbandError(f"{what} raised {type(error).__name__}: {line}; mend it, or see where with --debug")


def metadata_of(inner: nn.Module) -> Origin:
    """Read what a network says of its images: its ``spec``, timm's metadata, or ``mean`` and ``std``."""
    spec = getattr(inner, "spec", None)
    if isinstance(spec, ImageSpec):
        # A classifier normalizes by itself: the one that is made of it here must not do so twice.
        network = inner.inner if isinstance(inner, Classifier) else inner
        return Origin(
            network, spec.size, spec.mean, spec.std, "the model's spec", spec.mean is None, spec.crop_pct,
            spec.interpolation, spec.crop_mode, spec.class_names, spec.fit,
        )  # fmt: skip
    for key in ("pretrained_cfg", "default_cfg"):
        cfg = getattr(inner, key, None)
        if cfg:
            cfg = cfg if isinstance(cfg, dict) else dict(vars(cfg))
            return replace(from_cfg(inner, cfg, f"the model's {key}"), class_names=class_names(inner, cfg))
    own = {name for name, _ in (*inner.named_buffers(recurse=False), *inner.named_parameters(recurse=False))}
    if own & {"mean", "std"}:
        return Origin(inner)  # it may well normalize by them itself: only its author knows
    mean, std = getattr(inner, "mean", None), getattr(inner, "std", None)
    if mean is None or std is None:
        return Origin(inner)
    return Origin(inner, mean=_numbers(mean), std=_numbers(std), source="the model's mean and std")


def _numbers(values: Any) -> tuple[float, ...]:
    flat = values.flatten().tolist() if hasattr(values, "flatten") else values
    return (float(flat),) if isinstance(flat, int | float) else tuple(float(value) for value in flat)
