"""How alike a model's layers see images: linear CKA of every pair of layers, of one model or of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, get_args

import numpy as np
from torch import Tensor, nn

from passband.attacks.registry import Attack
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Axis, Map, Result, Scalar
from passband.data.dataset import Batches
from passband.models.fast import fast
from passband.models.state import frozen, uses_batch_statistics
from passband.probes.attacked import attack_named, attacked, check_attackable
from passband.probes.cka import LEAST, Estimator, cka, hsic, leanings, shares
from passband.probes.grams import centered_grams, layers_of
from passband.probes.kept import Arrays, Part, Pieces, kept
from passband.probes.registry import PROBES

_LOOK = 3
"""Images on which it is found out which layers a model calls."""


@PROBES.register("similarity")
def similarity(
    model: nn.Module,
    batches: Batches,
    *,
    layers: tuple[str, ...] | None = None,
    estimator: Estimator = "unbiased",
    attack: str | None = None,
    preset: str = "adversarial-focus",
    eps: float = 8 / 255,
    steps: int | None = None,
    alpha: float | None = None,
    seed: int = 0,
    batch: int = 256,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure linear CKA between all layers of a model, and how alike its shallow and its deep ones are.

    HSIC is summed over batches. The images are cut into the fewest batches of at most ``batch``, all of one size but
    for one image, whatever batches they came in; where images are so few that some would be too small for the
    estimator, into fewer and larger ones. Gram matrices are made as each layer runs and its features are not kept.
    Two models are compared by :func:`compare`, since a second model is no option of a command.

    Args:
        model: Images in [0, 1] in; left as it was found.
        batches: The images; their targets are read by attacks alone.
        layers: Names in ``named_modules()`` of the network; None is every convolution and every linear layer, those of
            squeeze-and-excite too. What gives several outputs in one pass counts with all of them side by side.
        estimator: Of HSIC: ``"unbiased"``, or ``"biased"``, which is too high the fewer images there are in a batch.
        attack: An attack by name, whose images are measured in place of the clean ones.
        preset: A paper's PGD, as in the probe `robustness`.
        eps: Radius of the ball, pixels in [0, 1].
        steps: Steps of the attack in place of its own.
        alpha: Size of a step, pixels in [0, 1]; None keeps the attack's share of ε.
        seed: Of all that is random in the attack.
        batch: Images in a batch: its Gram matrices, [batch, batch], are what is held in memory.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``similarity.cka``: Map, layer by layer, in the order in which the model calls them. The unbiased estimate can
        lie a little below 0. A layer that gives the same for every image has no CKA: NaN in the map. ``arrays`` hold
        HSIC by batch: ``hsic`` [batch, layer, layer], ``first`` and ``second`` [batch, layer] with itself.
        ``similarity.shallow_deep``: Scalar, the mean CKA of the first third of the layers with the last third (as many
        as go into the number of layers three times; one of two), with a normal 95% interval over images. Its
        ``arrays["influence"]`` [image] has it as mean and tells how it would move with the images drawn anew.

    Raises:
        NotApplicable: when the model has no such layer, or normalizes by each batch.
        PassbandError: for unknown names, too few images, and layers that give NaN.

    **Source**: adversarial-focus, section 3.1.3 and figures 6 and 7; Nguyen et al., *Do wide and deep networks learn
    the same things?* (2020), section 3, for HSIC by minibatches.
    **Differs**: the paper does not say how it estimates CKA, and draws the shallow-deep similarity without a number.
    """
    _check(batches, estimator, batch, model)
    chosen = _attack(model, batches, attack, preset=preset, eps=eps, steps=steps, alpha=alpha, seed=seed)
    found = _measured((model,), (layers,), batches, estimator, chosen, batch, resume)
    return (_map(found, "Linear CKA between layers"), _shallow_deep(found))


def compare(
    model: nn.Module,
    other: nn.Module,
    batches: Batches,
    *,
    layers: tuple[str, ...] | None = None,
    other_layers: tuple[str, ...] | None = None,
    estimator: Estimator = "unbiased",
    attack: str | None = None,
    preset: str = "adversarial-focus",
    eps: float = 8 / 255,
    steps: int | None = None,
    alpha: float | None = None,
    seed: int = 0,
    batch: int = 256,
) -> tuple[Result, ...]:
    """Measure linear CKA between the layers of two models on the same images, as :func:`similarity` does within one.

    Args:
        model: Images in [0, 1] in; left as it was found. Attacks are made against it.
        other: Another one, on the same device, that takes the same images.
        batches: The images.
        layers: Of the model.
        other_layers: Of the other one; None is every convolution and every linear layer.
        estimator: As in :func:`similarity`, like all that follows.
        attack: As there.
        preset: As there.
        eps: As there.
        steps: As there.
        alpha: As there.
        seed: As there.
        batch: As there.

    Returns:
        ``similarity.cka``: Map, a row for each layer of the model and a column for each of the other, whose names stand
        in ``how["other_layers"]``.

    Raises:
        PassbandError: as :func:`similarity`.
    """
    _check(batches, estimator, batch, model, other)
    chosen = _attack(model, batches, attack, preset=preset, eps=eps, steps=steps, alpha=alpha, seed=seed)
    found = _measured((model, other), (layers, other_layers), batches, estimator, chosen, batch)
    return (_map(found, "Linear CKA between the layers of two models"),)


def _check(batches: Batches, estimator: Estimator, batch: int, *models: nn.Module) -> None:
    if estimator not in get_args(Estimator):
        raise unknown("estimator of HSIC", estimator, get_args(Estimator))
    least = LEAST[estimator]
    if batch < least:
        raise PassbandError(f"{estimator} HSIC needs batches of {least} images or more; got batch={batch}")
    if batches.count < least:
        cure = ", or take estimator=biased" if batches.count >= LEAST["biased"] else ""
        raise PassbandError(f"{estimator} HSIC needs {least} images or more; got {batches.count}: give more{cure}")
    if any(uses_batch_statistics(model) for model in models):
        raise NotApplicable("similarity needs features that do not depend on the batch; this model normalizes by each")


def _attack(model: nn.Module, batches: Batches, name: str | None, **options: Any) -> Attack | None:
    if name is None:
        return None
    check_attackable(model, batches, "similarity")
    return attack_named(name, **options)


@dataclass
class _Found:
    """Hold what was summed up, batch by batch: HSIC of pairs, of each layer with itself, and each image's part of it.

    Attributes:
        rows: Names of the layers.
        columns: Names of the other model's layers, or the same ones.
        how: What is said of it.
        third: How many layers are shallow, and how many deep.
        cross: [layer, other] by batch.
        first: [layer] by batch.
        second: [other] by batch.
        pairs: How HSIC of shallow and deep layers leans on each image, [third, third, image] by batch.
        shallow: How a shallow layer's own HSIC does, [third, image] by batch.
        deep: How a deep one's does.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    how: dict[str, Any]
    third: int
    cross: list[np.ndarray] = field(default_factory=list)
    first: list[np.ndarray] = field(default_factory=list)
    second: list[np.ndarray] = field(default_factory=list)
    pairs: list[np.ndarray] = field(default_factory=list)
    shallow: list[np.ndarray] = field(default_factory=list)
    deep: list[np.ndarray] = field(default_factory=list)

    def add(self, batch: Arrays) -> None:
        """Take in what :func:`_summed` gave for a batch."""
        for name, sums in batch.items():
            getattr(self, name).append(sums)

    def values(self) -> np.ndarray:
        """CKA [layer, other]."""
        return cka(sum(self.cross), sum(self.first), sum(self.second))  # type: ignore[arg-type]


def _measured(
    models: tuple[nn.Module, ...],
    named: tuple[Sequence[str] | None, ...],
    batches: Batches,
    estimator: Estimator,
    attack: Attack | None,
    batch: int,
    resume: Path | None = None,
) -> _Found:
    look = next(iter(batches.cut(_LOOK)))[0]
    how: dict[str, Any] = {"probe": "similarity", "estimator": estimator, "images": batches.count}
    target = models[0]
    if attack is not None:
        quick = fast(models[0], look)
        target, how = quick.module, how | {"attack": str(attack), "speed": quick.how}
    with frozen(models[0]), frozen(models[-1]):
        chosen = [layers_of(model, names, look) for model, names in zip(models, named, strict=True)]
        layers, others = chosen[0][0], chosen[-1][0]
        parts = _cut(batches.count, batch, LEAST[estimator])
        how |= {"left_out": [name for _, missing in chosen for name in missing], "batches": list(map(len, parts))}
        found = _Found(tuple(layers), tuple(others), how, len(layers) // 3 or len(layers) // 2)

        def of_batch(part: Part) -> Arrays:
            ((images, targets),) = part.batches
            seen = images if attack is None else attacked(target, attack, images, targets)
            grams = centered_grams(models[0], layers, seen, estimator)
            same = grams if len(models) == 1 else centered_grams(models[1], others, seen, estimator)
            return _summed(grams, same, found.third)

        pieces = Pieces.of(resume, models[0], look, ("similarity", tuple(layers), estimator, attack))
        cut = map(partial(Part.of, batches), track(parts, "similarity"))
        for sums in kept(pieces, ((part.mark, partial(of_batch, part)) for part in cut)):
            found.add(sums)
    return found


def _summed(grams: Tensor, others: Tensor, third: int) -> Arrays:
    """Return a batch's sums by field of `_Found`, from centered Gram matrices of the layers and of the other ones."""
    first = grams.square().sum((1, 2)).numpy()
    sums = {"cross": hsic(grams, others).numpy(), "first": first}
    sums["second"] = first if others is grams else others.square().sum((1, 2)).numpy()
    if others is grams and third:
        shallow, deep = grams[:third], grams[-third:]
        sums["pairs"] = leanings(shares(shallow, deep)).numpy()
        sums["shallow"] = leanings(shallow.square().sum(2)).numpy()
        sums["deep"] = leanings(deep.square().sum(2)).numpy()
    return sums


def _cut(count: int, batch: int, least: int) -> list[np.ndarray]:
    """Return the places of the images of each batch: as few batches as go, as even as they go, none below ``least``."""
    return np.array_split(np.arange(count), min(-(-count // batch), count // least))


def _notes(found: _Found) -> list[str]:
    sizes, values = found.how["batches"], found.values()
    span = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} or {max(sizes)}"
    images = f"{span} {'attacked' if 'attack' in found.how else 'untouched'} images"
    several = f"{len(sizes)} batches of {images}" if len(sizes) > 1 else f"one batch of {images}"
    notes = [
        f"Linear CKA with the {found.how['estimator']} HSIC, summed over {several}.",
        "Layers stand in the order in which the model calls them, the first at the top and at the left.",
    ]
    if found.how["left_out"]:
        names = ", ".join(found.how["left_out"])
        notes.append(f"Left out, being not called or without a row for each image: {names}.")
    constant = [name for name, row in zip(found.rows, values, strict=True) if np.isnan(row).all()]
    constant += [name for name, column in zip(found.columns, values.T, strict=True) if np.isnan(column).all()]
    if constant:
        names = ", ".join(dict.fromkeys(constant))
        notes.append(f"The same for every image, so that CKA is undefined: {names}.")
    return notes


def _map(found: _Found, title: str) -> Map:
    return Map(
        name="similarity.cka",
        title=title,
        how=found.how | {"layers": found.rows, "other_layers": found.columns},
        notes=tuple(_notes(found)),
        arrays={"hsic": np.stack(found.cross), "first": np.stack(found.first), "second": np.stack(found.second)},
        # Numbers: side by side, names of modules run into each other.
        x=Axis(name="layer", values=tuple(range(1, len(found.columns) + 1))),
        y=Axis(name="layer", values=found.rows),
        values=found.values(),
        unit="CKA",
    )


def _shallow_deep(found: _Found) -> Scalar:
    third, notes = found.third, _notes(found)
    notes.append(
        f"The mean CKA of the first {third} of {len(found.rows)} layers with the last {third}; the interval is over "
        "images, to first order."
        if third
        else "A single layer has no shallow and no deep part."
    )
    values = found.values()[:third, -third:] if third else np.empty((0, 0))
    known = np.isfinite(values)
    scalar = Scalar(
        name="similarity.shallow_deep",
        title="Similarity of shallow and deep layers",
        how=found.how | {"shallow": found.rows[:third], "deep": found.rows[len(found.rows) - third :]},
        notes=tuple(notes),
        value=float(values[known].mean()) if known.any() else None,
        n=found.how["images"],
        unit="CKA",
    )
    if scalar.value is None:
        return scalar
    influence = scalar.value + _moves(found, values)[known].mean(0) * found.how["images"]
    half = NormalDist().inv_cdf(0.975) * float(influence.std(ddof=1)) / len(influence) ** 0.5
    ends = {"low": scalar.value - half, "high": scalar.value + half}
    return scalar.model_copy(update={"arrays": {"influence": influence}, **ends})


def _moves(found: _Found, values: np.ndarray) -> np.ndarray:
    """Return how CKA of each shallow and deep layer moves with an image that is there once more, [third, third, image].

    CKA is c / √(a b): its change is that of c over the root, less half of CKA times the relative changes of a and b.
    """
    own = np.sum(found.first, axis=0)
    shallow, deep = own[: found.third, None, None], own[None, -found.third :, None]
    pairs, first, second = (np.concatenate(parts, -1) for parts in (found.pairs, found.shallow, found.deep))
    with np.errstate(divide="ignore", invalid="ignore"):  # where a layer is constant, and left out by the caller
        changes = first[:, None] / shallow + second[None] / deep
        return np.asarray(pairs / np.sqrt(shallow * deep) - values[:, :, None] / 2 * changes)
