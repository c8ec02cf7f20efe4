"""Experiments by name: a file's path is its name."""

from __future__ import annotations

import importlib
import pkgutil

import passband.experiments
from passband.core.errors import unknown
from passband.experiments.protocol import Experiment

PACKAGE = passband.experiments.__name__
_OF_PAPERS = (
    "adversarial_focus.attacked", "adversarial_focus.settings", "high_frequency.settings", "high_frequency.tracking",
    "spartan.ablation", "spartan.camera", "spartan.settings", "spatial_mixing.settings",
)  # fmt: skip
_SHARED = (
    "bootstrap", "catalog", "curves", "detectors", "kernel_scores", "margins", "protocol", "reproduce", "scores",
    "timing",
)  # fmt: skip
MACHINERY = frozenset({*_SHARED, *_OF_PAPERS})


def names() -> list[str]:
    """Return every experiment's name, such as ``spatial-mixing/static-filters``."""
    found = []
    for module in pkgutil.walk_packages(passband.experiments.__path__, f"{PACKAGE}."):
        path = module.name.removeprefix(f"{PACKAGE}.")
        if not module.ispkg and path not in MACHINERY:
            found.append(path.replace(".", "/").replace("_", "-"))
    return sorted(found)


def of_papers() -> list[str]:
    """Return the names of the experiments that measure a paper's table or figure."""
    return [name for name in names() if "/" in name]


def find(name: str) -> Experiment:
    """Import an experiment.

    Raises:
        PassbandError: when none has that name.
    """
    if name not in names():
        raise unknown("experiment", name, names())
    module = importlib.import_module(f"{PACKAGE}.{name.replace('-', '_').replace('/', '.')}")
    experiment = module.EXPERIMENT
    if not isinstance(experiment, Experiment):
        raise TypeError(f"{module.__name__}.EXPERIMENT is no Experiment")
    return experiment
