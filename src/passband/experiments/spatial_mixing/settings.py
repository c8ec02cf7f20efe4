"""The trainings that this paper's experiments share: one digest, one run, whichever experiment asks first."""

from __future__ import annotations

from typing import Any

from passband.core.recipe import Recipe
from passband.core.scale import Scale

LEARN = {"everything": "all", "channels": "channels", "spatial": "spatial"}
"""The paper's Full, Chans and Space, and what a recipe calls them."""

_SEPARABLE: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {"width": 8, "part": 2048, "epochs": 2, "batch": 32},
    Scale.SMALL: {"width": 16, "part": None, "epochs": 3, "batch": 128},
    Scale.FULL: {"width": 16, "part": None, "epochs": 200, "batch": 128},
}

_MIXER: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {
        "model": {"width": 16, "kernel": 5, "patch": 4},
        "part": 2048,
        "epochs": 2,
        "batch": 32,
        "optimizer": {"lr": 0.01},
    },
    Scale.SMALL: {
        "model": {"width": 64, "kernel": 7, "patch": 2},
        "part": 20000,
        "epochs": 5,
        "batch": 128,
        "optimizer": {"lr": 0.01},
    },
    Scale.FULL: {
        "model": {"width": 128, "kernel": 8, "patch": 1},
        "part": None,
        "epochs": 25,
        "batch": 512,
        "optimizer": {"lr": 0.05},
        "augment": [{"name": "flip"}, {"name": "randaugment", "num_ops": 2, "magnitude": 12}],
    },
}

_MIXER_IMAGENET: dict[str, Any] = {
    "model": {"width": 512, "kernel": 8, "patch": 7},
    "size": 224,
    "part": None,
    "epochs": 150,
    "batch": 640,
    "optimizer": {"lr": 0.01, "eps": 1e-3, "weight_decay": 2e-5},
    "augment": [{"name": "flip"}, {"name": "timm-randaugment", "policy": "rand-m9-mstd0.5-inc1"}, {"name": "erasing"}],
}

STEM = {"roles": {"stem.0.*": "both"}}
"""The patch projection stays as it was drawn in Chans (workshop paper, section 4.2) and in Space alike."""


def separable(
    scale: Scale,
    learn: str,
    *,
    data: str,
    seed: int,
    depth: int = 1,
    width: int | None = None,
    filters: str | None = None,
    attack: dict[str, Any] | None = None,
) -> Recipe:
    """Return the training of a separable ResNet.

    The choices where the paper is silent: SGD 0.9, learning rate 0.1, weight decay 5e-4, batch 128, cosine, crop and
    flip, the same whatever learns; parameter-free shortcuts; the stem is separable too; norms and classifier learn.

    Args:
        scale: Its size and its epochs.
        learn: A key of :data:`LEARN`.
        data: A set's name.
        seed: Of all that is random.
        depth: Blocks per stage.
        width: Channels of the first stage; the scale's own when None.
        filters: How depthwise kernels are drawn; None as the network draws them, each by itself.
        attack: What is trained against; None for plain images.
    """
    settings = _SEPARABLE[scale]
    return Recipe.of(
        {
            "model": {
                "name": "separable_resnet",
                "depth": depth,
                "width": width or settings["width"],
                "multiplier": 9,
            },
            "filters": filters,
            "learn": LEARN[learn],
            "data": {"name": data, "part": settings["part"]},
            "attack": attack,
            "epochs": settings["epochs"],
            "batch": settings["batch"],
            "seed": seed,
        }
    )


def mixer(
    scale: Scale,
    learn: str,
    *,
    data: str,
    seed: int,
    depth: int,
    smooth: dict[str, Any] | None = None,
    epochs: int | None = None,
) -> Recipe:
    """Return the training of a ConvMixer: AdamW and straight lines for the learning rate, as its authors train it.

    At full scale their CIFAR recipe as their README has it: batch 512, rate 0.05, decay 0.005, 25 epochs, flip and
    RandAugment, no crop; below, crop and flip. On ImageNet at full scale theirs for ImageNet: width 512 and patch 7 at
    224 pixels, timm's RandAugment, erasing, 150 epochs. That one lacks the random resized crop and what a recipe cannot
    say yet: mixup, cutmix, label smoothing, gradient clipping. Both compute in float32, theirs in float16.

    Args:
        scale: Its size and its epochs.
        learn: A key of :data:`LEARN`.
        data: A set's name.
        seed: Of all that is random.
        depth: Blocks.
        smooth: Low-passes the depthwise kernels before training.
        epochs: In place of the scale's.
    """
    settings = _MIXER_IMAGENET if data == "imagenet" and scale is Scale.FULL else _MIXER[scale]
    augment = {"augment": settings["augment"]} if "augment" in settings else {}
    return Recipe.of(
        {
            "model": {"name": "conv_mixer", "depth": depth, **settings["model"]},
            "smooth": smooth,
            "learn": LEARN[learn],
            "learn_options": None if learn == "everything" else STEM,
            "data": {"name": data, "part": settings["part"], "size": settings.get("size", 32)},
            "optimizer": {"name": "adamw", "weight_decay": 0.005, **settings["optimizer"]},
            "schedule": {"name": "piecewise-linear"},
            "epochs": epochs or settings["epochs"],
            "batch": settings["batch"],
            "seed": seed,
            **augment,
        }
    )
