"""What timm is told about passband's own networks."""

from __future__ import annotations

from typing import Any


def own_cfg(first_conv: str, classifier: str = "head.fc") -> dict[str, Any]:
    """Return timm's metadata for a network of passband's own: 32×32 pixels as they are, no weights."""
    return {
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": first_conv,
        "classifier": classifier,
    }


OWN = (
    "separable_resnet",
    "cifar_resnet",
    "conv_mixer",
    "postact_resnet",
    "hfc_resnet32",
    "hfc_resnet50",
    "small_lenet",
    "small_alexnet",
    "small_vgg",
    "small_resnet18",
    "small_mobilenetv2",
    "small_efficientnet",
    "wide_resnet",
    "spartan_t",
    "spartan_xt",
    "spartan_micro",
)
"""The names of passband's own classifiers."""

GIVE_IMAGES = ("conv_mixer_pixels",)
"""The names of its own networks that give images."""
