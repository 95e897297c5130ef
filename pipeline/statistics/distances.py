"""How far images are from being flipped: a summary of shortest changes, those not found counted as farther."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.statistics.robustness import GREY_LEVELS, AttackResult, is_maximum_norm


@dataclass(frozen=True)
class DistanceSummary:
    """Shortest changes in the maximum norm that move an image's logit across 0, as shares of the grey scale.

    Attributes:
        images: Images that were searched.
        found: Images for which a change was found.
        quartiles: First quartile, median and third quartile over all images; None where that image was not flipped.
        grey_levels: The quartiles in grey levels, by depth.
        reason: Why there are none; None where there are some.
    """

    images: int
    found: int
    quartiles: list[float | None]
    grey_levels: dict[str, list[float | None]]
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def distance_summary(distances: Sequence[float | None]) -> DistanceSummary:
    """Summarise distances; None stands for an image that no change flipped within the search, farther than any other.

    The quartiles are values of images (no interpolation, which would need the distances that were not found). Each is
    an upper bound, since a search finds short changes, not the shortest.

    Args:
        distances: (N,) of 0 or more, or None.
    """
    values = np.sort([np.inf if value is None else float(value) for value in distances])
    if values.size == 0:
        return DistanceSummary(0, 0, [None] * 3, {depth: [None] * 3 for depth in GREY_LEVELS}, "no image was searched")
    at = [float(np.quantile(values, share, method="inverted_cdf")) for share in (0.25, 0.5, 0.75)]
    quartiles = [value if np.isfinite(value) else None for value in at]
    return DistanceSummary(
        int(values.size),
        int(np.isfinite(values).sum()),
        quartiles,
        {depth: [None if q is None else q * levels for q in quartiles] for depth, levels in GREY_LEVELS.items()},
        None,
    )


def strongest_first(results: Sequence[AttackResult], *, budget: float) -> list[AttackResult]:
    """Clean first, then maximum-norm attacks of one budget, then the others; each by rising AUC, without one last.

    Args:
        results: As ``robustness`` gives them.
        budget: At which attacks are compared.
    """
    clean = [result for result in results if result.difference is None]
    others = [result for result in results if result.difference is not None]

    def place(result: AttackResult) -> tuple[bool, bool, float]:
        compared = is_maximum_norm(result.norm) and result.budget == budget
        return not compared, result.auc.value is None, result.auc.value or 0.0

    return clean + sorted(others, key=place)
