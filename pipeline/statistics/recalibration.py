"""Recalibration: an intercept and a slope fitted on validation patients, and what they do for the test patients."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from pipeline.statistics.arrays import Floats, check_scores
from pipeline.statistics.calibration import MINIMUM_PER_CLASS, NO_FIT, Calibration, calibration
from pipeline.statistics.estimate import NotEstimable
from pipeline.statistics.logistic import fit_logistic


@dataclass(frozen=True)
class Recalibration:
    """Platt scaling z -> intercept + slope z (Platt 1999), fitted once on validation patients.

    Attributes:
        intercept: Added to the scaled logit, or None when it is not estimable.
        slope: Factor of the logit, above 0, or None.
        n_positive: Malignant patients that it was fitted on.
        n_negative: Benign patients that it was fitted on.
        reason: Why it is missing; None when it is given.
    """

    intercept: float | None
    slope: float | None
    n_positive: int
    n_negative: int
    reason: str | None = None

    def apply(self, logits: ArrayLike) -> Floats:
        """Recalibrated logits.

        Raises:
            NotEstimable: the recalibration could not be fitted.
        """
        if self.intercept is None or self.slope is None:
            raise NotEstimable(f"there is no recalibration: {self.reason}")
        return self.intercept + self.slope * np.asarray(logits, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationChange:
    """Calibration of the test patients before and after a recalibration; ``after`` is None where there is none."""

    recalibration: Recalibration
    before: Calibration
    after: Calibration | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "recalibration": self.recalibration.to_dict(),
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
        }


def fit_recalibration(labels: ArrayLike, logits: ArrayLike) -> Recalibration:
    """Fit intercept and slope by logistic regression of the outcome on the logit.

    Args:
        labels: (N,) of 0 and 1, the validation patients.
        logits: (N,) their clean patient logits.

    Returns:
        The recalibration; with a reason instead under 10 patients of a class, where the classes do not overlap, or
        where the slope is not above 0 and would turn the ranking round.

    Raises:
        ValueError: labels or logits that are not allowed.
    """
    positive, z = check_scores(labels, logits)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < MINIMUM_PER_CLASS:
        reason = (
            f"recalibration needs at least {MINIMUM_PER_CLASS} validation patients of each class; "
            f"there are {counts[0]} malignant and {counts[1]} benign"
        )
        return Recalibration(None, None, *counts, reason)
    intercept, slope = fit_logistic(positive, z, np.ones((1, len(z))), terms="intercept and slope")[0].tolist()
    if not np.isfinite(slope):
        return Recalibration(None, None, *counts, f"on validation {NO_FIT}")
    if slope <= 0.0:
        reason = f"the slope on validation is {slope:.3g}: malignant patients score no higher there than benign ones"
        return Recalibration(None, None, *counts, reason)
    return Recalibration(intercept, slope, *counts)


def calibration_change(
    recalibration: Recalibration,
    labels: ArrayLike,
    logits: ArrayLike,
    *,
    bins: int = 10,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> CalibrationChange:
    """Calibration of test patients as the network gives it and after recalibration, on the same resamples.

    Args:
        recalibration: Fitted on other patients; it counts as given, so that the intervals speak of the test patients.
        labels: (N,) of 0 and 1, the test patients.
        logits: (N,) their patient logits as the network gives them.
        bins, resamples, seed, confidence: As in ``calibration``.

    Raises:
        ValueError: labels, logits or settings that are not allowed.
    """
    _, z = check_scores(labels, logits)

    def of(values: Floats) -> Calibration:
        return calibration(labels, values, bins=bins, resamples=resamples, seed=seed, confidence=confidence)

    return CalibrationChange(recalibration, of(z), None if recalibration.reason else of(recalibration.apply(z)))


def at_prevalence(probabilities: ArrayLike, *, fitted: float, stated: float) -> Floats:
    """Risks at another prevalence by Bayes' rule: the logit moves by logit(stated) - logit(fitted).

    Right where the patients of each class are alike at both places (Saerens et al. 2002, Neural Computation 14:21).

    Args:
        probabilities: (N,) risks in [0, 1], calibrated at ``fitted``.
        fitted: Share of malignant patients where the risks were calibrated, in (0, 1).
        stated: Share of malignant patients asked for, in (0, 1).

    Raises:
        ValueError: shares that are not allowed.
    """
    for name, share in (("fitted", fitted), ("stated", stated)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} is {share}; allowed is a share strictly between 0 and 1")
    move = float(logit(stated) - logit(fitted))
    return np.asarray(expit(logit(np.asarray(probabilities, dtype=np.float64)) + move))
