"""What a probe has finished, kept piece by piece until all is, so that a killed one goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from passband.attacks.shards import Found, Shard, identity_of, keep, key_of, recall
from passband.core.store import make_folder

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pieces:
    """Measure pieces, or take those that were kept for the same model, options, program and device.

    Attributes:
        folder: Where they are kept; None keeps nothing.
        identity: All that numbers depend on, but the piece itself.
    """

    folder: Path | None = None
    identity: str = ""

    @classmethod
    def of(cls, folder: Path | None, model: nn.Module, sample: Tensor, asked: object) -> Pieces:
        """Name what numbers depend on, as :func:`passband.attacks.shards.identity_of` does.

        Args:
            folder: As above; made where it is not there.
            model: In the state in which it is asked.
            sample: A few images that it takes.
            asked: The options, printable.

        Raises:
            PassbandError: when the folder cannot be written.
        """
        if folder is None:
            return cls()
        with torch.no_grad():
            answers = model(sample)
        return cls(make_folder(folder), identity_of(model, asked, answers))

    def get(self, what: object, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a piece, from the folder or made now.

        Args:
            what: The piece, printable: its images' fingerprint, and what is asked of them.
            make: Measures it.

        Raises:
            PassbandError: when the kept one is damaged.
        """
        if self.folder is None:
            return make()
        key = key_of(self.identity, repr(what))
        part = recall(self.folder, key)
        if part is None:
            part = Found(make())
            keep(self.folder, key, part)
        return part.arrays


def fingerprint(images: Tensor, targets: Tensor) -> str:
    """Return the SHA-256 (hex) of images and targets, in their order."""
    return Shard(images, targets, (len(images),)).fingerprint()
