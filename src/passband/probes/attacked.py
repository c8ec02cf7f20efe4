"""Attacked images for probes that look at what an attack makes: the attack by its options, and its answer."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from passband.attacks.gradient_sign import PRESETS
from passband.attacks.packing import chunks, working_size
from passband.attacks.registry import ATTACKS, Attack, make
from passband.core.errors import NotApplicable, unknown
from passband.data.dataset import Batches
from passband.models.state import uses_batch_statistics


def attack_named(name: str, *, preset: str, eps: float, steps: int | None, alpha: float | None, seed: int) -> Attack:
    """Make an attack as the probe `robustness` does: PGD as a paper's preset has it, others as torchattacks does.

    Args:
        name: As ``passband list attacks`` shows it.
        preset: Of PGD.
        eps: Radius of the ball, pixels in [0, 1], where one bounds the attack.
        steps: In place of the attack's own, where it has some.
        alpha: Size of a step; None keeps the attack's share of ε.
        seed: Of all that is random.

    Raises:
        PassbandError: for an unknown attack or preset, or a value that the attack refuses.
    """
    if preset not in PRESETS:
        raise unknown("PGD preset", preset, PRESETS)
    attack: Any = PRESETS[preset] if name == "pgd" else make(name)
    known = {field.name for field in fields(ATTACKS[name])}
    options = {"steps": steps, "alpha": alpha, "seed": seed}
    given = {key: value for key, value in options.items() if value is not None and key in known}
    changed: Attack = replace(attack, **given).at(eps, scale=alpha is None)
    return changed


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
    for chunk in chunks(len(images), size):
        # The last batch is filled by repetition: networks choose other kernels for other sizes.
        places = torch.arange(size, device=images.device)
        places = places.where(places < len(images[chunk]), 0)
        found.append(attack(model, images[chunk][places], targets[chunk][places])[: len(images[chunk])])
    return torch.cat(found)
