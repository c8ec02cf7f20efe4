"""Defaults of earlier torchattacks, for tables that were measured with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Version = Literal["torchattacks-3.5.1", "torchattacks-3.2"]

DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "torchattacks-3.5.1": {},
    "torchattacks-3.2": {
        "gn": {},
        "ffgsm": {},
        "fgsm": {"eps": 0.007},
        "bim": {"eps": 4 / 255, "alpha": 1 / 255, "steps": 0},
        "pgd": {"eps": 0.3, "alpha": 2 / 255, "steps": 40},
        "tpgd": {"steps": 7},
        "cw": {"c": 1e-4, "steps": 1000},
    },
}
"""By version and attack, what differs from the attack's own defaults, which are those of 3.5.1; an earlier
version says nothing of attacks that are not listed under it.

**Source**: torchattacks 3.2.x was current when adversarial-focus was written.
"""
