"""AUC over images and breasts against scikit-learn on repeated rows, and its coverage by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from pipeline.statistics import (
    auc,
    auc_estimate,
    bootstrap_auc,
    clustered_auc,
    clustered_bootstrap_auc,
    delong_interval,
    pool_breasts,
)


def exams(
    rng: np.random.Generator, patients: int, views: int, correlation: float, shift: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half the patients malignant; scores of deviation 1 whose views correlate within a patient."""
    labels = np.repeat([1, 0], patients // 2)
    shared, own = rng.normal(size=(patients, 1)), rng.normal(size=(patients, views))
    scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own + shift * labels[:, None]
    return np.repeat(labels, views), scores.ravel(), np.repeat(np.arange(patients), views)


def test_clustered_interval_covers_where_delong_over_images_does_not() -> None:
    """200 patients, four views each, correlation 0.7 within a patient; the true AUC is Phi(1 / sqrt 2)."""
    rng, truth, runs = np.random.default_rng(20), float(norm.cdf(1 / np.sqrt(2))), 500
    ours = naive = 0
    for run in range(runs):
        found = clustered_auc(*exams(rng, 200, 4, 0.7), resamples=300, seed=run)
        assert found.estimate.lower is not None and found.estimate.upper is not None
        assert found.naive_delong.lower is not None and found.naive_delong.upper is not None
        ours += found.estimate.lower <= truth <= found.estimate.upper
        naive += found.naive_delong.lower <= truth <= found.naive_delong.upper
    assert 0.92 * runs <= ours <= 0.97 * runs, (ours / runs, naive / runs)
    # Four views count as four patients, while their mean has the variance of one over 1 / (0.7 + 0.3 / 4) = 1.29.
    assert 0.66 * runs <= naive <= 0.78 * runs, (ours / runs, naive / runs)


def test_every_clustered_resample_equals_scikit_learn_on_the_drawn_rows() -> None:
    """Drawn patients are read back from scores that name them: one per patient, all benign rows below."""
    rng = np.random.default_rng(3)
    patients = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 5])
    labels = np.array([1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0])
    scores = rng.integers(-2, 3, size=(2, 12)).astype(float)
    resampled = clustered_bootstrap_auc(labels, scores, patients, resamples=40, seed=7)
    draws = np.random.default_rng(7)
    sick, well = np.array([0, 1, 4]), np.array([2, 3, 5])
    first, second = (
        draws.integers(0, 3, size=(40, 3), dtype=np.int32),
        draws.integers(0, 3, size=(40, 3), dtype=np.int32),
    )
    for index in range(40):
        chosen = np.concatenate([sick[first[index]], well[second[index]]])
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in chosen])
        for attack in range(2):
            expected = roc_auc_score(labels[rows], scores[attack, rows])
            assert resampled[attack, index] == pytest.approx(expected, abs=1e-12)


def test_one_row_per_patient_is_the_patient_bootstrap() -> None:
    labels, scores, patients = exams(np.random.default_rng(1), 40, 1, 0.0)
    found = clustered_bootstrap_auc(labels, scores[None], patients, resamples=50, seed=4)
    np.testing.assert_allclose(found, bootstrap_auc(labels, scores[None], resamples=50, seed=4), atol=1e-12)
    whole = clustered_auc(labels, scores, patients, resamples=50, seed=4)
    single = auc_estimate(labels, scores, resamples=50, seed=4)
    assert (whole.estimate.lower, whole.estimate.upper) == pytest.approx((single.lower, single.upper), abs=1e-12)
    assert (whole.naive_delong.lower, whole.naive_delong.upper) == delong_interval(labels, scores)


def test_a_patient_may_hold_both_outcomes_and_counts_once() -> None:
    found = clustered_auc([1, 0, 1, 0, 0, 0, 0], [2.0, 1.0, 0.5, 0.0, 1.5, 0.2, 0.1], list("aabbccd"), resamples=200)
    assert (found.rows_positive, found.rows_negative, found.patients) == (2, 5, 4)
    assert (found.estimate.n_positive, found.estimate.n_negative) == (2, 2)
    assert found.estimate.value == auc([1, 0, 1, 0, 0, 0, 0], [2.0, 1.0, 0.5, 0.0, 1.5, 0.2, 0.1])
    assert found.estimate.method == "clustered bootstrap"


def test_breasts_of_patients_who_all_have_cancer_are_compared_with_their_healthy_ones() -> None:
    rng = np.random.default_rng(2)
    labels, patients = np.tile([1, 0], 30), np.repeat(np.arange(30), 2)
    found = clustered_auc(labels, rng.normal(size=60) + labels, patients, resamples=300)
    assert found.estimate.n_negative == 0
    assert found.estimate.lower is not None and found.estimate.value is not None
    assert found.estimate.lower < found.estimate.value


def test_bound_at_one_counts_patients_and_not_their_views() -> None:
    labels, patients = np.repeat([1, 0], 20), np.repeat(np.arange(10), 4)
    found = clustered_auc(labels, labels * 1.0, patients).estimate
    assert (found.value, found.upper, found.method) == (1.0, 1.0, "disjoint pairs")
    assert found.lower == pytest.approx(0.025 ** (1 / 5))


def test_too_few_patients_have_a_value_and_a_reason() -> None:
    found = clustered_auc([1, 1, 0, 0], [1.0, 0.0, 0.5, -1.0], ["a", "a", "b", "b"]).estimate
    assert found.value == 0.75
    assert found.lower is None and found.reason is not None and "there are 2, 1 and 1" in found.reason
    absent = clustered_auc([1, 1], [1.0, 0.0], ["a", "b"]).estimate
    assert absent.value is None and absent.reason is not None


def test_breasts_are_pooled_apart_and_unknown_ones_left_out() -> None:
    scores = pd.DataFrame(
        {
            "patient_id": ["a", "a", "a", "b", "b"],
            "laterality": ["L", "L", "R", "L", "R"],
            "attack_id": "clean",
            "label": [1, 1, 0, None, 0],
            "logit": [1.0, 3.0, 0.0, 5.0, -1.0],
        }
    )
    table = pool_breasts(scores)
    assert table[["patient_id", "laterality", "label", "logit", "images"]].to_numpy().tolist() == [
        ["a", "L", 1, 2.0, 2],
        ["a", "R", 0, 0.0, 1],
        ["b", "R", 0, -1.0, 1],
    ]
    assert pool_breasts(scores, within_breast="max").loc[0, "logit"] == 3.0
    scores.loc[1, "label"] = 0
    with pytest.raises(ValueError, match="a breast of patient a has two labels"):
        pool_breasts(scores)
