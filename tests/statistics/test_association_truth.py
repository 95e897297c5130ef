"""Facts about associations: closed forms, SciPy's tests, and no signal out of noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kstest, mannwhitneyu

from pipeline.statistics import NotEstimable, category_association, category_counts, holm, number_association


def test_a_numbers_auc_is_the_share_of_ordered_pairs_and_its_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    labels, numbers = rng.integers(0, 2, 90), rng.integers(0, 12, 90)
    high, low = numbers[labels == 1], numbers[labels == 0]
    found = number_association(labels, numbers)
    pairs = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    assert found.auc.value == pytest.approx(pairs, abs=1e-12) and found.auc.method == "delong"
    assert found.p_value == mannwhitneyu(high, low, method="asymptotic").pvalue
    assert found.kind == "number" and found.cramers_v is None and found.values == len(set(numbers))


def test_a_fact_that_is_the_same_for_all_tells_nothing() -> None:
    labels = [0, 1] * 10
    assert number_association(labels, [3] * 20).p_value == 1.0
    same = category_association(labels, ["A"] * 20)
    assert same.p_value == 1.0 and same.cramers_v == 0.0 and same.auc.value == 0.5


def test_a_number_that_separates_the_classes_has_auc_1_with_an_exact_bound() -> None:
    found = number_association([0] * 20 + [1] * 20, np.arange(40))
    assert found.auc.value == 1.0 and found.auc.lower == pytest.approx(0.025 ** (1 / 20))
    assert found.p_value < 1e-6


def test_the_permutation_test_agrees_with_chi_square_where_counts_are_large() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 2000)
    names = np.where(rng.random(2000) < 0.06 * labels, "B", rng.choice(["A", "B", "C"], 2000))
    table = np.array(list(category_counts(labels, names).values())).T
    expected = chi2_contingency(table, correction=False)
    found = category_association(labels, names, resamples=50)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    phi = max(0.0, expected.statistic / 2000 - 2 / 1999)
    assert found.cramers_v == pytest.approx(np.sqrt(phi / (min(3 - 4 / 1999, 2 - 1 / 1999) - 1)), rel=1e-12)


def test_a_category_that_is_the_class_has_v_1_and_auc_1() -> None:
    labels = np.arange(60) % 2
    found = category_association(labels, np.where(labels == 1, "D2", "D1"))
    assert found.cramers_v == pytest.approx(1.0, abs=0.02) and found.auc.value == 1.0 and found.p_value == 1e-4


def test_many_random_categories_give_no_signal_and_p_values_are_uniform() -> None:
    aucs, p_values = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(120) % 2)
        found = category_association(labels, rng.integers(0, 40, 120), permutations=199, resamples=10, seed=seed)
        aucs.append(found.auc.value)
        p_values.append(found.p_value)
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs) / np.sqrt(60)
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_p_values_of_one_strong_category_survive_holm_over_many_questions() -> None:
    labels = np.arange(80) % 2
    strong = category_association(labels, labels).p_value
    assert holm([strong, *[0.5] * 300])[0] < 0.05


def test_one_class_alone_cannot_be_told_apart() -> None:
    for ask in (number_association, category_association):
        with pytest.raises(NotEstimable, match="malignant and benign"):
            ask([1, 1, 1], [1, 2, 3])


def test_few_patients_have_a_p_value_and_no_out_of_fold_auc() -> None:
    found = category_association([0, 0, 1, 1, 1], list("AABBB"))
    assert found.auc.value is None and "4 patients of each class" in str(found.auc.reason)
    assert found.p_value == pytest.approx(0.1, abs=0.02)  # 1 of C(5, 2) = 10 assignments is as far
