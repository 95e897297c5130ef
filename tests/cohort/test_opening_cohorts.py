"""Facts about an opened cohort: who is in it, under which label, and what was lost on the way."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.transforms import Compose

from pipeline.cohort import (
    Cohort,
    CohortError,
    RawIdsError,
    open_cohort,
    patient_folds,
    phantom_manifest,
    read_manifest,
)
from pipeline.cohort.subset import draw_patients

Exams = Callable[..., pd.DataFrame]


@pytest.fixture
def open_exams(tmp_path: Path, chain: Compose) -> Callable[..., Cohort]:
    """Open the manifest in the temporary folder with short settings."""

    def opened(**settings: object) -> Cohort:
        settings = {"store_dir": tmp_path / "store", "workers": 0, "progress": False, "folds": 3} | settings
        return open_cohort(tmp_path / "manifest.csv", preprocessing=chain, **settings)  # type: ignore[arg-type]

    return opened


def test_no_patient_or_group_is_in_two_partitions_and_folds_are_those_of_patient_folds(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    manifest = exams(20).assign(group_id=lambda rows: "g" + (rows["patient_id"].str[1:].astype(int) // 3).astype(str))
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    folds = patient_folds(read_manifest(tmp_path / "manifest.csv"), folds=3, seed=4)
    tested: list[str] = []
    for fold in range(3):
        table = open_exams(fold=fold, seed=4).table
        assert table.groupby("group_id")["partition"].nunique().max() == 1
        assert set(table["partition"]) == {"training", "validation", "test"}
        expected = folds[folds["fold"] == fold].set_index("patient_id")["partition"]
        assert (table["partition"].to_numpy() == expected[table["patient_id"]].to_numpy()).all()
        tested += list(table.loc[table["partition"] == "test", "patient_id"].unique())
    assert sorted(tested) == sorted(manifest["patient_id"].unique())


def test_label_policy_acts_on_training_only_and_scoring_sees_whole_exams(
    exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    exams(18)
    by_patient, by_breast = open_exams(), open_exams(label_policy="breast")
    for item in by_patient.items("training"):
        assert item["label"].dtype == np.float32 and item["label"].shape == (1,)
        assert item["label"][0] == item["patient_label"]
    patients = {item["patient_id"] for item in by_patient.items("training")}
    labelled = by_breast.items("training")
    assert {item["patient_id"] for item in labelled} == patients
    assert len(by_patient.items("training")) == 2 * len(patients)
    unknown = [item for item in labelled if item["patient_label"] == 1 and item["laterality"] == "R"]
    assert not unknown and all(item["label"][0] == item["patient_label"] for item in labelled)
    for cohort in (by_patient, by_breast):
        for partition in ("training", "validation", "test"):
            scored = cohort.items(partition, "scoring")
            assert pd.Series([item["patient_id"] for item in scored]).value_counts().eq(2).all()
            assert not any(np.isnan(item["label"][0]) for item in scored)


def test_scoring_aims_at_the_patients_label_and_keeps_the_breasts_own(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    manifest = exams(18)
    manifest.loc[(manifest["patient_label"] == 1) & (manifest["laterality"] == "R"), "label"] = 0
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    cohort = open_exams()
    right = [item for item in cohort.items("test", "scoring") if item["laterality"] == "R"]
    assert any(item["patient_label"] == 1 for item in right)
    assert all(float(item["label"][0]) == item["patient_label"] and item["breast_label"] == 0 for item in right)
    assert any(item["label"][0] == 1 for item in cohort.items("training") if item["laterality"] == "R")


def test_flow_counts_what_is_lost_and_names_lost_patients(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    exams(18)
    (tmp_path / "p003/L.png").unlink()
    for side in "LR":
        (tmp_path / f"p004/{side}.png").write_bytes(b"damaged")
    cohort = open_exams(label_policy="breast")
    flow = cohort.flow
    assert list(flow) == ["files in manifest", "prepared", "with a breast label", "training", "validation", "test"]
    assert (flow["files in manifest"]["files"], flow["files in manifest"]["patients"]) == (36, 18)
    assert (flow["prepared"]["files"], flow["prepared"]["patients"]) == (33, 17)
    assert "1 rejected as missing_file" in flow["prepared"]["note"] and "p004" in flow["prepared"]["note"]
    assert flow["with a breast label"]["files"] == 33 - 9 and flow["with a breast label"]["patients"] == 16
    for count in ("files", "patients"):
        assert sum(flow[name][count] for name in ("training", "validation", "test")) == flow["prepared"][count]
    codes = cohort.rejects.groupby("code")["patient_id"].agg(list).to_dict()
    assert codes == {"missing_file": ["p003"], "unreadable": ["p004", "p004"], "patient_lost": ["p004"]}


def test_saved_tables_are_those_of_the_contract(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    exams(12).assign(age=50, vendor="made up").to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "p003/L.png").unlink()
    cohort = open_exams()
    cohort.save(tmp_path / "run")
    with (tmp_path / "run/cohort.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "image_id", "patient_id", "laterality", "view", "label", "patient_label", "fold", "partition", "group_id",
        "age", "vendor",
    ]  # fmt: skip
    assert len(rows) == 23 and {row["label"] for row in rows} == {"", "0.0", "1.0"}
    rejects = pd.read_csv(tmp_path / "run/rejects.csv")
    assert rejects.columns.tolist() == ["image", "patient_id", "code", "reason"] and len(rejects) == 1
    flow = json.loads((tmp_path / "run/flow.json").read_text())
    assert [set(stage) for stage in flow] == [{"stage", "files", "patients", "note"}] * len(cohort.flow)


def test_one_class_left_in_a_partition_after_rejects_is_an_error(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    manifest = exams(12)
    folds = patient_folds(read_manifest(tmp_path / "manifest.csv"), folds=3)
    test = set(folds.loc[(folds["fold"] == 0) & (folds["partition"] == "test"), "patient_id"])
    gone = manifest[manifest["patient_id"].isin(test) & (manifest["patient_label"] == 1)]
    for image in gone["image"]:
        (tmp_path / image).unlink()
    with pytest.raises(CohortError, match="fold 0 after rejects: test has 0 malignant and 2 benign"):
        open_exams()


def test_a_wrong_data_root_is_told_by_the_first_missing_file(
    tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    exams(12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match="none of the 24 images.*p000/L.png: missing_file.*dataset_dir"):
        open_exams(dataset_dir=tmp_path / "empty")


def test_without_a_fold_everybody_is_tested(exams: Exams, open_exams: Callable[..., Cohort]) -> None:
    exams(4)
    cohort = open_exams(fold=None)
    assert len(cohort.items("test", "scoring")) == 8
    with pytest.raises(CohortError, match="no image in partition 'training'.*images in: test"):
        cohort.items("training")


def test_a_fixed_split_has_one_fold(tmp_path: Path, exams: Exams, open_exams: Callable[..., Cohort]) -> None:
    manifest = exams(12)
    order = manifest["patient_id"].str[1:].astype(int) // 4
    manifest.assign(partition=order.map({0: "test", 1: "training", 2: "validation"})).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    cohort = open_exams(folds=5, seed=7)
    assert {item["patient_id"] for item in cohort.items("test")} == {"p000", "p001", "p002", "p003"}
    with pytest.raises(CohortError, match="fold 1 does not exist: the manifest has a fixed split.*allowed: 0"):
        open_exams(fold=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_policy": "image"}, "label_policy is 'image'; allowed: patient, breast"),
        ({"fold": 3}, "fold 3 does not exist: 3 folds; allowed: 0, 1, 2"),
        ({"folds": 30}, "18 patients are fewer than 30 folds"),
        ({"patients": 40}, "patients is 40; the manifest allows 2 to 18"),
        ({"dataset_dir": "nowhere"}, "data root nowhere is not a folder"),
    ],
)
def test_settings_that_cannot_be_had_are_errors_with_what_is_allowed(
    settings: dict[str, object], words: str, exams: Exams, open_exams: Callable[..., Cohort]
) -> None:
    exams(18)
    with pytest.raises(CohortError, match=words):
        open_exams(**settings)


def test_items_refuse_unknown_words(exams: Exams, open_exams: Callable[..., Cohort]) -> None:
    exams(12)
    cohort = open_exams()
    with pytest.raises(CohortError, match="partition is 'train'; allowed: training, validation, test"):
        cohort.items("train")
    with pytest.raises(CohortError, match="purpose is 'eval'; allowed: training, scoring"):
        cohort.items("test", "eval")


def population(malignant: int, benign: int) -> pd.DataFrame:
    labels = [1] * malignant + [0] * benign
    names = [f"{number:03d}" for number in range(len(labels))]
    return pd.DataFrame({"image": names, "patient_id": names, "patient_label": labels})


def test_a_subset_keeps_class_shares_is_seeded_nested_and_free_of_row_order() -> None:
    everyone = population(60, 140)
    draws = {size: set(draw_patients(everyone, size, seed=1)["patient_id"]) for size in (20, 50, 100)}
    for size, names in draws.items():
        drawn = everyone[everyone["patient_id"].isin(names)]
        assert len(drawn) == size and drawn["patient_label"].sum() == 0.3 * size
    assert draws[20] < draws[50] < draws[100]
    assert set(draw_patients(everyone[::-1], 50, seed=1)["patient_id"]) == draws[50]
    assert set(draw_patients(everyone, 50, seed=2)["patient_id"]) != draws[50]


def test_a_small_subset_has_both_classes() -> None:
    for size in (2, 3, 5):
        drawn = draw_patients(population(3, 300), size)
        assert len(drawn) == size and drawn["patient_label"].nunique() == 2


@pytest.fixture(scope="module")
def phantom_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return {"patients": 12, "seed": 1, "height": 160, "workers": 1, "dir": str(tmp_path_factory.mktemp("phantoms"))}


def test_without_a_manifest_a_phantom_cohort_is_built_once_and_opened(
    tmp_path: Path, chain: Compose, phantom_settings: dict[str, object]
) -> None:
    settings = {"preprocessing": chain, "store_dir": tmp_path, "folds": 3, "workers": 0, "progress": False}
    cohort = open_cohort(phantom=phantom_settings, **settings)
    built = sorted(Path(str(phantom_settings["dir"])).iterdir())
    assert len(built) == 1 and built[0].name.startswith("phantoms-12-1-160-medium-")
    written = (built[0] / "manifest.csv").stat().st_mtime_ns
    again = open_cohort(phantom=phantom_settings, **settings)
    assert (built[0] / "manifest.csv").stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(cohort.table, again.table)
    assert cohort.digest == again.digest and len(cohort.digest) == 64
    assert len(cohort.table) + len(cohort.rejects) == 48 and len(cohort.table) >= 44
    assert cohort.flow["files in manifest"]["patients"] == 12
    assert {item["view"] for item in cohort.items("training")} == {"CC", "MLO"}


def test_phantoms_of_other_settings_lie_in_another_folder_and_default_settings_are_the_same(
    phantom_settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipeline.phantom

    def write_cohort(out: Path, *, patients: int = 60, seed: int = 0, workers: int = 1, progress: bool = True) -> None:
        out.mkdir(parents=True)
        (out / "manifest.csv").write_text("")

    monkeypatch.setattr(pipeline.phantom, "write_cohort", write_cohort)
    folder = phantom_settings["dir"]
    plain = phantom_manifest({"dir": folder})
    assert phantom_manifest({"patients": 60, "seed": 0}, default_dir=str(folder)) == plain
    assert phantom_manifest({"dir": folder, "workers": 3}) == plain
    assert phantom_manifest({"dir": folder, "seed": 1}) != plain


def test_phantom_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="unknown settings patient; allowed: dir, patients, seed, height"):
        phantom_manifest({"patient": 3, "dir": tmp_path})
    with pytest.raises(CohortError, match="no folder for phantoms"):
        phantom_manifest({"patients": 3})


def test_raw_ids_are_refused_when_a_cohort_is_opened(
    tmp_path: Path, chain: Compose, phantom_settings: dict[str, object]
) -> None:
    source = phantom_manifest({**phantom_settings, "patients": 4, "height": 64, "progress": False})
    text = source.read_text()
    for number in range(1, 5):
        text = text.replace(f",phantom-{number:04d},", f",PH{number:04d}X,")
    (tmp_path / "raw.csv").write_text(text)
    with pytest.raises(RawIdsError, match="for 4 patients"):
        open_cohort(
            tmp_path / "raw.csv", dataset_dir=source.parent, preprocessing=chain, store_dir=tmp_path, workers=0,
            progress=False,
        )  # fmt: skip
