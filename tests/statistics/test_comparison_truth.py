"""Comparison of two methods against enumeration, closed forms, O(n^2) pair counts and simulation."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm, ttest_rel

from pipeline.statistics import (
    NotEstimable,
    auc,
    auc_difference,
    auc_estimate,
    corrected_t,
    delong_difference,
    holm,
    mann_whitney,
    pooled_auc,
    pooled_auc_difference,
)

SHARE = 0.2 / 0.7


def pairs_won(first: list[float], second: list[float]) -> float:
    return sum((x > y) + 0.5 * (x == y) for x in first for y in second)


def enumerated_p_value(first: list[float], second: list[float]) -> float:
    """Twice the smaller tail of U over every way to call n of the n + m values "first"."""
    values, observed, counts = [*first, *second], pairs_won(first, second), []
    for chosen in combinations(range(len(values)), len(first)):
        rest = [value for index, value in enumerate(values) if index not in chosen]
        counts.append(pairs_won([values[index] for index in chosen], rest))
    tails = [sum(u <= observed for u in counts), sum(u >= observed for u in counts)]
    return min(1.0, 2 * min(tails) / len(counts))


def pair_weighted_auc(labels: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> float:
    """Pairs in order over pairs, both counted one by one within each fold."""
    won, total = 0.0, 0
    for fold in set(folds.tolist()):
        malignant, benign = scores[(folds == fold) & (labels == 1)], scores[(folds == fold) & (labels == 0)]
        won += pairs_won(malignant.tolist(), benign.tolist())
        total += len(malignant) * len(benign)
    return won / total


def cohort(
    rng: np.random.Generator, sizes: list[tuple[int, int]], shifts: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, two correlated binormal scores and folds; each fold's network has an offset of its own."""
    labels = np.concatenate([np.repeat([1, 0], size) for size in sizes])
    folds = np.repeat(np.arange(len(sizes)), [sum(size) for size in sizes])
    shared, own = rng.normal(size=labels.size), rng.normal(size=(2, labels.size))
    noise = math.sqrt(0.5) * (shared + own) + rng.normal(size=(2, len(sizes)))[:, folds] * 3
    return labels, noise[0] + shifts[0] * labels, noise[1] + shifts[1] * labels, folds


# Mann-Whitney


def test_five_separated_folds_against_five_reach_the_floor_of_0_0079_and_no_lower() -> None:
    found = mann_whitney([0.9, 0.91, 0.92, 0.93, 0.94], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert found.statistic == 25.0
    assert found.p_value == pytest.approx(2 / 252, abs=1e-15)
    assert found.smallest_p_value == 2 / 252
    assert round(found.smallest_p_value, 4) == 0.0079
    assert mann_whitney([0.9] * 5, [0.1] * 5).p_value == pytest.approx(2 / 252, abs=1e-15)
    assert mann_whitney([1.0], [0.0]) == (1.0, 1.0, 1.0)


fold_values = st.lists(st.integers(0, 4).map(lambda value: value / 8), min_size=1, max_size=5)


@given(fold_values, fold_values)
@settings(max_examples=60, deadline=None)
def test_p_value_with_ties_is_that_of_all_assignments_counted_one_by_one(
    first: list[float], second: list[float]
) -> None:
    found = mann_whitney(first, second)
    assert found.statistic == pairs_won(first, second)
    assert found.p_value == pytest.approx(enumerated_p_value(first, second), abs=1e-12)
    assert found.smallest_p_value <= found.p_value + 1e-15 <= 1.0 + 1e-15


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 7), (2, 4), (6, 1)])
def test_p_value_without_ties_is_that_of_all_assignments_and_the_same_when_swapped(n: int, m: int) -> None:
    values = np.random.default_rng(n).normal(size=n + m).tolist()
    found, swapped = mann_whitney(values[:n], values[n:]), mann_whitney(values[n:], values[:n])
    assert found.p_value == pytest.approx(enumerated_p_value(values[:n], values[n:]), abs=1e-12)
    assert (swapped.p_value, swapped.statistic) == pytest.approx((found.p_value, n * m - found.statistic), abs=1e-12)


def test_many_values_are_exact_without_ties_and_approximate_but_not_below_the_floor_with_ties() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=12), rng.normal(size=10) + 0.8
    assert mann_whitney(first, second).p_value == pytest.approx(mannwhitneyu(first, second, method="exact").pvalue)
    first, second = np.round(first), np.round(second)
    assert mann_whitney(first, second).p_value == pytest.approx(mannwhitneyu(first, second, method="asymptotic").pvalue)
    lonely = mann_whitney([9.0], [0.0] * 30)
    assert mannwhitneyu([9.0], [0.0] * 30, method="asymptotic").pvalue < lonely.smallest_p_value
    assert lonely.p_value == lonely.smallest_p_value == 2 / 31


@pytest.mark.parametrize("size", [5, 12])
def test_equal_values_everywhere_have_p_value_one(size: int) -> None:
    assert mann_whitney([0.7] * size, [0.7] * size)[:2] == (size * size / 2, 1.0)


@pytest.mark.parametrize(
    ("first", "what"),
    [([], "first has 0 values"), ([0.5, math.nan], "1 of them NaN"), ([math.inf], "1 of them NaN or infinite")],
)
def test_empty_and_missing_fold_values_are_not_estimable(first: list[float], what: str) -> None:
    with pytest.raises(NotEstimable, match=what):
        mann_whitney(first, [0.1, 0.2])
    with pytest.raises(NotEstimable, match=what.replace("first", "second")):
        corrected_t([0.1], first, test_share=SHARE)


# Corrected resampled t-test


def test_corrected_t_is_nadeau_and_bengios_formula_worked_by_hand() -> None:
    """Differences 0.02, 0.04, 0, 0.06, -0.02: mean 0.02, sum of squares 0.004, variance 0.001, 4 degrees of freedom."""
    found = corrected_t([0.82, 0.84, 0.80, 0.86, 0.78], [0.80] * 5, test_share=SHARE)
    error = math.sqrt((1 / 5 + 2 / 7) * 0.001)
    ratio = 0.02 / error
    root = math.sqrt(1 + ratio**2 / 4)
    below = 0.5 + 3 / 8 * ratio / root * (1 - ratio**2 / 12 / root**2)  # closed form of the t distribution at 4
    assert found.difference == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(error)
    assert found.p_value == pytest.approx(2 * (1 - below))
    assert (found.low, found.high) == pytest.approx((0.02 - 2.7764451 * error, 0.02 + 2.7764451 * error))
    assert found.folds == 5


def test_corrected_t_without_overlap_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 8))
    found, plain = corrected_t(first, second, test_share=1e-14), ttest_rel(first, second)
    assert found.p_value == pytest.approx(plain.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_corrected_t_keeps_its_level_when_folds_correlate_by_the_share_of_test_patients() -> None:
    """With correlation n_test / (n_test + n_train) the corrected statistic is exactly t; the plain one is not."""
    rng, runs, correlation = np.random.default_rng(2), 1500, SHARE / (1 + SHARE)
    rejected = {SHARE: 0, 1e-9: 0}
    for _ in range(runs):
        folds = math.sqrt(correlation) * rng.normal() + math.sqrt(1 - correlation) * rng.normal(size=5)
        for share in rejected:
            rejected[share] += corrected_t(folds, np.zeros(5), test_share=share).p_value < 0.05
    # 5% of 1500 is 75; three standard errors of a binomial are 25.
    assert abs(rejected[SHARE] - 75) <= 25, rejected
    assert rejected[1e-9] > 150, rejected


def test_corrected_t_of_one_fold_or_of_equal_differences_is_not_estimable() -> None:
    with pytest.raises(NotEstimable, match="at least 2 folds; there is 1"):
        corrected_t([0.9], [0.8], test_share=SHARE)
    with pytest.raises(NotEstimable, match="0.1 in each of 3 folds"):
        corrected_t([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], test_share=SHARE)
    with pytest.raises(ValueError, match="3 folds meet 2"):
        corrected_t([0.9, 0.8, 0.7], [0.8, 0.7], test_share=SHARE)
    with pytest.raises(ValueError, match="test_share is 0"):
        corrected_t([0.9, 0.8], [0.8, 0.6], test_share=0)


# Paired DeLong


def test_delong_difference_equals_structural_components_counted_by_brute_force() -> None:
    rng = np.random.default_rng(6)
    labels = rng.permutation(np.repeat([1, 0], [17, 26]))
    first, second = np.round(rng.normal(size=(2, 43)) + labels * np.array([[1.2], [0.4]]), 1)
    kernels = []
    for scores in (first, second):
        x, y = scores[labels == 1][:, None], scores[labels == 0][None]
        kernels.append(np.where(x > y, 1.0, np.where(x == y, 0.5, 0.0)))
    contrast = kernels[0] - kernels[1]  # the difference is itself a mean over pairs
    variance = contrast.mean(axis=1).var(ddof=1) / 17 + contrast.mean(axis=0).var(ddof=1) / 26
    found = delong_difference(labels, first, second)
    assert found.difference == pytest.approx(contrast.mean(), abs=1e-12)
    assert found.p_value == pytest.approx(math.erfc(abs(contrast.mean()) / math.sqrt(2 * variance)), rel=1e-9)
    half = 1.959963984540054 * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((contrast.mean() - half, contrast.mean() + half), abs=1e-12)


def test_delong_difference_does_not_change_under_monotone_transforms_of_either_score() -> None:
    labels, first, second, _ = cohort(np.random.default_rng(1), [(30, 40)])
    assert delong_difference(labels, np.exp(first), second**3) == delong_difference(labels, first, second)
    mirrored = delong_difference(labels, second, first)
    found = delong_difference(labels, first, second)
    assert (-mirrored.difference, mirrored.p_value) == pytest.approx((found.difference, found.p_value))


def test_delong_difference_without_variance_is_not_estimable() -> None:
    labels, first, _, _ = cohort(np.random.default_rng(1), [(30, 40)])
    with pytest.raises(NotEstimable, match="variance of 0"):
        delong_difference(labels, first, 2 * first + 1)
    with pytest.raises(NotEstimable, match="differ by 1 with"):
        delong_difference([1, 1, 0, 0], [3.0, 4.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(NotEstimable, match="two patients of each class"):
        delong_difference([1, 0, 0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0])


# AUC over folds


@pytest.mark.parametrize("decimals", [0, 6])
def test_pooled_auc_and_difference_count_only_pairs_of_one_fold(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    labels, first, second, folds = cohort(rng, [(3, 9), (8, 4), (2, 20), (5, 5)], (1.5, 0.5))
    order = rng.permutation(labels.size)
    labels, folds = labels[order], np.array(["d", "b", "a", "c"])[folds[order]]
    first, second = np.round(first[order], decimals), np.round(second[order], decimals)
    expected = pair_weighted_auc(labels, first, folds), pair_weighted_auc(labels, second, folds)
    found = pooled_auc(labels, first, folds=folds, resamples=50)
    difference = pooled_auc_difference(labels, first, second, folds=folds, resamples=50)
    assert found.value == pytest.approx(expected[0], abs=1e-12)
    assert difference.value == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert (found.n_positive, found.n_negative) == (difference.n_positive, difference.n_negative) == (18, 38)
    assert (found.method, difference.method) == ("bootstrap", "paired bootstrap")


def test_a_networks_own_monotone_scale_in_each_fold_changes_neither_value_nor_interval() -> None:
    labels, first, second, folds = cohort(np.random.default_rng(3), [(8, 12), (10, 7), (6, 9)], (1.5, 0.5))
    moved = np.where(folds == 0, np.exp(first), np.where(folds == 1, first - 50.0, first**3 + 100.0))
    assert auc(labels, moved) != pytest.approx(auc(labels, first), abs=0.01)
    assert pooled_auc(labels, moved, folds=folds, resamples=200) == pooled_auc(
        labels, first, folds=folds, resamples=200
    )
    found, again = (pooled_auc_difference(labels, row, second, folds=folds, resamples=200) for row in (first, moved))
    assert found == again
    zero = pooled_auc_difference(labels, moved, first, folds=folds, resamples=200)
    assert (zero.value, zero.lower, zero.upper) == (0.0, 0.0, 0.0)


def test_difference_over_one_fold_is_that_over_all_pairs() -> None:
    labels, first, second, folds = cohort(np.random.default_rng(8), [(15, 20)], (1.5, 0.5))
    found = pooled_auc_difference(labels, first, second, folds=folds)
    assert found.value == pytest.approx(auc_difference(labels, first, second).value)


def test_intervals_are_those_of_drawing_whole_patients_within_fold_and_class() -> None:
    rng = np.random.default_rng(12)
    labels, first, second, folds = cohort(rng, [(6, 10), (9, 5)], (1.5, 0.5))
    strata = [np.flatnonzero((folds == fold) & (labels == label)) for fold in (0, 1) for label in (0, 1)]
    singles, differences = [], []
    for _ in range(1500):
        drawn = np.concatenate([rng.choice(stratum, stratum.size) for stratum in strata])
        one, two = (pair_weighted_auc(labels[drawn], scores[drawn], folds[drawn]) for scores in (first, second))
        singles.append(one)
        differences.append(one - two)
    single = pooled_auc(labels, first, folds=folds, resamples=8000)
    paired = pooled_auc_difference(labels, first, second, folds=folds, resamples=8000)
    assert (single.lower, single.upper) == pytest.approx(tuple(np.quantile(singles, [0.025, 0.975])), abs=0.02)
    assert (paired.lower, paired.upper) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=0.025)


def test_folds_draw_different_resamples_so_that_equal_folds_do_not_move_together() -> None:
    """Four copies of a fold have half the spread of one; on the same draws they would have all of it."""
    labels, first, _, _ = cohort(np.random.default_rng(5), [(20, 20)])
    one = pooled_auc(labels, first, folds=np.zeros(40), resamples=4000)
    four = pooled_auc(np.tile(labels, 4), np.tile(first, 4), folds=np.repeat([0, 1, 2, 3], 40), resamples=4000)
    assert None not in (one.lower, one.upper, four.lower, four.upper)
    assert (four.upper - four.lower) / (one.upper - one.lower) == pytest.approx(0.5, abs=0.05)  # type: ignore[operator]


def test_fold_wise_intervals_cover_the_true_auc_and_the_true_difference_at_about_95_percent() -> None:
    """Binormal scores with shifts 1.2 and 0.7, AUCs of Phi(shift / sqrt 2), in three folds on scales of their own."""
    rng, runs, covered = np.random.default_rng(21), 300, {"auc": 0, "difference": 0}
    one, two = norm.cdf(1.2 / math.sqrt(2)), norm.cdf(0.7 / math.sqrt(2))
    for run in range(runs):
        labels, first, second, folds = cohort(rng, [(20, 25)] * 3, (1.2, 0.7))
        single = pooled_auc(labels, first, folds=folds, resamples=400, seed=run)
        paired = pooled_auc_difference(labels, first, second, folds=folds, resamples=400, seed=run)
        covered["auc"] += single.lower <= one <= single.upper  # type: ignore[operator]
        covered["difference"] += paired.lower <= one - two <= paired.upper  # type: ignore[operator]
    # 95% of 300 is 285; three standard errors of a binomial are 11; percentile intervals run slightly short.
    assert 270 <= covered["auc"] <= 297, covered
    assert 270 <= covered["difference"] <= 297, covered


def test_bound_at_pooled_auc_one_is_the_least_mean_that_leaves_perfect_order_at_a_tail() -> None:
    """Folds of 2 and 5 disjoint pairs with 8 and 50 pairs: minimise over a grid of the two folds' AUCs."""
    labels = np.repeat([1, 0, 1, 0], [2, 4, 10, 5])
    folds = np.repeat([0, 1], [6, 15])
    found = pooled_auc(labels, labels + 0.0, folds=folds)
    one = np.linspace(math.sqrt(0.025), 1.0, 200_001)
    two = (0.025 / one**2) ** 0.2
    means = ((8 * one + 50 * two) / 58)[two <= 1.0]
    assert (found.value, found.upper, found.method) == (1.0, 1.0, "disjoint pairs")
    assert found.lower == pytest.approx(means.min(), abs=1e-6)
    mirrored = pooled_auc(labels, -labels, folds=folds)
    assert (mirrored.value, mirrored.lower) == (0.0, 0.0)
    assert mirrored.upper == pytest.approx(1 - means.min(), abs=1e-6)
    # 2 and 5 disjoint pairs again, but 180 of 205 pairs stand in the first fold: the second fold's AUC is capped at 1.
    labels, folds = np.repeat([1, 0, 1, 0], [2, 90, 5, 5]), np.repeat([0, 1], [92, 10])
    capped = pooled_auc(labels, labels, folds=folds)
    two = np.minimum(1.0, two)
    assert capped.lower == pytest.approx(((180 * one + 25 * two) / 205).min(), abs=1e-6)
    single = auc_estimate([1] * 5 + [0] * 8, [3.0] * 5 + [1.0] * 8)
    assert pooled_auc([1] * 5 + [0] * 8, [3.0] * 5 + [1.0] * 8, folds=[0] * 13).lower == pytest.approx(single.lower)


def test_patients_of_a_fold_without_both_classes_are_neither_compared_nor_counted() -> None:
    labels, first, second, folds = cohort(np.random.default_rng(9), [(6, 10), (9, 5), (4, 0)])
    found, kept = pooled_auc(labels, first, folds=folds), folds < 2
    assert found == pooled_auc(labels[kept], first[kept], folds=folds[kept])
    assert (found.n_positive, found.n_negative) == (15, 15)
    nobody = pooled_auc_difference([1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], folds=[0, 0, 1, 1])
    assert (nobody.value, nobody.reason) == (None, "no fold has both malignant and benign patients")


def test_interval_is_missing_with_a_reason_where_resampling_would_show_too_little_spread() -> None:
    lonely = pooled_auc([1, 1, 0, 0, 1, 0, 0], [3.0, 1.0, 2.0, 0.0, 2.0, 1.0, 3.0], folds=list("aaaabbb"))
    assert lonely.value == pytest.approx((3 + 1) / 6)
    assert (lonely.lower, lonely.reason) == (None, "an interval needs 2 patients of each class in fold b")
    labels, folds = [1, 1, 0, 0] * 2, [0] * 4 + [1] * 4
    opposite = pooled_auc(labels, [2, 2, 1, 1, 1, 1, 2, 2], folds=folds)
    assert (opposite.value, opposite.lower) == (0.5, None)
    assert opposite.reason is not None and "exactly 0 or 1" in opposite.reason
    perfect = pooled_auc_difference(labels, labels, [2, 2, 1, 1, 1, 1, 2, 2], folds=folds)
    assert (perfect.value, perfect.upper, perfect.method) == (0.5, None, "none")


def test_folds_and_scores_that_do_not_fit_the_patients_are_refused() -> None:
    labels, scores = [1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match="3 folds, 0 of them empty, meet 4 patients"):
        pooled_auc(labels, scores, folds=[0, 0, 1])
    with pytest.raises(ValueError, match="4 folds, 1 of them empty, meet 4 patients"):
        pooled_auc_difference(labels, scores, scores, folds=[0, 0, 1, math.nan])
    with pytest.raises(ValueError, match="one score per patient"):
        pooled_auc(labels, [scores, scores], folds=[0] * 4)
    with pytest.raises(ValueError, match="one score per label"):
        delong_difference(labels, scores, scores[:3])


# Holm


def test_holm_matches_an_example_worked_by_hand_and_leaves_nan_out_of_the_count() -> None:
    """0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 is raised to the 0.06 before it."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04, 0.03, 0.005]), [0.03, math.nan, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_array_equal(holm([math.nan]), [math.nan])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, 1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    """The adjusted p-value of a question is the largest Bonferroni p-value of all sets of questions that hold it."""
    expected = [
        max(
            min(1.0, size * min(p_values[index] for index in chosen))
            for size in range(1, len(p_values) + 1)
            for chosen in combinations(range(len(p_values)), size)
            if question in chosen
        )
        for question in range(len(p_values))
    ]
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-15)
