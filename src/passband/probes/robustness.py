"""Accuracy under attack over ε, and what the attacks did to a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.evaluate import VERDICT, RobustAccuracy, robust_accuracy
from passband.attacks.gradient_sign import PRESETS
from passband.attacks.registry import ATTACKS, Attack, make
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.results import Axis, Curve, Gallery, Picture, Result, Series
from passband.data.dataset import Batches
from passband.models.state import uses_batch_statistics
from passband.probes.registry import PROBES
from passband.tasks.classification import predict, untouched

EPS = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)


@PROBES.register("robustness")
def robustness(
    model: nn.Module,
    batches: Batches,
    *,
    eps: tuple[float, ...] = EPS,
    attacks: tuple[str, ...] = ("fgsm", "pgd"),
    preset: str = "adversarial-focus",
    steps: int | None = None,
    alpha: float | None = None,
    random_start: bool | None = None,
    seed: int = 0,
    examples: int = 4,
) -> tuple[Result, ...]:
    """Measure accuracy under each attack at each ε, on images that the model gets right untouched.

    An image that is wrong untouched counts as wrong at every ε. Where the targets are the model's own
    predictions, attacks lead away from those, and the accuracy is the agreement that is left.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: What to attack.
        eps: Radii of the L∞ ball, pixels in [0, 1].
        attacks: Names of attacks.
        preset: A paper's PGD: ``"adversarial-focus"`` (20 steps of ε/4, random start), ``"high-frequency"``
            (40 steps of ε/30, no random start), ``"spatial-mixing"`` (2 steps of ε/2, no random start).
        steps: Steps of PGD in place of the preset's.
        alpha: Step of PGD, pixels in [0, 1], the same at every ε; None keeps the preset's share of ε.
        random_start: Whether PGD starts at random, in place of the preset's choice.
        seed: Of the random start.
        examples: Number of attacked images to show; 0 shows none.

    Returns:
        ``robustness.accuracy``: Curve, a fraction over ε in 1/255 from 0 (untouched) on, one series per attack with
        Wilson 95% intervals; per-sample verdicts are in ``arrays`` by attack, bool [ε, images] in the order
        of the axis. ``robustness.examples``: Gallery.

    Raises:
        PassbandError: for unknown names, and for images, labels or ε out of range.

    **Source**: adversarial-focus, table 1; spatial-mixing, figure 6; high-frequency, table 2.
    **Differs**: high-frequency's table 2 was probably read off smallest perturbations; here ε is fixed.
    """
    if uses_batch_statistics(model):
        raise NotApplicable(
            "robustness needs answers that do not depend on the batch; this model normalizes by each batch"
        )
    if examples < 0:
        raise PassbandError(f"robustness: examples is 0 or more; got {examples}")
    if not attacks or not eps:
        raise PassbandError("robustness needs at least one attack and one eps, such as attacks=pgd eps=4/255")
    measure = batches.measure  # refuses targets that say nothing, before any work
    options = {"steps": steps, "alpha": alpha, "random_start": random_start, "seed": seed}
    chosen = {name: _attack(name, preset, options) for name in attacks}
    radii = tuple(sorted({0.0, *eps}))
    found = {
        name: robust_accuracy(model, batches, attack, radii, scale=alpha is None) for name, attack in chosen.items()
    }
    how: dict[str, Any] = {
        "probe": "robustness",
        "eps": radii,
        "attacks": {name: str(attack) for name, attack in chosen.items()},
        "preset": preset,
        "alpha": "scaled with eps" if alpha is None else alpha,
        "verdict": VERDICT,
        "working_batch": next(iter(found.values())).working_batch,
    }
    results: list[Result] = [_curve(found, measure, how)]
    clean = next(iter(found.values())).clean
    if examples and clean.any():
        name, radius = attacks[-1], sorted(eps)[len(eps) // 2]
        attack = chosen[name].at(radius, scale=alpha is None)
        images, targets = _first(batches, np.flatnonzero(clean)[:examples])
        results.append(_gallery(model, images, targets, attack, name, radius, how, _names(model, batches)))
    return tuple(results)


def _attack(name: str, preset: str, options: dict[str, Any]) -> Attack:
    """Make an attack, PGD as the preset has it, and set those options that are given and that it has."""
    if preset not in PRESETS:
        raise unknown("PGD preset", preset, PRESETS)
    attack: Any = PRESETS[preset] if name == "pgd" else make(name)
    known = {field.name for field in fields(ATTACKS[name])}
    given = {key: value for key, value in options.items() if value is not None and key in known}
    changed: Attack = replace(attack, **given)
    return changed


def _curve(found: dict[str, RobustAccuracy], measure: str, how: dict[str, Any]) -> Curve:
    series = []
    for name, result in found.items():
        low, high = zip(*result.intervals(), strict=True)
        series.append(Series(name=name, values=tuple(result.accuracy), low=low, high=high, n=result.count))
    points = tuple(round(radius * 255, 6) for radius in next(iter(found.values())).eps)
    return Curve(
        name="robustness.accuracy",
        title=f"{measure.capitalize()} under attack",
        x=Axis(name="ε, largest change of a pixel", unit="1/255", values=points),
        y=Axis(name=measure, unit="fraction"),
        series=tuple(series),
        how=how,
        notes=(
            "ε counts pixels in [0, 1]; at 0 the image is untouched.",
            "An image that is wrong untouched counts as wrong at every ε; the others are attacked, and each "
            "has fallen when the attack's last image fools the model.",
        ),
        arrays={name: result.correct for name, result in found.items()},
    )


def _first(batches: Batches, places: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the images at ``places``, which rise, and their targets."""
    images, targets, first = [], [], 0
    for some, wanted in batches:
        here = [int(place) - first for place in places if first <= place < first + len(some)]
        images.append(some[here])
        targets.append(wanted[here])
        first += len(some)
        if first > places[-1]:
            break
    return torch.cat(images), torch.cat(targets)


def _names(model: nn.Module, batches: Batches) -> tuple[str, ...]:
    """Return the classes' names: the model's, or else the data's where the targets are its labels."""
    names: tuple[str, ...] = getattr(getattr(model, "spec", None), "class_names", ())
    return names or (batches.class_names if batches.truth == "label" else ())


def _gallery(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    attack: Attack,
    name: str,
    radius: float,
    how: dict[str, Any],
    names: Sequence[str],
) -> Gallery:
    """Show each image untouched, attacked, and the change with ±ε stretched to black and white."""
    with untouched(model):
        attacked = attack(model, images, targets)
        says = [_answer(predict(model, batch)) for batch in (images, attacked)]
    # At ε = 0 there is no change to stretch, and the third picture is plain gray.
    change = (attacked - images) / (2 * radius or 1) + 0.5
    strips = torch.cat((images, attacked, change), dim=3).mul(255).round().clamp(0, 255).to(torch.uint8)
    pictures = []
    for index, strip in enumerate(strips.permute(0, 2, 3, 1).cpu().numpy()):
        answers = [(_called(names, int(best[index])), float(sure[index])) for best, sure in says]
        words = [f"{label} ({confidence:.0%})" for label, confidence in answers]
        data = {
            key: {"prediction": label, "confidence": confidence}
            for key, (label, confidence) in zip(("untouched", "attacked"), answers, strict=True)
        }
        data_with_truth = {"truth": _called(names, int(targets[index])), **data}
        caption = f"untouched: {words[0]}; attacked: {words[1]}"
        pictures.append(Picture(image=np.ascontiguousarray(strip), caption=caption, data=data_with_truth))
    return Gallery(
        name="robustness.examples",
        title=f"Untouched, under {name} at ε = {radius * 255:g}/255, and the change (±ε: black, white)",
        pictures=tuple(pictures),
        how=how | {"attack": str(attack)},
    )


def _answer(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return per image the class of the largest logit and its softmax probability."""
    best = logits.argmax(1)
    return best, logits.softmax(1).gather(1, best[:, None])[:, 0]


def _called(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"
