"""Average precision and partial AUC against scikit-learn, on the data and on every resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.metrics import precision_recall_curve as sklearn_curve

from pipeline.statistics import (
    auc_estimate,
    average_precision,
    partial_auc,
    precision_recall_curve,
)
from pipeline.statistics.bootstrap import stratified_draws
from pipeline.statistics.cumulated import of_resamples
from pipeline.statistics.partial_auc import _standardised
from pipeline.statistics.precision_recall import _average

both_classes = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=50).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@given(both_classes, st.floats(0.05, 1.0))
@settings(max_examples=100, deadline=None)
def test_average_precision_and_partial_auc_with_ties_equal_scikit_learn(
    rows: list[tuple[bool, int]], most: float
) -> None:
    labels, scores = np.array([row[0] for row in rows]).astype(int), np.array([row[1] for row in rows]) * 1.0
    found = average_precision(labels, scores, resamples=2)
    assert found.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    part = partial_auc(labels, scores, false_alarms=(0.0, most), resamples=2)
    expected = roc_auc_score(labels, scores, max_fpr=most) if most < 1.0 else roc_auc_score(labels, scores)
    assert part.value == pytest.approx(expected, abs=1e-10)


def test_precision_recall_curve_has_the_points_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=90)
    scores = np.round(rng.normal(size=90) + labels, 1)
    curve = precision_recall_curve(labels, scores)
    precision, recall, thresholds = sklearn_curve(labels, scores)
    np.testing.assert_allclose(curve.thresholds[::-1], thresholds, atol=1e-12)
    np.testing.assert_allclose(curve.precision[::-1], precision[:-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall[::-1], recall[:-1], atol=1e-12)
    assert curve.prevalence == labels.mean() == curve.precision[-1]


def test_partial_auc_between_two_shares_of_false_alarms_is_the_trapezoid_area_standardised() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=120)
    scores = np.round(rng.normal(size=120) + labels, 1)
    alarms, sensitivity, _ = roc_curve(labels, scores)
    grid = np.unique(np.concatenate([alarms[(alarms > 0.1) & (alarms < 0.4)], [0.1, 0.4]]))
    area = np.trapezoid(np.interp(grid, alarms, sensitivity), grid)
    chance = (0.4**2 - 0.1**2) / 2
    expected = 0.5 * (1 + (area - chance) / (0.3 - chance))
    # np.interp takes one end of a vertical step, which matters only if a step stands at 0.1 or 0.4 exactly.
    assert not np.isin([0.1, 0.4], alarms).any()
    assert partial_auc(labels, scores, false_alarms=(0.1, 0.4), resamples=2).value == pytest.approx(expected, abs=1e-12)


def test_every_resample_is_that_of_scikit_learn_on_the_patients_drawn() -> None:
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.repeat([1, 0], [9, 14]))
    scores = rng.integers(-2, 3, size=23).astype(float)
    positive = labels == 1
    (_, malignant, benign), *_ = stratified_draws(9, 14, resamples=30, seed=5)
    precision = of_resamples(positive, scores, _average, resamples=30, seed=5)
    partial = of_resamples(
        positive, scores, lambda true, false: _standardised(true, false, low=0.0, high=0.3), resamples=30, seed=5
    )
    for index in range(30):
        weights = np.zeros(23, dtype=int)
        weights[positive], weights[~positive] = malignant[index], benign[index]
        rows = np.repeat(np.arange(23), weights)
        assert precision[index] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-12)
        assert partial[index] == pytest.approx(roc_auc_score(labels[rows], scores[rows], max_fpr=0.3), abs=1e-12)


def test_partial_auc_over_all_false_alarms_is_the_auc_with_its_interval() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, size=80)
    scores = rng.normal(size=80) + labels
    part, whole = partial_auc(labels, scores, false_alarms=(0.0, 1.0)), auc_estimate(labels, scores)
    assert (part.value, part.lower, part.upper) == pytest.approx((whole.value, whole.lower, whole.upper), abs=1e-12)


def test_perfect_order_and_few_patients_have_a_value_without_an_interval() -> None:
    for found in (
        average_precision([1, 1, 0, 0], [3.0, 2.0, 1.0, 0.0]),
        partial_auc([1, 1, 0, 0], [3.0, 2.0, 1.0, 0.0], false_alarms=(0.0, 0.2)),
        average_precision([1, 0, 0], [3.0, 2.0, 1.0]),
    ):
        assert found.value == 1.0
        assert found.lower is None and found.reason
    for found in (average_precision([1, 1], [3.0, 2.0]), partial_auc([0, 0], [3.0, 2.0], false_alarms=(0.0, 0.2))):
        assert found.value is None and found.reason


@pytest.mark.parametrize("wrong", [(0.2, 0.2), (-0.1, 0.2), (0.5, 1.1)])
def test_a_range_of_false_alarms_outside_zero_to_one_is_refused(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= a < b <= 1"):
        partial_auc([1, 0], [1.0, 0.0], false_alarms=wrong)
