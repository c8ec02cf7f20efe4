"""How well a model puts the pixels of shuffled images back: PSNR image by image, and a few of them to look at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.progress import track
from passband.core.results import Gallery, Picture, Result, Scalar
from passband.data.dataset import Batches
from passband.models.state import untouched
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.probes.registry import PROBES
from passband.tasks.unshuffle import check_restored, mean_interval, pixel_order, psnr, shuffle


@PROBES.register("unshuffle")
def unshuffle(
    model: nn.Module, batches: Batches, *, permutation: int = 0, examples: int = 8, resume: Path | None = None
) -> tuple[Result, ...]:
    """Shuffle the pixels of every image by one fixed permutation, and measure how well the model restores it.

    Beside it stands what no model is needed for: the mean of all these images as the answer to each.

    Args:
        model: Images in [0, 1] in, images of the same shape out; left as it was found.
        batches: The images as they should be restored; targets are not read.
        permutation: Seed of the permutation of positions, the same in all channels. A recipe's is 0; a model knows
            no other, so this is no option for ``--seed`` to set.
        examples: How many images the gallery shows, the first ones of the batches; 0 for no gallery.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Returns:
        ``unshuffle.psnr`` and ``unshuffle.mean_image`` (Scalar, dB, the mean over images with its normal 95%
        interval; each image's in ``arrays``) and ``unshuffle.examples`` (Gallery: each image, shuffled, restored).

    Raises:
        NotApplicable: when the model does not give images.
        PassbandError: when it gives NaN, or an option is out of range.

    **Source**: spatial-mixing, section 4.4 and figures 10 and 11 of the workshop paper; peak 1 and the mean over images
    are not in the paper.
    """
    if examples < 0 or permutation < 0:
        raise PassbandError(
            f"probe unshuffle: examples and permutation are 0 or more; got {examples} and {permutation}"
        )
    with untouched(model), torch.no_grad():
        asked = ("unshuffle", permutation, examples, batches.dataset.fingerprint)
        pieces = Pieces.of(resume, model, next(iter(batches))[0], asked)
        mean = _mean_image(batches, pieces)
        make = partial(_of_part, model, mean, permutation, examples)
        arrays = joined(by_part(pieces, "restored", batches, make, "un-shuffling"))
    how = {"probe": "unshuffle", "permutation": permutation, "examples": examples}
    found = torch.from_numpy(arrays["scores"])
    results: list[Result] = [
        _scalar("psnr", "PSNR of un-shuffled images", found, how),
        _scalar("mean_image", "PSNR of the mean image in every image's place", torch.from_numpy(arrays["plain"]), how),
    ]
    if examples:
        results.append(_gallery(torch.from_numpy(arrays["strips"]), found, how))
    return tuple(results)


def _of_part(model: nn.Module, mean: Tensor, permutation: int, examples: int, part: Part) -> Arrays:
    scores: list[Tensor] = []
    plain: list[Tensor] = []
    strips: list[Tensor] = []
    wanted = max(0, examples - part.start)
    for images, _ in track(part.batches, "un-shuffling"):
        order = pixel_order((images.shape[-2], images.shape[-1]), permutation)
        shuffled = shuffle(images, order)
        restored = check_restored(model(shuffled), images)
        scores.append(psnr(restored, images).cpu())
        plain.append(psnr(mean.expand_as(images), images).cpu())
        shown = max(0, wanted - sum(map(len, strips)))
        strips.append(torch.cat((images, shuffled, restored.float()), dim=3)[:shown].cpu())
    arrays = {"scores": scores, "plain": plain, "strips": strips}
    return {name: torch.cat(some).numpy() for name, some in arrays.items()}


def _mean_image(batches: Batches, pieces: Pieces) -> Tensor:
    sums = joined(by_part(pieces, "mean image", batches, _sums, "mean image"))["sums"]
    return (torch.from_numpy(sums).sum(0) / batches.count).float()


def _sums(part: Part) -> Arrays:
    return {"sums": torch.stack([images.cpu().double().sum(0) for images, _ in part.batches]).numpy()}


def _scalar(name: str, title: str, scores: Tensor, how: dict[str, Any]) -> Scalar:
    value, low, high = mean_interval(scores)
    return Scalar(
        name=f"unshuffle.{name}",
        title=title,
        how=how,
        notes=("Pixels in [0, 1], peak 1; from each image's mean squared error, averaged over the images.",),
        arrays={"psnr": scores.numpy()},
        value=value,
        low=low,
        high=high,
        n=len(scores),
        unit="dB",
    )


def _gallery(strips: Tensor, scores: Tensor, how: dict[str, Any]) -> Gallery:
    pixels = strips.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pairs = zip(pixels, scores.tolist(), strict=False)  # the first images alone are shown
    return Gallery(
        name="unshuffle.examples",
        title="Each image as it is, shuffled, and restored",
        how=how,
        notes=("Restored pixels are cut to [0, 1] for the picture alone.",),
        pictures=tuple(
            Picture(image=np.ascontiguousarray(strip), caption=f"PSNR {score:.1f} dB") for strip, score in pairs
        ),
    )
