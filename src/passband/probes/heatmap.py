"""The Fourier heat map: how often a model errs on images to which a wave of one frequency was added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from passband.attacks.chance import fork, image_keys, uniform
from passband.attacks.packing import chunks
from passband.core.errors import NotApplicable, PassbandError, unknown
from passband.core.progress import track
from passband.core.results import Axis, Curve, Map, Result, Scalar, Series
from passband.data.dataset import Batches, permutation
from passband.frequency.basis import basis, half_plane, on_plane
from passband.frequency.spectrum import radial_mean
from passband.models.fast import Fast, Precision, fast
from passband.models.state import exact, untouched, uses_batch_statistics
from passband.probes.kept import Arrays, Part, Pieces, kept, parts
from passband.probes.registry import PROBES
from passband.tasks.classification import check_targets, correct, predict, wilson

Preset = Literal["cifar10", "imagenet"]
Signs = Literal["channel", "image"]
PRESETS: dict[Preset, tuple[float, int | None]] = {"cifar10": (4.0, None), "imagenet": (15.7, 63)}
"""Norm of the wave and bins a side of the central square; None is the whole plane."""
LARGE = 64
"""Shorter side in pixels above which the usual preset is that of ImageNet."""
KEPT = 2**22
"""Verdicts up to which each is stored; more are stored as counts."""
_CHUNK = 64
"""Frequencies whose images exist at a time."""
_PIXELS = {"cpu": 2**16, "cuda": 2**22}
"""Pixels that go through a model at a time: 64 images of 32×32 on a CPU."""
_SAMPLE = (16, 64)
"""Frequencies and images on which the model itself is asked too."""


@dataclass(frozen=True)
class Wave:
    """Say how a wave is added to an image.

    Attributes:
        norm: Euclidean norm of the wave in each channel, pixels in [0, 1]; the paper's v.
        signs: Whether each channel of an image draws its own sign, or all share one; the paper's r.
        seed: Of the signs.
    """

    norm: float
    signs: Signs = "channel"
    seed: int = 0


@PROBES.register("heatmap")
def heatmap(
    model: nn.Module,
    batches: Batches,
    *,
    preset: Preset | None = None,
    norm: float | None = None,
    size: int | None = None,
    count: int = 1000,
    signs: Signs = "channel",
    seed: int = 0,
    resume: Path | None = None,
    precision: Precision = "float32",
) -> tuple[Result, ...]:
    """Add a wave of one frequency to all images, and count errors; frequency by frequency.

    To each channel of an image ``r · v · U`` is added, and the pixels are clipped to [0, 1]: U is the frequency's
    image of norm 1 (`passband.frequency.basis`), v the norm, and r is 1 or -1, drawn for each frequency, image and
    channel from the image's pixels and ``seed``. The quick form of the model answers (`passband.models.fast`).

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what counts as right.
        preset: ``"cifar10"``: v = 4, all frequencies. ``"imagenet"``: v = 15.7, the 63×63 lowest. None takes the
            first up to 64 pixels a side, and the second above.
        norm: v, in place of the preset's: per channel, pixels in [0, 1].
        size: Only the central square of so many frequencies a side, an odd number, in place of the preset's; the side
            of the images, or more, takes all.
        count: Images, the first of one fixed permutation; all where there are fewer.
        signs: ``"image"`` draws one sign for all channels of an image, which leaves a gray image gray.
        seed: Of the signs.
        resume: A folder where what is finished is kept until all is; None keeps nothing.
        precision: Of the model's quick form; ``"bf16"`` changes some verdicts.

    Returns:
        ``heatmap.error``: Map of the share of errors by frequency, zero in the middle; ``arrays`` hold the frequencies
        (ky, kx), the errors of each, and per image ``wrong`` (bool [frequency, image]) up to 4 million verdicts.
        ``heatmap.by_radius``: Curve, the map's mean over rings. ``heatmap.clean``: Scalar, the error on untouched
        images. ``heatmap.differing``: Scalar, on a sample, the share of verdicts that the model itself, in float32,
        gives otherwise than its quick form.

    Raises:
        NotApplicable: for a model that normalizes by each batch.
        PassbandError: for options out of range, or nothing to compare an answer with.

    **Source**: Yin et al., *A Fourier perspective on model robustness in computer vision* (2019), section 2 and
    figures 3 and 4; phase as in the authors' code.
    **Differs**: the paper does not say whether pixels were clipped, and its code clips where it is told to; the ring's
    mean is ours. On images of other sizes v stays what it is: the notes say how much that is per pixel.
    """
    measure = batches.measure  # refuses targets that say nothing, before any work
    if uses_batch_statistics(model):
        raise NotApplicable("heatmap needs answers that do not depend on the batch; this model normalizes by each")
    if count < 1:
        raise PassbandError(f"probe heatmap: count is 1 or more; got {count}")
    asked = batches.subset(permutation(batches.count, min(count, batches.count), 0))
    images, _ = next(iter(asked))
    plane = int(images.shape[-2]), int(images.shape[-1])
    chosen, wave, central = _setting(preset, norm, size, signs, seed, min(plane))
    frequencies = half_plane(plane, central)
    with untouched(model), exact():
        right = np.concatenate([_right(model, x, targets) for x, targets in asked])
        form = fast(model, images[:16], precision=precision)
        pieces = Pieces.of(resume, model, images[:16], ("heatmap", wave, precision))
        wrong = errors(form.module, asked, frequencies, wave, pieces=pieces)
        differing = _differing(form, model, asked, frequencies, wave, wrong)
    how: dict[str, Any] = {
        "probe": "heatmap", "preset": chosen, "norm": wave.norm, "pixel": wave.norm / (plane[0] * plane[1]) ** 0.5,
        "signs": signs, "clip": "[0, 1]", "spectrum": list(plane), "size": central, "frequencies": len(frequencies),
        "images": asked.count, "seed": seed, "rows": _rows(images), "speed": form.how,
    }  # fmt: skip
    error = "error" if batches.truth == "label" else f"dis{measure}"
    found = _map(wrong, frequencies, plane, central, error, how)
    return found, _by_radius(found, asked.count, error, how), _clean(right, error, how), _share(differing, how)


def errors(
    form: nn.Module,
    batches: Batches,
    frequencies: Int[Tensor, "basis 2"],
    wave: Wave,
    rows: int | None = None,
    pieces: Pieces | None = None,
) -> np.ndarray:
    """Ask a model about every image with every wave, and tell where it errs.

    Pairs of image and frequency go through the model in batches of one size, whatever the batches' own is.

    Args:
        form: Images in [0, 1] in, logits out, in evaluation mode.
        batches: The images and what is right.
        frequencies: ``(ky, kx)`` in bins.
        wave: How it is added.
        rows: Images at a time; None takes what suits the device.
        pieces: Where each batch with a few frequencies is kept when it is finished; None keeps nothing.

    Returns:
        bool [frequency, image].

    Raises:
        PassbandError: when the model gives NaN.
    """
    size = rows or _rows(next(iter(batches.cut(1)))[0])
    cut = [frequencies[chunk] for chunk in chunks(len(frequencies), _CHUNK)]
    jobs = (
        ((some.mark, size, chunk.tolist()), partial(_piece, form, some, chunk, wave, size))
        for some in track(parts(batches, batches.size), "heatmap")
        for chunk in track(cut, "frequencies")
    )
    found = [piece["wrong"] for piece in kept(pieces or Pieces(), jobs)]
    by_batch = (np.concatenate(found[first : first + len(cut)]) for first in range(0, len(found), len(cut)))
    return np.concatenate(list(by_batch), axis=1)


def _piece(form: nn.Module, some: Part, part: Tensor, wave: Wave, size: int) -> Arrays:
    """Tell where a model errs on some images with some frequencies, bool [frequency, image]."""
    ((images, targets),) = some.batches
    # The last rows repeat the first, which the slice drops.
    found = [predict(form, copies).argmax(1) != targets[of] for copies, of in waved(images, part, wave, size)]
    pairs = torch.cat(found)[: len(images) * len(part)].view(len(images), len(part))
    return {"wrong": pairs.T.cpu().numpy()}


def waved(
    images: Float[Tensor, "batch channel height width"], frequencies: Int[Tensor, "basis 2"], wave: Wave, rows: int
) -> Iterator[tuple[Float[Tensor, "rows channel height width"], Int[Tensor, " rows"]]]:
    """Yield every image with every wave, ``rows`` at a time, and the place of the image that each was made of.

    The first image comes with all waves before the second does. Networks choose other kernels for other batch sizes,
    whose rounding differs: an incomplete batch is filled up from the beginning.

    Args:
        images: In [0, 1].
        frequencies: ``(ky, kx)`` in bins.
        wave: How it is added.
        rows: Images at a time.
    """
    device, size = images.device, (int(images.shape[-2]), int(images.shape[-1]))
    # Channels last, so that what is made of them lies as convolutions like it.
    pixels = images.permute(0, 2, 3, 1).contiguous()
    waves = wave.norm * basis(frequencies, size, device)[..., None]
    drawn = drawn_signs(images, frequencies, wave)
    total = len(images) * len(frequencies)
    for first in range(0, total, rows):
        pair = torch.arange(first, first + rows, device=device) % total
        of, which = pair // len(frequencies), pair % len(frequencies)
        copies = torch.addcmul(pixels[of], waves[which], drawn[of, which][:, None, None]).clamp_(0, 1)
        yield copies.permute(0, 3, 1, 2), of


def drawn_signs(
    images: Float[Tensor, "batch channel height width"], frequencies: Int[Tensor, "basis 2"], wave: Wave
) -> Float[Tensor, "batch basis channel"]:
    """Return 1 or -1 for each image, frequency and channel, whatever else is in the batch or asked about."""
    height, width = images.shape[-2:]
    numbers = (frequencies[:, 0] % height * width + frequencies[:, 1] % width).to(images.device)
    keys = image_keys(images, wave.seed).repeat_interleave(len(numbers))
    channels = images.shape[1] if wave.signs == "channel" else 1
    numbers_drawn = uniform(fork(keys, numbers.repeat(len(images))), torch.Size([channels]))
    signs = torch.where(numbers_drawn < 0.5, 1.0, -1.0)
    return signs.view(len(images), len(numbers), channels).expand(-1, -1, images.shape[1])


def _rows(images: Tensor) -> int:
    """Return how many images go through a model at a time."""
    pixels = _PIXELS["cpu" if images.device.type == "cpu" else "cuda"]
    return max(8, pixels // (images.shape[-2] * images.shape[-1]))


def _setting(
    preset: Preset | None, norm: float | None, size: int | None, signs: Signs, seed: int, side: int
) -> tuple[Preset, Wave, int | None]:
    """Return the preset, how the wave is added, and the side of the central square."""
    chosen: Preset = preset or ("cifar10" if side <= LARGE else "imagenet")
    if chosen not in PRESETS:
        raise unknown("heat map preset", chosen, PRESETS)
    if signs not in get_args(Signs):
        raise unknown("signs", signs, get_args(Signs))
    usual, central = PRESETS[chosen]
    norm = usual if norm is None else norm
    if not 0 < norm < float("inf"):
        raise PassbandError(f"probe heatmap: norm is above 0 and finite, in pixels of [0, 1], such as 4; got {norm:g}")
    central = central if size is None else size
    return chosen, Wave(norm, signs, seed), None if central is None or central >= side else central


def _right(model: nn.Module, images: Tensor, targets: Tensor) -> np.ndarray:
    logits = predict(model, images)
    check_targets(targets, logits.shape[1])
    return correct(logits, targets).cpu().numpy()


def _differing(
    form: Fast, model: nn.Module, asked: Batches, frequencies: Tensor, wave: Wave, wrong: np.ndarray
) -> np.ndarray:
    """Ask the model itself, in float32, on a sample; tell where its verdict is another, [frequency, image]."""
    places = torch.linspace(0, len(frequencies) - 1, min(_SAMPLE[0], len(frequencies))).round().long()
    images = np.arange(min(_SAMPLE[1], asked.count))
    itself = errors(form.given(model), asked.subset(images), frequencies[places], wave)
    return np.asarray(itself != wrong[places.numpy()][:, images])


def _map(
    wrong: np.ndarray, frequencies: Tensor, plane: tuple[int, int], central: int | None, error: str, how: dict[str, Any]
) -> Map:
    shares = on_plane(torch.from_numpy(wrong.mean(1)), frequencies, plane)
    spans = [range(-(side // 2), (side + 1) // 2) for side in plane]
    if central is not None:
        spans = [range(-(central // 2), central // 2 + 1)] * 2
    rows, columns = (
        slice(span.start + side // 2, span.stop + side // 2) for span, side in zip(spans, plane, strict=True)
    )
    names = ("vertical frequency", "horizontal frequency")
    y, x = (Axis(name=name, unit="bins", values=tuple(span)) for name, span in zip(names, spans, strict=True))
    arrays = {"frequencies": frequencies.numpy(), "errors": wrong.sum(1)}
    if wrong.size <= KEPT:
        arrays["wrong"] = wrong
    channels = "its own sign in each channel" if how["signs"] == "channel" else "one sign for all channels"
    return Map(
        name="heatmap.error",
        title=f"Fourier heat map: {error} with a wave of one frequency added",
        how=how,
        notes=(
            f"A wave of norm {how['norm']:g} in each channel, {how['pixel']:.3g} per pixel (root mean square), with "
            f"{channels} of each image, drawn at random; pixels are clipped to [0, 1]. Zero frequency is in the "
            f"middle; a frequency and its conjugate are one wave. {how['images']} images; {how['speed']['precision']}.",
        ),
        arrays=arrays,
        x=x,
        y=y,
        values=shares[rows, columns].numpy(),
        unit="fraction",
    )


def _by_radius(found: Map, count: int, error: str, how: dict[str, Any]) -> Curve:
    radii, means = radial_mean(torch.from_numpy(found.values))
    shares = tuple(means.tolist())
    low, high = zip(*(wilson(round(share * count), count) for share in shares), strict=True)
    return Curve(
        name="heatmap.by_radius",
        title=f"Fourier heat map: mean {error} by the wave's frequency",
        how=how,
        notes=(
            "Means over rings one bin wide around zero frequency; corners beyond the last ring are left out.",
            "Wilson intervals as if each image had one verdict a ring: it has one for each wave, which are alike, so "
            "that the intervals are too wide rather than too narrow.",
        ),
        x=Axis(name="radius of the ring", unit="bins", values=tuple(radii.tolist())),
        y=Axis(name=error, unit="fraction"),
        series=(Series(name=error, values=shares, low=low, high=high, n=count),),
    )


def _clean(right: np.ndarray, error: str, how: dict[str, Any]) -> Scalar:
    low, high = wilson(int((~right).sum()), len(right))
    return Scalar(
        name="heatmap.clean", title=f"{error.capitalize()}: untouched images", how=how, value=float((~right).mean()),
        low=low, high=high, n=len(right), unit="fraction", arrays={"correct": right},
    )  # fmt: skip


def _share(differing: np.ndarray, how: dict[str, Any]) -> Scalar:
    low, high = wilson(int(differing.sum()), differing.size)
    return Scalar(
        name="heatmap.differing",
        title=f"Verdicts of the quick form ({how['speed']['precision']}) that the model itself gives otherwise",
        how=how,
        notes=(
            f"Both were asked about {differing.shape[1]} images with {differing.shape[0]} waves; the model itself in "
            "float32, as it is. The map is the quick form's.",
        ),
        value=float(differing.mean()), low=low, high=high, n=differing.size, unit="fraction",
        arrays={"differing": differing},
    )  # fmt: skip
