"""How much of a layer's activations is its mean: the low-to-high ratio R."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations

from passband.attacks.packing import chunks, working_size
from passband.attacks.registry import Attack
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.results import Axis, Curve, Result, Series
from passband.data.dataset import Batches, permutation
from passband.frequency.spectrum import low_to_high
from passband.models.fold import count_norms
from passband.models.layers import SeparableConv2d
from passband.models.state import batch_statistics, exact, untouched, uses_batch_statistics
from passband.models.watch import watched
from passband.probes.attacked import attack_named, attacked, check_attackable
from passband.probes.kept import Arrays, Part, Pieces, joined, kept
from passband.probes.means import mean_of
from passband.probes.registry import PROBES
from passband.weights.first import is_spatial, no_convolution

Statistics = Literal["running", "batch"]
SPATIAL, CHANNEL = "spatial", "channel"
CLEAN = "clean"
_NO_ACTIVATION = (
    nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax,
)  # fmt: skip
"""What torch files under activations and is none of a layer's."""
_CHUNK = 32
"""Images whose ratio is computed at a time, in float64."""


@PROBES.register("activations")
def activations(
    model: nn.Module,
    batches: Batches,
    *,
    layers: tuple[str, ...] | None = None,
    statistics: tuple[Statistics, ...] = ("running",),
    attack: str | None = None,
    preset: str = "adversarial-focus",
    eps: float = 8 / 255,
    steps: int | None = None,
    alpha: float | None = None,
    seed: int = 0,
    count: int = 512,
    batch: int = 512,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure the ratio of a layer's low- to its high-frequency information, R = ‖LFI‖ / ‖HFI‖, image by image.

    LFI is the mean of an activation (its DC part) at every place, HFI the activation less that, norms are Frobenius'.
    The mean is over positions, each channel by itself (``spatial``), and beside it over channels at each position
    (``channel``), which the paper's formula gives when it is read literally.

    Args:
        model: Images in [0, 1] in; left as it was found.
        batches: The images; their targets are read by attacks alone.
        layers: Names in ``model.named_modules()``, whose output is [batch, channels, height, width] or [batch, tokens,
            channels], that of the first call where a layer is called twice; None is the activation function that is
            called first after the first convolution larger than 1×1.
        statistics: What batch norms normalize by: ``running`` statistics, those of each ``batch``, or both
            (``running,batch``).
        attack: An attack by name, whose images are measured beside the clean ones; it meets running statistics. None
            measures the clean ones alone.
        preset: A paper's PGD, as in the probe `robustness`.
        eps: Radius of the ball, pixels in [0, 1].
        steps: Steps of the attack in place of its own.
        alpha: Size of a step, pixels in [0, 1]; None keeps the attack's share of ε.
        seed: Of all that is random in the attack.
        count: At most so many images, the first of one fixed permutation.
        batch: Images in a batch whose statistics are taken, at most: images are cut evenly, so that none is alone.
            Not read with running statistics.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``activations.ratio``: Curve over layers, the mean over images with normal 95% intervals. ``arrays`` hold R per
        image [layer, image] by reading, images and statistics, such as ``spatial.clean.running``, and ``images``, their
        places in the batches. An image whose activation is constant has no HFI: its R is infinite in the arrays,
        and means leave it out and say so.

    Raises:
        NotApplicable: when no layer is named and no activation module follows a convolution, a model without batch
            norms is asked for batch statistics, or one that always normalizes by the batch for running ones.
        PassbandError: for unknown names, layers that give neither maps nor tokens, or NaN, and numbers out of range.

    **Source**: adversarial-focus, section 3.1.3 and figure 5, whose layer is ``hardtanh(bn(conv))``.
    **Differs**: the paper writes the mean over the first of the last two dimensions of [batch, channels, positions],
    the channels; the paper that it takes the formula from means positions.
    """
    kinds = _checked(model, statistics, count, batch)
    chosen = None
    if attack is not None:
        check_attackable(model, batches, "activations")
        chosen = attack_named(attack, preset=preset, eps=eps, steps=steps, alpha=alpha, seed=seed)
    order = permutation(batches.count, min(count, batches.count), 0)
    parts = _cut(order, batch, kinds)
    few, _ = next(iter(batches.subset(order).cut(2)))
    names = layers or (first_activation(model, few),)
    with exact():
        _ratios(model, few, names, kinds[0])  # a layer that cannot be measured is refused before any work
        with untouched(model):
            pieces = Pieces.of(resume, model, few, ("activations", names, kinds, attack, chosen, [*map(len, parts)]))
        make = partial(_of_part, model, names, kinds, (attack, chosen))
        jobs = ((part.mark, partial(make, part)) for part in map(partial(Part.of, batches), parts))
        arrays = joined(kept(pieces, jobs), axis=1)
    how: dict[str, Any] = {
        "probe": "activations", "layers": list(names), "statistics": list(kinds), "images": len(order),
        **({"attack": str(chosen)} if chosen is not None else {}),
        **({"batch": sorted({len(part) for part in parts})} if "batch" in kinds else {}),
    }  # fmt: skip
    return (_curve(names, arrays, order, how),)


def _of_part(
    model: nn.Module, names: tuple[str, ...], kinds: tuple[str, ...], by: tuple[str | None, Attack | None], part: Part
) -> Arrays:
    ((images, targets),) = part.batches
    versions = {CLEAN: images}
    attack, chosen = by
    if chosen is not None:
        versions[str(attack)] = attacked(model, chosen, images, targets)
    found: Arrays = {}
    for kind in kinds:
        for version, some in versions.items():
            spatial, channel = _ratios(model, some, names, kind).cpu().numpy()
            found |= {f"{SPATIAL}.{version}.{kind}": spatial, f"{CHANNEL}.{version}.{kind}": channel}
    return found


def first_activation(model: nn.Module, images: Float[Tensor, "batch channel height width"]) -> str:
    """Return the name of the activation module called first after the first convolution larger than 1×1.

    Args:
        model: Any module; names are those of ``model.named_modules()``.
        images: A few images that it takes.

    Raises:
        NotApplicable: when it calls no such convolution, or no activation module after it.
    """
    called: list[tuple[str, bool]] = []

    modules = dict(model.named_modules())
    convolve = {name for name, one in modules.items() if isinstance(one, SeparableConv2d) or is_spatial(one)}
    layers = {name: one for name, one in modules.items() if name in convolve or _activates(one)}
    with watched(layers, lambda name, *_: called.append((name, name in convolve))), untouched(model), torch.no_grad():
        model(images)
    start = next((place for place, (_, convolves) in enumerate(called) if convolves), None)
    if start is None:
        raise no_convolution(model)
    after = next((name for name, convolves in called[start:] if not convolves), None)
    if after is None:
        raise NotApplicable(
            f"activations: no activation module is called after the first convolution, {called[start][0]}: name a "
            f"layer, such as layers={called[start][0]}"
        )
    return after


def _activates(module: nn.Module) -> bool:
    """Tell whether a module is an activation function: torch's, or one of timm's own."""
    homes = (torch_activations.__name__, "timm.layers.activations")
    return not isinstance(module, _NO_ACTIVATION) and any(
        kind.__module__.startswith(homes) for kind in type(module).__mro__
    )


def _checked(model: nn.Module, statistics: tuple[str, ...], count: int, batch: int) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(statistics))
    for kind in kinds:
        if kind not in get_args(Statistics):
            raise unknown("statistics", kind, get_args(Statistics))
    if not kinds:
        raise PassbandError("probe activations: statistics is running, batch or running,batch; got none")
    if count < 1 or batch < 2:
        raise PassbandError(f"probe activations: count is 1 or more and batch 2 or more; got {count} and {batch}")
    if "batch" in kinds and not count_norms(model):
        raise NotApplicable("statistics=batch is for batch norms, and this model has none; take running")
    if "running" in kinds and uses_batch_statistics(model):
        raise NotApplicable(
            "statistics=running needs running statistics; this model always normalizes by the batch: take "
            "statistics=batch"
        )
    return kinds


def _cut(order: np.ndarray, batch: int, kinds: tuple[str, ...]) -> list[np.ndarray]:
    """Cut images evenly into batches of so many at most, of one more where one image would be alone."""
    if "batch" in kinds and len(order) < 2:
        raise PassbandError("probe activations: batch statistics are those of 2 images or more; got 1: give more")
    return np.array_split(order, max(1, min(-(-len(order) // batch), len(order) // 2)))


def _ratios(model: nn.Module, images: Tensor, names: tuple[str, ...], kind: str) -> Float[Tensor, "2 layer image"]:
    """Return R by reading, spatial and channel, by layer and by image."""
    size = len(images) if kind == "batch" else working_size(model)
    parts = []
    with ExitStack() as lent:
        lent.enter_context(untouched(model))
        lent.enter_context(torch.no_grad())
        if kind == "batch":
            lent.enter_context(batch_statistics(model))
        seen = lent.enter_context(_ratios_seen(model, names))
        for chunk in chunks(len(images), size):
            seen.clear()
            model(images[chunk])
            silent = [name for name in names if name not in seen]
            if silent:
                raise PassbandError(
                    f"probe activations: the forward pass does not call {', '.join(silent)}; leave it out"
                )
            parts.append(torch.stack([seen[name] for name in names], 1))
    return torch.cat(parts, 2)


@contextmanager
def _ratios_seen(model: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Fill a mapping, while the model runs, with the ratios [2, image] of each layer's first output."""
    modules = dict(model.named_modules())
    seen: dict[str, Tensor] = {}

    def look(name: str, _inputs: Any, output: Any) -> None:
        if name not in seen:
            signals = _signals(output, name)
            if not bool(signals.isfinite().all()):
                raise PassbandError(
                    f"probe activations: layer {name} gives NaN or infinity: weights hold NaN, or overflow; load others"
                )
            some = [signals[chunk] for chunk in chunks(len(signals), _CHUNK)]
            both = [torch.stack([low_to_high(part), low_to_high(part.transpose(1, 2))]) for part in some]
            seen[name] = torch.cat(both, 1)

    for name in names:
        if name not in modules:
            raise unknown("layer", name, modules)
    with watched({name: modules[name] for name in names}, look):
        yield seen


def _signals(output: Any, name: str) -> Float[Tensor, "batch position channel"]:
    if isinstance(output, Tensor) and output.ndim == 4:
        return output.flatten(2).transpose(1, 2)
    if isinstance(output, Tensor) and output.ndim == 3:
        return output
    what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise PassbandError(
        f"probe activations: a layer gives [batch, channels, height, width] or [batch, tokens, channels]; {name} gives "
        f"{what}: name another one"
    )


def _curve(names: tuple[str, ...], arrays: dict[str, np.ndarray], order: np.ndarray, how: dict[str, Any]) -> Curve:
    series, notes = [], [
        "R is the norm of an activation's mean over the norm of the rest, per image, then the mean over images. "
        "Spatial: means over positions, each channel by itself; channel: means over channels at each position.",
        f"Measured on {len(order):,} images, the model in evaluation mode.",
    ]  # fmt: skip
    if "batch" in how["statistics"]:
        sizes = " or ".join(map(str, how["batch"]))
        notes.append(f"Batch statistics are those of each batch of {sizes}: results depend on who shares one.")
    for key, values in arrays.items():
        constant = int(np.isinf(values).sum())
        if constant:
            where = f"{constant} of {values.size} activations ({_spoken(key, how)})"
            notes.append(f"{where} are constant, have no HFI, and are left out of the means.")
        means, lows, highs = zip(*map(mean_of, values), strict=True)
        series.append(Series(name=_spoken(key, how), values=means, low=lows, high=highs, n=values.shape[1]))
    return Curve(
        name="activations.ratio",
        title="Low- to high-frequency information of activations",
        how=how,
        notes=tuple(notes),
        arrays=arrays | {"images": order},
        x=Axis(name="layer", values=names),
        y=Axis(name="R"),
        series=tuple(series),
    )


def _spoken(key: str, how: dict[str, Any]) -> str:
    """Return a line's name: what tells it from the others."""
    reading, version, kind = key.split(".")
    words = [reading]
    if "attack" in how:
        words.append(version)
    if len(how["statistics"]) > 1:
        words.append(f"{kind} statistics")
    return ", ".join(words)
