"""The attacks by name, and what every attack is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

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


ATTACKS: Registry[type[Any]] = Registry("attack")
"""Frozen dataclasses whose fields are the attack's options, each with a default."""


def make(name: str, options: Mapping[str, Any] | None = None) -> Attack:
    """Make an attack from its name and options as they came: ``make("pgd", {"eps": "8/255"})``.

    Raises:
        PassbandError: for an unknown attack or option, or a value that it refuses.
    """
    kind = ATTACKS[name]
    attack: Attack = kind(**parse_options(kind, options or {}, owner=f"attack {name}"))
    return attack
