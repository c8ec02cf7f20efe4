"""Attacks one after another on the images of one shard, each on what the ones before it left standing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.packing import chunks
from passband.attacks.pool import Outcome, pooled
from passband.attacks.registry import Attack, Searching, norm_of
from passband.attacks.shards import Found, Shard
from passband.attacks.walk import Walk
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
    apart: dict[int, _Apart] = {}
    for row, (radius, attacks) in enumerate(zip(radii, plan, strict=True)):
        for place, attack in enumerate(attacks):
            standing = torch.from_numpy(np.flatnonzero(found.arrays["fell_to"][row] == STANDS))
            if not len(standing):
                break
            name = f"attacking: {type(attack).__name__}"
            if _bounded(attack):
                name += f", ε = {radius:.4g}"
                outcome = _run(attack, model, form, shard, logits, standing, verdict, size, name)
            else:  # whatever ε is: each image is attacked once
                known = apart.setdefault(place, _Apart.of(len(clean)))
                new = standing[~known.seen[standing]]
                if len(new):
                    known.put(new, _run(attack, model, form, shard, logits, new, verdict, size, name))
                outcome = known.outcome.take(standing)
            _record(found, row, place, standing, outcome, radius, getattr(attack, "minimal", None))
    return found


@dataclass
class _Apart:
    """Hold what an attack did that no ε bounds, of the images that it has seen."""

    outcome: Outcome
    seen: Tensor

    @classmethod
    def of(cls, count: int) -> _Apart:
        return cls(Outcome.of(count), torch.zeros(count, dtype=torch.bool))

    def put(self, places: Tensor, outcome: Outcome) -> None:
        self.outcome.put(places, outcome)
        self.seen[places] = True


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
        search = attack.search()
        early = verdict == "any" and search.threat is not None
        # An answer that lies at the boundary, or after which a row stops, is the model's own to find.
        plain = early or (isinstance(search, Walk) and search.restarts == 1)
        proposes = form if plain else model
        judged = pooled(search, proposes, model, images, labels, logits[on], outcome, size=size, early=early)
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
    found: Found, row: int, place: int, on: Tensor, outcome: Outcome, radius: float, minimal: str | None
) -> None:
    """Write one attack's outcome at one ε, of the images at ``on``."""
    stands_here = outcome.stands.numpy()
    if minimal is not None:
        stands_here = stands_here | ((outcome.linf if minimal == "Linf" else outcome.l2).numpy() > radius)
    where, arrays = on.numpy(), found.arrays
    arrays["fell_to"][row, where[~stands_here]] = place
    for name in ("prediction", "l2", "linf"):
        arrays[name][row, where] = getattr(outcome, name).numpy()
    arrays["queries"][row, where] += outcome.queries.numpy()
    seen = {
        "attacked": np.ones_like(stands_here), "silent": outcome.silent.numpy(), "broke": ~stands_here,
        "fell": outcome.fell.numpy() & stands_here,
    }  # fmt: skip
    for name, which in seen.items():
        found.counts[name][row, place] += int(which.sum())
