"""Facts about an audit of files: a phantom cohort is clean, and each leak or shortcut planted in it is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import typer
from monai.transforms import Compose
from PIL import Image
from typer.testing import CliRunner

from pipeline.cohort import Audit, audit
from pipeline.cohort.auditing.command import audit as command
from pipeline.imaging import read_mammogram

PATIENTS = 24
Plant = Callable[..., Audit]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom cohort of 24 patients with its own store beside it."""
    from pipeline.phantom import write_cohort

    folder = tmp_path_factory.mktemp("audit") / "phantoms"
    write_cohort(folder, patients=PATIENTS, seed=0, height=128, workers=1, progress=False)
    for file in folder.rglob("*.dcm"):
        os.utime(file, (file.stat().st_mtime - 3600,) * 2)  # files that no longer change
    return folder


@pytest.fixture(scope="module")
def chain64() -> Compose:
    from monai.bundle import ConfigParser

    from pipeline import bundle_file

    parser = ConfigParser()
    parser.read_config(bundle_file("train.json"))
    parser["image_size"] = 64
    return parser.get_parsed_content("preprocessing")


@pytest.fixture
def plant(clean: Path, chain64: Compose, tmp_path: Path) -> Plant:
    """Change manifest and files of a copy of the phantom cohort, and audit it."""
    root = tmp_path / "phantoms"
    shutil.copytree(clean, root, copy_function=shutil.copy2)

    def planted(change: Callable[[pd.DataFrame, Path], pd.DataFrame] | None = None, **settings: object) -> Audit:
        manifest = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
        if change is not None:
            manifest = change(manifest, root)
        manifest.to_csv(root / "planted.csv", index=False)
        settings = {"store_dir": clean.parent / "store", "workers": 0, "progress": False} | settings
        return audit(root / "planted.csv", dataset_dir=root, preprocessing=chain64, **settings)  # type: ignore[arg-type]

    return planted


def codes(result: Audit) -> set[str]:
    return {finding.code for finding in result.findings}


def file(patient: int, view: str = "L_CC") -> str:
    return f"images/phantom-{patient:04d}/{view}.dcm"


def test_a_clean_phantom_cohort_has_no_leak_and_no_warning(plant: Plant) -> None:
    result = plant()
    assert not result.leaks and not [one for one in result.findings if one.severity == "warning"]
    assert result.counts["patients"] == PATIENTS and result.counts["prepared"] == 4 * PATIENTS
    assert result.split == "all 5 folds, seed 0"
    asked = {one.name for one in result.shortcuts if one.association is not None}
    assert asked >= {"mean_intensity", "breast_area", "file_size", "vendor", "manufacturer", "bit_depth"}


def test_the_same_pixels_under_another_patient_are_a_leak_that_names_both(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        copy = pydicom.dcmread(root / file(1))
        copy.SOPInstanceUID = "2.25.1"
        copy.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        copy.save_as(root / file(20))
        return manifest

    result = plant(change)
    leak = result.leaks[0]
    assert codes(result) - {"unusual_hanging"} == {
        "same_pixels_in_two_partitions", "one_picture_two_labels", "one_picture_two_patient_labels",
    }  # fmt: skip
    assert set(leak.patients) == {"phantom-0001", "phantom-0020"} and set(leak.images) == {file(1), file(20)}
    assert "group_id" in leak.message


def test_a_shared_group_mends_it(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        shutil.copy(root / file(1), root / file(20))
        pair = manifest["patient_id"].isin(["phantom-0001", "phantom-0020"])
        return manifest.assign(group_id=np.where(pair, "same person", ""))

    assert not plant(change).leaks


def test_one_sop_instance_uid_in_two_patients_is_a_leak(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        other = pydicom.dcmread(root / file(20))
        other.SOPInstanceUID = pydicom.dcmread(root / file(1)).SOPInstanceUID
        other.save_as(root / file(20))
        return manifest

    assert codes(plant(change)) - {"unusual_hanging"} == {"same_sop_uid_in_two_partitions"}


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reworked_copy_under_another_patient_is_a_leak(plant: Plant, mirrored: bool) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        pixels = read_mammogram(root / file(2)).pixels
        levels = np.clip(np.asarray(pixels) ** 0.8 * 255, 0, 255).astype(np.uint8)
        picture = Image.fromarray(levels[:, ::-1] if mirrored else levels)
        picture = picture.resize((round(picture.width * 1.2), round(picture.height * 1.2)))
        picture.save(root / "images/copy.png")
        return manifest.replace({"image": {file(19): "images/copy.png"}})

    leaks = plant(change).leaks
    assert [leak.code for leak in leaks] == ["near_same_pixels_in_two_partitions"]
    assert set(leaks[0].patients) == {"phantom-0002", "phantom-0019"}


def test_a_patient_and_a_group_in_two_partitions_of_a_fixed_split_are_leaks(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        number = manifest["patient_id"].str[-2:].astype(int)
        partition = (number % 3).map({0: "training", 1: "validation", 2: "test"})
        partition[manifest.index[manifest["image"] == file(4)]] = "test"
        return manifest.assign(partition=partition, group_id=np.where(number.isin([7, 8]), "sisters", ""))

    result = plant(change)
    named = {finding.code: finding.patients for finding in result.leaks}
    assert named == {
        "patient_in_two_partitions": ("phantom-0004",),
        "group_in_two_partitions": ("phantom-0007", "phantom-0008"),
    }
    assert result.split == "fixed (column 'partition')"


def test_a_repeated_picture_inside_one_partition_is_a_warning(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        shutil.copy(root / file(3), root / file(6))
        number = manifest["patient_id"].str[-2:].astype(int)
        return manifest.assign(partition=(number % 3).map({0: "training", 1: "validation", 2: "test"}))

    result = plant(change)
    assert not result.leaks and {"same_pixels_in_two_patients", "same_sop_uid_in_two_patients"} <= codes(result)


def test_raw_ids_are_a_leak_and_no_id_is_named(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        shutil.copy(root / file(1), root / file(20))
        return manifest.assign(patient_id="PH" + manifest["patient_id"].str[-4:] + "X")

    result = plant(change)
    assert result.leaks[0].code == "raw_ids" and "24 patients" in result.leaks[0].message
    assert "same_pixels_in_two_partitions" in codes(result)
    assert "PH00" not in json.dumps(result.to_dict()) and "phantom-0" not in json.dumps(result.to_dict())
    assert "raw_ids" not in codes(plant(change, allow_raw_ids=True))


def test_contradicting_labels_views_and_sides_are_warnings(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        label = manifest["label"].copy()
        label[manifest["image"] == file(5)] = "1"
        label[manifest["image"] == file(5, "L_MLO")] = "0"
        mislabelled = manifest["patient_id"] == "phantom-0005"
        benign = manifest["patient_id"] == "phantom-0006"
        table = manifest.assign(
            label=label.where(~benign, "1"), patient_label=manifest["patient_label"].where(~benign, "0")
        )
        table.loc[mislabelled, "patient_label"] = "1"
        lost = manifest["image"].isin([file(9), file(9, "L_MLO"), file(10)])
        return table[~lost]

    result = plant(change)
    named = {finding.code: finding.patients for finding in result.findings if finding.patients}
    assert named["two_breast_labels"] == ("phantom-0005",)
    assert named["breast_against_patient_label"] == ("phantom-0006",)
    assert named["missing_views"] == ("phantom-0009", "phantom-0010") and named["one_sided"] == ("phantom-0009",)
    assert not result.leaks


def test_one_image_that_hangs_against_the_rest_of_its_patient_is_a_warning(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        pixels = np.asarray(read_mammogram(root / file(7)).pixels)
        Image.fromarray((pixels[:, ::-1] * 255).astype(np.uint8)).save(root / "images/mirrored.png")
        return manifest.replace({"image": {file(7): "images/mirrored.png"}})

    named = {finding.code: finding.images for finding in plant(change).findings}
    assert named["side_against_pixels"] == ("images/mirrored.png",)


def test_dark_normals_are_warned_of(plant: Plant) -> None:
    def change(manifest: pd.DataFrame, root: Path) -> pd.DataFrame:
        (root / "png").mkdir()
        for index, row in manifest.iterrows():
            pixels = np.asarray(read_mammogram(root / row["image"]).pixels)
            name = f"png/{index}.png"
            Image.fromarray((pixels * (255 if row["patient_label"] == "1" else 90)).astype(np.uint8)).save(root / name)
            manifest.loc[index, "image"] = name
        return manifest

    result = plant(change)
    assert {"shortcut_mean_intensity", "shortcut_breast_intensity"} <= codes(result)
    assert not result.leaks


def test_the_command_ends_with_1_on_a_leak_and_with_0_on_warnings(clean: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    root = tmp_path / "phantoms"
    shutil.copytree(clean, root, copy_function=shutil.copy2)
    manifest = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    manifest[manifest["image"] != file(3)].to_csv(root / "lacking.csv", index=False)
    arguments = ["--dataset_dir", str(root), "--store", str(tmp_path / "store"), "--workers", "0"]
    arguments += ["--out", str(tmp_path / "out" / "audit.json"), "--fold", "1"]
    result = CliRunner().invoke(app, [str(root / "lacking.csv"), *arguments])
    assert result.exit_code == 0, result.output
    assert "LEAKS: none" in result.output and "missing_views" in result.output and "fold 1 of 5" in result.output
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["version"] == 1 and not written["leaks"] and len(written["manifest_digest"]) == 64
    assert {"counts", "split", "warnings", "notes", "multiplicity", "shortcuts"} <= set(written)
    manifest.assign(patient_id="PH" + manifest["patient_id"].str[-4:] + "X").to_csv(root / "raw.csv", index=False)
    result = CliRunner().invoke(app, [str(root / "raw.csv"), *arguments])
    assert result.exit_code == 1 and "raw_ids" in result.output
