"""Facts about folds that hold for any cohort: nobody straddles, everyone is tested once, classes keep their share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cohort import CohortError, patient_folds
from pipeline.cohort.folds import check_disjoint


def cohort(labels: list[int], groups: list[int] | None = None, images: int = 2) -> pd.DataFrame:
    names = [f"{number:04d}" for number in range(len(labels))]
    rows = [
        {"image": f"{name}/{image}.dcm", "patient_id": name, "patient_label": label, "group_id": group}
        for name, label, group in zip(names, labels, groups or names, strict=True)
        for image in range(images)
    ]
    return pd.DataFrame(rows).astype({"group_id": "str"})


cohorts = st.tuples(
    st.integers(12, 60), st.integers(12, 60), st.integers(2, 5), st.integers(0, 2**31), st.integers(1, 3)
)


@settings(max_examples=20, deadline=None)
@given(cohorts)
def test_every_patient_is_tested_exactly_once_and_stands_once_in_each_fold(drawn: tuple[int, ...]) -> None:
    malignant, benign, folds, seed, images = drawn
    manifest = cohort([1] * malignant + [0] * benign, images=images)
    split = patient_folds(manifest, folds=folds, seed=seed)
    names = sorted(manifest["patient_id"].unique())
    assert sorted(split.loc[split["partition"] == "test", "patient_id"]) == names
    for fold in range(folds):
        assert sorted(split.loc[split["fold"] == fold, "patient_id"]) == names


@settings(max_examples=20, deadline=None)
@given(cohorts)
def test_shares_and_class_shares_are_those_asked_for(drawn: tuple[int, ...]) -> None:
    malignant, benign, folds, seed, _ = drawn
    manifest = cohort([1] * malignant + [0] * benign, images=1)
    split = patient_folds(manifest, folds=folds, seed=seed).merge(manifest[["patient_id", "patient_label"]])
    for _, rows in split.groupby("fold"):
        for label, total in ((1, malignant), (0, benign)):
            counts = rows.loc[rows["patient_label"] == label, "partition"].value_counts()
            assert abs(counts["test"] - total / folds) < 1.001
            pieces = min(round((1 - 1 / folds) / 0.1), *(count - -(-count // folds) for count in (malignant, benign)))
            assert abs(counts["validation"] - (total - counts["test"]) / pieces) < 1.5


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_patient_or_group_straddles_partitions(data: st.DataObject) -> None:
    size = data.draw(st.integers(30, 80))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    groups = data.draw(st.lists(st.integers(0, size // 2), min_size=size, max_size=size))
    seed = data.draw(st.integers(0, 1000))
    manifest = cohort(labels, [f"g{group}" for group in groups])
    try:
        split = patient_folds(manifest, folds=3, seed=seed)
    except CohortError as error:
        assert "one class only" in str(error) or "groups" in str(error)
        return
    joined = manifest.merge(split, on="patient_id")
    for _, rows in joined.groupby("fold"):
        assert rows.groupby("patient_id")["partition"].nunique().max() == 1
        assert rows.groupby("group_id")["partition"].nunique().max() == 1
        check_disjoint(rows)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_rows(seed: int, random: object) -> None:
    manifest = cohort([1] * 20 + [0] * 30)
    order = list(range(len(manifest)))
    random.shuffle(order)  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(patient_folds(manifest, seed=seed), patient_folds(manifest.iloc[order], seed=seed))


def test_seed_decides_and_another_seed_decides_otherwise() -> None:
    manifest = cohort([1] * 20 + [0] * 30)
    first, again, other = (patient_folds(manifest, seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_five_folds_of_a_hundred_are_seventy_ten_twenty_with_equal_classes() -> None:
    manifest = cohort([1] * 50 + [0] * 50)
    split = patient_folds(manifest).merge(manifest.drop_duplicates("patient_id"))
    counts = split.groupby(["fold", "partition", "patient_label"]).size().unstack()
    for fold in range(5):
        assert counts.loc[(fold, "training")].tolist() == [35, 35]
        assert counts.loc[(fold, "validation")].tolist() == [5, 5]
        assert counts.loc[(fold, "test")].tolist() == [10, 10]


def test_validation_patients_differ_between_folds() -> None:
    split = patient_folds(cohort([1] * 50 + [0] * 50))
    validated = [frozenset(rows["patient_id"]) for _, rows in split[split["partition"] == "validation"].groupby("fold")]
    assert len(set(validated)) == 5


def test_a_fixed_split_overrides_folds() -> None:
    manifest = cohort([1, 0] * 6)
    fixed = np.array(["training", "validation", "test"])[np.arange(12) // 4]
    manifest["partition"] = np.repeat(fixed, 2)
    split = patient_folds(manifest, folds=5, seed=9)
    assert split["fold"].unique().tolist() == [0] and split["partition"].tolist() == fixed.tolist()


def test_one_class_only_in_a_fixed_partition_is_named_with_counts() -> None:
    manifest = cohort([1, 0, 1, 0, 1, 1], images=1)
    manifest["partition"] = ["training", "training", "validation", "validation", "test", "test"]
    with pytest.raises(CohortError, match="test has 2 malignant and 0 benign"):
        patient_folds(manifest)


@pytest.mark.parametrize(
    ("labels", "folds", "words"),
    [
        ([1, 0, 1], 5, "3 patients are fewer than 5 folds"),
        ([1] * 20, 5, "0 of 20 patients are benign.*one class only"),
        ([1] * 20 + [0] * 3, 5, "3 of 23 patients are benign.*At least 5"),
        ([1, 0] * 3, 2, "At least 4 of each class"),
        ([1, 0] * 20, 1, "2 or more"),
    ],
)
def test_cohorts_too_small_for_the_folds_are_refused(labels: list[int], folds: int, words: str) -> None:
    with pytest.raises(CohortError, match=words):
        patient_folds(cohort(labels), folds=folds)


def test_a_group_that_holds_a_whole_class_cannot_be_split() -> None:
    manifest = cohort([1] * 20 + [0] * 20, ["one"] * 20 + [f"b{number}" for number in range(20)])
    with pytest.raises(CohortError, match="one class only in a partition of fold 0.*0 malignant"):
        patient_folds(manifest)


def test_smallest_allowed_cohorts_have_both_classes_everywhere() -> None:
    for folds, count in ((2, 4), (3, 3), (4, 4), (5, 5)):
        manifest = cohort([1] * count + [0] * count)
        split = patient_folds(manifest, folds=folds).merge(manifest.drop_duplicates("patient_id"))
        assert (split.groupby(["fold", "partition"])["patient_label"].nunique() == 2).all()


def test_a_torn_group_is_refused() -> None:
    table = pd.DataFrame({"patient_id": ["a", "b"], "group_id": ["g", "g"], "partition": ["training", "test"]})
    with pytest.raises(CohortError, match="group_id stand in two partitions"):
        check_disjoint(table)
