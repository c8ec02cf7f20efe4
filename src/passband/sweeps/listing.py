"""What there is by name, for `passband list`."""

from __future__ import annotations

from passband.attacks.registry import ATTACKS
from passband.core.options import defaults
from passband.data import catalog, scene_catalog
from passband.models import create, detectors
from passband.probes import PROBES


def entries(what: str) -> list[tuple[str, str]]:
    """Return names and a line each of ``"models"``, ``"data"``, ``"attacks"`` or ``"probes"``."""
    if what == "models":
        return [(name, "") for name in create.names()] + [(name, "finds objects") for name in detectors.names()]
    if what == "data":
        return [(name, f"{text} ({place})") for name, text, place in (*catalog.names(), *scene_catalog.names())]
    parts = ATTACKS if what == "attacks" else PROBES
    return [(name, _line(part)) for name, part in parts.items()]


def _line(part: object) -> str:
    first = (part.__doc__ or "").strip().splitlines()[0]
    options = ", ".join(f"{name}={value!r}" for name, value in defaults(part).items())  # type: ignore[arg-type]
    return f"{first} ({options})" if options else first
