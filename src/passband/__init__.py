"""Show which image frequencies a vision model runs on, and train models that run on the right ones.

The names below are loaded when they are first used, so that importing passband, or asking its command line for help,
loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passband.attacks.auto_pgd import APGD, APGDT
    from passband.attacks.carlini_wagner import CW
    from passband.attacks.evaluate import robust_accuracy
    from passband.attacks.fab import FAB
    from passband.attacks.gradient_length import PGDL2
    from passband.attacks.gradient_sign import BIM, FFGSM, FGSM, PGD
    from passband.attacks.noise import GN
    from passband.attacks.square import Square
    from passband.attacks.standard import Standard
    from passband.attacks.trades import TPGD
    from passband.core.answer import Answer
    from passband.core.band import Band
    from passband.core.errors import PassbandError
    from passband.core.recipe import Recipe
    from passband.models.create import create
    from passband.probes.similarity import compare
    from passband.sweeps.probing import load, probe
    from passband.weights.export import export_onnx
    from passband.weights.learn import learn
    from passband.weights.quantize import quantize
    from passband.weights.separate import separate

_HOMES = {
    "APGD": "passband.attacks.auto_pgd",
    "APGDT": "passband.attacks.auto_pgd",
    "BIM": "passband.attacks.gradient_sign",
    "CW": "passband.attacks.carlini_wagner",
    "FAB": "passband.attacks.fab",
    "FFGSM": "passband.attacks.gradient_sign",
    "FGSM": "passband.attacks.gradient_sign",
    "GN": "passband.attacks.noise",
    "PGD": "passband.attacks.gradient_sign",
    "PGDL2": "passband.attacks.gradient_length",
    "TPGD": "passband.attacks.trades",
    "Answer": "passband.core.answer",
    "Band": "passband.core.band",
    "PassbandError": "passband.core.errors",
    "Recipe": "passband.core.recipe",
    "Square": "passband.attacks.square",
    "Standard": "passband.attacks.standard",
    "compare": "passband.probes.similarity",
    "create": "passband.models.create",
    "export_onnx": "passband.weights.export",
    "learn": "passband.weights.learn",
    "load": "passband.sweeps.probing",
    "probe": "passband.sweeps.probing",
    "quantize": "passband.weights.quantize",
    "robust_accuracy": "passband.attacks.evaluate",
    "separate": "passband.weights.separate",
}

__all__ = [
    "APGD",
    "APGDT",
    "BIM",
    "CW",
    "FAB",
    "FFGSM",
    "FGSM",
    "GN",
    "PGD",
    "PGDL2",
    "TPGD",
    "Answer",
    "Band",
    "PassbandError",
    "Recipe",
    "Square",
    "Standard",
    "compare",
    "create",
    "export_onnx",
    "learn",
    "load",
    "probe",
    "quantize",
    "robust_accuracy",
    "separate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'passband' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
