"""How well maps of where a class is seen agree with where it is."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Maps = Float[Tensor, "map height width"]


def energy_inside(maps: Maps, inside: Maps) -> Float[Tensor, " map"]:
    """Return the share of each map's sum that lies inside; an empty map counts as an even one.

    **Source**: Wang et al., *Score-CAM*, 2020, section 4.3 (the energy-based pointing game).

    Args:
        maps: Not negative, at the size of the images.
        inside: Share of each pixel that lies inside, 0 to 1.
    """
    return (_shares(maps) * inside.flatten(1)).sum(1)


def energy_elsewhere(maps: Maps, inside: Maps, photographs: Int[Tensor, " map"]) -> Float[Tensor, " map"]:
    """Return the mean share that the maps of other photographs have inside each one's boxes.

    It is what a network gets that looks at the same places whatever it sees, which the boxes' area is not.

    Args:
        maps: As for :func:`energy_inside`.
        inside: As for :func:`energy_inside`.
        photographs: Which photograph each map belongs to; two at least.
    """
    shares = inside.flatten(1) @ _shares(maps).T
    other = (photographs[:, None] != photographs[None]).to(shares)
    return (shares * other).sum(1) / other.sum(1)


def extent(maps: Maps, inside: Maps) -> Float[Tensor, " map"]:
    """Return how much of the inside each map fills: 1 where it is even there, 1/n where one of n places has it all.

    It is the square of the map's mean inside over the mean of its square, 0 for a map with nothing inside.

    Args:
        maps: As for :func:`energy_inside`.
        inside: As for :func:`energy_inside`.
    """
    flat, weight = maps.flatten(1), inside.flatten(1)
    total, squares = (weight * flat).sum(1), (weight * flat.square()).sum(1)
    filled = total.square() / (weight.sum(1) * squares)
    return torch.where(squares > 0, filled, torch.zeros_like(filled))


def on_grid(maps: Maps, places: int) -> Float[Tensor, "map h w"]:
    """Return maps as means over a grid of so many places a side, where they are finer; others as they are."""
    finer = maps.shape[1] > places or maps.shape[2] > places
    return functional.adaptive_avg_pool2d(maps[:, None], places)[:, 0] if finer else maps


def _shares(maps: Maps) -> Float[Tensor, "map place"]:
    flat = maps.flatten(1).double()
    total = flat.sum(1, keepdim=True)
    return torch.where(total > 0, flat / total, torch.full_like(flat, 1 / flat.shape[1])).to(maps.dtype)
