"""Facts about the DDSM manifest, by hand for the rules and against the real table for the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort import CohortError, patient_folds, read_manifest
from pipeline.cohort.manifest_command import manifest as command
from pipeline.cohort.sources.ddsm import breast_label, ddsm_manifest


@pytest.mark.parametrize(
    ("case_class", "overlays", "label"),
    [
        ("cancers", ["MALIGNANT", ""], 1.0),
        ("cancers", ["", "MALIGNANT|UNPROVEN"], 1.0),
        ("cancers", ["BENIGN|MALIGNANT", "BENIGN"], 1.0),
        ("cancers", ["BENIGN", "BENIGN_WITHOUT_CALLBACK"], 0.0),
        ("cancers", ["BENIGN_WITHOUT_CALLBACK", ""], 0.0),
        ("cancers", ["UNPROVEN", "UNPROVEN"], np.nan),
        ("cancers", ["", ""], np.nan),
        ("benigns", ["", ""], 0.0),
    ],
)
def test_a_breast_is_labelled_by_the_overlays_of_both_views(case_class: str, overlays: list[str], label: float) -> None:
    assert breast_label(case_class, overlays) == pytest.approx(label, nan_ok=True)


@pytest.mark.parametrize(("case_class", "overlays"), [("cancers", ["MALIGN"]), ("normals", [""])])
def test_an_unknown_word_is_an_error_and_not_benign(case_class: str, overlays: list[str]) -> None:
    with pytest.raises(CohortError, match="is not known"):
        breast_label(case_class, overlays)


def test_a_folder_without_the_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="labels.csv does not exist; --root"):
        ddsm_manifest(tmp_path)


@pytest.fixture(scope="module")
def breasts(real_data: Path) -> pd.DataFrame:
    """One row per breast of the real table: label by the manifest, marks by the table itself."""
    root = real_data / "ddsm-small"
    table = pd.read_csv(root / "labels.csv", dtype="str", keep_default_na=False)
    joined = ddsm_manifest(root).merge(table[["image", "case_class", "overlay_pathology"]], on="image")
    marks = joined.groupby(["patient_id", "laterality"])["overlay_pathology"].agg("|".join)
    assert joined.groupby(["patient_id", "laterality"])["label"].nunique().max() == 1
    return joined.drop_duplicates(["patient_id", "laterality"]).assign(
        marks=lambda rows: [marks[key].strip("|") for key in zip(rows["patient_id"], rows["laterality"], strict=True)]
    )


def test_the_real_table_has_the_published_counts(breasts: pd.DataFrame) -> None:
    assert breasts.groupby("case_class")["patient_id"].nunique().to_dict() == {"benigns": 250, "cancers": 250}
    cancers = breasts[breasts["case_class"] == "cancers"]
    marked = (cancers["marks"] != "").groupby(cancers["patient_id"]).sum()
    assert marked.value_counts().to_dict() == {1: 229, 2: 21}  # breasts with an overlay of any kind


def test_three_marked_breasts_of_the_real_table_are_unproven_and_so_unknown(breasts: pd.DataFrame) -> None:
    cancers = breasts[breasts["case_class"] == "cancers"]
    assert cancers.groupby("patient_id")["label"].count().value_counts().to_dict() == {1: 232, 2: 18}
    unproven = cancers[cancers["label"].isna() & (cancers["marks"] != "")]
    assert len(unproven) == 3 and set("|".join(unproven["marks"]).split("|")) == {"UNPROVEN"}
    assert cancers["label"].value_counts().to_dict() == {1.0: 254, 0.0: 14}
    assert (cancers.groupby("patient_id")["label"].max() == 1).all()


def test_both_breasts_of_the_real_benign_cases_are_negative(breasts: pd.DataFrame) -> None:
    assert breasts.loc[breasts["case_class"] == "benigns", "label"].tolist() == [0.0] * 500


def test_the_command_writes_a_manifest_that_can_be_read_and_split(real_data: Path, tmp_path: Path) -> None:
    root, out = real_data / "ddsm-small", tmp_path / "deep" / "ddsm.csv"
    result = CliRunner().invoke(command, ["ddsm", "--root", str(root), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "2000 images of 500 patients" in result.output and "254" in result.output
    manifest = read_manifest(out, dataset_dir=root)
    assert set(manifest["vendor"]) == set("ABCD")
    assert manifest["image"].map(lambda image: (root / image).is_file()).all()
    counts = patient_folds(manifest).merge(manifest.drop_duplicates("patient_id"))
    counts = counts.groupby(["fold", "partition", "patient_label"]).size().unstack()
    assert {tuple(row) for row in counts.to_numpy().tolist()} == {(175, 175), (25, 25), (50, 50)}
