"""The trainings that this paper's experiments share: one digest, one run, whichever experiment asks first."""

from __future__ import annotations

from typing import Any

from passband.core.recipe import Recipe
from passband.core.scale import Scale

SETS: dict[Scale, tuple[str, ...]] = {
    Scale.SMOKE: ("photos",),
    Scale.SMALL: ("fashion-mnist",),
    Scale.FULL: ("cifar10", "mnist", "fashion-mnist", "restricted-imagenet"),
}
COLOR: dict[Scale, tuple[str, ...]] = SETS | {Scale.SMALL: ("fashion-mnist", "cifar10-jpeg")}
"""The sets of the experiments in which color matters; cifar10-jpeg lost high frequencies to JPEG."""

SIZES = {"fashion-mnist": 28, "mnist": 28, "restricted-imagenet": 224}
"""Side of the images in pixels; 32 where nothing stands."""
_RADII = {28: (4, 8, 12), 32: (4, 8, 12, 16), 224: (25, 50, 100, 150)}

_NARROW = {"small_lenet": 6, "small_alexnet": 16, "small_vgg": 16, "small_resnet18": 8}
"""Channels of the first layer below full scale, where the networks have their own."""

_SCALES: dict[Scale, dict[str, Any]] = {
    Scale.SMOKE: {"depth": 1, "width": 8, "part": 640, "epochs": 2, "batch": 32, "lr": 3e-3, "widths": _NARROW},
    Scale.SMALL: {"depth": 1, "width": 16, "part": 3000, "epochs": 28, "batch": 100, "lr": 3e-3, "widths": _NARROW},
    Scale.FULL: {"depth": 5, "width": 16, "part": None, "epochs": 100, "batch": 100, "lr": 1e-4, "widths": {}},
}
_IMAGENET = {"epochs": 50}
_CIFAR_JPEG = {"part": 12000, "epochs": 10}
"""At small scale: photographs take more of them, and fewer rounds, than clothes."""

PGD = {"name": "pgd", "eps": 0.03, "alpha": 0.003, "steps": 10, "random_start": False}
"""What the paper trains against, with its code's steps; images are moved by up to 2 pixels and mirrored."""
MOVED = ({"name": "crop", "pad": 2}, {"name": "flip"})


def radii(data: str) -> tuple[int, ...]:
    """Return the radii of a set: at 28 pixels 16 would be close to everything."""
    return _RADII[SIZES.get(data, 32)]


def tracked(scale: Scale, epochs: int) -> tuple[int, ...] | None:
    """Return the epochs after which curves are measured: all at full scale, below it ever fewer, and the last."""
    if scale is Scale.FULL:
        return None
    shares = (0.0, 0.04, 0.1, 0.25, 0.5, 0.75, 1.0)
    return tuple(sorted({max(1, round(share * epochs)) for share in shares}))


def switched(data: str) -> str:
    """Return the network of a set that has batch norms where its argument ``norm`` is ``"batch"``, else none."""
    return "hfc_resnet50" if data == "restricted-imagenet" else "hfc_resnet32"


def training(
    scale: Scale,
    *,
    data: str,
    seed: int,
    network: str = "hfc_resnet32",
    model: dict[str, Any] | None = None,
    view: dict[str, Any] | None = None,
    adversarial: bool = False,
    **fields: Any,
) -> Recipe:
    """Return a training of the paper: its vanilla one, but for what is said.

    Vanilla is Adam at a constant rate, cross-entropy, pixels in [0, 1] as they are, no augmentation, no norm. On the
    nine merged classes of ImageNet it is timm's ResNet-50, with its batch norms, for 50 epochs. At small scale the
    network has 8 layers in place of 32, and the rate is 3e-3 in place of 1e-4, as there are 840 steps in place of
    50,000.

    **Source**: high-frequency, section 4.2 and appendix B.1.
    **Differs**: the paper draws all weights by Xavier's rule. The networks of passband's own do; timm's ResNet-50 and
    ``small_resnet18`` draw by Kaiming's, with the last batch norm of each block at 0.

    Args:
        scale: Its size and its epochs.
        data: A set's name.
        seed: Of all that is random.
        network: A model's name; on ImageNet ResNet-50 stands in for all but ``hfc_resnet50``.
        model: Further arguments of the network.
        view: What training images are reduced to.
        adversarial: Whether it trains against `PGD`, on images moved and mirrored as the paper's code does.
        **fields: Other fields of the recipe: ``batch``, ``epochs``, ``optimizer``, ``scheme``; and
            ``part`` and ``shuffle_labels`` of its data.
    """
    settings = dict(_SCALES[scale])
    if data == "restricted-imagenet":
        settings |= _IMAGENET
    if data == "cifar10-jpeg" and scale is Scale.SMALL:
        settings |= _CIFAR_JPEG
    return Recipe.of(
        {
            "model": _network(network, data, settings) | (model or {}),
            "data": {
                "name": data,
                "size": SIZES.get(data, 32),
                "part": fields.pop("part", settings["part"]),
                "view": view,
                "shuffle_labels": fields.pop("shuffle_labels", False),
            },
            "normalize": "none",
            "augment": list(MOVED) if adversarial else [],
            "attack": PGD if adversarial else None,
            "optimizer": {"name": "adam", "lr": settings["lr"]},
            "schedule": {"name": "constant"},
            "epochs": settings["epochs"],
            "batch": settings["batch"],
            "seed": seed,
            **fields,
        }
    )


def _network(name: str, data: str, settings: dict[str, Any]) -> dict[str, Any]:
    if data == "restricted-imagenet":
        return {"name": name if name == "hfc_resnet50" else "resnet50"}
    if name == "hfc_resnet32":
        return {"name": name, "depth": settings["depth"], "width": settings["width"]}
    width = settings["widths"].get(name)
    return {"name": name} | ({} if width is None else {"width": width})


def band(radius: float, side: str, *, edge: str = "inclusive", rescale: str = "max") -> dict[str, Any]:
    """Return the view of training images that keeps one side of a cut.

    Args:
        radius: Of the disc, in bins.
        side: ``"low"`` (LFC) or ``"high"`` (HFC).
        edge: ``"inclusive"`` keeps the radius itself, as the paper writes, ``"exclusive"`` drops it, as its code does.
        rescale: ``"max"`` divides each copy by its maximum, as the code does, ``"none"`` leaves it.
    """
    return {"name": "band_limited", "cutoff": radius, "side": side, "edge": edge, "rescale": rescale}
