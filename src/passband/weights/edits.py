"""The papers' training-free edits of a trained classifier, each a function of one strength."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from passband.core.band import preset
from passband.core.errors import NotApplicable, PassbandError
from passband.core.options import fraction
from passband.frequency.filters import mask
from passband.models.fold import copied
from passband.models.low_pass import LowPass
from passband.models.wrap import Classifier
from passband.weights.depthwise import depthwise_convolutions
from passband.weights.neighbors import mix_neighbors, mixable
from passband.weights.smooth import smooth


@dataclass(frozen=True)
class Edit:
    """Name one edit.

    Attributes:
        line: What it does, for people.
        strength: What its number is, with the unit.
        strengths: The classifier to the strengths that a sweep goes through, from the least change on.
        apply: Changes a classifier of one's own and returns it, or another one around it.
        rebuilds: Whether the architecture becomes another, so that its weights alone do not tell it.

    Raises:
        NotApplicable: by ``strengths``, where the classifier has nothing to edit.
    """

    line: str
    strength: str
    strengths: Callable[[Classifier], tuple[float, ...]]
    apply: Callable[[Classifier, float], Classifier]
    rebuilds: bool = False


Choice = tuple[str, float]
"""An edit's name and its strength."""


def choice(text: str) -> Choice:
    """Read ``EDIT=STRENGTH``, such as ``smooth-first=0.5``.

    Raises:
        PassbandError: when it is not written so, or no edit has that name.
    """
    name, _, strength = text.partition("=")
    value = fraction(strength.strip())
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if name.strip() not in EDITS or not math.isfinite(number):
        raise PassbandError(f"EDIT=STRENGTH was needed, an edit of {', '.join(EDITS)} and a number; got '{text}'")
    return name.strip(), number


def edited(model: Classifier, name: str, strength: float) -> Classifier:
    """Return an edited copy of a classifier.

    Args:
        model: Left as it is.
        name: A key of `EDITS`.
        strength: In the edit's own unit.

    Raises:
        PassbandError: when the classifier has nothing to edit, or the strength is out of range.
    """
    return EDITS[name].apply(copied(model), strength)


def _mixed(keep_gain: bool) -> Callable[[Classifier, float], Classifier]:
    def apply(model: Classifier, rho: float) -> Classifier:
        mix_neighbors(model, rho, keep_gain=keep_gain)
        return model

    return apply


def _smoothed(model: Classifier, sigma: float) -> Classifier:
    smooth(model, sigma)
    return model


def _low_passed(model: Classifier, degree: float) -> Classifier:
    front = LowPass(degree)
    if bool(mask(preset("square", degree), model.spec.size).all()):
        side = min(model.spec.size)
        raise PassbandError(f"a low-pass of degree {degree:g} keeps all of {side} pixels; choose a lower degree")
    made = Classifier(nn.Sequential(front, model.inner), model.spec)
    # Mean and std are made anew, on the CPU: they belong where the network is.
    device = next((parameter.device for parameter in model.parameters()), None)
    return made.to(device).train(model.training)


def _degrees(model: Classifier) -> tuple[float, ...]:
    side = min(model.spec.size)
    # Even ones: |k| < D/2 keeps the same bins for an odd D as for the next even one.
    return tuple(dict.fromkeys(float(max(2, 2 * round(side * eighths / 16))) for eighths in (7, 6, 5, 4)))


def _rhos(model: Classifier) -> tuple[float, ...]:
    mixable(model)
    return (0.1, 0.25, 0.5, 1.0)


def _sigmas(model: Classifier) -> tuple[float, ...]:
    try:
        depthwise_convolutions(model)
    except PassbandError as error:
        raise NotApplicable(str(error)) from None
    return (0.5, 1.0, 1.5, 2.0)


EDITS: dict[str, Edit] = {
    "smooth-first": Edit(
        "adds ρ times its eight neighbors to each weight of the first convolution, whose gain grows by 1 + 8ρ",
        "ρ", _rhos, _mixed(True),
    ),
    "smooth-first-normalized": Edit(
        "the same, with the gain divided out", "ρ", _rhos, _mixed(False),
    ),
    "low-pass-input": Edit(
        "keeps of the images the frequencies of a central square", "degree, bins", _degrees, _low_passed, rebuilds=True,
    ),
    "smooth-depthwise": Edit(
        "blurs every depthwise kernel with a Gaussian and keeps its norm", "σ, pixels", _sigmas, _smoothed,
    ),
}  # fmt: skip
"""**Source**: high-frequency, section 6.3 (first convolution; its gain divided out is a control of ours);
adversarial-focus, section 4 (low-passed images); spatial-mixing, section 4.3.3 (depthwise kernels, there before
training)."""
