"""Networks by timm's names, passband's own among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model, model_entrypoint
from torch import nn

from passband.core.errors import PassbandError, unknown
from passband.core.options import parse_options
from passband.models.downloads import explain_download
from passband.models.metadata import GIVE_IMAGES, OWN
from passband.models.origin import LIBRARY_REFUSALS, Arguments, Origin, Size, call_factory, class_names, from_cfg

HUB = ("hf-hub:", "hf_hub:", "local-dir:")


def names() -> list[str]:
    """Return the names of all networks that timm can make, passband's own included."""
    return list(timm.list_models())


def cfg_of(name: str) -> Mapping[str, Any]:
    """Return timm's metadata for a name, before the network is made; empty for names of the hub.

    Raises:
        PassbandError: when timm knows no such name or no such set of weights.
    """
    if name.startswith(HUB):
        return {}
    if not is_model(name):
        raise unknown("model", name, names(), hint="also torchvision:NAME, hf-hub:NAME and path/to/file.py:factory")
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError:
        architecture = name.partition(".")[0]
        raise unknown("model", name, [architecture, *timm.list_pretrained(f"{architecture}.*")]) from None
    return cfg.to_dict() if cfg else {}


def from_timm(
    name: str,
    classes: int | None,
    channels: int,
    size: Size | None,
    pretrained: bool,
    arguments: Arguments,
) -> Origin:
    """Make a network by timm's name.

    Raises:
        PassbandError: for an unknown name, arguments that it does not take, or weights that cannot be had.
    """
    cfg = cfg_of(name)
    if pretrained and cfg and not (cfg.get("url") or cfg.get("file") or cfg.get("hf_hub_id")):
        raise PassbandError(
            f"there are no pretrained weights of '{name}'; take it without (--no-pretrained), or give --weights FILE"
        )
    if _is_own(name):
        arguments = parse_options(model_entrypoint(name.partition(".")[0]), arguments, owner=f"model {name}")
    if size is not None and cfg.get("fixed_input_size"):
        arguments = {"img_size": size} | arguments
    asked = arguments | {"pretrained": pretrained}
    if classes is not None:
        asked["num_classes"] = classes
    if channels != 3:  # a few networks do not take it, and three is what all expect
        asked["in_chans"] = channels
    with explain_download(name):
        inner = call_factory(name, _factory(name), asked, LIBRARY_REFUSALS)
    if getattr(inner, "num_classes", None) == 0:
        raise PassbandError(f"'{name}' gives features and has no classes of its own; say how many (classes=)")
    found: Mapping[str, Any] = getattr(inner, "pretrained_cfg", {})
    return _origin(name, inner, found, bool(cfg) or name.startswith(HUB), arguments.get("img_size", size))


def _is_own(name: str) -> bool:
    return name.partition(".")[0] in (*OWN, *GIVE_IMAGES)


def _factory(name: str) -> Any:
    return lambda **arguments: timm.create_model(name, **arguments)


def _origin(
    name: str, inner: nn.Module, cfg: Mapping[str, Any], known: bool, size: int | tuple[int, int] | None
) -> Origin:
    own = _is_own(name)
    origin = from_cfg(inner, cfg, "timm's pretrained_cfg")
    if own or not known:  # passband's own have no data yet; without metadata timm fills in ImageNet's mean and std
        origin = replace(origin, mean=None, std=None, source="", plain=own)
    if size is not None:
        origin = replace(origin, size=(size, size) if isinstance(size, int) else (size[0], size[1]))
    return replace(origin, class_names=class_names(inner, cfg))
