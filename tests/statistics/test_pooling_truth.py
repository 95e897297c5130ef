"""Pooling: image logits become patient logits by the stated rule, and bad tables are refused by name."""

import numpy as np
import pandas as pd
import pytest

from pipeline.statistics import pool_patients


def exam(patient: str, logits: dict[tuple[str, str], float], *, label: int = 0, attack: str = "clean") -> pd.DataFrame:
    rows = [
        {
            "image_id": f"{patient}/{side}-{view}",
            "patient_id": patient,
            "laterality": side,
            "view": view,
            "patient_label": label,
            "attack_id": attack,
            "budget": 0.0 if attack == "clean" else 0.01,
            "logit": logit,
        }
        for (side, view), logit in logits.items()
    ]
    return pd.DataFrame(rows)


FOUR = {("L", "CC"): 1.0, ("L", "MLO"): 3.0, ("R", "CC"): -4.0, ("R", "MLO"): 5.0}


@pytest.mark.parametrize(
    ("within", "across", "expected"),
    [("mean", "max", 2.0), ("mean", "mean", 1.25), ("max", "max", 5.0), ("max", "mean", 4.0)],
)
def test_views_are_pooled_within_a_breast_before_breasts_are_pooled(within: str, across: str, expected: float) -> None:
    pooled = pool_patients(exam("a", FOUR), within_breast=within, across_breasts=across)
    assert pooled["logit"].tolist() == [expected]
    assert pooled[["images", "breasts"]].to_numpy().tolist() == [[4, 2]]


def test_pooling_agrees_with_a_loop_over_patients_and_attacks() -> None:
    rng = np.random.default_rng(3)
    parts = []
    for number in range(40):
        for attack in ("clean", "pgd"):
            views = {key: float(rng.normal()) for key in FOUR if rng.random() < 0.8 or key == ("L", "CC")}
            parts.append(exam(f"p{number:02d}", views, label=number % 2, attack=attack))
    scores = pd.concat(parts).sample(frac=1.0, random_state=0)
    pooled = pool_patients(scores).set_index(["patient_id", "attack_id"])["logit"]
    for (patient, attack), value in pooled.items():
        mine = scores[(scores["patient_id"] == patient) & (scores["attack_id"] == attack)]
        breasts = [np.mean(mine.loc[mine["laterality"] == side, "logit"]) for side in set(mine["laterality"])]
        assert value == pytest.approx(max(breasts), abs=1e-14)
    assert len(pooled) == 80


def test_folds_and_partitions_are_never_pooled_together() -> None:
    scores = pd.concat(
        [
            exam("a", FOUR).assign(partition="test", fold=0),
            exam("a", {key: value + 10 for key, value in FOUR.items()}).assign(partition="validation", fold=1),
        ]
    )
    pooled = pool_patients(scores)
    assert pooled.set_index(["partition", "fold"])["logit"].to_dict() == {("test", 0): 2.0, ("validation", 1): 12.0}


def test_an_image_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a/L-CC stands twice"):
        pool_patients(pd.concat([exam("a", FOUR), exam("a", {("L", "CC"): 1.0})]))


def test_a_patient_with_two_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="patient a has two labels"):
        pool_patients(pd.concat([exam("a", FOUR), exam("a", FOUR, label=1, attack="pgd")]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_refused_with_its_patient(wrong: float) -> None:
    with pytest.raises(ValueError, match="patient b"):
        pool_patients(pd.concat([exam("a", FOUR), exam("b", {("L", "CC"): wrong})]))


def test_a_missing_column_and_an_unknown_pool_are_named() -> None:
    with pytest.raises(ValueError, match="lacks laterality"):
        pool_patients(exam("a", FOUR).drop(columns="laterality"))
    with pytest.raises(ValueError, match="'median'; allowed are 'mean', 'max'"):
        pool_patients(exam("a", FOUR), within_breast="median")  # type: ignore[arg-type]


def test_an_empty_table_pools_to_an_empty_table() -> None:
    assert pool_patients(exam("a", FOUR).head(0)).empty
