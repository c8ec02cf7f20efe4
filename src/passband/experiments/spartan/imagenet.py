"""SpaRTAN among networks of its size: what they cost, and how accurate they are after the same training.

Counted rows are table II's, at the paper's image sizes, made from timm's registry and counted here; FLOPs are fvcore's
in training mode, and the paper takes other networks' from their own papers, whose conventions differ (attention's
products are in ours). A row whose network timm has not says so: PVT (timm's are version 2), ViT-C, VAN, MogaNet, a Swin
and a ConvNeXt of that size. Blocks that are trained in several branches (MobileOne's) are counted merged.

Trained rows at small scale: the stand-in for SpaRTAN-XT and three networks within 20% of its parameters for the same
epochs of 8,000 JPEG photographs of 32 pixels (``cifar10-jpeg``, which is not CIFAR-10), and SpaRTAN-XT itself, to
show that it learns. At full scale SpaRTAN-XT and T at 224 and 256 pixels and three networks of timm, all by the paper's
recipe for SpaRTAN, where its table takes others' accuracy from their own papers.

Given weights are evaluated by ``passband probe spartan_t --weights FILE --data folder:PATH --only bands``, at a crop
ratio of 1.0 as in the released code; ``docs/spartan.md`` has that and the usual 224/256.

**Source**: spartan, section IV-A and table II.
"""

from __future__ import annotations

from typing import Any

from passband.core.claims import Claim, Rows
from passband.core.recipe import Recipe
from passband.core.scale import Scale
from passband.experiments.margins import value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.spartan.ablation import (
    COLUMNS,
    above,
    as_reported,
    counted,
    exactly,
    trained,
    trainings,
    untied,
)
from passband.experiments.spartan.settings import LIMIT, PEERS, network, peers, training
from passband.sweeps.lab import Lab

TABLE: dict[str, tuple[str | None, int, float, float, float]] = {
    "ResNet-18": ("resnet18", 224, 11.7, 1.80, 71.5),
    "DeiT-T": ("deit_tiny_patch16_224", 224, 5.7, 1.08, 74.1),
    "PVT-T": (None, 224, 13.2, 1.60, 75.1),
    "ViT-C": (None, 224, 4.6, 1.10, 75.3),
    "VAN-B0": (None, 224, 4.1, 0.88, 75.4),
    "EfficientFormerV2": ("efficientformerv2_s0", 224, 3.6, 0.42, 75.7),
    "MobileOne-S1": ("mobileone_s1", 224, 4.8, 0.83, 75.9),
    "EfficientNet-B0": ("efficientnet_b0", 224, 5.3, 0.39, 77.1),
    "MogaNet-XT": (None, 256, 3.0, 1.04, 77.2),
    "Swin-1G": (None, 224, 7.3, 1.00, 77.3),
    "ConvNeXt-XT": (None, 224, 7.4, 0.60, 77.5),
    "SpaRTAN-XT at 224": ("spartan_xt", 224, 2.2, 0.64, 73.9),
    "SpaRTAN-XT at 256": ("spartan_xt", 256, 2.2, 0.83, 74.4),
    "SpaRTAN-T at 224": ("spartan_t", 224, 3.8, 0.83, 77.1),
    "SpaRTAN-T at 256": ("spartan_t", 256, 3.8, 1.08, 77.7),
}
"""Table II by its rows: timm's name, the side of the images, parameters in M, FLOPs in G, accuracy in %."""

OURS = tuple(name for name in TABLE if name.startswith("SpaRTAN"))
OTHERS = tuple(name for name in TABLE if name not in OURS)
STAND_IN, XT = "SpaRTAN, stand-in", "SpaRTAN-XT"


def cases(scale: Scale) -> list[Case]:
    """List the rows of the table, counted, and the networks that are trained."""
    counts: list[Case] = [{"case": name, "data": None, "seed": None} for name in TABLE]
    own = {Scale.SMOKE: (STAND_IN,), Scale.SMALL: (STAND_IN, XT), Scale.FULL: OURS}[scale]
    return [*counts, *trainings(scale, dict.fromkeys((*own, *PEERS)))]


def measure(case: Case, lab: Lab) -> Measured:
    """Count one network, or train it and test it."""
    name = case["case"]
    if case["data"] is not None:
        return trained(recipe(name, lab.scale, case["data"], case["seed"]), lab)
    listed, size, *_ = TABLE[name]
    return Measured({"note": "timm does not have it"}) if listed is None else counted(listed, size)


def recipe(name: str, scale: Scale, data: str, seed: int) -> Recipe:
    """Return the training of a network of this experiment."""
    if name in PEERS:
        return training(scale, data=data, seed=seed, model=peers(scale)[name])
    if name == STAND_IN:
        return training(scale, data=data, seed=seed)
    if name == XT:
        return training(scale, data=data, seed=seed, model={"name": "spartan_xt"})
    listed, size, *_ = TABLE[name]
    model: dict[str, Any] = network(scale) | {"name": listed}
    fields = training(scale, data=data, seed=seed, model=model).plain()
    return Recipe.of(fields | {"data": fields["data"] | {"size": size}})


def fewest(rows: Rows) -> float | None:
    """Return by how many millions of parameters the smallest of others exceeds SpaRTAN-XT, -1 for as many."""
    ours = value(rows, "SpaRTAN-XT at 224", "parameters")
    others = [found for name in OTHERS if (found := value(rows, name, "parameters")) is not None]
    return None if ours is None or not others else untied(min(others) - ours)


_PLACE = "spartan, section IV-A2, table II"
_EFFICIENT = "SpaRTAN-XT delivers competitive results with only 2.2M parameters"
_LARGER = "SpaRTAN-T achieves competitive performance, outperforming models that require more than 4M parameters"
_RESNET, _MOBILE, _CONVNEXT = PEERS


def _claims() -> list[Claim]:
    found = [
        as_reported(name, {"parameters": (TABLE[name][2], 1), "FLOPs": (TABLE[name][3], 2)}, "spartan, table II")
        for name in OURS
    ]
    found += [
        as_reported(name, {"parameters": (TABLE[name][2], 1)}, "spartan, table II")
        for name in OTHERS if TABLE[name][0] is not None
    ]  # fmt: skip
    found.append(
        exactly("fewest parameters", f"{_EFFICIENT}, offering an even more resource-efficient solution (margin: how "
                "many more the smallest of timm's others has, -1 where equal).", _PLACE, fewest, unit="M")
    )  # fmt: skip
    found += [
        above(f"stand-in over {peer}", f"{_EFFICIENT} (here: the stand-in for SpaRTAN-XT is more accurate than a "
              f"{peer} of like size after the same training).", _PLACE, STAND_IN, peer, smallest=1.0)
        for peer in PEERS
    ]  # fmt: skip
    found.append(
        above("SpaRTAN-XT over the stand-in", "Control, not in the paper: SpaRTAN-XT, ten times as large, is more "
              "accurate than its stand-in after the same training.", _PLACE, XT, STAND_IN, smallest=1.0)
    )  # fmt: skip
    found.append(
        above("SpaRTAN-T over ResNet-18", f"{_LARGER} (ResNet-18).", _PLACE, "SpaRTAN-T at 224", _RESNET, smallest=1.0)
    )
    found += [
        above(f"SpaRTAN-XT over {listed}", f"{_EFFICIENT} ({listed}, of 3.5 or 3.7 M).", _PLACE, "SpaRTAN-XT at 224",
              peer, smallest=1.0)
        for peer, listed in ((_MOBILE, "MobileNetV2"), (_CONVNEXT, "ConvNeXt-Atto"))
    ]  # fmt: skip
    return found


EXPERIMENT = Experiment(
    title="SpaRTAN among networks of its size",
    source="spartan, table II",
    columns=COLUMNS,
    cases=cases,
    measure=measure,
    claims=tuple(_claims()),
    reported={
        name: {"parameters": parameters, "FLOPs": flops, "accuracy": accuracy}
        for name, (_, _, parameters, flops, accuracy) in TABLE.items()
    },
    limit=LIMIT,
)
