"""Precision and recall: the curve and the average precision, which depend on the share of malignant patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import Floats, check_confidence, check_scores, require_both_classes
from pipeline.statistics.auc import MINIMUM_PER_CLASS
from pipeline.statistics.bootstrap import percentile_interval
from pipeline.statistics.cumulated import descending_groups, of_data, of_resamples
from pipeline.statistics.estimate import Estimate, NotEstimable


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall at every distinct score, from the highest down.

    Attributes:
        recall: (G,) share of malignant patients at or above the threshold, rising to 1.
        precision: (G,) share of malignant among the patients at or above it.
        thresholds: (G,) scores, falling.
        prevalence: Share of malignant patients: the precision of calling everybody, the average precision of chance.
    """

    recall: Floats
    precision: Floats
    thresholds: Floats
    prevalence: float


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> PrecisionRecallCurve:
    """Precision and recall of one score per patient; patients of equal score are called together.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) finite numbers, larger is more suspicious.

    Raises:
        NotEstimable: only one class is present.
        ValueError: labels or scores that are not allowed.
    """
    positive, numbers = check_scores(labels, scores)
    require_both_classes(positive, what="a precision-recall curve")
    order, last, thresholds = descending_groups(numbers)
    true = np.cumsum(positive[order])[last]
    return PrecisionRecallCurve(true / true[-1], true / (last + 1.0), thresholds, float(positive.mean()))


def average_precision(
    labels: ArrayLike, scores: ArrayLike, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Average precision, sum of (R_k - R_(k-1)) P_k over falling thresholds, with a stratified patient bootstrap.

    No interpolation, as in scikit-learn. It holds for the share of malignant patients in these data, which the
    resamples keep; at another prevalence it is another number.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        scores: (N,) finite numbers, one per patient.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The estimate in (0, 1]. At exactly 1 all resamples agree, so that an interval is not estimable.

    Raises:
        ValueError: labels, scores or settings that are not allowed.
    """
    check_confidence(confidence)
    positive, numbers = check_scores(labels, scores)
    counts = int(positive.sum()), int((~positive).sum())
    try:
        require_both_classes(positive, what="an average precision")
    except NotEstimable as error:
        return Estimate(None, None, None, *counts, "none", str(error), confidence)
    value = of_data(positive, numbers, _average)
    if min(counts) < MINIMUM_PER_CLASS:
        reason = f"an interval needs at least {MINIMUM_PER_CLASS} patients of each class; one class has {min(counts)}"
        return Estimate(value, None, None, *counts, "none", reason, confidence)
    if numbers[positive].min() > numbers[~positive].max():
        reason = "every malignant patient scores above every benign one, so that resampling shows no spread"
        return Estimate(value, None, None, *counts, "none", reason, confidence)
    drawn = of_resamples(positive, numbers, _average, resamples=resamples, seed=seed)
    return Estimate(value, *percentile_interval(drawn, confidence=confidence), *counts, "bootstrap", None, confidence)


def _average(true: Floats, false: Floats) -> Floats:
    called = true + false
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    return (np.diff(true, axis=1, prepend=0.0) * precision).sum(axis=1) / true[:, -1]
