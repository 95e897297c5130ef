"""AUC of patients: the share of (malignant, benign) pairs that the scores put in the right order, with intervals."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from pipeline.statistics.arrays import check_confidence, check_scores, require_both_classes
from pipeline.statistics.bootstrap import bootstrap_auc, percentile_interval
from pipeline.statistics.delong import delong_interval
from pipeline.statistics.estimate import Estimate, NotEstimable

MINIMUM_PER_CLASS = 2
"""Fewer patients than this in a class have no spread to resample: the interval is then not estimable."""


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann-Whitney U / (n_positive n_negative)).

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) finite numbers, larger is more suspicious.

    Returns:
        AUC in [0, 1].

    Raises:
        NotEstimable: only one class is present. It is never answered with 0.5.
        ValueError: labels or scores that are not allowed.
    """
    positive, numbers = check_scores(labels, scores)
    require_both_classes(positive, what="an AUC")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    rank_sum = float(rankdata(numbers)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auc_estimate(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    interval: Literal["bootstrap", "delong"] = "bootstrap",
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """AUC with a two-sided interval; what cannot be estimated is None with a reason.

    The bootstrap resamples malignant and benign patients apart (stratified) and takes percentiles. At an AUC of exactly
    1 or 0 every resample says the same, so both intervals would collapse to a point; the interval then comes from
    ``min(n_positive, n_negative)`` pairs that share no patient: all of them are in order with probability at most
    AUC^m, hence AUC >= ((1 - confidence) / 2)^(1/m), exact and conservative (and mirrored at 0).

    Args:
        labels: (N,) of 0 and 1, one per patient.
        scores: (N,) finite numbers, one per patient.
        interval: "bootstrap" (percentiles of the stratified patient bootstrap) or "delong".
        resamples: Number of bootstrap resamples; 0 for the value without an interval, as between epochs.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The estimate.

    Raises:
        ValueError: labels, scores or settings that are not allowed.
    """
    if interval not in ("bootstrap", "delong"):
        raise ValueError(f"interval is {interval!r}; allowed are 'bootstrap' and 'delong'")
    check_confidence(confidence)
    positive, numbers = check_scores(labels, scores)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    try:
        value = auc(positive, numbers)
    except NotEstimable as error:
        return Estimate(None, None, None, n_positive, n_negative, "none", str(error), confidence)
    smaller = min(n_positive, n_negative)
    if smaller < MINIMUM_PER_CLASS:
        reason = f"an interval needs at least {MINIMUM_PER_CLASS} patients of each class; one class has {smaller}"
        return Estimate(value, None, None, n_positive, n_negative, "none", reason, confidence)
    if value in (0.0, 1.0):
        bound = ((1.0 - confidence) / 2.0) ** (1.0 / smaller)
        lower, upper = (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)
        return Estimate(value, lower, upper, n_positive, n_negative, "disjoint pairs", None, confidence)
    if interval == "bootstrap" and resamples == 0:
        reason = "no resamples were asked for"
        return Estimate(value, None, None, n_positive, n_negative, "none", reason, confidence)
    if interval == "delong":
        lower, upper = delong_interval(positive, numbers, confidence=confidence)
    else:
        values = bootstrap_auc(positive, numbers[None], resamples=resamples, seed=seed)
        lower, upper = percentile_interval(values[0], confidence=confidence)
    return Estimate(value, lower, upper, n_positive, n_negative, interval, None, confidence)


def auc_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    reference: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Paired difference of two AUCs of the same patients, AUC(scores) - AUC(reference), with a bootstrap interval.

    Both AUCs are taken on the same resamples of patients, so that what they share cancels out.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) scores, for example under attack.
        reference: (N,) scores of the same patients in the same order, for example clean.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The difference in [-1, 1]. When both AUCs are exactly 0 or 1 the interval is not estimable.
    """
    check_confidence(confidence)
    positive, first = check_scores(labels, scores)
    _, second = check_scores(labels, reference)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    try:
        values = auc(positive, first), auc(positive, second)
    except NotEstimable as error:
        return Estimate(None, None, None, n_positive, n_negative, "none", str(error), confidence)
    difference = values[0] - values[1]
    reason = None
    if min(n_positive, n_negative) < MINIMUM_PER_CLASS:
        reason = f"an interval needs at least {MINIMUM_PER_CLASS} patients of each class"
    elif all(value in (0.0, 1.0) for value in values):
        reason = "both AUCs are exactly 0 or 1, so that resampling the patients shows no spread"
    if reason:
        return Estimate(difference, None, None, n_positive, n_negative, "none", reason, confidence)
    resampled = bootstrap_auc(positive, np.stack([first, second]), resamples=resamples, seed=seed)
    lower, upper = percentile_interval(resampled[0] - resampled[1], confidence=confidence)
    return Estimate(difference, lower, upper, n_positive, n_negative, "paired bootstrap", None, confidence)


def patient_auc(table: pd.DataFrame, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """AUC with a patient-bootstrap interval of a table that ``pool_patients`` returned, for one attack.

    Args:
        table: One row per patient with patient_id, patient_label and logit; one attack_id and one fold only.
        resamples: Number of bootstrap resamples; 0 for the value without an interval.
        seed: Seed of the resamples.
        confidence: Coverage aimed at, in (0, 1).

    Raises:
        ValueError: a patient stands in the table more than once.
    """
    if table["patient_id"].duplicated().any():
        raise ValueError(
            "a patient stands more than once in the table; pass the rows of one attack_id, one partition and one fold"
        )
    labels, logits = table["patient_label"].to_numpy(), table["logit"].to_numpy(dtype=np.float64)
    return auc_estimate(labels, logits, resamples=resamples, seed=seed, confidence=confidence)
