"""Accuracy under attack over ε, and what the attacks did to a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.cascade import Verdict
from passband.attacks.evaluate import RobustAccuracy, robust_accuracy
from passband.attacks.registry import Attack, norm_of
from passband.attacks.threat import Norm
from passband.core.band import Band
from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Axis, Curve, Gallery, Picture, Result, Series
from passband.data.dataset import Batches
from passband.models.fast import Precision
from passband.models.state import uses_batch_statistics
from passband.probes.attacked import USUAL, attack_named
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
    defaults: str = USUAL,
    steps: int | None = None,
    alpha: float | None = None,
    random_start: bool | None = None,
    band: Band | None = None,
    seed: int = 0,
    verdict: Verdict = "any",
    examples: int = 4,
    resume: Path | None = None,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Measure accuracy under each attack at each ε, on images that the model gets right untouched.

    An image that is wrong untouched counts as wrong at every ε. Where the targets are the model's own
    predictions, attacks lead away from those, and the accuracy is the agreement that is left.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: What to attack.
        eps: Radii of the ball, in the attacks' norm, pixels in [0, 1].
        attacks: Names of attacks, each measured on its own; ``"standard"`` is the worst of four.
        preset: A paper's PGD: ``"adversarial-focus"`` (20 steps of ε/4, random start), ``"high-frequency"``
            (40 steps of ε/30, no random start), ``"spatial-mixing"`` (2 steps of ε/2, no random start).
        defaults: Whose defaults fill the other attacks' arguments: ``"torchattacks-3.5.1"`` or ``"torchattacks-3.2"``.
        steps: Steps of every attack that has some, in place of its own.
        alpha: Size of a step, pixels in [0, 1], the same at every ε; None keeps each attack's share of ε.
        random_start: Whether attacks start at random, where they leave the choice.
        band: Frequencies that gradient attacks may change, such as ``"low 8"``; None allows all.
        seed: Of all that is random.
        verdict: ``"any"``: an image has fallen when any iterate fools the model; ``"last"``: when the attack's
            answer does, as torchattacks counts.
        examples: Number of attacked images to show; 0 shows none.
        resume: A folder where what is finished is kept until all is; None keeps nothing.
        precision: Of the gradients; every verdict is the model's own in float32.

    Returns:
        ``robustness.accuracy``: Curve, a fraction over ε (in 1/255 for L∞) from 0 (untouched) on, one series per
        attack with Wilson 95% intervals. ``arrays`` hold, by attack and in the order of the axis, per image:
        verdicts (bool [ε, images]) and, after ``.prediction``, ``.l2`` and ``.linf``, the answer to the adversarial
        image and how far it lies. ``how["doubts"]`` says what speaks against a number.
        ``robustness.examples``: Gallery.

    Raises:
        PassbandError: for unknown names, attacks of different norms, and images, labels or ε out of range.

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
    options: dict[str, Any] = {"alpha": alpha, "random_start": random_start, "band": band, "seed": seed}
    chosen = {name: attack_named(name, preset=preset, defaults=defaults, steps=steps, **options) for name in attacks}
    norm = _norm(chosen)
    radii = tuple(sorted({0.0, *eps}))
    found = {
        name: robust_accuracy(
            model, batches, attack, radii, verdict=verdict, scale=alpha is None, resume=resume, precision=precision
        )
        for name, attack in chosen.items()
    }
    how: dict[str, Any] = {
        "probe": "robustness",
        "eps": radii,
        "norm": norm,
        "attacks": {name: str(attack) for name, attack in chosen.items()},
        "preset": preset,
        "alpha": "scaled with eps" if alpha is None else alpha,
        "verdict": verdict,
        "working_batch": next(iter(found.values())).working_batch,
        "speed": next(iter(found.values())).how,
        "doubts": {name: [asdict(doubt) for doubt in one.doubts] for name, one in found.items() if one.doubts},
    }
    results: list[Result] = [_curve(found, chosen, norm, measure, how)]
    clean = next(iter(found.values())).clean
    if examples and clean.any():
        name, radius = attacks[-1], sorted(eps)[len(eps) // 2]
        attack = chosen[name] if radius == 0 else chosen[name].at(radius, scale=alpha is None)
        images, targets = _first(batches, np.flatnonzero(clean)[:examples])
        results.append(_gallery(model, images, targets, attack, name, radius, how, _names(model, batches)))
    return tuple(results)


def _norm(chosen: dict[str, Attack]) -> Norm:
    """Return the norm that all attacks measure ε in; those that no ε bounds fit any."""
    norms = {name: norm for name, attack in chosen.items() if (norm := norm_of(attack)) is not None}
    if len(set(norms.values())) > 1:
        listed = ", ".join(f"{name} {norm}" for name, norm in norms.items())
        raise PassbandError(f"attacks of different norms share no axis of ε ({listed}); probe them one norm at a time")
    return next(iter(norms.values()), "Linf")


def _curve(
    found: dict[str, RobustAccuracy], chosen: dict[str, Attack], norm: Norm, measure: str, how: dict[str, Any]
) -> Curve:
    series = []
    arrays: dict[str, np.ndarray] = {}
    for name, result in found.items():
        low, high = zip(*result.intervals(), strict=True)
        series.append(Series(name=name, values=tuple(result.accuracy), low=low, high=high, n=result.count))
        arrays |= {name: result.correct, f"{name}.prediction": result.prediction}
        arrays |= {f"{name}.l2": result.l2, f"{name}.linf": result.linf}
    radii = next(iter(found.values())).eps
    gray = norm == "Linf"
    verdict = {"any": "any iterate fools the model", "last": "the attack's last image fools the model"}
    notes = [
        "ε counts pixels in [0, 1]; at 0 the image is untouched.",
        "An image that is wrong untouched counts as wrong at every ε; the others are attacked, and each "
        f"has fallen when {verdict[how['verdict']]}.",
    ]
    free = [name for name, attack in chosen.items() if norm_of(attack) is None]
    if free:
        notes.append(f"No ε bounds {', '.join(free)}: the value is the same at each ε above 0.")
    notes += [f"Doubt: {doubt.message}." for result in found.values() for doubt in result.doubts]
    return Curve(
        name="robustness.accuracy",
        title=f"{measure.capitalize()} under attack",
        x=Axis(
            name="ε, largest change of a pixel" if gray else "ε, Euclidean length of the change",
            unit="1/255" if gray else "1",
            values=tuple(round(radius * (255 if gray else 1), 6) for radius in radii),
        ),
        y=Axis(name=measure, unit="fraction"),
        series=tuple(series),
        how=how,
        notes=tuple(notes),
        arrays=arrays,
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
    # The largest change of each image is stretched to black or white; where nothing changed the picture is gray.
    change = attacked - images
    largest = change.abs().amax((1, 2, 3), keepdim=True)
    change = change / torch.where(largest > 0, 2 * largest, 1.0) + 0.5
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
        title=f"Untouched, under {name}{_at(attack, radius)}, and the change (its largest: black, white)",
        pictures=tuple(pictures),
        how=how | {"attack": str(attack)},
    )


def _at(attack: Attack, radius: float) -> str:
    """Say at which ε, where one bounds the attack."""
    words = {"Linf": f" at ε = {radius * 255:g}/255", "L2": f" at an L2 ε of {radius:g}", None: ""}
    return words[norm_of(attack)]


def _answer(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return per image the class of the largest logit and its softmax probability."""
    best = logits.argmax(1)
    return best, logits.softmax(1).gather(1, best[:, None])[:, 0]


def _called(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"
