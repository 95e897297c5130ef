"""A cohort is reproducible, half malignant, matched, and complete or not there."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import typer
from typer.testing import CliRunner

from pipeline.imaging.writing import ACQUISITION_STYLES
from pipeline.phantom import MANIFEST_COLUMNS, Difficulty, PhantomError, cohort, write_cohort
from pipeline.phantom.command import phantom
from pipeline.phantom.patient import draw_patient


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(out: Path, **settings: object) -> pd.DataFrame:
    arguments: dict = {"patients": 4, "height": 80, "workers": 1, "progress": False, **settings}
    return pd.read_csv(write_cohort(out, **arguments), keep_default_na=False)


def test_same_seed_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    write(tmp_path / "a", masks=True)
    write(tmp_path / "b", masks=True, workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a", patients=1)
    write(tmp_path / "b", patients=1, seed=1)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(first[name] != second[name] for name in first if name.endswith(".dcm"))


def test_a_larger_cohort_begins_with_the_smaller(tmp_path: Path) -> None:
    write(tmp_path / "small", patients=3)
    write(tmp_path / "large", patients=4)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    assert all(large[name] == small[name] for name in small if name != "manifest.csv")
    assert large["manifest.csv"].startswith(small["manifest.csv"])


def test_the_manifest_tells_the_truth_about_every_file(tmp_path: Path) -> None:
    manifest = write(tmp_path / "a", patients=6)
    assert tuple(manifest.columns) == MANIFEST_COLUMNS
    assert len(manifest) == 24
    assert manifest.groupby("patient_id").patient_label.first().sum() == 3
    assert (
        manifest.groupby("patient_id").label.sum() == 2 * manifest.groupby("patient_id").patient_label.first()
    ).all()
    assert (manifest.groupby(["patient_id", "laterality"]).label.nunique() == 1).all()
    malignant = {"spiculated_mass", "fine_calcifications", "asymmetry"}
    assert (manifest.lesion.isin(malignant) == (manifest.label == 1)).all()
    assert set(manifest.lesion) <= malignant | {"none", "smooth_mass", "coarse_calcifications"}
    uids = set()
    for row in manifest.itertuples():
        dataset = pydicom.dcmread(tmp_path / "a" / row.image)
        uids.add(dataset.SOPInstanceUID)
        assert dataset.ImageLaterality == row.laterality
        assert dataset.ViewCodeSequence[0].CodeValue == {"CC": "399162004", "MLO": "399368009"}[row.view]
        assert dataset.PatientAge == f"{row.age:03d}Y"
        assert dataset.Manufacturer.lower().startswith(row.vendor)
        assert dataset.PatientID != row.patient_id and row.patient_id not in str(dataset.PatientName)
    assert len(uids) == 24


def test_pairs_are_matched_and_exactly_one_of_each_is_malignant() -> None:
    for seed in range(3):
        patients = [draw_patient(seed, number, difficulty=Difficulty.MEDIUM) for number in range(200)]
        for one, other in zip(patients[::2], patients[1::2], strict=True):
            assert one.malignant != other.malignant
            assert (one.density, one.style, one.noise) == (other.density, other.style, other.noise)
            assert one.breasts != other.breasts
        assert 0.35 < np.mean([patient.malignant for patient in patients[::2]]) < 0.65  # order tells nothing
        assert {patient.style for patient in patients} == set(ACQUISITION_STYLES)
        for patient in patients:
            assert sum(finding.malignant for finding in patient.findings.values()) == patient.malignant


def test_masks_lie_over_the_stored_pixels(tmp_path: Path) -> None:
    manifest = write(tmp_path / "a", patients=12, height=160, masks=True)
    assert manifest.vendor.isin(["birch", "dogwood"]).any(), "no flipped style in the sample"
    for row in manifest.itertuples():
        dataset = pydicom.dcmread(tmp_path / "a" / row.image)
        stem = tmp_path / "a" / "masks" / row.patient_id / f"{row.laterality}_{row.view}"
        breast = np.asarray(nibabel.load(f"{stem}_breast.nii.gz").dataobj)
        lesion = np.asarray(nibabel.load(f"{stem}_lesion.nii.gz").dataobj)
        assert breast.shape == lesion.shape == dataset.pixel_array.shape
        assert lesion.max() == (0 if row.lesion == "none" else 1 + row.label)
        stored = dataset.pixel_array.astype(float)
        away = -1 if dataset.PhotometricInterpretation == "MONOCHROME1" else 1
        inside, outside = away * stored[breast == 1], away * stored[breast == 0]
        assert (inside > np.percentile(outside, 95)).mean() > 0.95
        assert (breast[:, 0].any(), breast[:, -1].any()) == ((True, False) if dataset.PatientOrientation[0] == "A"
                                                             else (False, True))  # fmt: skip


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("keep")
    with pytest.raises(PhantomError, match="is there and not an empty folder; remove it or give another"):
        write(tmp_path / "a")
    assert contents(tmp_path) == {"a/mine.txt": b"keep"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert len(write(tmp_path / "a", patients=1)) == 4


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(cohort, "write_mammogram", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patients": 0}, "patients is 0, allowed are 1 to 9,999"),
        ({"seed": -1}, "seed is -1, allowed are 0 and larger"),
        ({"height": 20}, "height is 20 rows, allowed are 64 and more"),
        ({"workers": 0}, "workers is 0, allowed are 1 and more"),
        ({"difficulty": "trivial"}, "difficulty is 'trivial', allowed are easy, medium, hard"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(PhantomError, match=message):
        write(tmp_path / "a", **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_cohort_and_says_where(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(phantom)
    arguments = ["--out", str(tmp_path / "a"), "--patients", "1", "--height", "80", "--workers", "1", "--masks"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 patients, 4 images" in result.output.replace("\n", " ")
    assert (tmp_path / "a" / "manifest.csv").is_file() and (tmp_path / "a" / "masks").is_dir()
