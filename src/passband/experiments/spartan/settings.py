"""The trainings that this paper's experiments share: one digest, one run, whichever experiment asks first."""

from __future__ import annotations

from typing import Any

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.protocol import Case
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject
from passband.train.run import Run

SPARTAN, UNTRAINED = "SpaRTAN", "SpaRTAN, untrained"
PEERS = ("ResNet", "MobileNetV2", "ConvNeXt")
"""What :func:`peers` gives."""

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("cifar10-jpeg",),
    Scale.FULL: ("imagenet",),
}
SEEDS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0,)}
"""The paper trains each network once, as its 300 epochs cost."""

LIMIT: dict[Scale, int | None] = {Scale.SMOKE: 100}
"""Test images at smoke scale; all at the others."""

NETWORKS = {Scale.SMOKE: "spartan_micro", Scale.SMALL: "spartan_micro", Scale.FULL: "spartan_xt"}
"""What stands for SpaRTAN-XT in every ablation."""

_SMOKE_SIZES = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "ratios": (2, 2, 2, 2)}

_IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def network(scale: Scale, **arguments: Any) -> dict[str, Any]:
    """Return SpaRTAN as the ablations have it: XT at full scale, the small stand-in below it.

    Args:
        scale: Its size.
        **arguments: Of :class:`passband.models.spartan.Spartan`.
    """
    sizes = _SMOKE_SIZES if scale is Scale.SMOKE else {}
    rate = {"drop_path_rate": 0.1} if scale is Scale.FULL else {}
    return {"name": NETWORKS[scale], **sizes, **rate, **arguments}


def training(scale: Scale, *, data: str, seed: int, model: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    """Return a training of the paper: AdamW, a cosine with a warm-up, no decay of vectors.

    At full scale the paper's recipe: 300 epochs in batches of 2048 (four pieces, each with batch statistics of its
    own), a rate of 2.5e-3 that rises for 20 epochs, decay 0.03, random resized crops, flips, RandAugment, random
    erasing, exactly one of mixup and cutmix, stochastic depth. At small scale 8,000 photographs of 32 pixels, 6 epochs
    in batches of 64, a rate of 2e-3 that rises for one epoch, padded crops and flips: six epochs learn too little for
    the rest to help.

    **Source**: spartan, section IV-A1, what it leaves open as in its released code. **Differs**: the rate follows the
    cosine in every step, where the code's moves once an epoch and one epoch late; the order is drawn anew in each
    epoch, which the code forgets.

    Args:
        scale: Its size and its epochs.
        data: A set's name.
        seed: Of all that is random.
        model: The network; None is SpaRTAN.
        **fields: Other fields of the recipe.
    """
    part = {Scale.SMOKE: 128, Scale.SMALL: 8000, Scale.FULL: None}[scale]
    # Its windows are cut from the photographs themselves, as its authors' are.
    streamed = True if scale is Scale.FULL and data == "imagenet" else None
    below = {
        "augment": [{"name": "crop", "pad": 4}, {"name": "flip"}],
        "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.03, "decay": "kernels"},
        "schedule": {"name": "cosine", "warmup": 1.0},
        "epochs": 2 if scale is Scale.SMOKE else 6,
        "batch": 64,
    }
    return Recipe.of(
        {
            "model": model or network(scale),
            "data": {"name": data, "size": 224 if scale is Scale.FULL else 32, "part": part, "stream": streamed},
            "seed": seed,
            **(_paper() if scale is Scale.FULL else below),
            **fields,
        }
    )


def _paper() -> dict[str, Any]:
    return {
        "normalize": _IMAGENET,
        "augment": [
            {"name": "resized-crop"}, {"name": "flip"},
            {"name": "randaugment", "num_ops": 2, "magnitude": 7, "interpolation": "bilinear"},
            {"name": "erasing", "fill": "mean"},
        ],
        "scheme": {"name": "mixup-or-cutmix", "mixup": 0.2, "cutmix": 1.0},
        "optimizer": {"name": "adamw", "lr": 2.5e-3, "weight_decay": 0.03, "decay": "kernels"},
        "schedule": {"name": "cosine", "warmup": 20.0, "start": 0.04, "final": 4e-4, "prefix": False},
        "epochs": 300,
        "batch": 2048,
        "pieces": 4,
    }  # fmt: skip


def peers(scale: Scale) -> dict[str, dict[str, Any]]:
    """Return networks of other families: of like size below full scale, and there small ones as they are known.

    Below full scale their parameters are within 20% of the stand-in's. At full scale they are ResNet-18 (11.7 million),
    MobileNetV2 (3.5) and ConvNeXt-Atto (3.7), all larger than SpaRTAN-XT (2.2).

    **Source**: spartan, table II, which has ResNet-18, and whose MobileOne and ConvNeXt-XT the other two stand for.
    """
    if scale is Scale.FULL:
        return {
            "ResNet": {"name": "resnet18"},
            "MobileNetV2": {"name": "mobilenetv2_100"},
            "ConvNeXt": {"name": "convnext_atto"},
        }
    convnext: dict[str, Any] = {"name": "convnext_atto", "dims": (20, 40, 64, 80), "depths": (1, 1, 3, 1)}
    return {
        "ResNet": {"name": "small_resnet18", "width": 9},
        "MobileNetV2": {"name": "small_mobilenetv2", "width": 0.25},
        "ConvNeXt": convnext | {"patch_size": 2},
    }


def subject_of(case: Case, lab: Lab, **fields: Any) -> tuple[Run, Subject]:
    """Train the network of a case, and return its run and what is asked.

    Args:
        case: `SPARTAN`, one of `PEERS`, or `UNTRAINED`, which asks SpaRTAN as its training found it; its set and seed.
        lab: Where.
        **fields: Other fields of the recipe.
    """
    name = case["case"]
    model = peers(lab.scale)[name] if name in PEERS else None
    run = lab.train(training(lab.scale, data=case["data"], seed=case["seed"], model=model, **fields))
    return run, lab.untrained(run) if name == UNTRAINED else lab.subject(run)
