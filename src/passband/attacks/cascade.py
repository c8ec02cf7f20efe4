"""Attacks one after another on the images of one shard, each on what the ones before it left standing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.packing import chunks
from passband.attacks.pool import Outcome, pooled
from passband.attacks.registry import Attack, Searching, norm_of
from passband.attacks.shards import Found, Shard
from passband.attacks.whole import attacked
from passband.core.progress import track

Verdict = Literal["any", "last"]
STANDS, WRONG = -1, -2
"""In ``fell_to``: no attack broke the image; the model was wrong untouched."""
COUNTED = ("attacked", "silent", "fell", "broke")
"""What is counted per ε and attack, in images."""


def cascade(
    model: nn.Module,
    form: nn.Module,
    shard: Shard,
    logits: Tensor,
    plan: Sequence[tuple[Attack, ...]],
    radii: Sequence[float],
    verdict: Verdict,
    size: int,
) -> Found:
    """Attack a shard.

    Args:
        model: Judges.
        form: The model, or a faster form of it.
        shard: Images and targets.
        logits: The model's, of the untouched images.
        plan: The attacks at each ε, as many at each, or none where the untouched images are judged.
        radii: The ε, one for each entry of the plan.
        verdict: Whether any iterate counts, or the answer alone.
        size: Images at a time.
    """
    clean = (logits.argmax(1) == shard.targets).cpu()
    found = _blank(clean, logits.argmax(1).cpu(), len(plan), max(len(attacks) for attacks in plan))
    apart: dict[int, Outcome] = {}
    for row, (radius, attacks) in enumerate(zip(radii, plan, strict=True)):
        for place, attack in enumerate(attacks):
            standing = torch.from_numpy(np.flatnonzero(found.arrays["fell_to"][row] == STANDS))
            if not len(standing):
                break
            name = f"attacking: {type(attack).__name__}"
            if _bounded(attack):
                on = standing
                outcome = _run(attack, model, form, shard, logits, on, verdict, size, f"{name}, ε = {radius:.4g}")
            else:  # whatever ε is: all that the model gets right are attacked, once
                on = clean.nonzero()[:, 0]
                if place not in apart:
                    apart[place] = _run(attack, model, form, shard, logits, on, verdict, size, name)
                outcome = apart[place]
            _record(found, row, place, on, standing, outcome, radius, getattr(attack, "minimal", None))
    return found


def _run(
    attack: Attack,
    model: nn.Module,
    form: nn.Module,
    shard: Shard,
    logits: Tensor,
    on: Tensor,
    verdict: Verdict,
    size: int,
    description: str,
) -> Outcome:
    """Attack the images at ``on``, and show how far it is."""
    targeted = bool(getattr(attack, "targeted", False))
    labels = logits.argmin(1) if targeted else shard.targets
    if couples_batch(attack):
        # Its answer depends on who shares the batch: it gets the caller's batches, whole.
        everything = Outcome.of(len(labels))
        judged = attacked(
            attack, form, model, shard.images, labels, everything, size=size, batches=shard.batches, targeted=targeted
        )
        _exhaust(track(judged, description, len(labels)))
        return everything.take(on)
    outcome, images, labels = Outcome.of(len(on)), shard.images[on], labels[on]
    if isinstance(attack, Searching):
        smallest = getattr(attack, "minimal", None) is not None
        early = verdict == "any" and not smallest
        # A bisection ends so near to the boundary that only the model itself can say on which side.
        proposes = model if smallest else form
        judged = pooled(attack.search(), proposes, model, images, labels, logits[on], outcome, size=size, early=early)
    else:
        sizes = [part.stop - part.start for part in chunks(len(on), size)]
        judged = attacked(attack, form, model, images, labels, outcome, size=size, batches=sizes, targeted=targeted)
    _exhaust(track(judged, description, len(on)))
    return outcome


def _exhaust(items: Iterable[int]) -> None:
    for _ in items:
        pass


def couples_batch(attack: Attack) -> bool:
    """Tell whether an attack's answer for an image depends on the others of its batch, by its own word."""
    return bool(getattr(attack, "couples_batch", False))


def _bounded(attack: Attack) -> bool:
    """Tell whether the search depends on ε: one for the smallest change, or without a bound, does not."""
    return getattr(attack, "minimal", None) is None and norm_of(attack) is not None


def _blank(clean: Tensor, prediction: Tensor, radii: int, attacks: int) -> Found:
    """Return what is known before any attack."""
    count = len(clean)
    zeros = np.zeros((radii, count), dtype=np.float32)
    arrays = {
        "clean": clean.numpy(),
        "fell_to": np.broadcast_to(np.where(clean.numpy(), STANDS, WRONG).astype(np.int8), (radii, count)).copy(),
        "prediction": np.broadcast_to(prediction.numpy(), (radii, count)).copy(),
        "l2": zeros,
        "linf": zeros.copy(),
        "queries": np.zeros((radii, count), dtype=np.int64),
    }
    return Found(arrays, {name: np.zeros((radii, attacks), dtype=np.int64) for name in COUNTED})


def _record(
    found: Found,
    row: int,
    place: int,
    on: Tensor,
    standing: Tensor,
    outcome: Outcome,
    radius: float,
    minimal: str | None,
) -> None:
    """Write one attack's outcome at one ε; ``on`` are the images that it saw, ``standing`` those that count."""
    stands = outcome.stands
    if minimal is not None:
        stands = stands | ((outcome.linf if minimal == "Linf" else outcome.l2) > radius)
    counts = torch.isin(on, standing).numpy()
    where, stands_here = on.numpy()[counts], stands.numpy()[counts]
    arrays = found.arrays
    arrays["fell_to"][row, where[~stands_here]] = place
    for name in ("prediction", "l2", "linf"):
        arrays[name][row, where] = getattr(outcome, name).numpy()[counts]
    arrays["queries"][row, where] += outcome.queries.numpy()[counts]
    seen = {
        "attacked": np.ones_like(stands_here), "silent": outcome.silent.numpy()[counts], "broke": ~stands_here,
        "fell": outcome.fell.numpy()[counts] & stands_here,
    }  # fmt: skip
    for name, which in seen.items():
        found.counts[name][row, place] += int(which.sum())
