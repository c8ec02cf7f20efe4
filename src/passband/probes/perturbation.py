"""Where in the spectrum an attack changes images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from passband.attacks.chance import image_keys, uniform
from passband.attacks.packing import chunks, working_size
from passband.attacks.registry import Attack
from passband.core.band import Band
from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.results import Axis, Curve, Gallery, Map, Picture, Result, Series
from passband.data.dataset import Batches
from passband.frequency.filters import mask
from passband.frequency.spectrum import amplitude, ring_sums
from passband.models.state import untouched
from passband.probes.attacked import attack_named, attacked, check_attackable
from passband.probes.kept import Arrays, Part, Pieces, by_part
from passband.probes.kernels import plane_axes
from passband.probes.means import mean_of
from passband.probes.registry import PROBES

CLEAN, ATTACKED, DIFFERENCE, RANDOM, RELATIVE = "clean", "attacked", "difference", "random signs", "relative"
_SHOWN = (CLEAN, ATTACKED, DIFFERENCE)
_AMPLITUDE, _ENERGY, _RINGS, _SHARES, _FIRST = "amplitude.", "energy.", "rings.", "shares.", "first."
"""What is measured of a kind of image; see `_Found`."""
_PIXELS = 128
"""Smallest side of a spectrum in a picture."""


@dataclass(frozen=True)
class _Found:
    """Hold what was measured, zero frequency at ``(H // 2, W // 2)``.

    Attributes:
        amplitude: Mean over images and channels of the amplitude of each kind of image, float64 [H, W].
        energy: The same of the energy.
        rings: Energy per image and ring, float32 [N, ring].
        shares: Share of an image's energy in each disc, float64 [disc, N]; NaN where an image has none.
        first: Amplitudes of the first images, each [H, W] by kind.
    """

    amplitude: dict[str, Tensor]
    energy: dict[str, Tensor]
    rings: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]
    first: list[dict[str, Tensor]]


@PROBES.register("perturbation")
def perturbation(
    model: nn.Module,
    batches: Batches,
    *,
    attack: str = "pgd",
    preset: str = "adversarial-focus",
    eps: float = 8 / 255,
    steps: int | None = None,
    alpha: float | None = None,
    seed: int = 0,
    radii: tuple[float, ...] | None = None,
    examples: int = 4,
    resume: Path | None = None,
) -> tuple[Result, ...]:
    """Measure the spectrum of what an attack changes, beside that of the images themselves.

    All images are attacked, those that are wrong untouched too, each channel has its own spectrum, and DC is part of
    it. Energy is the square of the amplitude over that of the number of pixels: over all bins it sums to the mean
    square of a pixel.

    Three references say what a share of the energy at low frequencies means. White noise has as much of it there as
    there are bins. ``random signs``: at every pixel the largest change of that image, up or down by chance, clipped to
    [0, 1] as attacks are: where many pixels are black, clipping alone makes low frequencies. ``relative``: the change
    over the images' own mean energy, bin by bin, as images themselves fall with frequency.

    Args:
        model: Images in [0, 1] in, logits out; left as it was found.
        batches: The images, and what to lead away from.
        attack: An attack by name.
        preset: A paper's PGD, as in the probe `robustness`; ``"adversarial-focus"`` is 20 steps of ε/4.
        eps: Radius of the ball, pixels in [0, 1].
        steps: Steps of the attack in place of its own.
        alpha: Size of a step, pixels in [0, 1]; None keeps the attack's share of ε.
        seed: Of all that is random.
        radii: Of the discs whose share is taken, in bins, themselves inside; None is 1/8, 2/8, 3/8, 4/8 of the shorter
            side.
        examples: How many images' spectra the gallery shows, behind the mean; 0 for the mean alone.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        Maps of the mean amplitude, ``log(1 + amplitude)``: ``perturbation.clean``, ``.attacked`` and ``.difference``,
        amplitude and energy in ``arrays``; and ``perturbation.relative``, the difference's energy over the clean
        one's, in dB. Curves by radius: ``perturbation.bin`` (energy of a bin), ``perturbation.ring`` (of a ring one
        bin wide) and ``perturbation.relative_bin``, energy per image and ring in ``arrays``; and
        ``perturbation.share``, the share of the energy inside each radius, mean over images with normal 95% intervals,
        per image in ``arrays`` [radius, image]. ``perturbation.spectra``: Gallery.

    Raises:
        NotApplicable: when the model normalizes by each batch.
        PassbandError: for unknown names and numbers out of range.

    **Source**: adversarial-focus, section 3.1.1 and figure 2.
    **Differs**: the paper shows pictures, normalized in a way that it does not state; numbers and references are ours.
    """
    check_attackable(model, batches, "perturbation")
    if examples < 0:
        raise PassbandError(f"perturbation: examples is 0 or more; got {examples}")
    chosen = attack_named(attack, preset=preset, eps=eps, steps=steps, alpha=alpha, seed=seed)
    images, _ = next(iter(batches))
    height, width = images.shape[-2:]
    if radii is None:
        radii = tuple(max(1.0, round(min(height, width) * eighths / 8)) for eighths in (1, 2, 3, 4))
    if not radii:
        raise PassbandError("perturbation: radii needs at least one number, such as radii=8; got none")
    radii = tuple(sorted(set(radii)))
    discs = torch.stack([torch.fft.fftshift(mask(Band.disc(radius), (height, width))) for radius in radii]).double()
    found = _measure(model, batches, chosen, seed, discs, examples, resume)
    how: dict[str, Any] = {
        "probe": "perturbation", "attack": str(chosen), "preset": preset, "images": batches.count,
        "spectrum": [height, width], "radii": list(radii), "reference seed": seed + 1,
    }  # fmt: skip
    return (
        *(_map(kind, found, attack, how) for kind in _SHOWN),
        _relative_map(found, how),
        *_curves(found, (height, width), how),
        _share(found, radii, discs.mean((1, 2)).tolist(), how),
        _gallery(found, batches.count, how),
    )


def _measure(
    model: nn.Module,
    batches: Batches,
    attack: Attack,
    seed: int,
    discs: Float[Tensor, "disc h w"],
    examples: int,
    resume: Path | None,
) -> _Found:
    radii = discs.sum((1, 2)).tolist()
    with untouched(model):
        asked = ("perturbation", attack, seed, radii, examples, batches.dataset.fingerprint)
        pieces = Pieces.of(resume, model, next(iter(batches))[0], asked)
    clean = _clean_energy(batches, pieces)
    # Where clean images have no energy nothing is relative to it.
    weight = torch.where(clean > 0, 1 / clean, 0)
    make = partial(_of_part, model, attack, seed, discs.to(batches.device), weight.to(batches.device), examples)
    found = by_part(pieces, "attacked", batches, make, "attacking")

    def of(what: str, join: Callable[[list[np.ndarray]], Any]) -> dict[str, Any]:
        named = (name for name in found[0] if name.startswith(what))
        return {name.removeprefix(what): join([one[name] for one in found]) for name in named}

    def mean(sums: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(_summed(sums) / batches.count)

    first = of(_FIRST, np.concatenate)
    return _Found(
        of(_AMPLITUDE, mean),
        of(_ENERGY, mean),
        of(_RINGS, np.concatenate),
        of(_SHARES, partial(np.concatenate, axis=1)),
        [{kind: torch.from_numpy(planes[at]) for kind, planes in first.items()} for at in range(len(first[CLEAN]))],
    )


def _of_part(
    model: nn.Module,
    attack: Attack,
    seed: int,
    discs: Float[Tensor, "disc h w"],
    weight: Float[Tensor, "h w"],
    examples: int,
    part: Part,
) -> Arrays:
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros_like(weight))
    rows, columns = (defaultdict[str, list[Tensor]](list) for _ in range(2))
    size, missing = working_size(model), max(0, examples - part.start)
    for images, targets in track(part.batches, "attacking"):
        for chunk in chunks(len(images), size):
            planes = {
                kind: _planes(some)
                for kind, some in _versions(model, attack, images[chunk], targets[chunk], seed).items()
            }
            for kind, (strength, energy) in planes.items():
                sums[_AMPLITUDE + kind] += strength.sum(0)
                sums[_ENERGY + kind] += energy.sum(0)
                rows[_RINGS + kind].append(ring_sums(energy)[1].float())
                columns[_SHARES + kind].append(_inside(energy, discs))
            columns[_SHARES + RELATIVE].append(_inside(planes[DIFFERENCE][1] * weight, discs))
            for kind in _SHOWN:
                rows[_FIRST + kind].append(planes[kind][0][:missing].clone())
            missing -= min(missing, len(images[chunk]))
    found = {**sums, **{name: torch.cat(some) for name, some in rows.items()}}
    found |= {name: torch.cat(some, 1) for name, some in columns.items()}
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def _clean_energy(batches: Batches, pieces: Pieces) -> Float[Tensor, "h w"]:
    found = by_part(pieces, "clean", batches, _clean_sum, "clean energy")
    return torch.from_numpy(_summed([one["energy"] for one in found]) / batches.count)


def _clean_sum(part: Part) -> Arrays:
    total = sum(_planes(images[chunk])[1].sum(0) for images, _ in part.batches for chunk in chunks(len(images), 256))
    assert isinstance(total, Tensor)  # a part holds an image at least
    return {"energy": total.cpu().numpy()}


def _summed(parts: list[np.ndarray]) -> np.ndarray:
    """Add up in the parts' order, float64."""
    return reduce(np.add, parts)


def _versions(model: nn.Module, attack: Attack, images: Tensor, targets: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the images, clean and attacked, and the changes: the attack's, and one of random signs."""
    found = attacked(model, attack, images, targets)
    change = found - images
    largest = change.abs().amax((1, 2, 3), keepdim=True)
    # Another seed than the attack's: its random start draws from the same image.
    up = uniform(image_keys(images, seed + 1), images.shape[1:]) < 0.5
    noise = (images + torch.where(up, largest, -largest)).clamp(0, 1) - images
    return {CLEAN: images, ATTACKED: found, DIFFERENCE: change, RANDOM: noise}


def _planes(images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Return amplitude and energy of each image, means over channels, float64, zero frequency in the center."""
    strengths = amplitude(images.contiguous()).double()
    pixels = images.shape[-2] * images.shape[-1]
    return strengths.mean(1), (strengths / pixels).square().mean(1)


def _inside(energy: Float[Tensor, "b h w"], discs: Float[Tensor, "disc h w"]) -> Float[Tensor, "disc b"]:
    """Return the share of each image's energy in each disc; NaN where there is none at all."""
    return (discs.flatten(1) @ energy.flatten(1).T) / energy.sum((1, 2))


def _map(kind: str, found: _Found, attack: str, how: dict[str, Any]) -> Map:
    titles = {CLEAN: "clean images", ATTACKED: f"images under {attack}", DIFFERENCE: "the difference"}
    height, width = how["spectrum"]
    return Map(
        name=f"perturbation.{kind}",
        title=f"Spectrum of {titles[kind]}",
        how=how,
        notes=(_NOTE.format(how["images"]), "The natural logarithm of 1 + the mean amplitude, as the FFT gives it."),
        x=plane_axes(width)[0],
        y=plane_axes(height)[1],
        values=found.amplitude[kind].log1p().float().numpy(),
        unit="log(1 + amplitude)",
        arrays={"amplitude": found.amplitude[kind].numpy(), "energy": found.energy[kind].numpy()},
    )


_NOTE = "{:,} images, all attacked; mean over images and channels; zero frequency in the center."


def _relative_map(found: _Found, how: dict[str, Any]) -> Map:
    height, width = how["spectrum"]
    ratio = _decibels(found.energy[DIFFERENCE].numpy(), found.energy[CLEAN].numpy())
    return Map(
        name="perturbation.relative",
        title="The difference over the clean images, energy",
        how=how,
        notes=(_NOTE.format(how["images"]), "10 log10 of the ratio of mean energies; empty where one of them is zero."),
        x=plane_axes(width)[0],
        y=plane_axes(height)[1],
        values=ratio.astype(np.float32),
        unit="dB",
    )


def _decibels(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return 10 log10 of a ratio, NaN where either is zero."""
    both = (above > 0) & (below > 0)
    ratio = np.divide(above, below, out=np.ones_like(above), where=both)
    return np.where(both, 10 * np.log10(np.where(both, ratio, 1.0)), np.nan)


def _curves(found: _Found, size: tuple[int, int], how: dict[str, Any]) -> tuple[Curve, ...]:
    bins = ring_sums(torch.ones(size))[0].numpy()
    rings = {kind: values.astype(np.float64) for kind, values in found.rings.items()}
    notes = (
        _NOTE.format(how["images"]),
        "A ring holds the bins whose distance from zero frequency rounds to its radius; corners are rings too.",
    )
    axis = Axis(name="radius", unit="bins", values=tuple(range(len(bins))))
    words = {
        DIFFERENCE: "the attack's difference",
        RANDOM: "random signs, clipped",
    }
    whole = "over all bins it sums to the mean square of a pixel's change."

    def lines(per: np.ndarray) -> tuple[Series, ...]:
        return tuple(_line(name, rings[kind] / per) for kind, name in words.items())

    means = {kind: values.mean(0) for kind, values in rings.items()}
    decibels = tuple(
        Series(name=name, values=tuple(_listed(_decibels(means[kind], means[CLEAN])))) for kind, name in words.items()
    )
    arrays = {kind: values.astype(np.float32) for kind, values in rings.items()} | {"bins": bins}
    return (
        Curve(
            name="perturbation.bin", title="Energy of a bin of the difference, by radius", how=how,
            notes=(*notes, f"The mean over a ring's bins; {whole}"), x=axis, y=Axis(name="energy of a bin"),
            series=lines(bins),
        ),
        Curve(
            name="perturbation.ring", title="Energy of a ring of the difference, by radius", how=how,
            notes=(*notes, f"The sum over a ring's bins; {whole}"), x=axis, y=Axis(name="energy of a ring"),
            series=lines(np.ones_like(bins)), arrays=arrays,
        ),
        Curve(
            name="perturbation.relative_bin", title="The difference over the clean images, energy by radius", how=how,
            notes=notes, x=axis, y=Axis(name="difference over clean", unit="dB"), series=decibels,
        ),
    )  # fmt: skip


def _line(name: str, values: np.ndarray) -> Series:
    """Return the mean over images [image, point] with its interval."""
    means, lows, highs = zip(*map(mean_of, values.T), strict=True)
    return Series(name=name, values=means, low=lows, high=highs, n=len(values))


def _listed(values: np.ndarray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _share(found: _Found, radii: tuple[float, ...], bins: list[float], how: dict[str, Any]) -> Curve:
    words = {
        DIFFERENCE: "the attack's difference",
        RANDOM: "random signs, clipped",
        RELATIVE: "difference over clean",
        CLEAN: "clean images",
    }
    notes = [
        _NOTE.format(how["images"]),
        "White noise is the share of bins: the share of its energy that independent changes have, on average.",
        "Difference over clean: each bin's energy is divided by the clean images' mean there first.",
    ]
    dark = int((found.energy[CLEAN] == 0).sum())
    if dark:
        notes.append(f"{dark} bins in which no clean image has energy are left out of what is relative to them.")
    still = int(np.isnan(found.shares[DIFFERENCE][0]).sum())
    if still:
        notes.append(f"{still} images that the attack did not change have no share and are left out.")
    return Curve(
        name="perturbation.share",
        title="Share of the energy within a radius",
        how=how,
        notes=tuple(notes),
        arrays={kind: found.shares[kind] for kind in words} | {"bins": np.array(bins)},
        x=Axis(name="radius", unit="bins", values=radii),
        y=Axis(name="energy within", unit="fraction"),
        series=(
            *(_line(name, found.shares[kind].T) for kind, name in words.items()),
            Series(name="white noise", values=tuple(bins)),
        ),
    )


def _gallery(found: _Found, count: int, how: dict[str, Any]) -> Gallery:
    strips = [(f"mean over {count:,} images", found.amplitude)]
    strips += [(f"image {index}", planes) for index, planes in enumerate(found.first)]
    return Gallery(
        name="perturbation.spectra",
        title="Spectra of clean and attacked images and of their difference",
        how=how,
        notes=(
            "From left to right: clean, attacked, difference; means over channels, zero frequency in the center.",
            "log(1 + amplitude), each spectrum over its own largest value: black is 0, white the largest.",
        ),
        pictures=tuple(Picture(image=_strip(planes), caption=caption) for caption, planes in strips),
    )


def _strip(planes: dict[str, Tensor]) -> np.ndarray:
    """Paint three spectra side by side, a white line between them."""
    painted = []
    for kind in _SHOWN:
        plane = planes[kind].log1p()
        pixels = (255 * plane / plane.max().clamp(min=1e-12)).round().byte().numpy()
        factor = max(1, _PIXELS // min(pixels.shape))
        painted += [pixels.repeat(factor, 0).repeat(factor, 1)]
        painted += [np.full((len(painted[-1]), 2), 255, np.uint8)]
    return np.concatenate(painted[:-1], axis=1)
