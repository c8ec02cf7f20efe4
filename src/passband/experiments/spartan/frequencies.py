"""Which frequencies SpaRTAN runs on: its bands, its two branches, its robustness, and what channel mixing alone gives.

The paper says that the spatial mixer's branches encode high and low frequencies, by small and by large kernels, and
shows neither's spectrum. Measured here: the mean frequency of what each branch gives (the probe
``activation-spectrum``), over the blocks whose maps have 8 places a side or more; and what the accuracy on low (LFC)
and high frequencies (HFC) loses when the weights of the projection that read one branch are set to 0. The low branch is
made of *dilated* kernels: with zeros between its weights a kernel's response repeats at twice the frequency, so that it
passes the highest frequencies as it passes the lowest. An untrained SpaRTAN stands beside as a control: what a branch
prefers before it has learned anything is the architecture's. (Its layer scales are 1e-5; a branch is read before them.)

A branch that matters more loses more of either kind of frequencies without it. So a third margin adds what low
frequencies lose more without the low branch and what high ones lose more without the high branch, in which that
cancels.

``LFC 8`` is the accuracy on images of which the frequencies up to radius 8 are kept, ``HFC 4`` on what lies above 4;
copies are not rescaled. PGD takes 20 steps of ε/4 from a random start. ``learned`` says which mixers were. The peers
have about as many parameters below full scale, and more there. All columns speak of the same images.

**Source**: spartan, sections III-A and III-B; the measurements are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from passband.core.claims import Claim, Rows
from passband.core.results import Cell, Column
from passband.core.scale import Scale
from passband.experiments.margins import difference, value
from passband.experiments.protocol import Case, Experiment, Measured
from passband.experiments.scores import finite
from passband.experiments.spartan.settings import PEERS, SEEDS, SETS, SPARTAN, UNTRAINED, subject_of
from passband.models.spatial_mixers import SpatialMixer
from passband.models.wrap import Classifier
from passband.sweeps.lab import Lab
from passband.sweeps.resolve import Subject
from passband.train.run import Run

CHANNELS = "SpaRTAN, channels"
BRANCHES = ("high", "low")
LFC, HFC = "LFC 8", "HFC 4"
ATTACKS = {f"{name} {eps}/255": (key, eps) for name, key in (("FGSM", "fgsm"), ("PGD", "pgd")) for eps in (1, 2)}
APART = "high less low"
_PLACES = 8
"""Least side of a map whose spectrum is measured."""


def cases(scale: Scale) -> list[Case]:
    """List SpaRTAN, SpaRTAN with channel mixing alone learned and untrained, and its peers."""
    return [
        {"case": name, "data": data, "seed": seed}
        for seed in SEEDS[scale]
        for data in SETS[scale]
        for name in (SPARTAN, CHANNELS, UNTRAINED, *(PEERS[:1] if scale is Scale.SMOKE else PEERS))
    ]


def measure(case: Case, lab: Lab) -> Measured:
    """Train one network, probe its bands and its branches, and attack it."""
    name = case["case"]
    fields: dict[str, Any] = {"learn": "channels"} if name == CHANNELS else {}
    run, subject = subject_of(case, lab, **fields)
    row: dict[str, Cell] = {"parameters": run.metrics["parameters"], "learned": run.recipe.learn, "run": run.digest}
    if name == UNTRAINED:
        samples = _branches(subject, run, lab)
        return Measured(row | {"learned": "nothing"} | _means(samples), samples=samples)
    verdicts = _bands(subject, run, lab) | _attacked(run, lab)
    samples = {}
    if name not in PEERS:
        samples = _branches(subject, run, lab)
        for branch in BRANCHES:
            cut = _bands(lab.edited(run, _without(branch)), run, lab)
            verdicts |= {f"{column} without {branch}": right for column, right in cut.items()}
    row |= {column: 100 * float(right.mean()) for column, right in verdicts.items()}
    return Measured(row | _means(samples), verdicts=verdicts, samples=samples)


def _means(samples: dict[str, np.ndarray]) -> dict[str, Cell]:
    return {column: float(scores.mean()) for column, scores in samples.items()}


def _bands(asked: Subject, run: Run, lab: Lab) -> dict[str, np.ndarray]:
    """Return per image whether the answer to the whole image and to its parts is right, 0 or 1, by column."""
    found = lab.ask(asked, run, "bands", {"radii": (4, 8), "rescale": "none", "examples": 0})
    parts = found["bands.accuracy"].arrays
    right = {
        "clean": found["bands.clean"].arrays["correct"],
        LFC: parts["LFC.correct"][1],
        HFC: parts["HFC.correct"][0],
    }
    return {column: one.astype(float) for column, one in right.items()}


def _attacked(run: Run, lab: Lab) -> dict[str, np.ndarray]:
    options = {"eps": (1 / 255, 2 / 255), "attacks": ("fgsm", "pgd"), "examples": 0}
    arrays = lab.probe(run, "robustness", options)["robustness.accuracy"].arrays
    return {column: arrays[key][eps].astype(float) for column, (key, eps) in ATTACKS.items()}


def _branches(asked: Subject, run: Run, lab: Lab) -> dict[str, np.ndarray]:
    """Return the mean frequency of each branch, over blocks, per image, and how far they lie apart."""
    side = run.recipe.data.size
    inner: Any = asked.model.inner
    places = [place for place, one in enumerate(inner.feature_info) if side // one["reduction"] >= _PLACES]
    mixers = [
        name for name, one in asked.model.named_modules()
        if isinstance(one, SpatialMixer) and int(name.split(".")[2]) in places
    ]  # fmt: skip
    samples, count = {}, lab.images(asked, run).count
    for branch in BRANCHES:
        options = {"layers": tuple(f"{name}.{branch}" for name in mixers), "count": count}
        arrays = lab.ask(asked, run, "activation-spectrum", options)["activation_spectrum.centroid"].arrays
        # The probe draws its images in an order of its own; verdicts are in that of the batches.
        scores = arrays["centroid"][:, np.argsort(arrays["images"])]
        samples[f"{branch} branch"] = np.mean([finite(one) for one in scores], axis=0)
    return samples | {APART: samples["high branch"] - samples["low branch"]}


def _without(branch: str) -> Callable[[Classifier], str]:
    """Return the edit that has every spatial mixer's projection read one branch alone."""

    def edit(model: Classifier) -> str:
        for mixer in model.modules():
            if isinstance(mixer, SpatialMixer):
                high, low = mixer.project.weight.data.chunk(2, 1)
                (high if branch == "high" else low).zero_()
        return f"without the {branch} branch"

    return edit


def rests_on(rows: Rows, column: str, branch: str, other: str) -> float | None:
    """Return by how much more of a column is lost without one branch than without the other, in points."""
    kept, lost = (value(rows, SPARTAN, f"{column} without {name}") for name in (other, branch))
    return None if kept is None or lost is None else kept - lost


def each_its_own(rows: Rows) -> float | None:
    """Return by how much more each branch matters to its own frequencies, summed over both, in points.

    What a branch matters in all, to low and high frequencies alike, cancels.
    """
    low, high = rests_on(rows, LFC, "low", "high"), rests_on(rows, HFC, "high", "low")
    return None if low is None or high is None else low + high


_PLACE = "spartan, section III-B"
_OWN, _OURS = "Control, not in the paper:", "this project's own"


def _apart(case: str, name: str, sentence: str, place: str = _PLACE) -> Claim:
    return Claim(
        name, sentence, place, lambda rows: value(rows, case, APART), unit="cycles per pixel", smallest=0.01,
    )  # fmt: skip


def _against(rival: str, column: str, what: str) -> Claim:
    return Claim(
        f"SpaRTAN above {rival}, {column}",
        f"{_OWN} {what} ({column}, against {rival}).",
        _OURS, lambda rows: difference(rows, SPARTAN, rival, column), smallest=1.0,
    )  # fmt: skip


EXPERIMENT = Experiment(
    title="Frequencies that SpaRTAN runs on: bands, branches, attacks",
    source="spartan, section III",
    columns=(
        Column(name="parameters"), Column(name="learned"),
        *(Column(name=name, unit="%") for name in ("clean", LFC, HFC, *ATTACKS)),
        *(Column(name=f"{column} without {branch}", unit="%") for branch in BRANCHES for column in ("clean", LFC, HFC)),
        *(Column(name=name, unit="cycles per pixel") for name in ("high branch", "low branch", APART)),
        Column(name="run"),
    ),
    cases=cases,
    measure=measure,
    claims=(
        _apart(
            SPARTAN, "high branch lies higher",
            "A 2-branch architecture encodes low- and high-frequency components with large and small kernels (the mean "
            "frequency of what the high branch gives lies above the low branch's).",
        ),
        _apart(
            UNTRAINED, "high branch lies higher, untrained",
            f"{_OWN} before any training, too, the high branch gives higher frequencies than the low one.",
            _OURS,
        ),
        Claim(
            "low frequencies rest on the low branch",
            "The low branch extracts low-frequency components (the accuracy on low frequencies loses more without it "
            "than without the high branch; a branch that matters more in all does so, too).",
            _PLACE, lambda rows: rests_on(rows, LFC, "low", "high"), smallest=1.0,
        ),
        Claim(
            "high frequencies rest on the high branch",
            "The high branch extracts high-frequency components (the accuracy on high frequencies loses more without "
            "it than without the low branch; a branch that matters more in all does so, too).",
            _PLACE, lambda rows: rests_on(rows, HFC, "high", "low"), smallest=1.0,
        ),
        Claim(
            "each branch matters more to its own frequencies",
            "A 2-branch architecture encodes low- and high-frequency components (each branch matters more to its own "
            "frequencies, whatever it matters in all: both margins above, added).",
            _PLACE, each_its_own, smallest=1.0,
        ),
        *(_against(rival, LFC, "SpaRTAN is more accurate on low frequencies alone") for rival in PEERS),
        *(_against(rival, HFC, "SpaRTAN is more accurate on high frequencies alone") for rival in PEERS),
        *(_against(rival, "PGD 1/255", "SpaRTAN is more robust") for rival in PEERS),
        Claim(
            "channels more robust",
            "Channels-only models are more naturally robust (here SpaRTAN, PGD).",
            "spatial-mixing, section 4.3.2", lambda rows: difference(rows, CHANNELS, SPARTAN, "PGD 1/255"),
            smallest=1.0,
        ),
    ),
    limit={Scale.SMOKE: 16, Scale.SMALL: 2000, Scale.FULL: 5000},
)  # fmt: skip
