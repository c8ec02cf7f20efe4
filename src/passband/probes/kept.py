"""What a probe has finished, kept piece by piece until all is, so that a killed one goes on and several share one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from passband.attacks.pieces import Pieces
from passband.attacks.shards import COUNT, Found
from passband.core.progress import track
from passband.data.dataset import Batches

__all__ = ["Arrays", "Part", "Pieces", "by_part", "joined", "kept", "parts"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Part:
    """Name some images of a set, in batches; they are read where they are asked for.

    Attributes:
        whole: The set's batches.
        places: Of the images, int64 [image].
        size: Images in a batch.
    """

    whole: Batches
    places: np.ndarray
    size: int

    @classmethod
    def of(cls, whole: Batches, places: np.ndarray) -> Part:
        """Name images that are one batch."""
        return cls(whole, places, len(places))

    @property
    def start(self) -> int:
        """Place of the first image."""
        return int(self.places[0])

    @property
    def batches(self) -> Batches:
        """The images and their targets."""
        return self.whole.subset(self.places).cut(self.size)

    @property
    def mark(self) -> tuple[object, ...]:
        """What tells these images and targets from all others, printable."""
        held = hashlib.sha256(self.places.tobytes() + self.whole.targets[self.places].numpy().tobytes())
        return self.whole.dataset.fingerprint, self.size, len(self.places), held.hexdigest()


def parts(batches: Batches, least: int | None = None) -> list[Part]:
    """Cut a set into parts of whole batches, of ``least`` (`COUNT`) images or more; the last may hold fewer."""
    step = -(-(least or COUNT) // batches.size) * batches.size
    starts = range(0, batches.count, step)
    return [Part(batches, np.arange(at, min(at + step, batches.count)), batches.size) for at in starts]


def kept(pieces: Pieces, jobs: Iterable[tuple[object, Callable[[], Arrays]]]) -> list[Arrays]:
    """Return the arrays of every piece, as :meth:`passband.attacks.pieces.Pieces.all` does what is found."""
    return [found.arrays for found in pieces.all((what, partial(_found, make)) for what, make in jobs)]


def by_part(
    pieces: Pieces, what: object, batches: Batches, make: Callable[[Part], Arrays], title: str, least: int | None = None
) -> list[Arrays]:
    """Return the arrays of every part of a set, in their order.

    Args:
        pieces: Where they are kept.
        what: Is asked of the images, printable.
        batches: The images.
        make: Measures a part.
        title: For the progress display.
        least: Images in a part, at least; `COUNT` when None.
    """
    cut = parts(batches, least)
    shown: Iterable[Part] = track(cut, title) if len(cut) > 1 else cut
    return kept(pieces, (((what, part.mark), partial(make, part)) for part in shown))


def joined(found: Sequence[Arrays], axis: int = 0) -> Arrays:
    """Put the arrays of all parts behind each other."""
    return {name: np.concatenate([one[name] for one in found], axis=axis) for name in found[0]}


def _found(make: Callable[[], Arrays]) -> Found:
    return Found(make())
