"""Which parameters learn: everything, channel mixing only, or spatial mixing only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passband.core.errors import PassbandError, unknown
from passband.weights import split
from passband.weights.biases import keep_biases_apart, refuse_biases
from passband.weights.roles import ROLES, UNNAMED, Attention, Part, Role, bare, parts, plain_name

What = Literal["all", "channels", "spatial"]
Both = Literal["freeze", "learn"]
M = TypeVar("M", bound=nn.Module)

_MIXER: dict[str, Role] = {"channels": "channel", "spatial": "spatial"}


@dataclass(frozen=True)
class LearnReport:
    """How many values of each role learn.

    Args:
        what: ``all``, ``channels`` or ``spatial``.
        by_role: Role to the numbers of learned and of frozen values.
    """

    what: What
    by_role: Mapping[str, tuple[int, int]]

    @property
    def learned(self) -> int:
        """Number of values that learn."""
        return sum(learned for learned, _ in self.by_role.values())

    @property
    def frozen(self) -> int:
        """Number of values that stay."""
        return sum(frozen for _, frozen in self.by_role.values())

    def __str__(self) -> str:
        """Say it in one line."""
        roles = ", ".join(
            f"{role} {learned:,} of {learned + frozen:,}"
            for role, (learned, frozen) in self.by_role.items()
            if learned + frozen
        )
        return f"learn {self.what}: {self.learned:,} of {self.learned + self.frozen:,} parameters ({roles})"


def learn(
    model: nn.Module,
    what: What,
    *,
    both: Both = "freeze",
    attention: Attention = "split",
    roles: Mapping[str, str] = {},
) -> LearnReport:
    """Let some of a model's parameters learn and freeze the others where they are.

    Parameters without a mixing role (norms, scales, tokens, classifier) always learn; those that mix both
    are frozen in ``channels`` and in ``spatial``. A frozen parameter has ``requires_grad`` off; the frozen
    rows of a fused query-key-value parameter become a buffer, so that they reach no optimizer and no weight
    decay. A frozen depthwise kernel costs no gradient, also where ``roles`` lets its bias learn (the bias is
    then added outside of the convolution). What was frozen when ``learn`` met the model first stays frozen.
    Can be called again with another ``what``; where that is refused, rows that were split before are whole
    again and learn.

    **Source**: spatial-mixing, section 3.4 (``channels`` is their "Chans", ``spatial`` their "Space").

    Args:
        model: A ``Classifier`` or a bare module; changed in place.
        what: What learns.
        both: Whether parameters that mix both learn in ``channels`` and ``spatial``.
        attention: ``"whole"`` counts all of attention as spatial.
        roles: Pattern of parameter names to role, over what :func:`passband.weights.roles.roles` finds.

    Returns:
        What learns now.

    Raises:
        PassbandError: for a parameter without a role (``all`` needs none), a pattern or a ``what`` that
            matches nothing, where the frozen ``both`` holds more than half of the model, and for a bias that would
            learn beside a frozen kernel in a depthwise convolution with a forward of its own.
    """
    for kind, name, choices in (("part to learn", what, What), ("option of both", both, Both)):
        if name not in get_args(choices):
            raise unknown(kind, name, get_args(choices))
    inner = bare(model)
    split.remove(inner)
    found = parts(inner, overrides=roles, attention=attention, strict=what != "all")
    if what == "all":
        wanted = {*ROLES, UNNAMED}
    else:
        wanted = {_MIXER[what], "neither"} | ({"both"} if both == "learn" else set())
        _refuse(inner, found, what, both)
        refuse_biases(inner, {plain_name(name): any(_learning(inner, name, found[name], wanted)) for name in found})
    counts = _apply(inner, found, wanted)
    keep_biases_apart(inner)
    return LearnReport(what, counts)


def learned_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return what an optimizer should get: name and parameter of all that learns.

    Raises:
        PassbandError: when nothing does.
    """
    learned = [(name, p) for name, p in bare(model).named_parameters() if p.requires_grad]
    if not learned:
        raise PassbandError("no parameter of the model learns; let some learn with learn(model, 'all')")
    return learned


def bake(model: M) -> M:
    """Turn every parametrized parameter back into a plain one of the same value, in place.

    The state dict then loads in plain timm. Frozen rows are no longer held: learn again to train on.

    Returns:
        The model.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _own_class(module)
            for leaf in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
    return model


def _own_class(module: nn.Module) -> None:
    """Part a module from its copies: they share the class that torch made, whose property goes when one is baked."""
    kind = type(module)
    held = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, held)


def _refuse(model: nn.Module, found: Mapping[str, tuple[Part, ...]], what: What, both: Both) -> None:
    parameters = dict(model.named_parameters())
    sizes = dict.fromkeys((*ROLES, UNNAMED), 0)
    for name, pieces in found.items():
        for part in pieces:
            sizes[part.role] += _size(parameters[name], part)
    share = sizes["both"] / max(1, sum(sizes.values()))
    kind = type(model).__name__
    if both == "freeze" and share > 0.5:
        raise PassbandError(
            f"{share:.0%} of {kind}'s parameters mix positions and channels at once, so '{what}' would leave "
            "them frozen: make its convolutions separable first (separate), or let them learn too (both='learn')"
        )
    if sizes[_MIXER[what]] == 0:
        raise PassbandError(
            f"'{what}' has nothing to learn in {kind}: none of its {len(parameters)} parameters is "
            f"'{_MIXER[what]}'; choose learn='all' or say which are with roles={{...}}"
        )


def _apply(model: nn.Module, found: Mapping[str, tuple[Part, ...]], wanted: set[str]) -> dict[str, tuple[int, int]]:
    counts = {role: [0, 0] for role in (*ROLES, UNNAMED)}
    for name, parameter in list(model.named_parameters()):
        pieces = found[name]
        learns = _learning(model, name, pieces, wanted)
        for part, does in zip(pieces, learns, strict=True):
            counts[part.role][0 if does else 1] += _size(parameter, part)
        parameter.requires_grad_(any(learns))
        if any(learns) and not all(learns):
            owner, _, leaf = name.rpartition(".")
            rows = [part.rows for part, does in zip(pieces, learns, strict=True) if does and part.rows is not None]
            split.install(model.get_submodule(owner), leaf, torch.stack(rows).any(0), name)
    return {role: (learned, frozen) for role, (learned, frozen) in counts.items()}


def _learning(model: nn.Module, name: str, pieces: tuple[Part, ...], wanted: set[str]) -> list[bool]:
    """Tell for each part of a parameter whether it will learn."""
    return [part.role in wanted and name not in _fixed(model) for part in pieces]


def _size(parameter: Tensor, part: Part) -> int:
    if part.rows is None:
        return parameter.numel()
    return int(part.rows.sum()) * (parameter.numel() // len(part.rows))


def _fixed(model: nn.Module) -> frozenset[str]:
    """Names of what its maker froze (sine position embeddings, say), noted when the model is met first."""
    if not hasattr(model, "_fixed_by_maker"):
        names = frozenset(name for name, p in model.named_parameters() if not p.requires_grad)
        model._fixed_by_maker = names  # type: ignore[assignment]
    return model._fixed_by_maker  # type: ignore[return-value]
