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


def rank_correlation(rows: Rows, column: str, other: str, count: int) -> float | None:
    """Return Spearman's rank correlation of two columns over rows that have both.

    Returns:
        None where fewer than ``count`` rows have both, or one column has the same number everywhere.
    """
    pairs = [(row.get(column), row.get(other)) for row in rows]
    known = [(a, b) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
    if len(known) < count:
        return None
    left, right = zip(*known, strict=True)
    if len(set(left)) == 1 or len(set(right)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)
