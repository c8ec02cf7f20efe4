"""The trainings that this paper's experiments share: one digest, one run, whichever experiment asks first."""

from __future__ import annotations

from typing import Any

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.sweeps.lab import Lab
from passband.train.run import Run

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist",),
    Scale.FULL: ("cifar10",),
}
COLOR: dict[Scale, tuple[str, ...]] = SETS | {Scale.SMALL: ("fashion-mnist", "cifar10-jpeg")}
"""The sets of the experiments in which color matters; cifar10-jpeg lost high frequencies to JPEG."""

SEEDS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
"""The paper's own equal trainings lie up to 1.8 points apart: at full scale three seeds judge."""

LIMIT: dict[Scale, int | None] = {Scale.SMOKE: 100, Scale.SMALL: 2000}
"""Test images below full scale."""

FEWER_IMAGES: dict[Scale, int | None] = LIMIT | {Scale.SMALL: 1000}
"""Test images of the tables with eight rows: six attacks on 2,000 take minutes a row."""

SIZES = {"fashion-mnist": 28}
"""Side of the images in pixels; 32 where nothing stands."""

_SCALES: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {"depth": 1, "width": 8, "part": 256, "epochs": 2, "batch": 64},
    Scale.SMALL: {"depth": 1, "width": 16, "part": 6000, "epochs": 6, "batch": 64},
    Scale.FULL: {"depth": 3, "width": 16, "part": None, "epochs": 120, "batch": 512},
}

_CIFAR_JPEG = {"part": 12000}
"""At small scale: photographs take more of them than clothes."""

PGD = {"name": "pgd", "eps": "8/255", "alpha": "2/255", "steps": 7}
"""What the paper trains against: PGD-7 from a random start, crafted in evaluation mode, as torchattacks does."""

_FALLS = {"milestones": (60, 90, 110), "gamma": (0.1, 0.1, 0.5)}
"""When the learning rate falls, in epochs of 120, and by which factor."""


def training(
    scale: Scale,
    *,
    data: str,
    seed: int,
    robust: bool = True,
    model: dict[str, Any] | None = None,
    **fields: Any,
) -> Recipe:
    """Return a training of the paper: the one of all its robust models, but for what is said.

    It is SGD with momentum 0.9, weight decay 5e-4 and a rate of 0.1 that falls by 0.1, 0.1 and 0.5 at half, three
    quarters and eleven twelfths of the epochs; pixels as they are; crops of images padded by 4, and mirrored ones.
    At full scale 120 epochs in batches of 512. At small scale ResNet-8 stands in for ResNet-20, and 6,000 images
    (12,000 photographs), 6 epochs and batches of 64 for the paper's.

    **Source**: adversarial-focus, section 3.
    **Differs**: the paper does not say that images are mirrored; its recipe's kin do.

    Args:
        scale: Its size and its epochs.
        data: A set's name.
        seed: Of all that is random.
        robust: Whether it trains against `PGD`, or on plain images.
        model: The network; None is the hardtanh ResNet of the scale's depth.
        **fields: Other fields of the recipe: ``batch``, ``epochs``, ``scheme``, ``quantize``, ``optimizer``; and
            ``part`` of its data.
    """
    settings = dict(_SCALES[scale])
    if data == "cifar10-jpeg" and scale is Scale.SMALL:
        settings |= _CIFAR_JPEG
    epochs = fields.pop("epochs", settings["epochs"])
    return Recipe.of(
        {
            "model": model or resnet(scale),
            "data": {
                "name": data,
                "size": SIZES.get(data, 32),
                "part": fields.pop("part", settings["part"]),
            },
            "normalize": "none",
            "augment": [{"name": "crop", "pad": 4}, {"name": "flip"}],
            "attack": PGD if robust else None,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {
                "name": "multistep",
                "milestones": [at * epochs / 120 for at in _FALLS["milestones"]],
                "gamma": list(_FALLS["gamma"]),
            },
            "epochs": epochs,
            "batch": settings["batch"],
            "seed": seed,
            **fields,
        }
    )


def trained_run(lab: Lab, recipe: Recipe) -> Run:
    """Train a recipe, or find it trained, with every epoch's weights: ``lfi-ratio`` follows runs that others share."""
    return lab.train(recipe, keep_epochs=True)


def resnet(scale: Scale, activation: str = "hardtanh") -> dict[str, Any]:
    """Return the paper's ResNet: 20 layers at full scale, 8 below it; ``"relu"`` makes its sibling."""
    settings = _SCALES[scale]
    return {
        "name": "postact_resnet", "depth": settings["depth"], "width": settings["width"], "activation": activation,
    }  # fmt: skip


NARROW = {Scale.SMOKE: 0.1, Scale.SMALL: 0.5, Scale.FULL: 1.0}
"""Multiplier of the channels of MobileNetV2 and EfficientNet."""


def architectures(scale: Scale) -> dict[str, dict[str, Any]]:
    """Return by family the paper's four networks, each as what :func:`training` takes beside data and seed.

    At full scale ResNet-20, MobileNetV2, EfficientNet-B0 and WRN-34-10, all with stems for 32 pixels. At small scale
    ResNet-8, MobileNetV2 with half its channels, EfficientNet-B0 with half its channels and half the blocks of a stage
    (rounded up), which costs about as much, and WRN-16-2; all for 3 epochs, the ResNet too, as in table 3 and unlike in
    the others.

    **Source**: adversarial-focus, table 4, which names no size of EfficientNet and no stem.
    """
    if scale is Scale.SMOKE:
        length: dict[str, Any] = {"epochs": 1, "part": 16, "batch": 8}
    else:
        length = {"epochs": 3} if scale is Scale.SMALL else {}
    width = NARROW[scale]
    wide = {Scale.SMOKE: (10, 1), Scale.SMALL: (16, 2), Scale.FULL: (34, 10)}[scale]
    parts: dict[str, dict[str, Any]] = {
        "ResNet": resnet(scale),
        "MobileNetV2": {"name": "small_mobilenetv2", "width": width},
        "EfficientNet": {"name": "small_efficientnet", "width": width, "depth": max(width, 0.5)},
        "Wide ResNet": {"name": "wide_resnet", "depth": wide[0], "widen": wide[1]},
    }
    return {family: {"model": part, **length} for family, part in parts.items()}
