"""DeLong's variance of the AUC from midranks, one score per patient: a second interval beside the bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from pipeline.statistics.arrays import Floats, check_confidence, check_scores
from pipeline.statistics.estimate import NotEstimable


def delong_covariance(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """AUCs of several scores of the same patients and their covariance (DeLong 1988; midranks of Sun and Xu 2014).

    Args:
        labels: (N,) of 0 and 1, at least two of each.
        scores: (A, N).

    Returns:
        AUCs (A,) and covariance (A, A).

    Raises:
        NotEstimable: fewer than two patients in a class.
        ValueError: arguments that are not allowed.
    """
    positive, numbers = check_scores(labels, np.atleast_2d(np.asarray(scores, dtype=np.float64)))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        raise NotEstimable(
            "a DeLong variance needs two patients of each class; "
            f"there are {n_positive} malignant and {n_negative} benign"
        )
    malignant, benign = numbers[:, positive], numbers[:, ~positive]
    together = rankdata(np.concatenate([malignant, benign], axis=1), axis=1)
    in_malignant, in_benign = rankdata(malignant, axis=1), rankdata(benign, axis=1)
    of_malignant = (together[:, :n_positive] - in_malignant) / n_negative
    of_benign = 1.0 - (together[:, n_positive:] - in_benign) / n_positive
    covariance = np.atleast_2d(np.cov(of_malignant)) / n_positive + np.atleast_2d(np.cov(of_benign)) / n_negative
    return of_malignant.mean(axis=1), covariance


def delong_interval(labels: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided DeLong interval of one AUC, on the logit scale so that it stays within [0, 1].

    Args:
        labels: (N,) of 0 and 1, at least two of each.
        scores: (N,).
        confidence: Coverage aimed at, in (0, 1).

    Raises:
        NotEstimable: fewer than two patients in a class, or an AUC of exactly 0 or 1.
    """
    check_confidence(confidence)
    values, covariance = delong_covariance(labels, np.asarray(scores, dtype=np.float64)[None])
    value, deviation = float(values[0]), float(np.sqrt(covariance[0, 0]))
    if value <= 0.0 or value >= 1.0:
        raise NotEstimable(f"the AUC is {value:g}: DeLong's variance is 0 there and says nothing about the spread")
    half = float(norm.ppf(0.5 + confidence / 2.0)) * deviation / (value * (1.0 - value))
    middle = np.log(value / (1.0 - value))
    return float(1.0 / (1.0 + np.exp(half - middle))), float(1.0 / (1.0 + np.exp(-half - middle)))
