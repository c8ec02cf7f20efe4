"""Show which image frequencies a vision model runs on, and train models that run on the right ones.

The names below are loaded when they are first used, so that importing passband, or asking its command line for help,
loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passband.attacks.gradient_sign import FGSM, PGD
    from passband.core.answer import Answer
    from passband.core.band import Band
    from passband.core.errors import PassbandError
    from passband.core.recipe import Recipe
    from passband.models.create import create
    from passband.sweeps.probing import load, probe
    from passband.weights.learn import learn

_HOMES = {
    "Answer": "passband.core.answer",
    "Band": "passband.core.band",
    "FGSM": "passband.attacks.gradient_sign",
    "PGD": "passband.attacks.gradient_sign",
    "PassbandError": "passband.core.errors",
    "Recipe": "passband.core.recipe",
    "create": "passband.models.create",
    "learn": "passband.weights.learn",
    "load": "passband.sweeps.probing",
    "probe": "passband.sweeps.probing",
}

__all__ = [
    "FGSM",
    "PGD",
    "Answer",
    "Band",
    "PassbandError",
    "Recipe",
    "create",
    "learn",
    "load",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'passband' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
