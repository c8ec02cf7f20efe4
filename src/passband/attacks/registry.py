"""The attacks by name, and what every attack is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from passband.attacks.search import Search
from passband.attacks.threat import Norm
from passband.attacks.versions import DEFAULTS
from passband.core.errors import PassbandError, unknown
from passband.core.options import parse_options
from passband.core.registry import Registry
from passband.models.state import Mode


@runtime_checkable
class Attack(Protocol):
    """Change images, inside what a threat allows, so that a model errs; a frozen, printable value.

    Attributes:
        mode: The mode that the model is in while the attack runs: ``"eval"``, or ``"train"`` in a training.
    """

    @property
    def mode(self) -> Mode: ...

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "batch channel height width"],
        labels: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Return adversarial images in [0, 1]; the model is left as it was found."""
        ...

    def at(self, eps: float, *, scale: bool = True) -> Attack:
        """Return this attack at another ε, each step keeping its share of ε (``scale``) or its size."""
        ...


@runtime_checkable
class Searching(Attack, Protocol):
    """An attack whose search can be taken apart into rows, so that images leave and join while it runs."""

    def search(self) -> Search:
        """Return how it searches."""
        ...


def members_of(attack: Attack) -> tuple[Attack, ...]:
    """Return the attacks that an ensemble runs one after another, or the attack itself."""
    members: tuple[Attack, ...] = getattr(attack, "members", (attack,))
    return members


ATTACKS: Registry[type[Any]] = Registry("attack")
"""Frozen dataclasses whose fields are the attack's options, each with a default."""


def make(name: str, options: Mapping[str, Any] | None = None, *, defaults: str = "torchattacks-3.5.1") -> Attack:
    """Make an attack from its name and options as they came: ``make("pgd", {"eps": "8/255"})``.

    Args:
        name: As ``passband list attacks`` shows it.
        options: Option names and values; strings are read.
        defaults: Whose defaults fill the rest: ``"torchattacks-3.5.1"``, or ``"torchattacks-3.2"``, which were
            current when adversarial-focus was written.

    Raises:
        PassbandError: for an unknown attack, option or version, or a value that the attack refuses.
    """
    kind = ATTACKS[name]
    if defaults not in DEFAULTS:
        raise unknown("set of defaults", defaults, DEFAULTS)
    if DEFAULTS[defaults] and name not in DEFAULTS[defaults]:
        known = ", ".join(sorted(DEFAULTS[defaults]))
        raise PassbandError(
            f"defaults of {defaults} are known for {known}; got {name}: leave them out, and give options"
        )
    given = {**DEFAULTS[defaults].get(name, {}), **(options or {})}
    attack: Attack = kind(**parse_options(kind, given, owner=f"attack {name}"))
    return attack


def norm_of(attack: Attack) -> Norm | None:
    """Return the norm of an attack's ε, or None where no ε bounds it."""
    found = {_norm_of_one(member) for member in members_of(attack)}
    return found.pop() if len(found) == 1 else None


def _norm_of_one(attack: Attack) -> Norm | None:
    smallest: Norm | None = getattr(attack, "minimal", None)
    if smallest is not None or getattr(attack, "couples_batch", False):
        return smallest
    if not isinstance(attack, Searching):
        return "Linf"
    threat = attack.search().threat
    return None if threat is None else threat.norm
