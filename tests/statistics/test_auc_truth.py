"""AUC and its intervals against scikit-learn, brute force, and simulation."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from pipeline.statistics import (
    NotEstimable,
    auc,
    auc_difference,
    auc_estimate,
    bootstrap_auc,
    delong_covariance,
    patient_auc,
    roc_curve,
)


def binormal(rng: np.random.Generator, positive: int, negative: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([1, 0], [positive, negative])
    return labels, rng.normal(size=labels.size) + shift * labels


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
        lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
    )
)
@settings(max_examples=100, deadline=None)
def test_auc_with_many_ties_equals_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_of_one_class_is_not_estimable_and_never_one_half() -> None:
    with pytest.raises(NotEstimable, match="0 malignant and 3 benign"):
        auc([0, 0, 0], [1.0, 2.0, 3.0])
    estimate = auc_estimate([1, 1], [1.0, 2.0])
    assert estimate.value is None
    assert estimate.reason is not None and "2 malignant and 0 benign" in estimate.reason


@pytest.mark.parametrize(
    ("labels", "scores", "what"),
    [([0, 2], [1.0, 2.0], "contain 2"), ([0, 1], [1.0, np.nan], "NaN"), ([0, 1], [1.0], "one score per label")],
)
def test_bad_labels_and_scores_are_refused(labels: list[int], scores: list[float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        auc(labels, scores)


def test_every_bootstrap_auc_equals_scikit_learn_on_the_drawn_patients() -> None:
    rng = np.random.default_rng(5)
    labels, _ = binormal(rng, 7, 11, 0.0)
    order = rng.permutation(18)
    labels = labels[order]
    scores = rng.integers(-2, 3, size=(3, 18)).astype(float)
    resampled = bootstrap_auc(labels, scores, resamples=25, seed=9)
    # The draws are those of the documented generator: malignant first, then benign, per block.
    draws = np.random.default_rng(9)
    malignant = draws.integers(0, 7, size=(25, 7), dtype=np.int32)
    benign = draws.integers(0, 11, size=(25, 11), dtype=np.int32)
    for attack in range(3):
        for index in range(25):
            chosen = np.r_[np.flatnonzero(labels == 1)[malignant[index]], np.flatnonzero(labels == 0)[benign[index]]]
            expected = roc_auc_score(labels[chosen], scores[attack, chosen])
            assert resampled[attack, index] == pytest.approx(expected, abs=1e-12)


def test_a_bootstrap_cut_into_blocks_has_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = binormal(np.random.default_rng(1), 40, 60, 1.0)
    whole = bootstrap_auc(labels, scores[None], resamples=4000, seed=0)[0]
    monkeypatch.setattr("pipeline.statistics.bootstrap._CELLS", 1000)
    blocks = bootstrap_auc(labels, scores[None], resamples=4000, seed=0)[0]
    assert blocks.mean() == pytest.approx(whole.mean(), abs=0.003)
    assert blocks.std() == pytest.approx(whole.std(), rel=0.06)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    labels, scores = binormal(np.random.default_rng(2), 30, 30, 1.0)
    first, again, other = (auc_estimate(labels, scores, seed=seed) for seed in (4, 4, 5))
    assert first == again
    assert first.lower != other.lower


def test_bootstrap_and_delong_intervals_cover_the_true_auc_at_about_95_percent() -> None:
    """Binormal scores with shift 1: the true AUC is Phi(1 / sqrt 2) = 0.7602."""
    rng, truth, runs = np.random.default_rng(11), 0.7602499389065233, 400
    covered = {"bootstrap": 0, "delong": 0}
    for run in range(runs):
        labels, scores = binormal(rng, 40, 60, 1.0)
        for interval in covered:
            found = auc_estimate(labels, scores, interval=interval, resamples=500, seed=run)  # type: ignore[arg-type]
            assert found.lower is not None and found.upper is not None
            covered[interval] += found.lower <= truth <= found.upper
    # 95% of 400 is 380; three standard errors of a binomial are 13; percentile intervals run slightly short.
    assert 362 <= covered["bootstrap"] <= 394, covered
    assert 367 <= covered["delong"] <= 394, covered


def test_interval_at_auc_one_is_exact_and_not_a_point() -> None:
    estimate = auc_estimate([1] * 5 + [0] * 8, [3.0] * 5 + [1.0] * 8)
    assert (estimate.value, estimate.upper, estimate.method) == (1.0, 1.0, "disjoint pairs")
    assert estimate.lower == pytest.approx(0.025**0.2)
    mirrored = auc_estimate([0] * 5 + [1] * 8, [3.0] * 5 + [1.0] * 8)
    assert mirrored.value == 0.0
    assert mirrored.upper == pytest.approx(1 - 0.025**0.2)


@pytest.mark.parametrize("truth", [0.25, 0.4, 0.6])
def test_bound_at_auc_one_misses_the_true_auc_in_at_most_a_tail_of_samples(truth: float) -> None:
    """Few patients, so that perfect order happens by luck: then the lower bound may exceed the truth in 2.5%."""
    rng, runs, perfect, missed = np.random.default_rng(3), 2000, 0, 0
    shift = math.sqrt(2.0) * norm.ppf(truth)
    for _ in range(runs):
        estimate = auc_estimate(*binormal(rng, 3, 3, shift), resamples=1)
        if estimate.value == 1.0:
            assert estimate.lower is not None
            perfect += 1
            missed += estimate.lower > truth
    assert perfect > 0
    assert missed <= 0.025 * runs


def test_paired_difference_of_a_score_with_itself_is_exactly_zero() -> None:
    labels, scores = binormal(np.random.default_rng(0), 20, 20, 0.7)
    difference = auc_difference(labels, 2 * scores + 3, scores)
    assert (difference.value, difference.lower, difference.upper) == (0.0, 0.0, 0.0)


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    rng = np.random.default_rng(7)
    labels, scores = binormal(rng, 60, 60, 1.0)
    attacked = scores - 0.4 * (2 * labels - 1) + 0.1 * rng.normal(size=120)
    difference = auc_difference(labels, attacked, scores)
    single = auc_estimate(labels, scores)
    assert difference.value == pytest.approx(auc(labels, attacked) - auc(labels, scores))
    assert difference.upper is not None and difference.lower is not None and difference.upper < 0
    assert single.upper is not None and single.lower is not None
    assert difference.upper - difference.lower < single.upper - single.lower


def test_interval_with_one_patient_of_a_class_is_not_estimable_but_the_auc_is() -> None:
    estimate = auc_estimate([1, 0, 0, 0], [2.0, 1.0, 3.0, 0.0])
    assert estimate.value == pytest.approx(2 / 3)
    assert estimate.lower is None and estimate.reason is not None


def test_no_resamples_give_the_value_without_an_interval() -> None:
    estimate = auc_estimate([1, 1, 0, 0], [2.0, 0.5, 1.0, 0.0], resamples=0)
    assert (estimate.value, estimate.lower, estimate.reason) == (0.75, None, "no resamples were asked for")


def test_delong_equals_brute_force_over_all_pairs() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, size=41)
    scores = np.round(rng.normal(size=(2, 41)) + labels, 1)
    aucs, covariance = delong_covariance(labels, scores)
    kernels = []
    for row in scores:
        x, y = row[labels == 1][:, None], row[labels == 0][None]
        kernels.append(np.where(x > y, 1.0, np.where(x == y, 0.5, 0.0)))
    for i, first in enumerate(kernels):
        assert aucs[i] == pytest.approx(first.mean(), abs=1e-12)
        for j, second in enumerate(kernels):
            m, n = first.shape
            d = [(first[a].mean() - first.mean()) * (second[a].mean() - second.mean()) for a in range(m)]
            e = [(first[:, b].mean() - first.mean()) * (second[:, b].mean() - second.mean()) for b in range(n)]
            expected = sum(d) / (m - 1) / m + sum(e) / (n - 1) / n
            assert covariance[i, j] == pytest.approx(expected, abs=1e-12)


def test_roc_curve_has_the_corners_of_scikit_learn_and_the_area_of_the_auc() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 2, size=80)
    scores = np.round(rng.normal(size=80) + labels, 1)
    curve = roc_curve(labels, scores)
    false, true, thresholds = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    kept = np.isin(thresholds, curve.thresholds)
    np.testing.assert_allclose(curve.false_alarms, false[kept], atol=1e-12)
    np.testing.assert_allclose(curve.sensitivity, true[kept], atol=1e-12)
    assert np.trapezoid(curve.sensitivity, curve.false_alarms) == pytest.approx(auc(labels, scores), abs=1e-12)
    assert len(curve.thresholds) < len(thresholds)


def test_patient_auc_refuses_two_rows_of_one_patient() -> None:
    table = pd.DataFrame({"patient_id": ["a", "a", "b"], "patient_label": [1, 1, 0], "logit": [1.0, 2.0, 0.0]})
    with pytest.raises(ValueError, match="more than once"):
        patient_auc(table)
    assert patient_auc(table.drop(index=1)).value == 1.0


def test_a_thousand_patients_are_resampled_two_thousand_times_within_a_second() -> None:
    labels, scores = binormal(np.random.default_rng(0), 300, 700, 1.0)
    start = time.perf_counter()
    bootstrap_auc(labels, scores[None], resamples=2000)
    assert time.perf_counter() - start < 1.0
