"""Sensitivity and specificity against the budget: what each attack does at the threshold frozen on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.statistics.estimate import Proportion
from pipeline.statistics.flips import Flips, flips
from pipeline.statistics.operating_points import sensitivity_specificity
from pipeline.statistics.robustness import CLEAN, ordered_attacks, rows_of_attack, text_or_none


@dataclass(frozen=True)
class BudgetPoint:
    """One attack at a frozen threshold.

    Attributes:
        attack_id: Name of the attack; "clean" has budget 0.
        norm: Norm of the budget, or None.
        budget: Budget, on images in [0, 1].
        patients: Patients scored under it.
        sensitivity: Malignant patients called positive, with a Wilson interval.
        specificity: Benign patients called negative, with a Wilson interval.
        flips: Changes of call against the same patients clean, in both directions; None for clean itself.
    """

    attack_id: str
    norm: str | None
    budget: float
    patients: int
    sensitivity: Proportion
    specificity: Proportion
    flips: Flips | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            **vars(self),
            "sensitivity": self.sensitivity.to_dict(),
            "specificity": self.specificity.to_dict(),
            "flips": None if self.flips is None else self.flips.to_dict(),
        }


def budget_curve(patients: pd.DataFrame, threshold: float, *, confidence: float = 0.95) -> list[BudgetPoint]:
    """Sensitivity, specificity and flips clean and under each attack.

    Args:
        patients: What ``pool_patients`` returned, one partition and fold.
        threshold: Logit frozen on validation; a patient at or above it is called positive.
        confidence: Coverage of the Wilson intervals, in (0, 1).

    Returns:
        Points with "clean" first, then by norm, budget and name.

    Raises:
        ValueError: no clean scores, or a patient whose attacked images are not the clean ones.
    """
    clean = rows_of_attack(patients, CLEAN)
    points = []
    for attack_id in ordered_attacks(patients):
        rows = rows_of_attack(patients, attack_id)
        labels, logits = rows["patient_label"].to_numpy(), rows["logit"].to_numpy(dtype=float)
        sensitivity, specificity = sensitivity_specificity(labels, logits, threshold, confidence=confidence)
        changed = None
        if attack_id != CLEAN:
            before = clean.loc[rows.index, "logit"].to_numpy(dtype=float)
            changed = flips(labels, before, logits, threshold, confidence=confidence)
        first = rows.iloc[0]
        points.append(
            BudgetPoint(
                attack_id=attack_id,
                norm=text_or_none(first.get("norm")),
                budget=float(first.get("budget", 0.0)),
                patients=len(rows),
                sensitivity=sensitivity,
                specificity=specificity,
                flips=changed,
            )
        )
    return points
