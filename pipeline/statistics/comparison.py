"""Comparison of two training methods: over cross-validation folds, on the same patients, and over several questions."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu, norm, rankdata, t

from pipeline.statistics.arrays import Flags, Floats, check_confidence, check_scores
from pipeline.statistics.auc import MINIMUM_PER_CLASS, auc
from pipeline.statistics.bootstrap import bootstrap_auc, percentile_interval
from pipeline.statistics.delong import delong_covariance
from pipeline.statistics.estimate import Estimate, NotEstimable

LARGEST_ENUMERATION = 16
"""Up to so many values with ties are permuted in full: C(16, 8) = 12,870 assignments."""

ROUNDING = 1e-12
"""A spread below this share of the values (of their variance for DeLong) is rounding and counts as none."""


class MannWhitney(NamedTuple):
    """U in [0, n m] (pairs whose first value is larger, ties half), two-sided p-value, and the least one in reach."""

    statistic: float
    p_value: float
    smallest_p_value: float


class CorrectedT(NamedTuple):
    """Mean difference over k folds, its corrected standard error, two-sided p-value and 95% interval (low, high)."""

    difference: float
    standard_error: float
    p_value: float
    low: float
    high: float
    folds: int


class DelongDifference(NamedTuple):
    """AUC(first) - AUC(second) in [-1, 1], its two-sided p-value and Wald interval, which may pass -1 or 1."""

    difference: float
    p_value: float
    low: float
    high: float


def mann_whitney(first: ArrayLike, second: ArrayLike) -> MannWhitney:
    """Two-sided exact Mann-Whitney test of two methods over their fold values (Mann and Whitney 1947).

    Without ties the p-value is exact at every size. With ties it comes from all C(n + m, n) assignments of the midranks
    up to n + m = 16, and beyond from the normal approximation. Tails are doubled: p = 2 min(P(U <= u), P(U >= u)), so
    that no p-value is below ``smallest_p_value`` = 2 / C(n + m, n), which is 0.0079 for five against five.

    Folds of one cross-validation share training patients, so that their values are not independent as the test assumes;
    ``corrected_t`` allows for the overlap.

    Args:
        first: (n,) finite values of one method, one per fold.
        second: (m,) finite values of the other; n and m may differ, nothing is paired.

    Raises:
        NotEstimable: no values, or values that are NaN or infinite.
        ValueError: values of more than one dimension.
    """
    one, two = _fold_values(first, "first"), _fold_values(second, "second")
    n, m = one.size, two.size
    smallest = 2.0 / math.comb(n + m, n)
    ranks = rankdata(np.concatenate([one, two]))
    rank_sum, distinct = float(ranks[:n].sum()), np.unique(ranks).size
    if 1 < distinct < n + m <= LARGEST_ENUMERATION:
        sums = ranks[np.array(list(combinations(range(n + m), n)))].sum(axis=1)
        p_value = 2.0 * min(float((sums <= rank_sum).mean()), float((sums >= rank_sum).mean()))
    else:
        method: Literal["exact", "asymptotic"] = "exact" if distinct == n + m else "asymptotic"
        p_value = 1.0 if distinct == 1 else float(mannwhitneyu(one, two, method=method).pvalue)
    return MannWhitney(rank_sum - n * (n + 1) / 2, min(1.0, max(smallest, p_value)), smallest)


def corrected_t(first: ArrayLike, second: ArrayLike, *, test_share: float) -> CorrectedT:
    """Corrected resampled t-test of two methods on the same folds (Nadeau and Bengio 2003, Machine Learning 52:239).

    With d_i = first_i - second_i, their mean d and variance s^2 (divisor k - 1):
    standard_error^2 = (1/k + n_test/n_train) s^2, and d / standard_error has k - 1 degrees of freedom. The second term
    stands for the overlap of the training sets, which the plain paired test ignores.

    Args:
        first: (k,) finite values of one method, one per fold.
        second: (k,) values of the other on the same folds in the same order.
        test_share: n_test / n_train > 0, for example 0.2 / 0.7 for a split of 70 / 10 / 20.

    Raises:
        NotEstimable: fewer than two folds, no spread of the differences, or values that are NaN or infinite.
        ValueError: unequal numbers of folds, or a test_share that is not allowed.
    """
    if not (math.isfinite(test_share) and test_share > 0.0):
        raise ValueError(f"test_share is {test_share}; allowed is n_test / n_train above 0, such as 0.2 / 0.7")
    one, two = _fold_values(first, "first"), _fold_values(second, "second")
    if one.size != two.size:
        raise ValueError(f"{one.size} folds meet {two.size}; pass both methods' values of the same folds")
    if (folds := one.size) < 2:
        raise NotEstimable(f"a corrected t-test needs at least 2 folds; there is {folds}")
    difference, deviation = float((one - two).mean()), float((one - two).std(ddof=1))
    if deviation <= ROUNDING * float(np.abs([one, two]).max()):
        raise NotEstimable(f"the difference is {difference:g} in each of {folds} folds: no spread to test it by")
    error = deviation * math.sqrt(1.0 / folds + test_share)
    half = float(t.ppf(0.975, folds - 1)) * error
    p_value = 2.0 * float(t.sf(abs(difference) / error, folds - 1))
    return CorrectedT(difference, error, p_value, difference - half, difference + half, folds)


def delong_difference(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    folds: ArrayLike | None = None,
    confidence: float = 0.95,
) -> DelongDifference:
    """Paired test of two AUCs of the same patients (DeLong et al. 1988, midranks of Sun and Xu 2014).

    Folds have no patients in common, so their variances add up: with w_f the fold's share of malignant-benign pairs,
    the difference is sum of w_f d_f and its variance sum of w_f^2 v_f.

    Args:
        labels: (N,) of 0 and 1, at least two of each in every fold.
        first: (N,) finite scores of one method, larger is more suspicious.
        second: (N,) scores of the other for the same patients in the same order.
        folds: (N,) the fold in which each patient was tested, or None when one network scored all of them.
        confidence: Coverage of the interval, in (0, 1).

    Raises:
        NotEstimable: fewer than two patients in a class, or a variance of 0 (equal rankings, or both AUCs 0 or 1).
        ValueError: labels or scores that are not allowed.
    """
    check_confidence(confidence)
    positive, numbers = _check_rows(labels, first, second)
    codes = np.zeros(len(positive), dtype=int) if folds is None else pd.factorize(np.asarray(folds))[0]
    difference = variance = alone = pairs = 0.0
    for fold in np.unique(codes):
        at = codes == fold
        values, covariance = delong_covariance(positive[at], numbers[:, at])
        weight = float(positive[at].sum() * (~positive[at]).sum())
        pairs += weight
        difference += weight * float(values[0] - values[1])
        variance += weight**2 * float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
        alone += weight**2 * float(np.trace(covariance))
    difference /= pairs
    if variance <= ROUNDING * alone:
        raise NotEstimable(f"the AUCs differ by {difference:g} with a DeLong variance of 0: no spread to test it by")
    error = math.sqrt(variance) / pairs
    half = float(norm.ppf(0.5 + confidence / 2.0)) * error
    p_value = 2.0 * float(norm.sf(abs(difference) / error))
    return DelongDifference(difference, p_value, difference - half, difference + half)


def pooled_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    folds: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """AUC of the test patients of all folds, in which only patients of the same fold are compared.

    Scores of different folds come from different networks and share no scale. The value is the mean of the folds' AUCs
    weighted by their numbers of malignant-benign pairs; patients of a fold that lacks a class meet nobody and are not
    counted. The interval holds percentiles of a patient bootstrap stratified by fold and class. It speaks of new
    patients for these networks, not of new training, and is a little short where folds hold few patients of a class.

    At exactly 1 the bound of ``auc_estimate`` serves over folds: m_f pairs of each fold f that share no patient are all
    in order with probability at most prod AUC_f^m_f; the bound is the least weighted mean of AUC_f at which this is
    (1 - confidence) / 2 (and mirrored at 0).

    Args:
        labels: (N,) of 0 and 1, one per patient.
        scores: (N,) finite numbers, larger is more suspicious.
        folds: (N,) the fold in which each patient was tested, numbers or names.
        resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the resamples, 0 or more.
        confidence: Coverage aimed at, in (0, 1).

    Returns:
        The estimate in [0, 1]; None with a reason where no fold has both classes, as the interval is where a fold with
        both holds one patient of a class, or where the AUCs of the folds are exactly 0 or 1 but not all the same.

    Raises:
        ValueError: labels, scores, folds or settings that are not allowed.
    """
    return _by_fold(labels, [scores], folds, resamples=resamples, seed=seed, confidence=confidence)


def pooled_auc_difference(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    folds: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Difference of two `pooled_auc` of the same patients, first - second, with a paired patient bootstrap.

    Both scores of a resampled patient stay together, so that what the AUCs share cancels out.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        first: (N,) finite scores of one method, larger is more suspicious.
        second: (N,) scores of the other for the same patients in the same order.
        folds, resamples, seed, confidence: As in ``pooled_auc``.

    Returns:
        The difference in [-1, 1]; None with a reason where it, or its interval, is not estimable (all AUCs 0 or 1).

    Raises:
        ValueError: labels, scores, folds or settings that are not allowed.
    """
    return _by_fold(labels, [first, second], folds, resamples=resamples, seed=seed, confidence=confidence)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values of several questions for their number (Holm 1979, Scandinavian Journal of Statistics 6:65).

    With p_(1) <= ... <= p_(K), the adjusted p_(i) is the largest of min(1, (K - j + 1) p_(j)) over j <= i.

    Args:
        p_values: (K,) in [0, 1]; NaN for a question that could not be tested.

    Returns:
        (K,) adjusted p-values in the order given, each at least its p-value; NaN stays NaN and is not counted in K.

    Raises:
        ValueError: values outside [0, 1], or of more than one dimension.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or ((given < 0.0) | (given > 1.0)).any():
        raise ValueError(f"p_values are {given.tolist()}; allowed is one dimension of numbers from 0 to 1, or NaN")
    order, adjusted = np.argsort(given, kind="stable")[: int((~np.isnan(given)).sum())], given.copy()
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * np.arange(order.size, 0, -1)))
    return adjusted


def _fold_values(values: ArrayLike, name: str) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"{name} has shape {numbers.shape}; allowed is one dimension, one value per fold")
    if numbers.size == 0 or not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise NotEstimable(f"{name} has {numbers.size} values, {count} of them NaN or infinite; give one per fold")
    return numbers


def _check_rows(labels: ArrayLike, *scores: ArrayLike) -> tuple[Flags, Floats]:
    checked = [check_scores(labels, row) for row in scores]
    if any(row.ndim > 1 for _, row in checked):
        raise ValueError("scores have more than one dimension; allowed is one score per patient")
    return checked[0][0], np.stack([row for _, row in checked])


def _by_fold(
    labels: ArrayLike, scores: list[ArrayLike], folds: ArrayLike, *, resamples: int, seed: int, confidence: float
) -> Estimate:
    """Pair-weighted AUC over folds of one score, or the difference of two, with its interval."""
    check_confidence(confidence)
    positive, numbers = _check_rows(labels, *scores)
    codes, names = pd.factorize(np.asarray(folds), sort=True)
    if codes.shape != positive.shape or (codes < 0).any():
        raise ValueError(f"{codes.size} folds, {(codes < 0).sum()} of them empty, meet {positive.size} patients")
    counts = np.array([np.bincount(codes[chosen], minlength=len(names)) for chosen in (positive, ~positive)])
    both = np.flatnonzero(counts.min(axis=0))
    n_positive, n_negative = (int(count) for count in counts[:, both].sum(axis=1))
    estimate = partial(Estimate, n_positive=n_positive, n_negative=n_negative, confidence=confidence)
    if not both.size:
        return estimate(None, None, None, method="none", reason="no fold has both malignant and benign patients")
    pairs, smaller = counts[:, both].prod(axis=0), counts[:, both].min(axis=0)
    members, shares = [np.flatnonzero(codes == fold) for fold in both], pairs / pairs.sum()
    of_folds = np.array([[auc(positive[at], row[at]) for at in members] for row in numbers])
    values, single = of_folds @ pairs / pairs.sum(), len(numbers) == 1
    value, flat, reason = float(values[0] - values[1:].sum()), bool(np.isin(of_folds, (0.0, 1.0)).all()), ""
    if smaller.min() < MINIMUM_PER_CLASS:
        reason = f"an interval needs {MINIMUM_PER_CLASS} patients of each class in fold {names[both[smaller.argmin()]]}"
    elif flat and not (single and value in (0.0, 1.0)):
        reason = "the AUCs of all folds are exactly 0 or 1, so that resampling the patients shows no spread"
    if reason:
        return estimate(value, None, None, method="none", reason=reason)
    if flat:
        bound = _least_mean(shares, smaller, (1.0 - confidence) / 2.0)
        return estimate(value, *((bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)), method="disjoint pairs")
    drawn = np.zeros((len(values), resamples))
    seeds = np.random.default_rng(seed).integers(1 << 62, size=len(members)).tolist()
    for share, at, own in zip(shares, members, seeds, strict=True):
        drawn += share * bootstrap_auc(positive[at], numbers[:, at], resamples=resamples, seed=own)
    lower, upper = percentile_interval(drawn[0] - drawn[1:].sum(axis=0), confidence=confidence)
    return estimate(value, lower, upper, method="bootstrap" if single else "paired bootstrap")


def _least_mean(weights: Floats, disjoint: NDArray[np.int64], tail: float) -> float:
    """Least sum of w_f a_f with prod a_f^m_f = tail and a_f <= 1; by Lagrange a_f = min(1, c m_f / w_f)."""
    ratios = disjoint / weights
    order = np.argsort(ratios)
    logs = np.cumsum((disjoint * np.log(ratios))[order])
    scale = np.exp(((math.log(tail) - logs) / np.cumsum(disjoint[order])).max())  # folds are capped from the last on
    return float(weights @ np.minimum(1.0, scale * ratios))
