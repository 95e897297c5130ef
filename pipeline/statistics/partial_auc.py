"""Partial AUC: the area under the ROC curve over the range of false alarms that a clinic would accept."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import Floats, check_confidence, check_scores, require_both_classes
from pipeline.statistics.auc import MINIMUM_PER_CLASS
from pipeline.statistics.bootstrap import percentile_interval
from pipeline.statistics.cumulated import of_data, of_resamples
from pipeline.statistics.estimate import Estimate, NotEstimable


def partial_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    false_alarms: tuple[float, float],
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Standardised partial AUC over a range of false alarms (McClish 1989, Medical Decision Making 9:190).

    With A the area under the ROC curve between the shares a and b of false alarms, c = (b^2 - a^2) / 2 that of chance
    and m = b - a that of perfection, it is (1 + (A - c) / (m - c)) / 2: 0.5 is chance and 1 is perfect, and values
    below 0.5, possibly below 0, are worse than chance.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        scores: (N,) finite numbers, one per patient.
        false_alarms: (a, b) with 0 <= a < b <= 1, such as (0.0, 0.2) for specificities above 0.8.
        resamples: Number of resamples of the stratified patient bootstrap, at least 1.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The estimate; without an interval where the ROC curve is perfect (or at 0) over the range, since then all
        resamples agree.

    Raises:
        ValueError: labels, scores or settings that are not allowed.
    """
    check_confidence(confidence)
    low, high = false_alarms
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"false_alarms is {false_alarms}; allowed is a range (a, b) with 0 <= a < b <= 1")
    positive, numbers = check_scores(labels, scores)
    counts = int(positive.sum()), int((~positive).sum())
    try:
        require_both_classes(positive, what="a partial AUC")
    except NotEstimable as error:
        return Estimate(None, None, None, *counts, "none", str(error), confidence)
    figure = partial(_standardised, low=low, high=high)
    value = of_data(positive, numbers, figure)
    if min(counts) < MINIMUM_PER_CLASS:
        reason = f"an interval needs at least {MINIMUM_PER_CLASS} patients of each class; one class has {min(counts)}"
        return Estimate(value, None, None, *counts, "none", reason, confidence)
    drawn = of_resamples(positive, numbers, figure, resamples=resamples, seed=seed)
    lower, upper = percentile_interval(drawn, confidence=confidence)
    if drawn.max() - drawn.min() < 1e-12:
        reason = "all resamples of the patients have the same partial AUC, so that they show no spread"
        return Estimate(value, None, None, *counts, "none", reason, confidence)
    return Estimate(value, lower, upper, *counts, "bootstrap", None, confidence)


def _standardised(true: Floats, false: Floats, *, low: float, high: float) -> Floats:
    """McClish's figure of each row: trapezoids between the corners, cut at both ends of the range."""
    sensitivity = np.concatenate([np.zeros((len(true), 1)), true / true[:, -1:]], axis=1)
    alarms = np.concatenate([np.zeros((len(false), 1)), false / false[:, -1:]], axis=1)
    left, right, start, end = alarms[:, :-1], alarms[:, 1:], sensitivity[:, :-1], sensitivity[:, 1:]
    width = right - left
    slope = np.divide(end - start, width, out=np.zeros_like(width), where=width > 0)
    first, second = np.clip(left, low, high), np.clip(right, low, high)
    middle = start + slope * ((first + second) / 2 - left)
    area = ((second - first) * middle).sum(axis=1)
    chance, perfect = (high**2 - low**2) / 2, high - low
    return 0.5 * (1.0 + (area - chance) / (perfect - chance))
