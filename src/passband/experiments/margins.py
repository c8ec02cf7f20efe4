"""Margins that claims share: one row against another."""

from __future__ import annotations

from passband.core.claims import Rows


def value(rows: Rows, case: str, column: str) -> float | None:
    """Return a case's number in a column, or None where it was not measured."""
    found = next((row.get(column) for row in rows if row["case"] == case), None)
    return float(found) if isinstance(found, int | float) else None


def difference(rows: Rows, better: str, worse: str, column: str) -> float | None:
    """Return by how much one case's number lies above another's."""
    left, right = value(rows, better, column), value(rows, worse, column)
    return None if left is None or right is None else left - right


def nearer(rows: Rows, case: str, to: str, than: str, column: str) -> float | None:
    """Return how much nearer a case lies to one case from below than to another from above.

    It gives "close to A and far from B" a number without a tolerance: (case − than) − (to − case).
    """
    far, close = difference(rows, case, than, column), difference(rows, to, case, column)
    return None if far is None or close is None else far - close
