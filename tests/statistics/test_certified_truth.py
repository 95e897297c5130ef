"""Certified bounds against binomial enumeration and a linear model whose smoothed score is known in closed form."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from pipeline.statistics import auc, certified_cohort, largest_radius, order_statistics, smoothed_bounds


def linear(rng: np.random.Generator, scores: np.ndarray, *, sigma: float, draws: int) -> np.ndarray:
    """Noisy scores of f(x) = w x with |w| = 1: its smoothed score is f(x), its worst within r exactly f(x) - r."""
    return scores[:, None] + sigma * rng.normal(size=(len(scores), draws))


@pytest.mark.parametrize(("sigma", "radius", "alpha"), [(0.25, 0.2, 0.1), (0.5, 0.0, 0.2), (1.0, 0.5, 0.05)])
def test_bounds_of_a_linear_model_fail_for_any_of_its_patients_no_more_often_than_alpha(
    sigma: float, radius: float, alpha: float
) -> None:
    rng, runs, wrong = np.random.default_rng(0), 1500, 0
    for _ in range(runs):
        scores = rng.normal(size=15)
        found = smoothed_bounds(linear(rng, scores, sigma=sigma, draws=150), sigma=sigma, radius=radius, alpha=alpha)
        assert not found.abstained.any()
        wrong += bool(((found.lower > scores - radius) | (found.upper < scores + radius)).any())
    assert wrong <= alpha * runs + 3 * math.sqrt(alpha * (1 - alpha) * runs), wrong / runs
    # The bounds are not empty either: they fail now and then, as a bound close to the truth must.
    assert wrong >= 0.1 * alpha * runs, wrong / runs


def test_certified_auc_lies_below_the_auc_under_the_worst_perturbation() -> None:
    """Malignant exams fall by r and benign ones rise by r: the smoothed AUC under attack in closed form."""
    rng, runs, alpha, wrong = np.random.default_rng(1), 300, 0.1, {0.0: 0, 0.1: 0, 0.2: 0}
    for _ in range(runs):
        labels = np.repeat([1, 0], [10, 12])
        scores = rng.normal(size=22) * 0.5 + labels
        noisy = linear(rng, scores, sigma=0.25, draws=200)
        for found in certified_cohort(labels, noisy, sigma=0.25, radii=list(wrong), alpha=alpha):
            worst = scores - found.radius * (2 * labels - 1)
            assert found.auc.lower is not None
            wrong[found.radius] += found.auc.lower > auc(labels, worst)
    assert max(wrong.values()) <= alpha * runs + 16, wrong


def test_certified_calls_hold_under_the_worst_perturbation_and_bounds_tighten_with_draws() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([1, 0], 30)
    scores = rng.normal(size=60) * 0.5 + 2 * labels - 1
    shares = []
    for draws in (100, 1000, 10000):
        noisy = linear(rng, scores, sigma=0.25, draws=draws)
        (found,) = certified_cohort(labels, noisy, sigma=0.25, radii=[0.25], threshold=0.0)
        assert found.sensitivity is not None and found.specificity is not None
        assert found.sensitivity.successes <= (scores[:30] - 0.25 >= 0).sum()
        assert found.specificity.successes <= (scores[30:] + 0.25 < 0).sum()
        shares.append(found.sensitivity.successes + found.specificity.successes)
        assert (found.draws, found.abstained, found.auc.n_positive) == (draws, 0, 30)
    assert shares[0] <= shares[1] <= shares[2]
    assert shares[2] >= 0.9 * ((scores[:30] >= 0.25).sum() + (scores[30:] < -0.25).sum())


@pytest.mark.parametrize("draws", [1, 7, 40, 200])
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3])
def test_ranks_are_the_tightest_that_the_binomial_allows(draws: int, radius: float) -> None:
    chance, p = 0.01, float(norm.cdf(-radius / 0.25))
    low, high = order_statistics(draws, sigma=0.25, radius=radius, chance=chance)
    allowed = [rank for rank in range(1, draws + 1) if sum(binom.pmf(k, draws, p) for k in range(rank)) <= chance]
    assert low == (max(allowed) if allowed else None)
    above = [r for r in range(1, draws + 1) if sum(binom.pmf(k, draws, 1 - p) for k in range(r, draws + 1)) <= chance]
    assert high == (min(above) if above else None)


def test_largest_radius_is_where_bounds_end_and_abstention_begins() -> None:
    most = largest_radius(200, sigma=0.25, alpha=0.001, patients=30)
    noisy = np.random.default_rng(3).normal(size=(30, 200))
    assert not smoothed_bounds(noisy, sigma=0.25, radius=most * 0.999, alpha=0.001).abstained.any()
    beyond = smoothed_bounds(noisy, sigma=0.25, radius=most * 1.001, alpha=0.001)
    assert beyond.abstained.all() and (beyond.lower == -np.inf).all() and (beyond.upper == np.inf).all()
    assert largest_radius(2, sigma=0.25, alpha=0.001, patients=30) == 0.0


def test_abstention_and_ties_count_against_us() -> None:
    labels, noisy = np.array([1, 0, 1, 0]), np.repeat([[1.0], [0.0], [1.0], [1.0]], 50, axis=1)
    near, far = certified_cohort(labels, noisy, sigma=0.25, radii=[0.0, 5.0], threshold=1.0)
    assert (near.auc.value, near.auc.lower) == (0.75, 0.5)
    assert near.sensitivity is not None and near.sensitivity.successes == 2
    assert near.specificity is not None and near.specificity.successes == 1
    assert (far.auc.lower, far.abstained) == (0.0, 4)
    assert far.auc.reason is not None and "50 draws certify radii up to" in far.auc.reason
    assert far.sensitivity is not None and far.sensitivity.successes == 0


def test_one_class_is_not_estimable_and_bad_arguments_are_refused() -> None:
    (found,) = certified_cohort([1, 1], np.zeros((2, 30)), sigma=0.25, radii=[0.1])
    assert found.auc.value is None and found.auc.lower is None and found.auc.reason is not None
    for noisy, settings, what in (
        (np.zeros(3), {}, "shape"),
        (np.full((2, 3), np.nan), {}, "NaN"),
        (np.zeros((2, 3)), {"sigma": 0.0}, "sigma is 0.0"),
        (np.zeros((2, 3)), {"radius": -1.0}, "radius is -1.0"),
        (np.zeros((2, 3)), {"alpha": 1.0}, "alpha is 1.0"),
    ):
        with pytest.raises(ValueError, match=what):
            smoothed_bounds(noisy, **{"sigma": 0.25, "radius": 0.1, "alpha": 0.05, **settings})
