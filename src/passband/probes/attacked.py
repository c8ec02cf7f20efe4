"""Attacked images for probes that look at what an attack makes: the attack by its options, and its answer."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from passband.attacks.gradient_sign import PRESETS
from passband.attacks.packing import chunks, working_size
from passband.attacks.registry import ATTACKS, Attack, make
from passband.core.band import Band
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.data.dataset import Batches
from passband.models.state import exact, uses_batch_statistics

USUAL = "torchattacks-3.5.1"
"""Whose defaults fill what is not given."""


def attack_named(
    name: str,
    *,
    preset: str = "adversarial-focus",
    defaults: str = USUAL,
    eps: float | None = None,
    steps: int | None = None,
    alpha: float | None = None,
    random_start: bool | None = None,
    band: Band | None = None,
    seed: int = 0,
) -> Attack:
    """Make an attack: PGD as a paper's preset has it, others as torchattacks does, with those options that it has.

    Args:
        name: As ``passband list attacks`` shows it.
        preset: Of PGD, with the usual defaults.
        defaults: Whose defaults fill the other arguments.
        eps: Radius of the ball, pixels in [0, 1], where one bounds the attack; None keeps its own.
        steps: In place of the attack's own.
        alpha: Size of a step; None keeps the attack's share of ε.
        random_start: In place of the attack's own.
        band: Frequencies that it may change; None allows all.
        seed: Of all that is random.

    Raises:
        PassbandError: for an unknown attack, preset or set of defaults, a value that the attack refuses, or a band
            where it keeps to none.
    """
    if preset not in PRESETS:
        raise unknown("PGD preset", preset, PRESETS)
    attack: Any = PRESETS[preset] if name == "pgd" and defaults == USUAL else make(name, defaults=defaults)
    known = {field.name for field in fields(ATTACKS[name])}
    if band is not None and "band" not in known:
        raise PassbandError(f"{name} keeps to no band; leave band out or choose another attack, such as pgd")
    options = {"steps": steps, "alpha": alpha, "random_start": random_start, "band": band, "seed": seed}
    given = {key: value for key, value in options.items() if value is not None and key in known}
    changed: Attack = replace(attack, **given)
    return changed if eps is None else changed.at(eps, scale=alpha is None)


def check_attackable(model: nn.Module, batches: Batches, probe: str) -> None:
    """Refuse, before any work, what cannot be attacked image by image.

    Raises:
        NotApplicable: when the model normalizes by each batch.
        PassbandError: when there is nothing to lead away from.
    """
    if uses_batch_statistics(model):
        raise NotApplicable(f"{probe} attacks image by image; this model normalizes by each batch")
    _ = batches.measure


def attacked(model: nn.Module, attack: Attack, images: Tensor, targets: Tensor) -> Tensor:
    """Attack images in full working batches, so that an answer does not depend on how they came.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        attack: What is done to them.
        images: float [B, C, H, W] in [0, 1].
        targets: int64 [B], the classes to lead away from.
    """
    size, found = working_size(model), []
    with exact():
        for chunk in chunks(len(images), size):
            # The last batch is filled by repetition: networks choose other kernels for other sizes.
            places = torch.arange(size, device=images.device)
            places = places.where(places < len(images[chunk]), 0)
            found.append(attack(model, images[chunk][places], targets[chunk][places])[: len(images[chunk])])
    return torch.cat(found)
