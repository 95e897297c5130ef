"""Estimates: a figure with its interval, its numbers of patients, and the reason when it cannot be given."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


class NotEstimable(ValueError):
    """A statistic cannot be computed from these data; the message says why and what would make it possible."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of patients with its interval.

    Attributes:
        value: Point estimate, or None when it is not estimable.
        lower: Lower bound of the two-sided interval, or None when the interval is not estimable.
        upper: Upper bound, or None.
        n_positive: Number of malignant patients behind it.
        n_negative: Number of benign or negative patients behind it.
        method: How the interval was made ("bootstrap", "delong", "disjoint pairs", "none").
        reason: Why the value or its interval is missing; None when both are given.
        confidence: Coverage that the interval aims at, in (0, 1).
    """

    value: float | None
    lower: float | None
    upper: float | None
    n_positive: int
    n_negative: int
    method: str
    reason: str | None = None
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Proportion:
    """A share of patients with its Wilson interval.

    Attributes:
        value: successes / total, or None when total is 0.
        lower: Lower bound of the Wilson interval, or None.
        upper: Upper bound, or None.
        successes: Number of patients with the property.
        total: Number of patients looked at.
        reason: Why it is missing; None when it is given.
        confidence: Coverage that the interval aims at, in (0, 1).
    """

    value: float | None
    lower: float | None
    upper: float | None
    successes: int
    total: int
    reason: str | None = None
    confidence: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)
