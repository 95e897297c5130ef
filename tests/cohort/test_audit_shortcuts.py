"""Facts about the shortcut scan: each planted shortcut is warned of, and clean cohorts are warned of rarely enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from pipeline.cohort import audit
from pipeline.cohort.auditing.shortcuts import ALPHA, patient_facts, scan, shortcut_findings

NOTHING = pd.DataFrame()
VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]


def exams(patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest and measures of four-view exams in which nothing depends on the class."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        vendor, bright, file = rng.choice(["A", "B", "C"]), rng.normal(0.4, 0.1), rng.normal(1e6, 1e5)
        area, bits = rng.normal(0.3, 0.08), int(rng.choice([8, 12]))
        model, serial = rng.choice(list("XYZ")), rng.choice(list("PQRS"))
        for side, view in VIEWS[: int(rng.choice([2, 4]))]:
            rows.append(
                {
                    "image": f"p{number:04d}/{side}{view}.dcm", "patient_id": f"p{number:04d}",
                    "group_id": f"p{number:04d}", "laterality": side, "view": view, "label": np.nan,
                    "patient_label": number % 2, "vendor": vendor, "mean_intensity": bright + rng.normal(0, 0.02),
                    "breast_intensity": bright + rng.normal(0.1, 0.02), "breast_area": area, "breast_share": area,
                    "file_size": file + rng.normal(0, 1e4), "rows": 3000, "columns": 2400, "spacing": 0.07,
                    "bit_depth": bits, "manufacturer": "M", "model": model, "device": serial, "software": "1",
                    "photometric": "MONOCHROME2", "syntax": "JPEG",
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    names = ["image", "patient_id", "group_id", "laterality", "view", "label", "patient_label", "vendor"]
    return table[names], table


def warned(listed: pd.DataFrame, measured: pd.DataFrame, rejects: pd.DataFrame = NOTHING) -> set[str]:
    return {one.name for one in scan(patient_facts(listed, measured, rejects)) if one.warns}


def malignant(table: pd.DataFrame) -> pd.Series:
    return table["patient_label"] == 1


def change(name: str, measured: pd.DataFrame) -> pd.DataFrame:
    """The measures with one shortcut planted."""
    table, sick = measured.copy(), malignant(measured)
    if name in ("mean_intensity", "breast_intensity"):
        table.loc[~sick, name] -= 0.12  # benign images are dark
    elif name in ("breast_area", "file_size"):
        table.loc[sick, [name, "breast_share"] if name == "breast_area" else [name]] *= 1.3
    elif name in ("rows", "columns", "spacing"):
        table[name] = table[name] * np.where(sick, 1.01, 1.0)
    elif name == "bit_depth":
        table[name] = np.where(sick, 16, 8)
    else:
        half = table["patient_id"].str[-1].isin(list("01234"))
        table.loc[sick & half, name] = "only in cancers"
    return table


@pytest.mark.parametrize(
    "name",
    ["mean_intensity", "breast_intensity", "breast_area", "file_size", "rows", "columns", "spacing", "bit_depth",
     "vendor", "manufacturer", "model", "device", "software", "photometric", "syntax"],
)  # fmt: skip
def test_a_planted_shortcut_is_warned_of(name: str) -> None:
    listed, measured = exams(200, seed=1)
    planted = change(name, measured)
    assert not warned(listed, measured)
    assert warned(listed.assign(vendor=planted["vendor"]), planted) == {name}


def test_scoring_only_labelled_breasts_is_warned_of_as_in_ddsm() -> None:
    listed, measured = exams(200, seed=1)
    listed["label"] = np.where(malignant(listed), np.where(listed["laterality"] == "L", 1.0, np.nan), 0.0)
    shortcuts = scan(patient_facts(listed, measured, NOTHING))
    assert "labelled_breasts" in {one.name for one in shortcuts if one.warns}
    assert any("more breasts, higher maximum" in finding.message for finding in shortcut_findings(shortcuts))


def test_more_images_breasts_and_other_views_in_one_class_are_warned_of() -> None:
    listed, measured = exams(200, seed=1)
    kept = ~malignant(listed) | (listed["laterality"] == "L")
    assert warned(listed[kept], measured[kept]) >= {"images", "breasts", "views"}


def test_images_refused_in_one_class_are_warned_of() -> None:
    listed, measured = exams(200, seed=1)
    rejects = listed[malignant(listed)].groupby("patient_id").head(1)[["image", "patient_id"]]
    assert warned(listed, measured, rejects) == {"refused_images"}


def test_a_clean_cohort_is_warned_of_at_most_at_the_stated_rate() -> None:
    cohorts = 100
    alarms = sum(bool(warned(*exams(60, seed=100 + seed))) for seed in range(cohorts))
    assert alarms <= binom.ppf(0.999, cohorts, ALPHA), f"{alarms} of {cohorts} clean cohorts were warned of"


def test_the_sub_cohort_of_cmmd_is_found_from_its_ids(real_data: Path) -> None:
    table = pd.read_excel(real_data / "cmmd" / "CMMD_clinicaldata_revision.xlsx")
    manifest = pd.DataFrame(
        {
            "image": [f"{index}.dcm" for index in range(len(table))],
            "patient_id": table["ID1"],
            "laterality": table["LeftRight"],
            "view": "CC",
            "label": (table["classification"] == "Malignant").astype(float),
        }
    )
    manifest["patient_label"] = manifest.groupby("patient_id")["label"].transform("max").astype(int)
    result = audit(manifest)
    prefix = next(one for one in result.shortcuts if one.name == "id_prefix")
    assert prefix.warns and prefix.categories is not None and set(prefix.categories) == {"D1", "D2"}
    assert sum(map(sum, prefix.categories.values())) == 1775
    assert prefix.association is not None and (prefix.association.auc.lower or 0) > 0.6


def test_facts_of_no_image_are_left_out_and_the_rest_is_scanned() -> None:
    listed, _ = exams(40, seed=1)
    result = audit(listed)
    assert {one.name for one in result.shortcuts} == {"images", "breasts", "labelled_breasts", "views", "vendor"}
    assert result.to_dict()["multiplicity"] == {"method": "Holm", "alpha": 0.05, "questions": 4}
