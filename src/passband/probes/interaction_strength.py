"""The strength of interactions over their order: without what few contexts add, with intervals, as results."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from passband.core.results import Axis, Curve, Result, Scalar, Series
from passband.probes.interaction_players import MIDDLE, orders
from passband.probes.kept import Arrays

DRAWS = 1000
"""Bootstrap samples of an interval."""


def corrected(strength: Float[np.ndarray, "*draw order"], floor: Float[np.ndarray, "*draw order"]) -> np.ndarray:
    """Return the strength without what few contexts add to it, as the probe's docstring says."""
    return np.asarray(np.sqrt(np.clip(strength**2 - floor**2, 0, None)))


def middle_share(strength: Float[np.ndarray, "*draw order"], grid: int) -> np.ndarray:
    """Return what of the strength over all orders lies at the middle ones; NaN where there is none at all.

    Args:
        strength: At each of the grid's orders.
        grid: Patches a side.
    """
    inside = np.isin(orders(grid), orders(grid, *MIDDLE))
    share = _divided(strength[..., inside].sum(-1, keepdims=True), strength.sum(-1, keepdims=True))
    return share.squeeze(-1)


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    nothing = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=whole > 0))


def relative(strength: Float[np.ndarray, "*draw order"]) -> np.ndarray:
    """Return the strength divided by its mean over the orders; NaN where there is none at all."""
    return _divided(strength, strength.mean(-1, keepdims=True))


def results(found: Arrays, how: dict[str, Any], notes: tuple[str, ...]) -> tuple[Result, ...]:
    """Return what the probe returns.

    Args:
        found: What was measured, per image.
        how: How; ``grid``, ``orders`` and ``value`` are read.
        notes: For the reader of the curve.
    """
    strength, floor = (np.abs(found[name]).mean(1) for name in ("mean", "half"))
    images, grid = len(strength), int(how["grid"])
    counts = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), DRAWS) / images
    # The first row is the sample itself, the others are drawn anew.
    plain, noise = (np.concatenate((one.mean(0)[None], counts @ one)) for one in (strength, floor))
    mended = corrected(plain, noise)
    curve = Curve(
        name="interactions.strength",
        title="Interaction strength by order",
        how=how,
        notes=notes,
        arrays={"orders": np.array(how["orders"]), "strength": strength, "floor": floor, **found},
        x=Axis(name="order", unit="of all other patches", values=tuple(m / (grid**2 - 2) for m in how["orders"])),
        y=Axis(name="strength", unit="of its mean over the orders"),
        series=(
            _line("strength", relative(plain), images),
            Series(name="floor", values=_cells(_divided(noise[0], plain[0].mean(keepdims=True))), n=images),
            _line("corrected for the floor", relative(mended), images),
        ),
    )
    share = "Share of the interaction strength at middle orders (0.3 to 0.7)"
    mean = "Interaction strength, mean over the orders"
    return (
        curve,
        _scalar("middle", share, "fraction", middle_share(plain, grid), images, how),
        _scalar("middle_corrected", f"{share}, corrected for the floor", "fraction", middle_share(mended, grid), images,
                how),
        _scalar("mean", mean, f"of {how['value']}", plain.mean(1), images, how),
    )  # fmt: skip


def _line(name: str, drawn: np.ndarray, images: int) -> Series:
    values, low, high = (_cells(one) for one in _with_ends(drawn, images))
    return Series(name=name, values=values, low=low, high=high, n=images)


def _scalar(name: str, title: str, unit: str, drawn: np.ndarray, images: int, how: dict[str, Any]) -> Scalar:
    (value,), (low,), (high,) = (_cells(one) for one in _with_ends(drawn[:, None], images))
    return Scalar(
        name=f"interactions.{name}", title=title, how=how, value=value, low=low, high=high, n=images, unit=unit
    )


def _with_ends(drawn: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first row and the ends of the 95% interval of the others; NaN ends where one image says nothing."""
    if images < 2:
        unknown = np.full(drawn.shape[1:], np.nan)
        return drawn[0], unknown, unknown
    low, high = np.quantile(drawn[1:], [0.025, 0.975], axis=0)
    return drawn[0], low, high


def _cells(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(float(one) if np.isfinite(one) else None for one in values)
