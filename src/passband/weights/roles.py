"""The one role of every parameter: does it mix positions, channels, both or neither?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from passband.core.errors import PassbandError, unknown
from passband.models.quantizers import ActivationQuantizer
from passband.models.wrap import Classifier
from passband.weights import table
from passband.weights.layouts import query_key_rows

Role = Literal["spatial", "channel", "both", "neither"]
Attention = Literal["split", "whole"]
ROLES: tuple[Role, ...] = get_args(Role)
UNNAMED = "unnamed"
"""In place of a role where none is needed, because everything learns."""

_HEADS = ("fc", "classifier", "head", "heads", "last_linear")
_KNOWN_ORIGINS = ("timm", "torchvision", "passband")


@dataclass(frozen=True, eq=False)
class Part:
    """One role's part of a parameter.

    Args:
        role: What it mixes, or ``unnamed``.
        rows: One boolean per row of the parameter, True where the row belongs to this part; None for all.
        label: What the rows hold: ``query,key`` or ``value``; empty for all.
    """

    role: Role | Literal["unnamed"]
    rows: Tensor | None = None
    label: str = ""


@dataclass(frozen=True, eq=False)
class _Place:
    """A parameter's owner and the modules above it, outermost first, each with the path that leads on."""

    name: str
    leaf: str
    owner: nn.Module
    above: tuple[tuple[nn.Module, str], ...]
    rows: int


def roles(
    model: nn.Module, *, overrides: Mapping[str, str] | None = None, attention: Attention = "split"
) -> dict[str, Role]:
    """Give every parameter of a model one role.

    *spatial* mixes positions: depthwise convolutions with their bias, token-mixing layers, query and key of
    attention, position embeddings and bias tables. *channel* mixes channels: 1×1 convolutions, linear layers
    on the channel axis, squeeze-and-excite, value and output projection of attention, attention between
    channels. *both*: dense or grouped k×k convolutions, patch embeddings with patch > 1, linear layers on a
    flattened map. *neither*: norms, learned scales, class and register tokens, classifiers.

    Roles come from module types and from a table of block classes (:mod:`passband.weights.table`). Measured: all
    1,581 architectures of timm 1.0.31 that can be built, in 98 families, and all 65 of torchvision 0.29's
    classifiers that were tried (RegNets cannot be built without memory) have a role for each parameter. Layers of
    somebody else's module that types do not tell need ``overrides``.

    **Source**: spatial-mixing, section 3 (depthwise against pointwise). **Differs**: the paper also freezes
    ConvMixer's stem with patch 1, which is a 1×1 convolution and thus *channel* here; ``{"stem.*": "both"}`` is the
    paper's choice.

    Args:
        model: A bare module, or a ``Classifier`` (names are then those of its inner network).
        overrides: Pattern of parameter names (``*`` and ``?``) to role; the last that matches counts.
        attention: ``"whole"`` counts value and output projection as spatial too.

    Returns:
        Parameter name to role. A fused query-key-value parameter has two entries: ``name[query,key]`` and
        ``name[value]``.

    Raises:
        PassbandError: for a parameter that nothing names, a pattern that matches nothing, or an unknown role.
    """
    found = parts(model, overrides=overrides or {}, attention=attention)
    return {
        plain_name(name) + (f"[{part.label}]" if part.label else ""): part.role
        for name, pieces in found.items()
        for part in pieces
        if part.role != "unnamed"
    }


def parts(
    model: nn.Module, *, overrides: Mapping[str, str], attention: Attention = "split", strict: bool = True
) -> dict[str, tuple[Part, ...]]:
    """Return each parameter's parts, as :func:`roles`; without ``strict`` a nameless one is ``unnamed``."""
    if attention not in get_args(Attention):
        raise unknown("attention", attention, get_args(Attention))
    inner = bare(model)
    named = _overridden(overrides, [name for name, _ in inner.named_parameters()])
    heads = classifiers(inner)
    found: dict[str, tuple[Part, ...]] = {}
    missing: list[_Place] = []
    for place in _places(inner):
        if place.name in named:
            found[place.name] = (Part(named[place.name]),)
        elif got := _parts_of(place, heads, attention):
            found[place.name] = got
        else:
            missing.append(place)
    if missing and strict:
        raise _nameless(missing)
    return found | {place.name: (Part("unnamed"),) for place in missing}


def bare(model: nn.Module) -> nn.Module:
    """Return the network inside a ``Classifier``, or the model itself."""
    return model.inner if isinstance(model, Classifier) else model


def _overridden(overrides: Mapping[str, str], names: list[str]) -> dict[str, Role]:
    found: dict[str, Role] = {}
    for pattern, role in overrides.items():
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        matches = [name for name in names if fnmatchcase(plain_name(name), pattern)]
        if not matches:
            raise PassbandError(
                f"the pattern '{pattern}' matches none of the model's {len(names)} parameters; they are named "
                f"like '{names[0]}' and '{names[-1]}'"
            )
        found |= dict.fromkeys(matches, role)
    return found


def _nameless(missing: list[_Place]) -> PassbandError:
    first = missing[0]
    kind = "linear layer" if isinstance(first.owner, nn.Linear) else "parameter"
    name = first.name.removesuffix(".weight") if kind == "linear layer" else first.name
    pattern = f"{name}.*" if kind == "linear layer" else name
    holder = next((type(m).__name__ for m, _ in reversed(first.above) if not _is_plain(m)), type(first.owner).__name__)
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return PassbandError(
        f"no role is known for the {kind} '{name}' of {holder}{more}: say what it mixes with "
        f"roles={{'{pattern}': 'spatial'}}, 'channel', 'both' or 'neither'"
    )


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Sequential | nn.ModuleList | nn.ModuleDict)


def plain_name(name: str) -> str:
    """The name that a parametrized parameter has without its parametrization."""
    head, parametrized, tail = name.partition("parametrizations.")
    return head + tail.split(".")[0] if parametrized else name


def _places(model: nn.Module) -> Iterator[_Place]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, _ in model.named_parameters():
        steps = plain_name(name).split(".")
        prefixes = [".".join(steps[:depth]) for depth in range(len(steps))]
        above = tuple((modules[p], ".".join(steps[depth:])) for depth, p in enumerate(prefixes))
        owner, leaf = above[-1][0], steps[-1]
        yield _Place(name, leaf, owner, above, getattr(owner, leaf).shape[:1].numel())


def classifiers(model: nn.Module) -> set[int]:
    """Ids of the modules that are the classifier: timm's own answer, else the usual names' last layer."""
    heads: list[nn.Module] = []
    ask = getattr(model, "get_classifier", None)
    if callable(ask):
        answer = ask()
        answer = answer if isinstance(answer, list | tuple) else [answer]
        heads = [head for head in answer if isinstance(head, nn.Module)]
    else:
        for head in (getattr(model, name, None) for name in _HEADS):
            layers = list(head.modules()) if isinstance(head, nn.Module) else []
            heads += [layer for layer in layers if any(True for _ in layer.parameters(recurse=False))][-1:]
    return {id(module) for head in heads for module in head.modules()}


def _parts_of(place: _Place, heads: set[int], attention: Attention) -> tuple[Part, ...]:
    owner = place.owner
    if id(owner) in heads or _is_norm(owner) or isinstance(owner, ActivationQuantizer):
        return (Part("neither"),)
    if isinstance(owner, nn.RNNBase):
        return (Part("both"),)
    for names, meant in _LEAVES:
        if any(fnmatchcase(place.leaf, pattern) for pattern in names):
            return (Part(meant),)
    kernel = getattr(owner, "kernel_size", None)
    # The kernel of "efficient channel attention" runs along the channels, not over the image.
    along_channels = _CHANNEL_KERNELS.intersection(labels(place.above[-2][0])) if len(place.above) > 1 else ()
    wide = kernel is not None and any(side != 1 for side in kernel) and not along_channels
    for module, path in place.above:
        child = path.split(".")[0]
        if wide:  # stays what its type says, within a channel MLP and within attention too
            break
        if role := _from_table(module, child):
            return (Part(role),)
        if got := _from_attention(module, child, place, attention):
            return got
    if kernel is not None and place.leaf in ("weight", "bias"):
        return (Part(_convolution(owner, wide)),)
    return ()


def _convolution(owner: Any, wide: bool) -> Role:
    if wide:
        return "spatial" if owner.groups == owner.in_channels else "both"
    # A 1×1 convolution of a single channel (a narrow squeeze-and-excite) still makes channels out of it.
    return "spatial" if 1 < owner.groups == owner.in_channels else "channel"


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm | nn.PReLU):
        return True
    return _is_known(module) and "Norm" in type(module).__name__


def _is_known(module: nn.Module) -> bool:
    return any(cls.__module__.split(".")[0] in _KNOWN_ORIGINS for cls in _classes(module))


def _classes(module: nn.Module) -> tuple[type, ...]:
    """The module's class and those it is made from, short of torch's own."""
    classes = type(module).__mro__[1:] if is_parametrized(module) else type(module).__mro__
    return tuple(c for c in classes if c.__module__.split(".")[0] != "torch" or c is nn.MultiheadAttention)


def labels(module: nn.Module) -> tuple[str, ...]:
    """Names under which a module may stand in the table, the exact one first."""
    found = []
    for cls in _classes(module):
        if cls.__module__.split(".")[0] in (*_KNOWN_ORIGINS, "torch"):
            found += [f"{cls.__module__.split('.')[-1]}.{cls.__name__}", cls.__name__]
    return tuple(found)


def _index(text: str, role: Role) -> list[tuple[str, str, Role]]:
    pairs = (entry.rpartition(".") for entry in text.split())
    return [(label, child, role) for label, _, child in pairs]


_ENTRIES: dict[str, list[tuple[str, Role]]] = {}
for _label, _child, _role in (
    *_index(table.SPATIAL, "spatial"),
    *_index(table.CHANNEL, "channel"),
    *_index(table.BOTH, "both"),
    *_index(table.NEITHER, "neither"),
):
    _ENTRIES.setdefault(_label, []).append((_child, _role))
_CHANNEL_KERNELS = frozenset(table.CHANNEL_KERNELS.split())
_ATTENTION = frozenset(table.ATTENTION.split())
_QUERY_KEY = tuple(table.QUERY_KEY.split())
_VALUE_OUT = tuple(table.VALUE_OUT.split())
_FUSED = tuple(table.FUSED.split())
_LEAVES: tuple[tuple[tuple[str, ...], Role], ...] = (
    (tuple(table.POSITIONS.split()), "spatial"),
    (tuple(table.TOKENS_AND_SCALES.split()), "neither"),
)


def _from_table(module: nn.Module, child: str) -> Role | None:
    for label in labels(module):
        for pattern, role in _ENTRIES.get(label, ()):
            if fnmatchcase(child, pattern):
                return role
    return None


def _from_attention(module: nn.Module, child: str, place: _Place, attention: Attention) -> tuple[Part, ...]:
    names = labels(module)
    if not _ATTENTION.intersection(names):
        return ()

    def among(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(child, pattern) for pattern in patterns)

    value: Role = "spatial" if attention == "whole" else "channel"
    if among(_QUERY_KEY):
        return (Part("spatial"),)
    if among(_VALUE_OUT):
        return (Part(value),)
    if not among(_FUSED):
        return ()
    if attention == "whole":
        return (Part("spatial"),)
    rows = query_key_rows(module, names, child, place.rows, place.name)
    return (Part("spatial", rows, "query,key"), Part("channel", ~rows, "value"))
