"""Facts about the CMMD manifest, on a stand-in tree with the real headers of all 5,202 images and the real table."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cohort import CohortError, patient_folds, read_manifest
from pipeline.cohort.manifest_command import manifest as command
from pipeline.cohort.sources.cmmd import cmmd_manifest, read_clinical

from .cmmd_tree import link_classic, read_headers, write_descriptive


@pytest.fixture(scope="module")
def download(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two layouts of the download, and the clinical table."""
    home, source = tmp_path_factory.mktemp("cmmd"), real_data / "cmmd"
    headers = read_headers(source)
    write_descriptive(headers, home / "descriptive")
    link_classic(headers, home / "descriptive", home / "classic")
    clinical = source / "CMMD_clinicaldata_revision.xlsx"
    return {"descriptive": home / "descriptive", "classic": home / "classic", "clinical": clinical, "home": home}


@pytest.fixture(scope="module")
def written(download: dict[str, Path]) -> tuple[Path, str]:
    """The manifest that the command writes from the descriptive layout, and what it prints."""
    out = download["home"] / "cmmd.csv"
    return out, run(download["descriptive"], download["clinical"], out)


@pytest.fixture(scope="module")
def manifest(download: dict[str, Path], written: tuple[Path, str]) -> pd.DataFrame:
    return read_manifest(written[0], dataset_dir=download["descriptive"], allow_raw_ids=True)


def run(root: Path, clinical: Path, out: Path) -> str:
    arguments = ["cmmd", "--root", str(root), "--clinical", str(clinical), "--out", str(out)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_all_images_stand_there_with_the_published_counts(manifest: pd.DataFrame) -> None:
    patients = manifest.drop_duplicates("patient_id")
    assert patients["patient_label"].value_counts().to_dict() == {1: 1310, 0: 465} and len(patients) == 1775
    assert len(manifest) == 5202 and manifest["label"].count() == 3744
    assert manifest["label"].value_counts().to_dict() == {1.0: 2632, 0.0: 1112}
    assert manifest["patient_label"].value_counts().to_dict() == {1: 4150, 0: 1052}
    assert manifest["view"].value_counts().to_dict() == {"CC": 2601, "MLO": 2601}
    assert manifest["laterality"].value_counts().to_dict() == {"L": 2682, "R": 2520}


def test_unlabelled_images_show_the_other_breast_of_patients_of_d2(manifest: pd.DataFrame) -> None:
    unknown = manifest[manifest["label"].isna()]
    assert len(unknown) == 1458 and unknown["patient_id"].nunique() == 729
    assert set(unknown["vendor"]) == {"D2"} and (unknown["lesion"] == "").all()
    known = manifest[manifest["label"].notna()].groupby("patient_id")["laterality"].unique()
    assert all(side not in known[patient] for patient, side in unknown[["patient_id", "laterality"]].to_numpy())


def test_mixed_patients_keep_a_label_per_breast(manifest: pd.DataFrame) -> None:
    mixed = manifest.groupby("patient_id").filter(lambda rows: rows["label"].nunique() == 2)
    assert mixed["patient_id"].nunique() == 30 and (mixed["patient_label"] == 1).all()
    assert (mixed.groupby(["patient_id", "laterality"])["label"].nunique() == 1).all()


def test_patients_with_identical_pixels_share_a_group_and_nothing_is_dropped(manifest: pd.DataFrame) -> None:
    groups = manifest.groupby("group_id")["patient_id"].unique()
    shared = sorted(sorted(names) for names in groups if len(names) > 1)
    assert shared == [["D1-0202", "D2-0284"], ["D1-0808", "D1-1292"]]
    assert manifest["patient_id"].value_counts()[["D1-0202", "D2-0284", "D1-0808", "D1-1292"]].min() >= 2
    assert manifest.loc[manifest["patient_id"].isin(["D1-0001", "D2-0001"]), "group_id"].nunique() == 2


def test_no_group_straddles_the_partitions_of_a_fold(manifest: pd.DataFrame) -> None:
    folds = patient_folds(manifest).merge(manifest.drop_duplicates("patient_id")[["patient_id", "group_id"]])
    assert (folds.groupby(["fold", "group_id"])["partition"].nunique() == 1).all()


def test_the_view_comes_from_the_tags_and_not_from_the_number_of_the_file(manifest: pd.DataFrame) -> None:
    number = manifest["image"].str.extract(r"/1-(\d)\.dcm$")[0].astype(int)
    odd_is_cc = (number % 2 == 1) == (manifest["view"] == "CC")
    swapped = manifest[~odd_is_cc]
    assert swapped.groupby(["patient_id", "laterality"]).ngroups == 1 and set(swapped["laterality"]) == {"R"}


def test_both_layouts_give_the_same_manifest(download: dict[str, Path], manifest: pd.DataFrame) -> None:
    listing = cmmd_manifest(download["classic"], download["clinical"], progress=False)
    assert listing.rejects.empty
    told = [name for name in manifest.columns if name != "image"]
    pd.testing.assert_frame_equal(listing.manifest[told], manifest[told], check_dtype=False)
    assert listing.manifest["image"].str.fullmatch(r"CMMD/[\d.]+/[\d.]+/[\d.]+\.dcm").all()


def test_the_summary_says_what_a_reader_must_know(written: tuple[Path, str]) -> None:
    out, text = written
    assert "5202 images of 1775 patients" in text and "not the whole collection" not in text
    assert "D1-0202 and D2-0284; D1-0808 and D1-1292" in text and "2 images have 16 bits" in text and "D1-1343" in text
    assert "D2 has 753 malignant and 12 benign breasts, 749 of 749 patients with a malignant one" in text
    assert "D1 has 563 malignant and 544 benign breasts, 561 of 1026 patients" in text
    assert "1458 images of 729 patients" in text
    rejects = pd.read_csv(out.with_name("cmmd.rejects.csv"))
    assert set(rejects["image"]) == {"metadata.csv", "CMMD/LICENSE"} and set(rejects["code"]) == {"unreadable"}


@pytest.fixture
def part(download: dict[str, Path], tmp_path: Path) -> Path:
    """A download that ended early: three patients."""
    for patient in ("D1-0001", "D1-0021", "D2-0001"):
        shutil.copytree(download["descriptive"] / "CMMD" / patient, tmp_path / "part" / patient)
    return tmp_path / "part"


def test_a_part_of_the_download_works_and_lists_the_rows_without_images(download: dict[str, Path], part: Path) -> None:
    listing = cmmd_manifest(part, download["clinical"], progress=False)
    assert listing.manifest["patient_id"].nunique() == 3
    rows = listing.rejects[listing.rejects["code"] == "row_without_file"]
    assert len(rows) == 1872 - len(listing.manifest.dropna(subset="label").groupby(["patient_id", "laterality"]))
    assert listing.notes[0].startswith("not the whole collection: 3 of 1775 patients")


def test_the_same_command_gives_the_same_bytes_also_below_the_data_root(download: dict[str, Path], part: Path) -> None:
    inside, outside = part / "cmmd.csv", part.parent / "cmmd.csv"
    for out in (outside, inside, inside):
        run(part, download["clinical"], out)
    for name in ("cmmd.csv", "cmmd.rejects.csv"):
        assert inside.with_name(name).read_bytes() == outside.with_name(name).read_bytes()
    assert not [path for path in part.iterdir() if path.name.startswith(".")]


def test_patients_without_a_row_and_files_without_a_patient_are_counted_and_left_out(
    download: dict[str, Path], part: Path, tmp_path: Path
) -> None:
    table = pd.read_excel(download["clinical"])
    table[table["ID1"] != "D1-0021"].to_csv(tmp_path / "short.csv", index=False)
    stranger = next((part / "D1-0001").rglob("*.dcm"))
    stranger.write_bytes(stranger.read_bytes().replace(b"D1-0001 ", b"SOMEBODY"))
    listing = cmmd_manifest(part, tmp_path / "short.csv", progress=False)
    codes = listing.rejects["code"].value_counts()
    assert codes["no_row"] == 4 and codes["no_patient"] == 1
    assert any("4 files show patients without a row" in note for note in listing.notes)
    assert "D1-0021" not in set(listing.manifest["patient_id"])


def test_a_second_copy_of_a_file_is_left_out_and_the_first_path_stays(download: dict[str, Path], part: Path) -> None:
    shutil.copytree(part / "D1-0001", part / "again" / "D1-0001")
    listing = cmmd_manifest(part, download["clinical"], progress=False)
    copies = listing.rejects[listing.rejects["code"] == "duplicate"]
    assert len(copies) == 2 and copies["image"].str.startswith("again/").all()


def test_two_images_of_one_uid_are_both_refused(download: dict[str, Path], part: Path) -> None:
    first, second = sorted((part / "D1-0001").rglob("*.dcm"))
    changed = bytearray(first.read_bytes())
    changed[-1] ^= 255
    second.write_bytes(changed)
    listing = cmmd_manifest(part, download["clinical"], progress=False)
    assert (listing.rejects["code"] == "uid_conflict").sum() == 2


def test_damaged_and_foreign_files_never_end_the_run(download: dict[str, Path], part: Path) -> None:
    blind = min((part / "D2-0001").rglob("*.dcm"))
    good = blind.read_bytes()
    (part / "short.dcm").write_bytes(good[: len(good) // 2])
    (part / "empty.dcm").write_bytes(b"")
    blind.write_bytes(good.replace(b"399162004", b"000000000").replace(b"399368009", b"000000000"))
    listing = cmmd_manifest(part, download["clinical"], progress=False)
    refused = listing.rejects.set_index("image")["code"]
    assert {"short.dcm", "empty.dcm"} <= set(refused.index)
    assert refused[blind.relative_to(part).as_posix()] == "unknown_view"
    assert set(listing.manifest["patient_id"]) == {"D1-0001", "D1-0021", "D2-0001"}


def test_a_missing_or_wrong_clinical_table_is_an_error_that_says_what_to_do(part: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="--clinical: .*no.xlsx does not exist"):
        cmmd_manifest(part, tmp_path / "no.xlsx")
    table = tmp_path / "clinical.csv"
    table.write_text("ID1,LeftRight,Age\nD1-0001,R,44\n")
    with pytest.raises(CohortError, match="lacks the columns abnormality, classification"):
        read_clinical(table)
    header = "ID1;LeftRight;Age;abnormality;classification\n"
    table.write_text(header + "D1-0001;R;44;mass;Benign\nD1-0001;R;44;mass;Malignant\nD1-0002;X;44;mass;benign\n")
    with pytest.raises(CohortError, match=r"LeftRight \(L, R\): 1 rows, the first in line 4.*one row per breast"):
        read_clinical(table)


def test_a_folder_without_images_of_the_collection_is_an_error_with_counts(
    download: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CohortError, match="--root is not a folder"):
        cmmd_manifest(tmp_path / "nowhere", download["clinical"], progress=False)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CohortError, match=r"none of 1 files .*unreadable 1"):
        cmmd_manifest(tmp_path, download["clinical"], progress=False)
