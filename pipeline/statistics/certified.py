"""Certified bounds of median-smoothed exam scores: what no perturbation within an L2 radius can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, norm

from pipeline.statistics.arrays import Flags, Floats, check_scores
from pipeline.statistics.auc import auc
from pipeline.statistics.estimate import Estimate, NotEstimable, Proportion
from pipeline.statistics.operating_points import proportion

METHOD = "median smoothing"


@dataclass(frozen=True)
class SmoothedBounds:
    """Certified interval of every patient's median-smoothed score at one radius.

    Attributes:
        score: (N,) sample median of the noisy scores.
        lower: (N,) bound that the smoothed score of no exam within the radius falls below; -inf where there is none.
        upper: (N,) bound that it does not exceed; inf where there is none.
        abstained: (N,) whether a bound is missing, because the draws are too few for the radius.
        radius: L2 radius over all views of an exam together, in units of the images in [0, 1].
    """

    score: Floats
    lower: Floats
    upper: Floats
    abstained: Flags
    radius: float


@dataclass(frozen=True)
class CertifiedCohort:
    """What is certain of a cohort at one radius, with confidence 1 - alpha over all its patients together.

    Attributes:
        radius: L2 radius of the perturbation of an exam.
        sigma: Standard deviation of the noise.
        draws: Noisy scores per patient.
        alpha: Chance that any bound of any patient at this radius is wrong.
        abstained: Patients without a bound; they count against us.
        auc: ``value`` is the smoothed AUC by sample medians, ``lower`` the least AUC of the smoothed model on these
            patients under any perturbation within the radius; there is no upper bound.
        sensitivity: Malignant patients certainly called positive at the frozen threshold, with the Wilson interval for
            new patients; None without a threshold.
        specificity: Benign patients certainly called negative; None without a threshold.
    """

    radius: float
    sigma: float
    draws: int
    alpha: float
    abstained: int
    auc: Estimate
    sensitivity: Proportion | None
    specificity: Proportion | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def smoothed_bounds(noisy: ArrayLike, *, sigma: float, radius: float, alpha: float) -> SmoothedBounds:
    """Certified intervals from noisy scores (Chiang et al. 2020, "Detection as Regression: Certified Object Detection
    with Median Smoothing").

    With G Gaussian noise of deviation sigma on every pixel of all views, the median of f(x + d + G) over G, for any d
    of L2 length up to the radius r, lies between the quantiles of f(x + G) at p = Phi(-r / sigma) and Phi(r / sigma).
    These are bounded by order statistics of the draws: the k-th smallest lies above the quantile at p with probability
    at most P(Bin(n, p) <= k - 1), and mirrored above; both hold for every distribution, with ties too. Each bound of
    each patient may fail with alpha / (2 N), so that all hold at once with probability 1 - alpha, at this radius.

    This says nothing of the network without noise, nor usefully of the maximum norm: a change of 0.01 everywhere on one
    view of 224 x 224 pixels has L2 length 2.24.

    Args:
        noisy: (N, n) scores of each exam under n independent draws of the noise.
        sigma: Standard deviation of the noise, above 0, in units of the images.
        radius: L2 radius, 0 or more; 0 bounds the smoothed score of the exam itself.
        alpha: Chance of any wrong bound among all patients, in (0, 1).

    Returns:
        Bounds, -inf and inf where the draws are too few for the radius.

    Raises:
        ValueError: arguments that are not allowed, or scores that are not finite.
    """
    values = _noisy(noisy)
    _check(sigma, radius, alpha)
    patients, draws = values.shape
    ordered = np.sort(values, axis=1)
    low, high = order_statistics(draws, sigma=sigma, radius=radius, chance=alpha / (2 * max(patients, 1)))
    lower = ordered[:, low - 1] if low is not None else np.full(patients, -np.inf)
    upper = ordered[:, high - 1] if high is not None else np.full(patients, np.inf)
    none = low is None or high is None
    return SmoothedBounds(np.median(ordered, axis=1), lower, upper, np.full(patients, none), radius)


def order_statistics(draws: int, *, sigma: float, radius: float, chance: float) -> tuple[int | None, int | None]:
    """Ranks (1 is the smallest) of the draws that bound the smoothed score; None where no rank does.

    Args:
        draws: Number of draws, at least 1.
        sigma: Standard deviation of the noise.
        radius: L2 radius.
        chance: Chance that either bound may fail, in (0, 1).
    """
    below = binom.cdf(np.arange(draws), draws, norm.cdf(-radius / sigma))
    # below[k - 1] is the chance that fewer than k draws lie at or below the lower quantile: rising in k.
    low = int(np.searchsorted(below, chance, side="right"))
    return (low, draws + 1 - low) if low else (None, None)


def largest_radius(draws: int, *, sigma: float, alpha: float, patients: int) -> float:
    """Largest radius at which so many draws bound a smoothed score at all, 0 where none does.

    The lowest draw is a bound while (1 - Phi(-r / sigma))^n is at most alpha / (2 N).

    Args:
        draws: Noisy scores per patient, at least 1.
        sigma: Standard deviation of the noise, above 0.
        alpha: Chance of any wrong bound among all patients, in (0, 1).
        patients: Patients that are certified together, at least 1.

    Raises:
        ValueError: arguments that are not allowed.
    """
    _check(sigma, 0.0, alpha)
    if draws < 1 or patients < 1:
        raise ValueError(f"draws is {draws} and patients is {patients}; allowed are 1 or more")
    share = -math.expm1(math.log(alpha / (2 * patients)) / draws)
    return max(0.0, -sigma * float(norm.ppf(share)))


def certified_cohort(
    labels: ArrayLike,
    noisy: ArrayLike,
    *,
    sigma: float,
    radii: Sequence[float],
    alpha: float = 0.001,
    threshold: float | None = None,
    confidence: float = 0.95,
) -> list[CertifiedCohort]:
    """Certified lower bound on the cohort's AUC, sensitivity and specificity at each radius.

    A pair counts as certainly in order where the lower bound of the malignant patient lies above the upper bound of the
    benign one; ties and abstentions count against us. Whatever the perturbation of each exam within the radius, the
    smoothed model's AUC on these patients is at least the share of such pairs, with probability 1 - alpha over the
    noise, at each radius by itself. That is a statement about these patients; new ones vary as ever.

    Args:
        labels: (N,) of 0 and 1, one per patient.
        noisy: (N, n) scores of each exam under n independent draws of the noise.
        sigma: Standard deviation of the noise, above 0.
        radii: L2 radii, each 0 or more.
        alpha: Chance of any wrong bound at a radius, in (0, 1); 0.001 as in Cohen et al. 2019.
        threshold: Smoothed score frozen on validation, at or above which a patient is called positive; None for none.
        confidence: Coverage of the Wilson intervals, in (0, 1).

    Returns:
        One entry per radius, in that order; figures None with a reason where a class is absent.

    Raises:
        ValueError: arguments that are not allowed.
    """
    values = _noisy(noisy)
    positive, _ = check_scores(labels, values[:, 0])
    counts = int(positive.sum()), int((~positive).sum())
    found = []
    for radius in radii:
        bounds = smoothed_bounds(values, sigma=sigma, radius=radius, alpha=alpha)
        malignant, benign = bounds.lower[positive], bounds.upper[~positive]
        try:
            value = auc(positive, bounds.score)
            certain = np.searchsorted(np.sort(benign), malignant, side="left").sum() / (counts[0] * counts[1])
            reason = None
            if bounds.abstained.all():
                most = largest_radius(values.shape[1], sigma=sigma, alpha=alpha, patients=len(values))
                reason = f"{values.shape[1]} draws certify radii up to {most:.3g} for {len(values)} patients; take more"
            estimate = Estimate(value, float(certain), None, *counts, METHOD, reason, 1.0 - alpha)
        except NotEstimable as error:
            estimate = Estimate(None, None, None, *counts, "none", str(error), 1.0 - alpha)
        calls: tuple[Proportion | None, Proportion | None] = (None, None)
        if threshold is not None:
            calls = (
                proportion(
                    int((malignant >= threshold).sum()),
                    counts[0],
                    nobody="certified sensitivity needs malignant patients; there are 0",
                    confidence=confidence,
                ),
                proportion(
                    int((benign < threshold).sum()),
                    counts[1],
                    nobody="certified specificity needs benign patients; there are 0",
                    confidence=confidence,
                ),
            )
        found.append(
            CertifiedCohort(float(radius), sigma, values.shape[1], alpha, int(bounds.abstained.sum()), estimate, *calls)
        )
    return found


def _noisy(noisy: ArrayLike) -> Floats:
    values = np.asarray(noisy, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"noisy scores have shape {values.shape}; allowed is (patients, draws) with at least one draw")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} noisy scores are NaN or infinite; score the exams again")
    return values


def _check(sigma: float, radius: float, alpha: float) -> None:
    if not (sigma > 0.0 and math.isfinite(sigma)):
        raise ValueError(f"sigma is {sigma}; allowed is a standard deviation above 0")
    if not (radius >= 0.0 and math.isfinite(radius)):
        raise ValueError(f"radius is {radius}; allowed is an L2 length of 0 or more")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha}; allowed is a chance strictly between 0 and 1, such as 0.001")
