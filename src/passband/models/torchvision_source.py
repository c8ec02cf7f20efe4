"""Networks by torchvision's names."""

from __future__ import annotations

import torchvision.models

from passband.core.errors import PassbandError, unknown
from passband.models.downloads import explain_download
from passband.models.origin import LIBRARY_REFUSALS, Arguments, Origin, Size, call_factory, imagenet_names

PREFIX = "torchvision:"
INCEPTIONS = ("googlenet", "inception_v3")


def from_torchvision(
    name: str,
    classes: int | None,
    channels: int,
    size: Size | None,
    pretrained: bool,
    arguments: Arguments,
) -> Origin:
    """Make a network by torchvision's name; mean, std and size come from the transforms of its best weights.

    Raises:
        PassbandError: for an unknown name, arguments that it does not take, channels other than 3, a number
            of classes other than the weights', or weights that cannot be had.
    """
    short = name.removeprefix(PREFIX)
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        detectors = torchvision.models.list_models(module=torchvision.models.detection)
        raise unknown("torchvision model", short, [*known, *detectors])
    if channels != 3:
        raise PassbandError(f"torchvision's models take 3 channels; got {channels}: use timm's '{short}' instead")
    weights = torchvision.models.get_model_weights(short).DEFAULT
    transforms, categories = weights.transforms(), weights.meta["categories"]
    if pretrained and classes not in (None, len(categories)):
        raise PassbandError(
            f"torchvision's weights of '{short}' have {len(categories)} classes; got {classes}: take it "
            "without pretrained weights, or timm's model, whose head is made anew"
        )
    asked = dict(arguments)
    if classes is not None and not pretrained:
        asked["num_classes"] = classes
    if short in INCEPTIONS and not pretrained:
        asked = {
            "init_weights": True,
            "aux_logits": False,
        } | asked  # a second output has no place in a classifier
    with explain_download(name):
        factory = torchvision.models.get_model_builder(short)
        inner = call_factory(name, factory, asked | {"weights": weights if pretrained else None}, LIBRARY_REFUSALS)
    crop, resize = transforms.crop_size[0], transforms.resize_size[0]
    return Origin(
        inner,
        size=size or (crop, crop),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        source="torchvision's weights metadata",
        crop_pct=crop / resize,
        interpolation=transforms.interpolation.value,
        class_names=imagenet_names() if classes in (None, 1000) and len(categories) == 1000 else (),
    )
