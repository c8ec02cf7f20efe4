"""The backbones of RT-DETR, its own and timm's, as transformers wants them described."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from passband.core.errors import PassbandError
from passband.models.metadata import OWN as NETWORKS
from passband.models.origin import LIBRARY_REFUSALS
from passband.models.timm_source import HUB, cfg_of

STRIDES = (8, 16, 32)
"""Of the feature maps that the encoder takes."""
Pixels = tuple[tuple[float, ...] | None, tuple[float, ...] | None, str]
"""Mean and std of the pixels that a backbone takes, None for pixels in [0, 1] as they are, and who says so."""

AS_THEY_ARE: Pixels = (None, None, "RT-DETR: pixels as they are")
"""What RT-DETR's own backbones take."""

OWN: dict[str, dict[str, Any]] = {
    "r18vd": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "r34vd": {"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
    "r50vd": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}
"""RT-DETR's own backbones, ResNets of kind D."""


def library() -> Any:
    """Return transformers.

    Raises:
        PassbandError: when it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise PassbandError(
            "RT-DETR needs transformers, which is not here: pip install 'passband[detection]'"
        ) from None
    return transformers


@contextmanager
def refusing(backbone: str) -> Iterator[None]:
    """Turn a library's refusal of a backbone into one line."""
    try:
        yield
    except LIBRARY_REFUSALS as error:
        line = (str(error).splitlines() or [""])[0]
        raise PassbandError(
            f"rtdetr cannot be made with the backbone '{backbone}' ({type(error).__name__}: {line})"
        ) from error


def described(backbone: str, side: int, pretrained: bool) -> tuple[Any, Pixels]:
    """Return transformers' configuration of a backbone, and the pixels that it takes.

    Args:
        backbone: One of `OWN`, or a timm name.
        side: Of the images.
        pretrained: Whether trained weights are wanted.

    Raises:
        PassbandError: for a backbone that is not known, has no feature maps of `STRIDES`, or no trained weights.
    """
    if backbone in OWN:
        if pretrained:
            raise PassbandError(f"there are no trained weights of '{backbone}' alone; give a folder as rtdetr:FOLDER")
        return library().RTDetrResNetConfig(**OWN[backbone], out_indices=[2, 3, 4]), AS_THEY_ARE
    if backbone.startswith(HUB):
        raise PassbandError(f"rtdetr takes backbones that timm has itself; got '{backbone}': give its name alone")
    pixels = pixels_of(backbone)
    config = library().TimmBackboneConfig(
        backbone=backbone,
        out_indices=list(feature_maps(backbone, side)),
        features_only=True,
        use_pretrained_backbone=False,
    )
    return config, pixels


def pixels_of(backbone: str) -> Pixels:
    """Return the pixels that a timm network takes."""
    cfg = cfg_of(backbone)
    if backbone.partition(".")[0] in NETWORKS:
        # What our own networks' metadata says, pixels as they are, holds for a set of small images.
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, "ImageNet's"
    mean, std = cfg.get("mean"), cfg.get("std")
    return tuple(mean) if mean else None, tuple(std) if std else None, "the backbone's metadata"


@cache
def feature_maps(backbone: str, side: int) -> tuple[int, ...]:
    """Return the places of a timm network's feature maps of strides 8, 16 and 32, the network made of shapes alone."""
    import timm

    advice = "take another backbone, such as spartan_xt or resnet18"
    try:
        with torch.device("meta"), torch.no_grad():
            network = timm.create_model(backbone, features_only=True, pretrained=False).eval()
            strides: list[int] = network.feature_info.reduction()
            missing = set(STRIDES) - set(strides)
            shapes = [] if missing else [tuple(one.shape[1:]) for one in network(torch.empty(1, 3, side, side))]
    except (*LIBRARY_REFUSALS, RuntimeError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise PassbandError(
            f"'{backbone}' gives no feature maps of {side}×{side} pixels ({type(error).__name__}: {line}); {advice}"
        ) from error
    if missing:
        raise PassbandError(
            f"rtdetr needs feature maps of strides 8, 16 and 32; '{backbone}' has {', '.join(map(str, strides))}: "
            f"{advice}"
        )
    places = tuple(strides.index(stride) for stride in STRIDES)
    for place, stride in zip(places, STRIDES, strict=True):
        needed = (network.feature_info.channels()[place], side // stride, side // stride)
        if shapes[place] != needed:
            came = f"{list(shapes[place])} where {list(needed)} was needed"
            raise PassbandError(f"'{backbone}' gives other feature maps than it says, {came}; {advice}")
    return places


def load_trained(inner: Any, backbone: str) -> None:
    """Load timm's trained weights into the backbone of an RT-DETR."""
    import timm

    trained = timm.create_model(backbone, features_only=True, pretrained=True)
    theirs = trained.state_dict()
    ours = inner.model.backbone.model._backbone
    ours.load_state_dict({name: theirs[name] for name in ours.state_dict()})
