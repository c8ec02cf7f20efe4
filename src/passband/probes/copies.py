"""What a model says about every band copy of its images: the measurement behind the probe `bands`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from passband.core.band import Band
from passband.core.progress import track
from passband.data.dataset import Batches
from passband.frequency.filters import rescale, sweep
from passband.probes.kept import Arrays, Part, Pieces, by_part, joined
from passband.tasks.classification import check_targets, predict, untouched

FULL, LFC, HFC, LOW_PASS = "full", "LFC", "HFC", "low-pass"
Copy = tuple[str, float]
"""Which copy of an image a model saw: its kind and its cut-off."""
_REACH = "reach "
"""Before a kind of copy: the smallest and the largest pixel."""
WHOLE: Copy = (FULL, 0.0)


@dataclass(frozen=True)
class Cuts:
    """Hold the bands by radius (LFC and HFC) and by degree (low-pass), ascending.

    Attributes:
        parts: Radius in bins to the cut between LFC and HFC.
        squares: Degree in bins to the low-pass.
        rescaling: How LFC and HFC come back to a pixel scale; low-passed images are clipped.
    """

    parts: dict[float, Band]
    squares: dict[float, Band]
    rescaling: str


@dataclass(frozen=True)
class Answers:
    """Hold what a model said, per copy and sample.

    Attributes:
        predicted: Class of the largest logit, int32 [N].
        confidence: Softmax probability of that class, float32 [N].
        in_target: Softmax probability of the right class, float32 [N].
        targets: The right classes, int64 [N].
        shown: The first images as pictures, uint8 [n, H, W, C].
        classes: Number of the model's outputs.
        reach: Smallest and largest pixel of each kind of copy, before and after rescaling.
    """

    predicted: dict[Copy, np.ndarray]
    confidence: dict[Copy, np.ndarray]
    in_target: dict[Copy, np.ndarray]
    targets: np.ndarray
    shown: np.ndarray
    classes: int
    reach: dict[str, tuple[float, float]]

    def reordered(self, order: np.ndarray, shown: np.ndarray) -> Answers:
        """Return the answers to the images in another order, with other pictures."""
        predicted, confidence, in_target = (
            {copy: values[order] for copy, values in kind.items()}
            for kind in (self.predicted, self.confidence, self.in_target)
        )
        return Answers(predicted, confidence, in_target, self.targets[order], shown, self.classes, self.reach)

    def correct(self, copy: Copy) -> np.ndarray:
        """Return per sample whether the model was right on this copy."""
        return np.asarray(self.predicted[copy] == self.targets)


def ask(model: nn.Module, batches: Batches, cuts: Cuts, examples: int, resume: Path | None = None) -> Answers:
    """Ask a model about the whole images and all their band copies, and leave it as it was found.

    Args:
        model: Images in [0, 1] in, logits out.
        batches: The images and what is right.
        cuts: The copies.
        examples: How many of the first images are kept as pictures.
        resume: A folder where what is finished is kept until all is; None keeps nothing.

    Raises:
        PassbandError: when a target is not among the model's classes, or the model gives NaN.
    """
    copies = [WHOLE, *((kind, radius) for kind in (LFC, HFC) for radius in cuts.parts)]
    copies += [(LOW_PASS, degree) for degree in cuts.squares]
    with untouched(model):
        pieces = Pieces.of(resume, model, next(iter(batches))[0], ("bands", cuts))
        found = by_part(pieces, "copies", batches, partial(_of_part, model, cuts, copies), "bands")
    arrays = joined(found, axis=-1)
    predicted, confidence, in_target = (
        {copy: arrays[kind][row] for row, copy in enumerate(copies)} for kind in ("predicted", "confidence", "target")
    )
    ends = {name.removeprefix(_REACH): pair for name, pair in arrays.items() if name.startswith(_REACH)}
    reach = {name: (float(low.min()), float(high.max())) for name, (low, high) in ends.items()}
    shown = pictures(first_images(batches, examples))
    return Answers(predicted, confidence, in_target, arrays["right"], shown, int(arrays["classes"][0]), reach)


def _of_part(model: nn.Module, cuts: Cuts, copies: Sequence[Copy], part: Part) -> Arrays:
    said: dict[Copy, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    reach: dict[str, tuple[float, float]] = {}
    right: list[Tensor] = []
    classes = 0
    for images, targets in track(part.batches, "bands"):
        for copy, pixels in _copies(images, cuts, reach):
            logits = predict(model, pixels.contiguous(memory_format=torch.channels_last))
            if copy == WHOLE:
                classes = logits.shape[1]
                check_targets(targets, classes)
            said[copy].append(read(logits, targets))
        right.append(targets.cpu())
    by_kind = ([torch.cat([row[kind] for row in said[copy]]) for copy in copies] for kind in range(3))
    predicted, confidence, in_target = (torch.stack(rows).numpy() for rows in by_kind)
    ends = {f"{_REACH}{name}": np.array(pair)[:, None] for name, pair in reach.items()}
    return {
        "predicted": predicted, "confidence": confidence, "target": in_target, "right": torch.cat(right).numpy(),
        "classes": np.array([classes]), **ends,
    }  # fmt: skip


def first_images(batches: Batches, count: int) -> Float[Tensor, "image channel height width"]:
    """Return the first images of a set, so many or all."""
    some = batches.subset(np.arange(max(1, min(count, batches.count))))
    return torch.cat([images for images, _ in some])[:count]


def _copies(images: Tensor, cuts: Cuts, reach: dict[str, tuple[float, float]]) -> Iterator[tuple[Copy, Tensor]]:
    """Yield every copy of a batch, all from one transform, and note how far its pixels reach."""
    yield WHOLE, images
    by_band = [(LFC, *part) for part in cuts.parts.items()] + [(LOW_PASS, *part) for part in cuts.squares.items()]
    swept = sweep(images, [band for _, _, band in by_band])
    for (kind, cutoff, _), (_, low, high) in zip(by_band, swept, strict=True):
        for name, copy in ((kind, low), (HFC, high)) if kind == LFC else ((kind, low),):
            _note(reach, name, copy)
            copy = rescale(copy, "clip" if name == LOW_PASS else cuts.rescaling)
            _note(reach, f"{name} rescaled", copy)
            yield (name, cutoff), copy


def _note(reach: dict[str, tuple[float, float]], name: str, pixels: Tensor) -> None:
    low, high = reach.get(name, (float("inf"), float("-inf")))
    reach[name] = min(low, float(pixels.min())), max(high, float(pixels.max()))


def read(
    logits: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return the predicted class and the softmax probabilities of it and of the target, per image, on the CPU."""
    probabilities = logits.float().softmax(1)
    # The logits decide, as everywhere: probabilities that round to one value would hide which is largest.
    predicted = logits.argmax(1)
    in_predicted = probabilities.gather(1, predicted[:, None])[:, 0]
    in_target = probabilities.gather(1, targets[:, None])[:, 0]
    return predicted.int().cpu(), in_predicted.cpu(), in_target.cpu()


def pictures(images: Tensor) -> np.ndarray:
    """Return images as pictures, uint8 [n, H, W, C]."""
    pixels = images.detach().clamp(0, 1).mul(255).round().byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
