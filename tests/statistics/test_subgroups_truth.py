"""Subgroups: counts by hand, suppression, Holm, and the level and power of the interaction test by simulation."""

import numpy as np
import pandas as pd
import pytest

from pipeline.statistics import auc, holm, patient_facts, subgroups


def cohort(rng: np.random.Generator, sizes: dict[str, tuple[int, int, float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Groups of (malignant, benign, shift)."""
    labels = np.concatenate([np.repeat([1, 0], size[:2]) for size in sizes.values()])
    shift = np.concatenate([np.full(sum(size[:2]), size[2]) for size in sizes.values()])
    vendor = np.repeat(list(sizes), [sum(size[:2]) for size in sizes.values()])
    ids = [f"p{index}" for index in range(len(labels))]
    patients = pd.DataFrame(
        {"patient_id": ids, "patient_label": labels, "logit": rng.normal(size=len(labels)) + shift * labels}
    )
    return patients, pd.DataFrame({"vendor": vendor}, index=pd.Index(ids, name="patient_id"))


def test_groups_hold_their_patients_and_small_ones_keep_all_but_the_figure() -> None:
    patients, facts = cohort(
        np.random.default_rng(0), {"GE": (20, 30, 1.0), "Hologic": (9, 40, 1.0), "Siemens": (15, 15, 1.0)}
    )
    facts.iloc[:5, 0] = None
    (found,) = subgroups(patients, facts.sample(frac=1, random_state=1), resamples=50)
    assert [group.name for group in found.groups] == ["GE", "Hologic", "Siemens", "unknown"]
    counts = [(group.patients, group.auc.n_positive, group.auc.n_negative) for group in found.groups]
    assert counts == [(45, 15, 30), (49, 9, 40), (30, 15, 15), (5, 5, 0)]
    rows = patients.iloc[5:50]
    assert found.groups[0].auc.value == auc(rows["patient_label"], rows["logit"])
    small = found.groups[1]
    assert small.suppressed and small.auc.value is None and small.auc.lower is None
    assert small.auc.reason is not None and "9 malignant and 40 benign" in small.auc.reason
    assert (found.degrees, found.reason) == (1, "no part of the test: Hologic, unknown")
    assert found.p_value is not None and found.p_holm == found.p_value


def test_interaction_test_keeps_its_level_and_finds_a_large_difference() -> None:
    rng, runs = np.random.default_rng(1), 300
    same = other = 0
    for _ in range(runs):
        (found,) = subgroups(*cohort(rng, {"a": (25, 25, 1.0), "b": (25, 25, 1.0), "c": (25, 25, 1.0)}), resamples=1)
        same += found.p_value is not None and found.p_value < 0.05
        (found,) = subgroups(*cohort(rng, {"a": (40, 40, 2.0), "b": (40, 40, 0.0)}), resamples=1)
        other += found.p_value is not None and found.p_value < 0.05
    # 5% of 300 is 15; three standard errors are 11.
    assert same <= 26, same
    assert other >= 0.95 * runs, other


def test_p_values_are_adjusted_over_the_facts_that_could_be_tested() -> None:
    rng = np.random.default_rng(2)
    patients, facts = cohort(rng, {"a": (30, 30, 2.0), "b": (30, 30, 0.5)})
    facts["noise"] = rng.permutation(np.repeat(["x", "y"], 60))
    facts["constant"] = "same"
    found = subgroups(patients, facts, resamples=1)
    assert [entry.variable for entry in found] == ["vendor", "noise", "constant"]
    assert [entry.p_holm for entry in found[:2]] == pytest.approx(holm([entry.p_value or 0 for entry in found[:2]]))
    assert found[2].p_value is None and found[2].reason is not None and "two groups" in found[2].reason


def test_facts_of_images_become_view_sets_age_groups_and_joined_values() -> None:
    images = pd.DataFrame(
        {
            "patient_id": ["b", "a", "a", "a", "c"],
            "view": ["CC", "MLO", "CC", "CC", "MLO"],
            "vendor": ["GE", "GE", "Hologic", "GE", None],
            "age": [39.0, 49.0, 51.0, 50.0, np.nan],
        }
    )
    facts = patient_facts(images, ["view", "vendor", "age"])
    assert facts.to_dict("index") == {
        "a": {"view": "CC + MLO", "vendor": "GE + Hologic", "age": "50 to 59"},
        "b": {"view": "CC", "vendor": "GE", "age": "below 40"},
        "c": {"view": "MLO", "vendor": "unknown", "age": "unknown"},
    }
    images["age"] = 70.0
    assert set(patient_facts(images, ["age"])["age"]) == {"from 70"}
    with pytest.raises(ValueError, match="lacks density"):
        patient_facts(images, ["density"])


def test_a_patient_who_stands_twice_is_refused() -> None:
    patients, facts = cohort(np.random.default_rng(3), {"a": (12, 12, 1.0)})
    with pytest.raises(ValueError, match="patient p0 stands twice in patients"):
        subgroups(pd.concat([patients, patients.iloc[:1]]), facts)
    with pytest.raises(ValueError, match="none of the 24 patients stands in facts"):
        subgroups(patients, facts.set_axis(range(24)))


def test_a_group_in_perfect_order_is_shown_and_is_no_part_of_the_test() -> None:
    patients, facts = cohort(np.random.default_rng(4), {"a": (12, 12, 50.0), "b": (12, 12, 1.0), "c": (12, 12, 1.0)})
    (found,) = subgroups(patients, facts, resamples=20)
    assert found.groups[0].auc.value == 1.0 and not found.groups[0].suppressed
    assert (found.degrees, found.reason) == (1, "no part of the test: a")
