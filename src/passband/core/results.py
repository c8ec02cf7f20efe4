"""The five kinds of result: what probes and experiments give, and what reports, JSON and claims take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Cell = float | int | str | bool | None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="forbid")


class Axis(_Frozen):
    """Name an axis, its unit and, where it is shared by all series, its values."""

    name: str
    unit: str = ""
    values: tuple[Cell, ...] = ()


class Series(_Frozen):
    """Hold one line of a curve: a value per point of the x axis, with its 95% interval and count."""

    name: str
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    n: int | None = None


class Column(_Frozen):
    """Name a table's column and the unit of its numbers."""

    name: str
    unit: str = ""


class Picture(_Frozen):
    """Hold one image of a gallery, uint8 [H, W, 3] or [H, W], with a caption and what was measured on it.

    ``data`` is plain JSON. In a gallery with ``view="bands"`` it holds ``truth`` (str or null), ``full`` and, per
    radius in the gallery's order, ``low`` and ``high``: each ``{"prediction": str, "confidence": float}``.
    """

    image: np.ndarray
    caption: str = ""
    data: dict[str, Any] = {}

    @model_validator(mode="after")
    def _pixels(self) -> Picture:
        shape = self.image.shape
        if self.image.dtype != np.uint8 or not (len(shape) == 2 or shape[2:] == (3,)) or not self.image.size:
            raise ValueError(f"a picture is uint8 [H, W, 3] or [H, W]; got {self.image.dtype} {list(shape)}")
        return self


class _Result(_Frozen):
    """Hold what every result says of itself.

    Attributes:
        name: Dotted, unique within an answer, such as ``"bands.accuracy"``.
        title: A line for people.
        how: How it was made: command, model, digest of the weights, data, count, band, precision, seeds,
            versions, hardware class. Plain JSON.
        notes: Sentences that the reader must know: conventions, exemptions, what was substituted.
        arrays: Per-sample data and whatever else is large; stored in ``arrays/*.npz``.
    """

    name: str
    title: str
    how: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] = {}


class Scalar(_Result):
    """Hold one number with its 95% interval."""

    kind: Literal["scalar"] = "scalar"
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""


class Curve(_Result):
    """Hold one or more lines over a common x axis."""

    kind: Literal["curve"] = "curve"
    x: Axis
    y: Axis
    series: tuple[Series, ...]

    @model_validator(mode="after")
    def _lengths(self) -> Curve:
        points = len(self.x.values)
        for line in self.series:
            for values in (line.values, line.low, line.high):
                if values is not None and len(values) != points:
                    raise ValueError(f"series '{line.name}' has {len(values)} values for {points} points")
        return self


class Map(_Result):
    """Hold numbers on a plane: ``values`` [y, x] floating point, row 0 at the top."""

    kind: Literal["map"] = "map"
    x: Axis
    y: Axis
    values: np.ndarray
    unit: str = ""

    @model_validator(mode="after")
    def _plane(self) -> Map:
        values = self.values
        if values.dtype.kind not in "fiub" or values.ndim != 2 or not values.size:
            raise ValueError(f"a map holds numbers [y, x]; got {values.dtype} {list(values.shape)}")
        return self


class Table(_Result):
    """Hold rows of cells under named columns."""

    kind: Literal["table"] = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @model_validator(mode="after")
    def _widths(self) -> Table:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns")
        return self


class Gallery(_Result):
    """Hold pictures.

    Attributes:
        view: ``"plain"``, or ``"bands"`` for pictures that a cut-off slider filters.
        data: For ``"bands"``: ``{"radii": [...], "shape": "disc"|"square", "edge": ..., "unit": "pixel"}``.
    """

    kind: Literal["gallery"] = "gallery"
    pictures: tuple[Picture, ...]
    view: Literal["plain", "bands"] = "plain"
    data: dict[str, Any] = {}

    @model_validator(mode="after")
    def _bands(self) -> Gallery:
        lists = [self.data.get("radii", ())] if self.view == "bands" else []
        lists += [one.data.get(side) or () for one in self.pictures for side in ("low", "high")] if lists else []
        if not all(isinstance(one, list | tuple) for one in lists):
            raise ValueError("a gallery of bands has lists of radii, and of what was said of each low and high copy")
        if lists and not all(isinstance(radius, int | float) for radius in lists[0]):
            raise ValueError("the radii of a gallery of bands are numbers")
        return self


Result = Scalar | Curve | Map | Table | Gallery
AnyResult = Annotated[Result, Field(discriminator="kind")]


def row_dicts(table: Table) -> list[dict[str, Cell]]:
    """Return a table's rows as dictionaries by column name."""
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in table.rows]
