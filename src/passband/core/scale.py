"""How large an experiment is run."""

from __future__ import annotations

from enum import StrEnum


class Scale(StrEnum):
    """Name a scale: ``smoke`` (seconds, built-in data), ``small`` (real sets, two cores), ``full`` (the paper's).

    >>> Scale.SMALL.reaches(Scale.SMOKE), Scale.SMOKE.reaches(Scale.SMALL)
    (True, False)
    """

    SMOKE = "smoke"
    SMALL = "small"
    FULL = "full"

    def reaches(self, other: Scale) -> bool:
        """Tell whether this scale is at least as large as ``other``."""
        order = list(Scale)
        return order.index(self) >= order.index(other)
