"""What a training may be whose batches are shared among several devices."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from passband.core.errors import PassbandError
from passband.core.recipe import Recipe
from passband.train.fit import Batches
from passband.train.steps import Scheme, Step
from passband.train.synchronized import SynchronizedBatchNorm


def check_shares(recipe: Recipe, scheme: Scheme, batches: Batches, world: int) -> None:
    """Refuse a training that would not be the same one on several devices.

    Args:
        recipe: The training's.
        scheme: What its recipe's ``scheme`` and ``attack`` made.
        batches: All images of every step.
        world: Devices.

    Raises:
        PassbandError: saying what to change.
    """
    if world == 1:
        return
    name = "" if recipe.scheme is None else recipe.scheme.name
    if scheme.whole:
        raise PassbandError(f"scheme {name} keeps something for each image of a batch; train it on one device")
    pieces = recipe.pieces
    if scheme.couples and pieces is None:
        raise PassbandError(
            f"scheme {name} mixes images of one batch, which {world} devices share; give pieces={world}, so that each "
            "mixes its own, or train on one device"
        )
    if pieces is not None and (pieces % world or recipe.batch % pieces):
        raise PassbandError(
            f"on {world} devices, pieces is a multiple of {world} that divides the batch; got pieces={pieces} and "
            f"batch={recipe.batch}"
        )
    least = world if recipe.sync_batchnorm else 2 * world
    fewest = batches.count(len(batches) - 1)
    if min(fewest, recipe.batch) < least:
        raise PassbandError(
            f"{world} devices share a batch of {least} images or more; the smallest of this training has {fewest}: "
            "choose another batch or data.part"
        )


def over_ranks(step: Step) -> Step:
    """Return a step whose batch norms see the images of all ranks."""

    def at(model: nn.Module, images: Tensor, targets: Any, number: int) -> tuple[Tensor, Tensor]:
        with SynchronizedBatchNorm():
            return step(model, images, targets, number)

    return at
