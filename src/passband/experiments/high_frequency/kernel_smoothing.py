"""How far natural and adversarial models can be attacked once the first layer's kernels are smoothed, without training.

Each weight of the first layer gets ρ times its eight neighbors added (equation 3,
`passband.weights.neighbors.mix_neighbors`), with ρ of 0, 0.1, 0.25, 0.5 and 1. The edit lies in the weights, so that
FGSM and PGD go through it: they are adaptive as they are. Wrong untouched is wrong under attack. Fashion-MNIST is given
to the networks as three equal channels, of which attacks may change each by itself.

The paper does not say how it attacked. Main reading: a fixed ε of 0.03, 0.06 or 0.09, FGSM, and PGD of 40 steps of
ε/30 from the image itself, an image having fallen when any iterate fools the model. Second reading, ``smallest``,
which its code suggests: the smallest change of each image is searched for by FGSM and PGD, and the image counts as
right at each ε below it (`passband.attacks.smallest`); on fewer images, and below full scale for the natural model at
ρ of 0 and 1 alone. In table 4 PGD accuracy rises with ε, which the second reading forbids.

Controls, since the mask is not normalized. At ρ = 1 the layer's gain grows ninefold, and the networks, which have
neither norms nor biases before the head, answer with logits as much larger: their softmax saturates, and gradients of
the cross-entropy become zero in float32, which stops both attacks without any robustness.

- ``normalized``: the same edit with its gain divided out, over 1 + 8ρ. Features before the head are the same but for
  that factor; logits are not quite, as the head has a bias. What robustness is there with the gain and is gone without
  it was arithmetic.
- ``zero gradient``: of the images that are right untouched, the share whose gradient is zero everywhere; and
  ``confidence``, the largest softmax probability, mean over all.
- ``FGSM seen`` and ``PGD seen``: the means over ε where images without a gradient count as fallen. It is the weaker
  control: gradients are harmed before they are zero, as the label's own part is gone once its probability rounds to 1.
- ``doubts`` names what an attack saw that speaks against its numbers (`attacks/doubts.py`).

The paper's own numbers do not bear out all of its sentences, so that each attack has its own claim:

- "M_natural(ρ = 1) even outperforms M_adversarial" at ε = 0.09: in table 2 under PGD (7.8 against 3.8%), not under FGSM
  (12.7 against 13.7%); and one class for all images gets 10%.
- "In particular, our method helps when the perturbation is allowed to be relatively large": read as more at 0.09 than
  at 0.03. Of the natural model that is so in table 2 under FGSM (8.3 against 6.4 points), not under PGD (7.6 against
  8.3), nor in table 4 (36.6 and 36.6; 36.5 against 37.2).
- It "can only improve upon M_adversarial in the case where ε is larger": read as not at 0.03. Table 4 contradicts it:
  there smoothing improves the adversarial model at every ε, at 0.03 by 11.9 (FGSM) and 5.2 points (PGD). That it adds
  more at 0.09 than at 0.03 says less than "only", and is kept as a control; in table 4 under PGD it adds the same.

At small scale Fashion-MNIST, and cifar10-jpeg (JPEG took high frequencies from it) with the natural model at ρ of 0
and 1 alone; the gain divided out at ρ = 1 alone; one seed, 1,000 test images (100 for the smallest changes). At full
scale 1,000 images, as the paper apparently has.

**Source**: high-frequency, section 6.3, tables 2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column, Curve, Result, Scalar
from passband.core.scale import Scale
from passband.experiments.curves import across, over
from passband.experiments.high_frequency.kernels import ADVERSARIAL, NATURAL, recipe, smoothed, trainings
from passband.experiments.high_frequency.settings import COLOR
from passband.experiments.margins import difference
from passband.experiments.protocol import Case, Experiment, Measured
from passband.sweeps.lab import Lab
from passband.weights.neighbors import mix_neighbors

EPS = (0.03, 0.06, 0.09)
ATTACKS = {"FGSM": "fgsm", "PGD": "pgd"}
FIXED, SMALLEST = "fixed", "smallest"
NORMALIZED = "normalized"

SETS = COLOR | {Scale.FULL: ("cifar10", "restricted-imagenet")}
SEEDS = {Scale.SMOKE: (0,), Scale.SMALL: (0,), Scale.FULL: (0, 1, 2)}
RHOS = (0.0, 0.1, 0.25, 0.5, 1.0)
ENDS = (0.0, 1.0)
STEPS: dict[Scale, int | None] = {Scale.SMOKE: 4, Scale.SMALL: None, Scale.FULL: None}
"""Of PGD; None takes its 40."""
IMAGES = {Scale.SMOKE: 40, Scale.SMALL: 1000, Scale.FULL: 1000}
SEARCHED_IMAGES = {Scale.SMOKE: 6, Scale.SMALL: 100, Scale.FULL: 1000}


def cases(scale: Scale) -> list[Case]:
    """List every model with its edits."""
    return [
        {
            "case": named(trained, rho, keep_gain, protocol), "trained": trained, "rho": rho, "keep_gain": keep_gain,
            "protocol": protocol, "data": data, "seed": seed,
        }
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for trained in (NATURAL, ADVERSARIAL)
        if trained in trainings(scale, data)
        for rho, keep_gain, protocol in edits(scale, data, trained)
    ]  # fmt: skip


def edits(scale: Scale, data: str, trained: str) -> Iterator[tuple[float, bool, str]]:
    """Yield each ρ, whether its gain is kept, and the protocol: all of them at full scale, below it what claims ask."""
    full = scale is Scale.FULL
    swept = RHOS if full or data == "fashion-mnist" else ENDS
    yield from ((rho, True, FIXED) for rho in swept)
    yield from ((rho, False, FIXED) for rho in (swept[1:] if full else ENDS[1:]))
    if full or (trained == NATURAL and data != "cifar10-jpeg"):
        yield from ((rho, True, SMALLEST) for rho in (swept if full else ENDS))


def named(trained: str, rho: float, keep_gain: bool = True, protocol: str = FIXED) -> str:
    """Return a case's name."""
    words = [smoothed(trained, rho), "" if keep_gain else NORMALIZED, "" if protocol == FIXED else protocol]
    return ", ".join(filter(None, words))


def measure(case: Case, lab: Lab) -> Measured:
    """Train one model, smooth its first layer and attack it."""
    run = lab.train(recipe(case, lab.scale))
    asked = lab.edited(run, lambda model: mix_neighbors(model, case["rho"], keep_gain=case["keep_gain"]))
    fixed = case["protocol"] == FIXED
    names = {column: name if fixed else f"smallest-{name}" for column, name in ATTACKS.items()}
    options = {
        "eps": EPS, "attacks": tuple(names.values()), "preset": "high-frequency", "steps": STEPS[lab.scale],
        "examples": 0,
    }  # fmt: skip
    limit = IMAGES[lab.scale] if fixed else SEARCHED_IMAGES[lab.scale]
    attacked = lab.ask(asked, run, "robustness", options, limit=limit)["robustness.accuracy"]
    assert isinstance(attacked, Curve)
    verdicts = _verdicts(attacked.arrays, names)
    row: dict[str, Cell] = {}
    if fixed:
        found = lab.ask(asked, run, "gradients", limit=limit)
        zero, confidence = found["gradients.zero"], found["gradients.confidence"]
        assert isinstance(zero, Scalar) and isinstance(confidence, Scalar)
        # An image without a gradient stands still under either attack: what is left are those that were attacked.
        verdicts |= {f"{column} seen": verdicts[f"{column} mean"] * ~zero.arrays["zero"] for column in ATTACKS}
        row |= {"zero gradient": _percent(zero.value), "confidence": _percent(confidence.value)}
    row |= {column: 100 * float(scores.mean()) for column, scores in verdicts.items()}
    row |= {"ρ": case["rho"], "protocol": case["protocol"]}
    row |= {"line": case["trained"] if case["keep_gain"] else f"{case['trained']}, {NORMALIZED}"}
    doubts = sorted({one["name"] for some in attacked.how["doubts"].values() for one in some})
    row |= {"images": len(verdicts["clean"]), "doubts": ", ".join(doubts) or None, "run": run.digest}
    return Measured(row, verdicts=verdicts)


def _verdicts(arrays: dict[str, np.ndarray], names: dict[str, str]) -> dict[str, np.ndarray]:
    """Return per image, by column, whether the answer is right, 0 or 1; means over ε lie between."""
    verdicts = {"clean": arrays[names["FGSM"]][0].astype(float)}
    for column, name in names.items():
        right = arrays[name][1:].astype(float)
        verdicts |= {f"{column} {eps:g}": scores for eps, scores in zip(EPS, right, strict=True)}
        verdicts[f"{column} mean"] = right.mean(axis=0)
    return verdicts


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def figures(rows: Rows) -> tuple[Result, ...]:
    """Draw accuracies over ρ, with and without the gain, and over ε for the models that the claims compare."""
    fixed = [row for row in rows if row.get("protocol") == FIXED]
    # With nothing mixed there is no gain: both lines begin at the same model.
    lines = [*fixed, *({**row, "line": f"{row['line']}, {NORMALIZED}"} for row in fixed if row["ρ"] == 0)]
    drawn: list[Result] = []
    for column in ("clean", "FGSM mean", "PGD mean", "zero gradient"):
        name = column.replace(" ", "_").lower()
        title = f"{column[0].upper()}{column[1:]} over ρ".replace("mean", "accuracy, mean over ε,")
        drawn += over(lines, Column(name="ρ"), Column(name=column, unit="%"), by="line", name=name, title=title)
    ends = [row for row in fixed if row["ρ"] in (0, 1)]
    accuracy, radius = Column(name="accuracy", unit="%"), Column(name="ε, pixels in [0, 1]")
    for attack in ATTACKS:
        columns = {0.0: "clean"} | {eps: f"{attack} {eps:g}" for eps in EPS}
        drawn += across(ends, columns, radius, accuracy, name=attack.lower(), title=f"Accuracy under {attack}")
    return tuple(drawn)


def change(rows: Rows, trained: str, column: str, **other: Any) -> float | None:
    """Return by how much ρ = 1 lifts a model's accuracy above that of ρ = 0."""
    base = {"protocol": other.get("protocol", FIXED)}
    return difference(rows, named(trained, 1, **other), named(trained, 0, **base), column)


def more_at_large(rows: Rows, trained: str, attack: str) -> float | None:
    """Return how much more ρ = 1 does for a model at the largest ε than at the smallest."""
    large, small = (change(rows, trained, f"{attack} {eps:g}") for eps in (EPS[-1], EPS[0]))
    return None if large is None or small is None else large - small


def _negative(margin: float | None) -> float | None:
    return None if margin is None else -margin


def plunge(rows: Rows, trained: str) -> float | None:
    """Return by how much clean accuracy lies lower, on average over every ρ above 0."""
    base = named(trained, 0)
    names = {str(row["case"]) for row in rows if row.get("line") == trained and row.get("protocol") == FIXED} - {base}
    falls = [difference(rows, base, name, "clean") for name in names]
    known = [fall for fall in falls if fall is not None]
    return fmean(known) if known and len(known) == len(falls) else None


_PLACE = "high-frequency, section 6.3, tables 2 and 4"
_EASILY = "The method can easily improve the adversarial robustness of the natural model"
_LARGER = "The method can only improve upon the adversarial model in the case where ε is larger"


def _clean(trained: str) -> Claim:
    sentence = f"When the smoothing method is applied, clean accuracy directly plunges: {trained}, mean over ρ."
    return Claim(f"clean plunges, {trained}", sentence, _PLACE, lambda rows: plunge(rows, trained), smallest=1.0)


def _at(attack: str, eps: float) -> Claim:
    sentence = f"{_EASILY}: {attack} at ε = {eps:g}, ρ = 1 above ρ = 0."
    column = f"{attack} {eps:g}"
    name = f"natural improves, {attack}, ε {eps:g}"
    return Claim(name, sentence, _PLACE, lambda rows: change(rows, NATURAL, column), smallest=1.0)


def _natural(attack: str) -> tuple[Claim, ...]:
    """Return the paper's claims about the natural model under one attack."""
    mean, last = f"{attack} mean", f"{attack} {EPS[-1]:g}"
    return (
        Claim(
            f"natural improves, {attack}", f"{_EASILY}: {attack}, mean over ε, ρ = 1 above ρ = 0.", _PLACE,
            lambda rows: change(rows, NATURAL, mean), smallest=1.0,
        ),
        *(_at(attack, eps) for eps in EPS),
        Claim(
            f"natural, large ε above small, {attack}", "In particular, the method helps when the perturbation is "
            f"allowed to be relatively large: {attack} on the natural model, what ρ = 1 adds at ε = {EPS[-1]:g} above "
            f"what it adds at {EPS[0]:g}.", _PLACE, lambda rows: more_at_large(rows, NATURAL, attack), smallest=1.0,
        ),
        Claim(
            f"above adversarial, {attack}", f"When ε = {EPS[-1]:g}, the natural model at ρ = 1 even outperforms the "
            f"adversarial one: {attack}.", _PLACE,
            lambda rows: difference(rows, named(NATURAL, 1), named(ADVERSARIAL, 0), last), smallest=1.0,
        ),
    )  # fmt: skip


def _adversarial(attack: str) -> tuple[Claim, ...]:
    """Return the paper's sentence about the adversarial model under one attack, both its halves, and a weaker one."""
    first, last = f"{attack} {EPS[0]:g}", f"{attack} {EPS[-1]:g}"
    return (
        Claim(
            f"adversarial improves at large ε, {attack}", f"{_LARGER}: {attack} at ε = {EPS[-1]:g}, ρ = 1 above ρ = 0.",
            _PLACE, lambda rows: change(rows, ADVERSARIAL, last), smallest=1.0,
        ),
        Claim(
            f"adversarial does not improve at small ε, {attack}", f"{_LARGER}, so not at the smallest: {attack} at "
            f"ε = {EPS[0]:g}, ρ = 1 below ρ = 0. Table 4 itself contradicts it.", _PLACE,
            lambda rows: _negative(change(rows, ADVERSARIAL, first)), smallest=1.0,
        ),
        Claim(
            f"adversarial, large ε above small, {attack}", "Control, weaker than the paper's \"only\", as it holds too "
            f"where smoothing helps at every ε: {attack} on the adversarial model, what ρ = 1 adds at "
            f"ε = {EPS[-1]:g} above what it adds at {EPS[0]:g}.", _PLACE,
            lambda rows: more_at_large(rows, ADVERSARIAL, attack), smallest=1.0,
        ),
    )  # fmt: skip


def _controls(attack: str) -> tuple[Claim, ...]:
    """Return what speaks against arithmetic as the reason, and the second reading of the attack."""
    mean, seen = f"{attack} mean", f"{attack} seen"
    return (
        Claim(
            f"not for the gain, {attack}", "Control, not in the paper: the natural model is improved with the gain "
            f"divided out too: {attack}, mean over ε.", _PLACE,
            lambda rows: change(rows, NATURAL, mean, keep_gain=False), smallest=1.0,
        ),
        Claim(
            f"not for zero gradients, {attack}", "Control, not in the paper: the natural model is improved where "
            f"images without a gradient count as fallen: {attack}, mean over ε.", _PLACE,
            lambda rows: change(rows, NATURAL, seen), smallest=1.0,
        ),
        Claim(
            f"by smallest changes, {attack}", f"{_EASILY}, read off the smallest changes that fool it: {attack}, mean "
            "over ε.", _PLACE, lambda rows: change(rows, NATURAL, mean, protocol=SMALLEST), smallest=1.0,
        ),
    )  # fmt: skip


_COLUMNS = ("clean", *(f"{attack} {eps:g}" for attack in ATTACKS for eps in EPS))
_PRINTED: dict[str, dict[tuple[str, float], tuple[float, ...]]] = {
    "cifar10": {
        (NATURAL, 0.0): (85.6, 10.7, 6.9, 4.4, 0.3, 0.2, 0.2),
        (NATURAL, 0.1): (81.5, 14.9, 10.5, 7.3, 0.9, 0.2, 0.1),
        (NATURAL, 0.25): (74.3, 16.0, 11.0, 7.9, 2.1, 0.5, 0.5),
        (NATURAL, 0.5): (67.4, 17.0, 11.0, 8.3, 3.1, 1.6, 1.4),
        (NATURAL, 1.0): (63.1, 17.1, 14.0, 12.7, 8.6, 7.8, 7.8),
        (ADVERSARIAL, 0.0): (70.7, 43.5, 23.2, 13.7, 40.3, 13.8, 3.8),
        (ADVERSARIAL, 0.1): (69.1, 41.2, 19.2, 10.9, 37.9, 13.0, 4.7),
        (ADVERSARIAL, 0.25): (66.7, 38.5, 17.6, 9.7, 35.2, 11.6, 4.0),
        (ADVERSARIAL, 0.5): (65.3, 36.5, 18.0, 10.6, 33.4, 12.1, 6.2),
        (ADVERSARIAL, 1.0): (63.8, 35.6, 22.3, 18.6, 33.7, 17.5, 13.1),
    },
    "restricted-imagenet": {
        (NATURAL, 0.0): (82.1, 0.4, 0.2, 0.2, 1.0, 1.1, 1.3),
        (NATURAL, 0.1): (81.3, 0.9, 0.5, 0.3, 1.5, 1.0, 0.7),
        (NATURAL, 0.25): (78.6, 1.6, 1.0, 0.8, 2.0, 1.6, 1.2),
        (NATURAL, 0.5): (76.7, 11.9, 11.9, 11.8, 12.7, 12.7, 12.5),
        (NATURAL, 1.0): (76.0, 37.0, 36.8, 36.8, 38.2, 38.2, 37.8),
        (ADVERSARIAL, 0.0): (68.4, 12.2, 3.3, 1.2, 3.4, 3.8, 2.9),
        (ADVERSARIAL, 0.1): (65.1, 13.4, 5.0, 3.0, 4.3, 3.7, 3.3),
        (ADVERSARIAL, 0.25): (61.3, 15.0, 8.0, 7.0, 3.2, 3.1, 1.9),
        (ADVERSARIAL, 0.5): (60.3, 18.9, 12.6, 11.4, 6.0, 4.7, 3.6),
        (ADVERSARIAL, 1.0): (59.0, 24.1, 18.4, 16.4, 8.6, 8.4, 8.1),
    },
}
"""Tables 2 and 4, in percent."""


EXPERIMENT = Experiment(
    title="Smoothing the first layer's kernels after training: accuracy under FGSM and PGD",
    source="high-frequency, tables 2 and 4",
    columns=(
        *(Column(name=name, unit="%") for name in _COLUMNS),
        *(Column(name=f"{attack} seen", unit="%") for attack in ATTACKS),
        Column(name="zero gradient", unit="%"), Column(name="confidence", unit="%"), Column(name="images"),
        Column(name="doubts"), Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    figures=figures,
    claims=(
        _clean(NATURAL),
        _clean(ADVERSARIAL),
        *(claim for attack in ATTACKS for of in (_natural, _adversarial, _controls) for claim in of(attack)),
    ),
    reported={
        f"{named(trained, rho)}, {data}": dict(zip(_COLUMNS, numbers, strict=True))
        for data, table in _PRINTED.items()
        for (trained, rho), numbers in table.items()
    },
    limit=dict(IMAGES),
)  # fmt: skip
