"""Accuracy on finished adversarial images behind a low-pass: attacked once, then asked about at each degree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.packing import working_size
from passband.attacks.registry import Attack
from passband.core.band import preset
from passband.core.errors import NotApplicable, PassbandError
from passband.core.results import Axis, Curve, Result, Series
from passband.data.dataset import Batches
from passband.frequency.filters import rescale, sweep
from passband.models.fast import Precision, fast
from passband.models.state import exact, untouched, uses_batch_statistics
from passband.probes.attacked import attack_named
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.tasks.classification import check_targets, correct, predict, wilson

CLEAN = "clean"
"""The series of the images that nothing attacked."""
_Cut = tuple[str, float]
"""A preset of the low-pass and its degree."""


@PROBES.register("filtered")
def filtered(
    model: nn.Module,
    batches: Batches,
    *,
    attacks: tuple[str, ...] = ("fgsm", "pgd"),
    eps: float = 8 / 255,
    steps: int = 20,
    degrees: tuple[float, ...] | None = None,
    low_pass: tuple[str, ...] = ("adversarial-focus", "square"),
    seed: int = 0,
    resume: Path | None = None,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Attack a model that has no filter, then ask it about the low-passed adversarial images.

    Every image is attacked, those too that are wrong untouched, and the accuracy is that of all finished images, as
    the paper's library counts: an attack that looks away from the label (TPGD, GN) or a filter may turn a wrong
    answer into a right one. The attacker knows nothing of the filter: a gain is no robustness against one who does.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: What to attack.
        attacks: Names of attacks, each by itself, with torchattacks' defaults; the last iterate counts, of CW the
            nearest that fools the model, or the untouched image.
        eps: Radius of the ball, pixels in [0, 1]; a step keeps its share of it.
        steps: Steps of every attack that has some.
        degrees: Sides of the square low-pass in bins; as many as the image's longer side has, or more, filter
            nothing. None is 4/8, 5/8, 6/8, 7/8, 8/8 of the shorter side, even ones, and the longer side.
        low_pass: Presets of the square: ``"adversarial-focus"`` keeps ``-D/2 <= k < D/2`` with the real part taken,
            ``"square"`` ``|k| < D/2``. Pixels are clipped to [0, 1].
        seed: Of all that is random.
        resume: A folder where what is finished is kept until all is; None keeps nothing.
        precision: Of the attacks' gradients; every verdict is the model's own in float32.

    Returns:
        For each preset a Curve ``filtered.PRESET``: accuracy by degree, a series for each attack and for the images
        that nothing attacked, with Wilson intervals. ``arrays`` hold the verdicts by attack, bool [degree, image].

    Raises:
        NotApplicable: for a model that normalizes by each batch.
        PassbandError: for unknown names, options out of range, and nothing to compare an answer with.

    **Source**: adversarial-focus, section 3.1.1 and table 1; its CW column can only be read so.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    if uses_batch_statistics(model):
        raise NotApplicable("filtered needs answers that do not depend on the batch; this model normalizes by each")
    if not attacks or not low_pass:
        raise PassbandError("probe filtered: at least one attack and one low-pass, such as attacks=pgd; got none")
    chosen = {name: attack_named(name, eps=eps, steps=steps, seed=seed) for name in attacks}
    images, _ = next(iter(batches))
    side, longer = sorted(images.shape[-2:])
    if degrees is None:
        even = (max(2, 2 * round(side * eighths / 16)) for eighths in (4, 5, 6, 7, 8))
        degrees = (*(degree for degree in even if degree < longer), longer)
    if not degrees or min(degrees) < 1:
        raise PassbandError(f"probe filtered: degrees are 1 bin or more, such as degrees=16,{longer}; got {degrees}")
    ascending = sorted({float(degree) for degree in degrees})
    cuts = [(name, degree) for name in dict.fromkeys(low_pass) for degree in ascending]
    verdicts, speed = _verdicts(model, batches, chosen, cuts, precision, resume)
    how: dict[str, Any] = {
        "probe": "filtered", "attacks": {name: str(attack) for name, attack in chosen.items()}, "eps": eps,
        "degrees": ascending, "spectrum": [int(images.shape[-2]), int(images.shape[-1])], "speed": speed, "seed": seed,
    }  # fmt: skip
    return tuple(_curve(name, ascending, verdicts, measure, how) for name in dict.fromkeys(low_pass))


def _verdicts(
    model: nn.Module,
    batches: Batches,
    chosen: dict[str, Attack],
    cuts: Sequence[_Cut],
    precision: Precision,
    resume: Path | None,
) -> tuple[dict[tuple[str, _Cut], np.ndarray], dict[str, Any]]:
    """Attack all images once; tell by attack and cut which finished images the model gets right."""
    with untouched(model), exact():
        sample, _ = next(iter(batches))
        form = fast(model, sample[:16], precision=precision)
        judge = form.given(model)
        asked = ("filtered", {name: str(attack) for name, attack in chosen.items()}, cuts, precision)
        pieces = Pieces.of(resume, judge, sample[:16], asked)
        working, make = batches.cut(working_size(model)), partial(_piece, judge, form.module, chosen, cuts)
        rows = joined(by_part(pieces, "filtered", working, make, "filtered", working.size), axis=1)
    return {(name, cut): row for name in rows for cut, row in zip(cuts, rows[name], strict=True)}, dict(form.how)


def _piece(judge: nn.Module, form: nn.Module, chosen: dict[str, Attack], cuts: Sequence[_Cut], part: Part) -> Arrays:
    """Attack a working batch; tell by attack which finished images the model gets right, bool [cut, image]."""
    ((images, targets),) = part.batches
    check_targets(targets, predict(judge, images[:1]).shape[1])
    finished = {CLEAN: images} | {name: one(form, images, targets) for name, one in chosen.items()}
    right = {}
    for name, points in finished.items():
        by_cut = {cut: correct(predict(judge, copy), targets).cpu().numpy() for cut, copy in _copies(points, cuts)}
        right[name] = np.stack([by_cut[cut] for cut in cuts])
    return right


def _copies(images: Tensor, cuts: Sequence[_Cut]) -> Iterator[tuple[_Cut, Tensor]]:
    """Yield the images behind each low-pass, all from one transform; one as wide as their longer side is none."""
    side = max(images.shape[-2:])
    narrow = [cut for cut in cuts if cut[1] < side]
    yield from ((cut, images) for cut in cuts if cut[1] >= side)
    for cut, (_, low, _) in zip(narrow, sweep(images, [preset(*cut) for cut in narrow]), strict=True):
        yield cut, rescale(low, "clip").contiguous(memory_format=torch.channels_last)


def _curve(
    name: str,
    degrees: Sequence[float],
    verdicts: dict[tuple[str, _Cut], np.ndarray],
    measure: str,
    how: dict[str, Any],
) -> Curve:
    arrays = {
        attack: np.stack([verdicts[attack, (name, degree)] for degree in degrees])
        for attack in dict.fromkeys(attack for attack, _ in verdicts)
    }
    series = []
    for attack, right in arrays.items():
        low, high = zip(*(wilson(int(row.sum()), len(row)) for row in right), strict=True)
        series.append(Series(name=attack, values=tuple(right.mean(1).tolist()), low=low, high=high, n=right.shape[1]))
    edge = "-D/2 <= k < D/2, real part" if name == "adversarial-focus" else "|k| < D/2"
    return Curve(
        name=f"filtered.{name}",
        title=f"{measure.capitalize()}: finished adversarial images behind a low-pass, by degree",
        how=how | {"low_pass": name, "band": ", ".join(str(preset(name, degree)) for degree in degrees)},
        notes=(
            f"A central square of side D, in both directions ({edge}); pixels are clipped to [0, 1]. The attacks saw "
            "the model without it.",
            "All images were attacked, also those that are wrong untouched; each answer to a finished image counts.",
        ),
        arrays=arrays,
        x=Axis(name="low-pass degree D", unit="bins", values=tuple(degrees)),
        y=Axis(name=measure, unit="fraction"),
        series=tuple(series),
    )
