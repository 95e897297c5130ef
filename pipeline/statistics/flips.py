"""Flips: patients whose call at the frozen threshold changes under an attack, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import check_scores
from pipeline.statistics.estimate import Proportion
from pipeline.statistics.operating_points import proportion


@dataclass(frozen=True)
class Flips:
    """Changes of call under one attack.

    Attributes:
        newly_missed: Malignant patients called positive clean and negative under attack, of those called positive.
        newly_alarmed: Benign patients called negative clean and positive under attack, of those called negative.
        recovered: Patients called wrongly clean and rightly under attack (an attack does not aim at it).
        total: Patients compared.
    """

    newly_missed: Proportion
    newly_alarmed: Proportion
    recovered: int
    total: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "newly_missed": vars(self.newly_missed), "newly_alarmed": vars(self.newly_alarmed)}


def flips(
    labels: ArrayLike, clean: ArrayLike, attacked: ArrayLike, threshold: float, *, confidence: float = 0.95
) -> Flips:
    """Count the patients whose call changes between clean and attacked.

    Args:
        labels: (N,) of 0 and 1.
        clean: (N,) clean patient logits.
        attacked: (N,) logits of the same patients under attack.
        threshold: A patient at or above it is called positive.
        confidence: Coverage of the Wilson intervals, in (0, 1).
    """
    positive, before = check_scores(labels, clean)
    _, after = check_scores(labels, attacked)
    called, still = before >= threshold, after >= threshold
    caught, spared = positive & called, ~positive & ~called
    return Flips(
        newly_missed=proportion(
            int((caught & ~still).sum()),
            int(caught.sum()),
            nobody="no malignant patient is called positive without an attack",
            confidence=confidence,
        ),
        newly_alarmed=proportion(
            int((spared & still).sum()),
            int(spared.sum()),
            nobody="no benign patient is called negative without an attack",
            confidence=confidence,
        ),
        recovered=int(((called != positive) & (still == positive)).sum()),
        total=int(np.size(positive)),
    )
