"""Multi-order interactions: what two patches do together that neither does alone, by how much else is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from passband.attacks.packing import chunks
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Result
from passband.data.dataset import Batches, permutation
from passband.models.fast import Precision, fast
from passband.models.state import exact, untouched, uses_batch_statistics
from passband.models.wrap import Classifier
from passband.probes.interaction_players import (
    SIGNS,
    draw_contexts,
    draw_pairs,
    exhausted,
    masked,
    orders,
    patches,
    with_pair,
)
from passband.probes.interaction_strength import results
from passband.probes.kept import Arrays, Part, Pieces, by_part
from passband.probes.registry import PROBES
from passband.tasks.classification import check_targets, correct, predict

Preset = Literal["quick", "deng2022", "moganet"]
Value = Literal["log-odds", "log-probability", "logit"]
LARGE = 64
"""Shorter side in pixels above which ``quick`` asks about fewer images."""
_PIXELS = {"cpu": 2**16, "cuda": 2**22}
"""Pixels that go through a model at a time: 64 images of 32×32 on a CPU."""


@dataclass(frozen=True)
class Sampling:
    """Say what is drawn.

    Attributes:
        grid: Patches a side.
        count: Images.
        pairs: Of patches, for each image.
        contexts: For each pair and order.
    """

    grid: int
    count: int
    pairs: int
    contexts: int


SMALL = Sampling(8, 20, 20, 20)
"""The preset ``quick`` up to `LARGE`."""
PRESETS: dict[Preset, Sampling] = {
    "quick": Sampling(14, 5, 8, 8),
    "deng2022": Sampling(16, 50, 200, 100),
    "moganet": Sampling(14, 100, 50, 50),
}


@PROBES.register("interactions")
def interactions(
    model: nn.Module,
    batches: Batches,
    *,
    preset: Preset = "quick",
    grid: int | None = None,
    count: int | None = None,
    pairs: int | None = None,
    contexts: int | None = None,
    value: Value = "log-odds",
    baseline: tuple[float, ...] | None = None,
    seed: int = 0,
    resume: Path | None = None,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Measure how strongly pairs of near patches interact, by the number of other patches seen (the order).

    With v what a model makes of the patches that are left, the interaction of i and j in a context S is
    ``v(S ∪ {i, j}) − v(S ∪ {i}) − v(S ∪ {j}) + v(S)``. Its mean over contexts of one size, then its absolute value, is
    the strength of a pair; the mean over pairs and images, divided by the mean over the orders, is the curve, whose
    mean is 1. Patches that are taken away get the pixel that the model's normalization turns into zero: the mean of its
    :class:`~passband.models.wrap.Classifier`; black for a model without one, which normalizes inside or not at all.

    **The floor**: the absolute mean of few noisy terms is above zero without any interaction, by σ·√(2/πK) for K
    contexts, except at both ends, which have one context and no noise. So few contexts lift the middle orders. The
    floor is half the absolute difference between the means of the two halves of the contexts. The corrected strength is
    ``√(strength² − floor²)``: exact where interactions and noise are normal and vary alike from pair to pair; too large
    where their spread differs from pair to pair, or where the difference is clipped at 0; too small, by up to a fifth,
    where interactions are nearly of one size. Curves of several models need equal options.

    Pairs and contexts belong to an image's name and the seed: all models meet the same ones, whatever their input size.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and the class that v speaks of: the label, or the model's own prediction.
        preset: ``"quick"``: up to 64 pixels a side 20 images with 20 pairs and 20 contexts on a grid of 8×8 (355,200
            answers), above 5, 8, 8 on 14×14 (14,400). ``"deng2022"``: 50, 200, 100 on 16×16 (44 million).
            ``"moganet"``: 100, 50, 50 on 14×14 (11 million).
        grid: Patches a side, in place of the preset's; 2 to the shorter side in pixels. One that does not divide a side
            gives patches that differ by a pixel.
        count: Images, the first of one fixed permutation; all where there are fewer.
        pairs: Of each image.
        contexts: Of each pair and order, 2 or more; all contexts where there are no more.
        value: v: ``"log-odds"``, log(p / (1 − p)) of the class; ``"log-probability"``, log p; or its ``"logit"``.
        baseline: The pixel of patches that are taken away, one number or one per channel, in place of the mean.
        seed: Of pairs and contexts.
        resume: A folder where each image's numbers are kept until all is finished; None keeps nothing.
        precision: ``"bf16"`` is refused: it rounds away what four nearly equal answers differ by.

    Returns:
        ``interactions.strength``: Curve over the order, in parts of all other players: the strength with its interval,
        the floor in the same unit, and the corrected strength, divided by its own mean. ``arrays`` hold ``orders``;
        per image and order ``strength`` and ``floor``, not divided; ``mean`` and ``half`` [image, pair, order], with
        their signs; ``pairs`` [image, pair, 2]; per image ``index`` and ``correct``.
        ``interactions.middle`` and ``interactions.middle_corrected``: Scalars, what of the strength lies at orders 0.3
        to 0.7. ``interactions.mean``: Scalar, the mean strength that the curve was divided by.

    Raises:
        NotApplicable: for a model that normalizes by each batch.
        PassbandError: for options out of range, nothing to speak of, or a model that rules classes out.

    **Source**: Deng et al., *Discovering and explaining the representation bottleneck of DNNs* (2022); what they leave
    open as in their code, and in MogaNet's for ImageNet. spartan, figure 1a, gives no settings.
    **Differs**: Deng et al. ask about images answered rightly alone (``correct`` tells); both ends ask about their one
    context once; floor and correction are ours; seeds are ours.
    """
    batches.measure  # noqa: B018  refuses targets that say nothing, before any work
    _check_model(model, precision)
    height, width = batches.dataset.size
    asked = _sampling(preset, min(height, width), {"grid": grid, "count": count, "pairs": pairs, "contexts": contexts})
    if value not in get_args(Value):
        raise unknown("value of interactions", value, get_args(Value))
    chosen = permutation(batches.count, min(asked.count, batches.count), 0)
    images = batches.subset(chosen)
    with untouched(model), exact():
        sample, _ = next(iter(images.cut(16)))
        pixel = _baseline(model, sample, baseline)
        right = np.concatenate([_right(model, x, targets, value) for x, targets in images])
        form = fast(model, sample)
        pieces = Pieces.of(resume, model, sample, ("interactions", asked, value, pixel.flatten().tolist(), seed))
        found = measured(form.module, images, asked, value=value, baseline=pixel, seed=seed, pieces=pieces)
    how: dict[str, Any] = {
        "probe": "interactions", "preset": preset, **asdict(asked), "count": images.count,
        "orders": list(orders(asked.grid)), "value": value, "baseline": pixel.flatten().tolist(), "seed": seed,
        "speed": form.how,
    }  # fmt: skip
    return results(found | {"index": chosen, "correct": right}, how, _notes(asked, (height, width), how))


def measured(
    form: nn.Module,
    batches: Batches,
    asked: Sampling,
    *,
    value: Value,
    baseline: Float[Tensor, "channel 1 1"],
    seed: int,
    pieces: Pieces | None = None,
) -> Arrays:
    """Return the mean interaction of each image, pair and order, and half of what its two halves differ by.

    Images go through the model one by one, each with all its pairs, order by order.

    Args:
        form: Images in [0, 1] in, logits out, in evaluation mode.
        batches: The images and their classes.
        asked: What is drawn.
        value: What v is.
        baseline: The pixel of patches that are taken away.
        seed: Of pairs and contexts.
        pieces: Where each image's numbers are kept when it is finished; None keeps nothing.

    Returns:
        ``mean`` and ``half`` float64 [image, pair, order]; ``pairs`` int64 [image, pair, 2].

    Raises:
        PassbandError: when the model gives NaN, or rules a class out.
    """
    where = patches(asked.grid, *batches.dataset.size).to(batches.device)

    def of_image(part: Part) -> Arrays:
        ((images, targets),) = part.batches
        ask = partial(_values, form, images[0], int(targets[0]), value, where, baseline)
        return _of_image(ask, asked, part.batches.dataset.ids[0], seed)

    found = by_part(pieces or Pieces(), "image", batches.cut(1), of_image, "interactions", 1)
    return {key: np.stack([one[key] for one in found]) for key in found[0]}


def _of_image(
    ask: Callable[[Bool[Tensor, "row player"]], Float[Tensor, " row"]], asked: Sampling, name: str, seed: int
) -> Arrays:
    pairs = draw_pairs(asked.grid, asked.pairs, name, seed)
    means, halves = [], []
    for order in track(orders(asked.grid), "orders"):
        terms = [
            with_pair(draw_contexts(asked.grid, (i, j), order, asked.contexts, name, seed), (i, j))
            for i, j in pairs.tolist()
        ]
        values = ask(torch.from_numpy(np.concatenate(terms)).flatten(0, 1))
        deltas = (values.view(len(pairs), -1, len(SIGNS)) * values.new_tensor(SIGNS)).sum(2)
        if not bool(deltas.isfinite().all()):
            raise PassbandError("interactions need finite logits: this model rules classes out; use one that does not")
        means.append(deltas.mean(1))
        halves.append(_half(deltas, exhausted(asked.grid, order, asked.contexts)))
    return {
        "pairs": pairs,
        "mean": torch.stack(means, 1).numpy(),
        "half": torch.stack(halves, 1).numpy(),
    }


def _half(deltas: Float[Tensor, "pair context"], exhausted: bool) -> Float[Tensor, " pair"]:
    """Return the difference of two halves' means, so scaled that it varies as the mean of all does by its noise."""
    count = deltas.shape[1]
    if exhausted:
        return deltas.new_zeros(len(deltas))
    first = count // 2
    apart = deltas[:, :first].mean(1) - deltas[:, first:].mean(1)
    return apart * (math.sqrt(first * (count - first)) / count)


def _values(
    form: nn.Module,
    image: Float[Tensor, "channel height width"],
    target: int,
    value: Value,
    where: Int[Tensor, "height width"],
    baseline: Float[Tensor, "channel 1 1"],
    present: Bool[Tensor, "row player"],
) -> Float[Tensor, " row"]:
    """Return v of an image with some of its patches, float64 on the CPU."""
    rows = max(8, _PIXELS["cpu" if image.device.type == "cpu" else "cuda"] // where.numel())
    return torch.cat(
        [
            worth(predict(form, masked(image, present[chunk].to(image.device), where, baseline)), target, value)
            for chunk in chunks(len(present), rows)
        ]
    )


def worth(logits: Float[Tensor, "row class"], target: int, value: Value) -> Float[Tensor, " row"]:
    """Return v: what a class has in each row of logits, float64 on the CPU.

    Args:
        logits: As the model gave them.
        target: The class.
        value: As the probe's option.
    """
    logits = logits.cpu().double()
    own: Tensor = logits[:, target]
    if value == "logit":
        return own
    if value == "log-probability":
        return own - logits.logsumexp(1)
    others = torch.cat((logits[:, :target], logits[:, target + 1 :]), 1)
    return own - others.logsumexp(1)


def _check_model(model: nn.Module, precision: Precision) -> None:
    if uses_batch_statistics(model):
        raise NotApplicable("interactions need answers that do not depend on the batch; this model normalizes by each")
    if precision != "float32":
        raise PassbandError(f"interactions are measured in float32; got precision '{precision}': leave it out")


def _sampling(preset: Preset, side: int, given: dict[str, int | None]) -> Sampling:
    """Return the preset's numbers with those that were given in their place."""
    if preset not in PRESETS:
        raise unknown("preset of interactions", preset, PRESETS)
    usual = SMALL if preset == "quick" and side <= LARGE else PRESETS[preset]
    asked = replace(usual, **{name: number for name, number in given.items() if number is not None})
    for name, least in (("grid", 2), ("count", 1), ("pairs", 1), ("contexts", 2)):
        if getattr(asked, name) < least:
            raise PassbandError(f"probe interactions: {name} is {least} or more; got {getattr(asked, name)}")
    if asked.grid > side:
        raise PassbandError(
            f"probe interactions: a patch holds a pixel or more; got a grid of {asked.grid} for {side} pixels: give a "
            "smaller grid"
        )
    return asked


def _baseline(model: nn.Module, sample: Tensor, given: tuple[float, ...] | None) -> Float[Tensor, "channel 1 1"]:
    """Return the pixel of patches that are taken away."""
    channels = sample.shape[1]
    if given is not None:
        if len(given) not in (1, channels) or not np.isfinite(given).all():
            raise PassbandError(f"probe interactions: baseline is 1 or {channels} finite numbers; got {given}")
        return sample.new_tensor(given).expand(channels).reshape(channels, 1, 1)
    if isinstance(model, Classifier) and model.mean is not None:
        return model.mean.detach().to(sample).reshape(channels, 1, 1)
    return sample.new_zeros(channels, 1, 1)


def _right(model: nn.Module, images: Tensor, targets: Tensor, value: Value) -> np.ndarray:
    logits = predict(model, images)
    check_targets(targets, logits.shape[1])
    if logits.shape[1] < 2 and value == "log-odds":
        raise PassbandError("log-odds need two classes or more; this model has 1: use value=logit")
    return correct(logits, targets).cpu().numpy()


def _notes(asked: Sampling, size: tuple[int, int], how: dict[str, Any]) -> tuple[str, ...]:
    shown = ", ".join(f"{number:.3g}" for number in how["baseline"])
    notes = [
        f"{how['count']} images, {asked.pairs} pairs each, {asked.contexts} contexts for each pair and order (one at "
        f"both ends), a grid of {asked.grid}×{asked.grid}. Patches taken away get the pixel ({shown}).",
        "The floor is what the strength would be without any interaction, from chance among so few contexts. Compare "
        "models at equal numbers alone.",
    ]
    if any(side % asked.grid for side in size):
        notes.append(f"{asked.grid} patches do not divide {size[0]}×{size[1]} pixels: some hold a row or column more.")
    return tuple(notes)
