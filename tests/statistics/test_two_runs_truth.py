"""Two runs against MLstatkit, counts by hand and refusals; sensitivity and specificity against the budget."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from pipeline.statistics import (
    auc,
    auc_difference,
    budget_curve,
    compare_runs,
    delong_difference,
    flips,
    holm,
    sensitivity_specificity,
)


def run(seed: int, *, size: int = 80, budgets: tuple[float, ...] = (0.001, 0.01)) -> pd.DataFrame:
    """Pooled patients of one run, the same cohort for every seed."""
    labels = np.random.default_rng(99).integers(0, 2, size=size)
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=size) + labels
    tables = []
    for budget in (0.0, *budgets):
        tables.append(
            pd.DataFrame(
                {
                    "patient_id": [f"p{index:03d}" for index in range(size)],
                    "attack_id": f"pgd-{budget:g}" if budget else "clean",
                    "patient_label": labels,
                    "logit": clean - 80 * budget * (2 * labels - 1) * rng.random(size),
                    "images": 4,
                    "breasts": 2,
                    "norm": "linf" if budget else None,
                    "budget": budget,
                    "steps": 7.0 if budget else np.nan,
                    "restarts": 1.0 if budget else np.nan,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def test_delong_test_of_two_runs_equals_mlstatkit() -> None:
    library = pytest.importorskip("MLstatkit", reason="MLstatkit is the second opinion; install it to run this")
    first, second = run(1), run(2)
    one, two = (table.query("attack_id == 'clean'") for table in (first, second))
    found = compare_runs(first, second, resamples=50).attacks[0]
    scaled = [1 / (1 + np.exp(-table["logit"].to_numpy())) for table in (one, two)]
    z, p_value, _, _, old, new, _ = library.Delong_test(one["patient_label"].to_numpy(), *scaled)
    assert (found.first.value, found.second.value) == pytest.approx((old, new), abs=1e-10)
    assert found.p_value == pytest.approx(p_value, abs=1e-10)
    assert found.delong.lower is not None and found.delong.upper is not None and found.delong.value is not None
    error = (found.delong.upper - found.delong.lower) / 2 / 1.959963984540054
    assert found.delong.value / error == pytest.approx(z, abs=1e-9)


def test_runs_are_compared_under_every_common_attack_with_holm_over_them() -> None:
    first, second = run(1), run(2)
    found = compare_runs(first, second.sample(frac=1, random_state=0), resamples=50, seed=3)
    assert [entry.attack_id for entry in found.attacks] == ["clean", "pgd-0.001", "pgd-0.01"]
    assert [entry.budget for entry in found.attacks] == [0.0, 0.001, 0.01]
    assert found.left_out == {}
    for entry in found.attacks:
        one, two = (table[table["attack_id"] == entry.attack_id] for table in (first, second))
        labels, old, new = one["patient_label"], one["logit"], two["logit"]
        assert entry.difference == auc_difference(labels, new, old, resamples=50, seed=3)
        assert (entry.first.value, entry.second.value) == (auc(labels, old), auc(labels, new))
        assert entry.p_value == delong_difference(labels, new, old).p_value
        assert entry.calls is None and entry.patients == 80
    adjusted = holm([entry.p_value or 0 for entry in found.attacks])
    assert [entry.p_holm for entry in found.attacks] == pytest.approx(adjusted.tolist())


def test_calls_of_two_runs_are_counted_in_both_directions_at_their_own_thresholds() -> None:
    first, second = run(1), run(2)
    found = compare_runs(first, second, thresholds=(0.3, 0.7), resamples=5).attacks[0].calls
    assert found is not None
    one, two = (table.query("attack_id == 'clean'") for table in (first, second))
    positive = one["patient_label"].to_numpy() == 1
    before, after = one["logit"].to_numpy() >= 0.3, two["logit"].to_numpy() >= 0.7
    lost, gained = before & ~after, ~before & after
    to_second, to_first = found.to_second, found.to_first
    assert (to_second.newly_missed.successes, to_second.newly_missed.total) == (
        (lost & positive).sum(),
        (before & positive).sum(),
    )
    assert to_second.newly_alarmed.successes == (gained & ~positive).sum()
    assert to_first.newly_missed.successes == (gained & positive).sum()
    assert to_first.newly_alarmed.successes == (lost & ~positive).sum()
    changed = int((lost & positive).sum() + (gained & positive).sum())
    assert found.p_malignant == pytest.approx(binomtest(int((gained & positive).sum()), changed).pvalue)


def test_a_run_against_itself_has_no_difference_and_says_why_there_is_no_test() -> None:
    found = compare_runs(run(1), run(1), thresholds=(0.0, 0.0), resamples=20).attacks[0]
    assert (found.difference.value, found.difference.lower, found.difference.upper) == (0.0, 0.0, 0.0)
    assert found.p_value is None and found.p_holm is None
    assert found.delong.reason is not None and "variance of 0" in found.delong.reason
    assert found.calls is not None and found.calls.p_malignant is None


def test_other_patients_labels_or_exams_are_refused() -> None:
    first, second = run(1), run(2)
    with pytest.raises(ValueError, match=r"patient p079 was scored in the first run only \(1 such"):
        compare_runs(first, second[second["patient_id"] != "p079"])
    for column, value, what in (("patient_label", None, "has label"), ("images", 3, "has number of images 4")):
        other = second.copy()
        at = other["patient_id"] == "p005"
        other.loc[at, column] = 1 - other.loc[at, column] if value is None else value
        with pytest.raises(ValueError, match=f"patient p005 {what}"):
            compare_runs(first, other)


def test_attacks_that_are_not_the_same_are_left_out_with_the_reason() -> None:
    first, second = run(1), run(2, budgets=(0.001, 0.02))
    second.loc[second["attack_id"] == "pgd-0.001", "steps"] = 70.0
    found = compare_runs(first, second, resamples=5)
    assert [entry.attack_id for entry in found.attacks] == ["clean"]
    assert found.left_out == {
        "pgd-0.001": "the first run made it with steps 7.0, the second with 70.0",
        "pgd-0.01": "scored in the first run only",
        "pgd-0.02": "scored in the second run only",
    }
    second = run(2)
    second = second[(second["attack_id"] != "pgd-0.01") | (second["patient_id"] != "p000")]
    assert "80 patients of the first run and 79" in compare_runs(first, second, resamples=5).left_out["pgd-0.01"]


def test_budget_curve_holds_sensitivity_specificity_and_flips_at_each_budget() -> None:
    table = run(1)
    points = budget_curve(table.sample(frac=1, random_state=2), 0.5)
    assert [(point.attack_id, point.norm, point.budget) for point in points] == [
        ("clean", None, 0.0),
        ("pgd-0.001", "linf", 0.001),
        ("pgd-0.01", "linf", 0.01),
    ]
    clean = table.query("attack_id == 'clean'")
    for point in points:
        rows = table[table["attack_id"] == point.attack_id]
        assert (point.sensitivity, point.specificity) == sensitivity_specificity(
            rows["patient_label"], rows["logit"], 0.5
        )
        if point.flips is not None:
            assert point.flips == flips(rows["patient_label"], clean["logit"], rows["logit"], 0.5)
    assert points[0].flips is None and points[1].flips is not None
    assert points[2].sensitivity.value < points[1].sensitivity.value <= points[0].sensitivity.value
