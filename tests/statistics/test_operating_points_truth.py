"""Thresholds, Wilson intervals, flips, robustness and the cohort table against closed forms and counts by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from pipeline.statistics import (
    auc,
    cohort_summary,
    flips,
    freeze_threshold,
    refusal_counts,
    robustness,
    sensitivity_specificity,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (1, 10), (5, 9), (81, 263), (10, 10)])
def test_wilson_bounds_solve_the_score_equation(successes: int, total: int) -> None:
    """Wilson's bounds are the two p with |p_hat - p| = z sqrt(p (1 - p) / n)."""
    z = 1.959963984540054
    for bound in wilson_interval(successes, total):
        left = abs(successes / total - bound)
        assert left == pytest.approx(z * math.sqrt(bound * (1 - bound) / total), abs=1e-12)


def test_wilson_interval_matches_a_published_example() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 gives 0.2553 to 0.3662."""
    lower, upper = wilson_interval(81, 263)
    assert (round(lower, 4), round(upper, 4)) == (0.2553, 0.3662)


def test_threshold_is_the_highest_with_the_sensitivity_asked_for() -> None:
    rng = np.random.default_rng(0)
    for size in range(2, 40):
        labels = np.r_[1, 0, rng.integers(0, 2, size=size)]
        scores = np.round(rng.normal(size=labels.size), 1)
        frozen = freeze_threshold(labels, scores, target=0.9)
        reached = [t for t in np.unique(scores) if (scores[labels == 1] >= t).mean() >= 0.9]
        assert frozen.value == max(reached)
        assert frozen.sensitivity == (scores[labels == 1] >= frozen.value).mean()
        assert frozen.specificity == (scores[labels == 0] < frozen.value).mean()


def test_youden_threshold_has_the_largest_sum_of_sensitivity_and_specificity() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=60)
    scores = np.round(rng.normal(size=60) + labels, 1)
    sums = {t: (scores[labels == 1] >= t).mean() + (scores[labels == 0] < t).mean() for t in np.unique(scores)}
    frozen = freeze_threshold(labels, scores, rule="youden")
    assert sums[frozen.value] == pytest.approx(max(sums.values()))


def test_threshold_without_both_classes_has_a_reason_and_no_value() -> None:
    frozen = freeze_threshold([1, 1], [0.0, 1.0])
    assert frozen.value is None
    assert frozen.reason is not None and "2 malignant and 0 benign" in frozen.reason


def test_a_patient_on_the_threshold_is_called_positive() -> None:
    sensitivity, specificity = sensitivity_specificity([1, 1, 0, 0], [0.0, -1.0, 0.0, -2.0], 0.0)
    assert (sensitivity.successes, sensitivity.total) == (1, 2)
    assert (specificity.successes, specificity.total) == (1, 2)
    absent, _ = sensitivity_specificity([0], [1.0], 0.0)
    assert absent.value is None and absent.reason is not None


def test_flips_are_counted_in_both_directions() -> None:
    labels = [1, 1, 1, 0, 0, 0]
    clean = [1.0, 1.0, -1.0, -1.0, -1.0, 1.0]
    attacked = [-1.0, 1.0, 1.0, 1.0, -1.0, 1.0]
    found = flips(labels, clean, attacked, 0.0)
    assert (found.newly_missed.successes, found.newly_missed.total) == (1, 2)
    assert (found.newly_alarmed.successes, found.newly_alarmed.total) == (1, 2)
    assert (found.recovered, found.total) == (1, 6)


def pooled(scores: dict[str, tuple[float, dict[str, float]]], labels: dict[str, int]) -> pd.DataFrame:
    rows = [
        {
            "patient_id": patient,
            "attack_id": attack,
            "budget": budget,
            "norm": None if attack == "clean" else "linf",
            "steps": None if attack == "clean" else 7,
            "restarts": None,
            "patient_label": labels[patient],
            "logit": logit,
            "images": 4,
            "breasts": 2,
        }
        for attack, (budget, logits) in scores.items()
        for patient, logit in logits.items()
    ]
    return pd.DataFrame(rows)


LABELS = {"a": 1, "b": 1, "c": 0, "d": 0}
CLEAN = {"a": 2.0, "b": 0.5, "c": 1.0, "d": -1.0}


def test_robustness_compares_an_attacked_subset_with_the_same_patients_clean() -> None:
    subset = {"b": 0.0, "c": 1.5, "d": 0.5}
    results = robustness(pooled({"pgd-hi": (0.01, subset), "clean": (0.0, CLEAN)}, LABELS), resamples=50)
    clean, attacked = results
    assert [clean.attack_id, attacked.attack_id] == ["clean", "pgd-hi"]
    assert clean.auc.value == auc([1, 1, 0, 0], [2.0, 0.5, 1.0, -1.0]) == 0.75
    assert attacked.auc.value == 0.0
    assert attacked.difference is not None and attacked.difference.value == -0.5
    assert (attacked.patients, attacked.images, attacked.steps) == (3, 12, 7)
    assert attacked.grey_levels == pytest.approx({"8 bit": 2.55, "12 bit": 40.95})


def test_robustness_refuses_half_an_exam_and_patients_without_clean_scores() -> None:
    table = pooled({"clean": (0.0, CLEAN), "pgd": (0.01, CLEAN)}, LABELS)
    table.loc[(table["attack_id"] == "pgd") & (table["patient_id"] == "b"), "images"] = 2
    with pytest.raises(ValueError, match="patient b has 2 images under pgd but 4 clean"):
        robustness(table, resamples=10)
    with pytest.raises(ValueError, match="patient b stands twice under clean"):
        robustness(pd.concat([table, table[table["patient_id"] == "b"]]), resamples=10)
    with pytest.raises(ValueError, match="no rows with attack_id 'clean'"):
        robustness(table[table["attack_id"] == "pgd"], resamples=10)


def test_cohort_summary_counts_patients_once_and_refuses_a_straddling_patient() -> None:
    images = pd.DataFrame(
        {
            "patient_id": ["a", "a", "b", "c"],
            "laterality": ["L", "R", "L", "L"],
            "view": ["CC", "CC", "MLO", "CC"],
            "patient_label": [1, 1, 0, 0],
            "partition": ["test", "test", "test", "training"],
            "density": ["B", "B", None, "C"],
            "age": [50, 50, 60, 70],
        }
    )
    training, test = cohort_summary(images)
    assert (training["partition"], training["patients"]) == ("training", 1)
    assert (test["patients"], test["malignant"], test["benign"], test["images"]) == (2, 1, 1, 3)
    assert test["views"] == {"CC": 2, "MLO": 1}
    assert test["density"] == {"B": 1, "unknown": 1}
    assert test["age"]["median"] == 55.0
    images.loc[3, "patient_id"] = "a"
    with pytest.raises(ValueError, match="patient a stands in two partitions"):
        cohort_summary(images)


def test_refusals_are_counted_by_code_most_frequent_first() -> None:
    rejects = pd.DataFrame(
        {
            "image": ["1", "2", "3"],
            "patient_id": ["a", "a", "b"],
            "code": ["unreadable", "no_breast", "no_breast"],
            "reason": ["x", "y", "z"],
        }
    )
    assert refusal_counts(rejects) == [
        {"code": "no_breast", "files": 2, "patients": 2, "example": "y"},
        {"code": "unreadable", "files": 1, "patients": 1, "example": "x"},
    ]
    assert refusal_counts(rejects.head(0)) == []
