"""The detectors that experiments of two papers share, trained by one recipe: equal recipes are one run."""

from __future__ import annotations

from typing import Any

from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.protocol import Case

SETS: dict[Scale, str] = {Scale.SMOKE: "pasted-photos", Scale.SMALL: "coco128", Scale.FULL: "coco"}
SEEDS: dict[Scale, tuple[int, ...]] = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0,)}

BACKBONES: dict[Scale, dict[str, str]] = {
    Scale.SMOKE: {"SpaRTAN-XT": "spartan_xt"},
    Scale.SMALL: {"SpaRTAN-XT": "spartan_xt", "ResNet-18": "r18vd"},
    Scale.FULL: {
        "SpaRTAN-XT": "spartan_xt", "SpaRTAN-T": "spartan_t", "ResNet-18": "resnet18d", "ResNet-34": "resnet34d",
    },
}  # fmt: skip
"""What is trained at each scale: RT-DETR on these backbones."""

_AUGMENT = ({"name": "photometric"}, {"name": "zoom-out"}, {"name": "iou-crop"}, {"name": "flip"})

_TINY = {"neck": "r18", "width": 32, "feedforward": 64, "decoder_layers": 1, "queries": 20, "denoising": 20}
_SMALL = {"neck": "r18", "queries": 100}
_NECKS = {"resnet18d": "r18", "resnet34d": "r34"}


def trainings(scale: Scale) -> list[Case]:
    """List the detectors of a scale, seed by seed."""
    return [
        {"case": name, "data": SETS[scale], "seed": seed} for seed in SEEDS[scale] for name in BACKBONES[scale]
    ]  # fmt: skip


def training(scale: Scale, backbone: str, *, data: str, seed: int) -> Recipe:
    """Return a training of RT-DETR.

    At full scale it is RT-DETR's own, which spartan takes over: AdamW with a constant rate of 1e-4, 70 epochs (72 for
    ResNets) in batches of 16 at 640 pixels and around it, gradients cut at a length of 0.1, a moving average of 0.9999
    that begins fast. timm's ResNets begin with their trained weights and learn at 1e-5; SpaRTAN's trained weights are
    in no registry, so that its backbone begins untrained, at 1e-4.

    At small scale 32 photographs of coco128 at 256 pixels are learned by heart: 60 epochs in batches of 4 at a rate of
    2e-4 that rises for two epochs and falls along a cosine, flips alone, the neck of RT-DETR-R18, 100 queries, all
    from untrained weights. It shows that the whole path learns, and nothing about unseen photographs.

    **Source**: spartan, section IV-B; what it leaves open as in RT-DETR's released code.
    """
    if scale is Scale.FULL:
        return _full(backbone, data, seed)
    smoke = scale is Scale.SMOKE
    rate = 1e-3 if smoke else 2e-4
    sizes = {"name": data, "size": 64, "part": 8} if smoke else {"name": data, "size": 256, "part": 32}
    sides = {"name": "multi-scale", "sizes": (64, 96)}
    return Recipe.of(
        {
            "task": "detection",
            "model": {"name": f"rtdetr:{backbone}", **(_TINY if smoke else _SMALL)},
            "data": sizes,
            "augment": (*_AUGMENT, sides) if smoke else _AUGMENT[-1:],
            "optimizer": _optimizer(rate, rate),
            "schedule": {"name": "cosine", "warmup": 2, "final": 0.05},
            "epochs": 4 if smoke else 60,
            "batch": 4,
            "clip": 0.1,
            "ema": {"decay": 0.99, "warmup": 100},
            "seed": seed,
        }
    )


def _full(backbone: str, data: str, seed: int) -> Recipe:
    trained = backbone in _NECKS
    brought = {"neck": _NECKS[backbone], "pretrained_backbone": True} if trained else {}
    return Recipe.of(
        {
            "task": "detection",
            "model": {"name": f"rtdetr:{backbone}", **brought},
            "data": {"name": data, "size": 640},
            "augment": (*_AUGMENT, {"name": "multi-scale"}),
            "optimizer": _optimizer(1e-4, 1e-5 if trained else 1e-4),
            "schedule": {"name": "constant"},
            "epochs": 72 if trained else 70,
            "batch": 16,
            "clip": 0.1,
            "ema": {"decay": 0.9999, "warmup": 2000},
            "seed": seed,
        }
    )


def _optimizer(rate: float, backbone: float) -> dict[str, Any]:
    return {"name": "adamw", "lr": rate, "weight_decay": 1e-4, "decay": "kernels", "backbone": backbone}
