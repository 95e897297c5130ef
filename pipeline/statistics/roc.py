"""ROC curve: sensitivity against the share of false alarms at every threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.statistics.arrays import Floats, check_scores, require_both_classes


@dataclass(frozen=True)
class RocCurve:
    """Corners of a ROC curve from (0, 0) to (1, 1).

    Attributes:
        false_alarms: (P,) share of benign patients at or above the threshold, rising.
        sensitivity: (P,) share of malignant patients at or above the threshold, rising.
        thresholds: (P,) scores, falling; the first is infinite (nobody is called positive).
    """

    false_alarms: Floats
    sensitivity: Floats
    thresholds: Floats


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> RocCurve:
    """ROC curve of one score per patient; patients of equal score are called together.

    Only corners are kept: points on a straight line between their neighbours are left out. The trapezoid area under
    the curve is the AUC with ties counted half.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) finite numbers, larger is more suspicious.

    Raises:
        NotEstimable: only one class is present.
        ValueError: labels or scores that are not allowed.
    """
    positive, numbers = check_scores(labels, scores)
    require_both_classes(positive, what="a ROC curve")
    order = np.argsort(-numbers, kind="stable")
    falling, hits = numbers[order], positive[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    true = np.concatenate([[0], np.cumsum(hits)[last]])
    false = np.concatenate([[0], np.cumsum(~hits)[last]])
    thresholds = np.concatenate([[np.inf], falling[last]])
    turn = np.diff(true)[:-1] * np.diff(false)[1:] != np.diff(true)[1:] * np.diff(false)[:-1]
    keep = np.concatenate([[True], turn, [True]])
    return RocCurve(false[keep] / false[-1], true[keep] / true[-1], thresholds[keep])
