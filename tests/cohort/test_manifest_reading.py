"""Facts about reading a manifest: what is kept, what is refused, and that everything wrong is said at once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.cohort import CohortError, ManifestError, read_manifest

HEADER = "image,patient_id,laterality,view,label,patient_label"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def problems(path: Path, **settings: object) -> list[tuple[int, str, str]]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **settings)
    rows = caught.value.rows
    return list(zip(rows["line"], rows["column"], rows["problem"], strict=True))


def test_ids_keep_leading_zeros_and_words_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    rows = [f"{name}.png,{name},L,CC,,0" for name in ("007", "1e5", "NA", "None", "true", "7")]
    manifest = read_manifest(write(tmp_path, *rows))
    assert manifest["patient_id"].tolist() == ["007", "1e5", "NA", "None", "true", "7"]
    assert manifest["group_id"].tolist() == manifest["patient_id"].tolist()


def test_an_empty_label_is_unknown_and_not_benign(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "a.png,1,L,CC,,1", "b.png,1,R,CC,1,1", "c.png,2,R,CC,0.0,0"))
    np.testing.assert_array_equal(manifest["label"], [np.nan, 1.0, 0.0])
    assert manifest["label"].dtype == np.float64 and manifest["patient_label"].dtype == np.int64


def test_empty_group_cells_mean_the_patient(tmp_path: Path) -> None:
    path = write(tmp_path, "a.png,1,L,CC,,1,twins", "b.png,2,L,CC,,0,", header=HEADER + ",group_id")
    assert read_manifest(path)["group_id"].tolist() == ["twins", "2"]


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path, "a.png,1,L,CC,,1")
    assert read_manifest(path).attrs["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_byte_order_mark_of_spreadsheets_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(("\ufeff" + HEADER + "\r\na.png,1,L,CC,,1\r\n").encode())
    assert read_manifest(path)["image"].tolist() == ["a.png"]


def test_every_bad_row_is_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "../a.png,1,L,CC,,0",
        "/b.png,2,L,CC,,0",
        "c.png,3,X,CC,,0",
        "d.png,4,L,TOP,,0",
        "e.png,5,L,CC,2,0",
        "f.png,6,L,CC,maybe,0",
        "g.png,7,L,CC,,",
        "h.png,,L,CC,,1",
        ",9,L,CC,,1",
        "i.png,10,L,CC,,1",
        "./i.png,11,L,CC,,1",
        "j.png,12,L,CC,1,0",
        "C:\\k.png,13,L,CC,,0",
        "l.png,14 ,L,CC,,0",
    )
    found = {(line, column) for line, column, _ in problems(path)}
    expected = {(2, "image"), (3, "image"), (4, "laterality"), (5, "view"), (6, "label"), (7, "label")}
    expected |= {(8, "patient_label"), (9, "patient_id"), (10, "image"), (12, "image"), (13, "patient_label")}
    expected |= {(14, "image"), (15, "patient_id")}
    assert found == expected


def test_message_prints_twenty_rows_and_counts_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, *(f"{number}.png,{number},L,CC,5,0" for number in range(30)))
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.count("\n  line ") == 20 and "and 10 more" in message and "30 problems" in message
    assert len(caught.value.rows) == 30 and "0, 1 or empty" in message


def test_contradictions_between_rows_are_found(tmp_path: Path) -> None:
    header = HEADER + ",group_id,partition"
    path = write(
        tmp_path,
        "a.png,1,L,CC,,0,g,test",
        "b.png,1,L,MLO,,1,h,training",
        "c.png,2,L,CC,0,1,k,test",
        "d.png,2,L,MLO,1,1,k,test",
        "e.png,3,L,CC,0,1,k,training",
        "f.png,3,R,CC,0,1,k,training",
        "i.png,4,R,CC,,1,m,",
        header=header,
    )
    found = {(line, column) for line, column, _ in problems(path)}
    assert found == {
        (2, "patient_label"), (2, "group_id"), (2, "partition"), (4, "label"), (4, "partition"), (6, "patient_label"),
        (8, "partition"),
    }  # fmt: skip


def test_two_examinations_may_label_a_breast_differently(tmp_path: Path) -> None:
    path = write(tmp_path, "a.png,1,L,CC,0,1,2001", "b.png,1,L,CC,1,1,2003", header=HEADER + ",study_id")
    assert len(read_manifest(path)) == 2


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.replace("patient_id", "patientid"), ["'patient_id' is missing", "did you mean 'patient_id'?"]),
        (HEADER + ",lable", ["did you mean 'label'?", "group_id, study_id, age"]),
        (HEADER + ",zzz", ["'zzz' is unknown; remove it"]),
        (HEADER + ",label", ["'label' stands there 2 times"]),
        (HEADER.replace(",", ";"), ["not separated by commas"]),
    ],
)
def test_wrong_columns_are_named_with_what_is_allowed(tmp_path: Path, header: str, words: list[str]) -> None:
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(tmp_path, "a.png,1,L,CC,,0", header=header))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ((HEADER + "\n").encode(), "no rows"),
        (b"\xff\xfe\x00i", "UTF-8"),
        ((HEADER + "\na.png,1,L,CC,,0,extra\n").encode(), "7 cells, the header has 6"),
        ((HEADER + "\na.png,1,L,CC\n").encode(), "4 cells, the header has 6"),
        ((HEADER + '\n"a.png,1,L,CC,,0\n').encode(), "not comma-separated"),
    ],
)
def test_a_file_that_is_no_manifest_is_an_error(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=word):
        read_manifest(path)


def test_a_missing_manifest_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere.csv.*\n.*does not exist"):
        read_manifest(tmp_path / "nowhere.csv")


def test_links_may_not_leave_the_data_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "x.png").write_bytes(b"")
    (root / "inside.png").write_bytes(b"")
    os.symlink(outside / "x.png", root / "file.png")
    os.symlink(outside, root / "folder")
    os.symlink(root / "inside.png", root / "kept.png")
    path = write(tmp_path, "file.png,1,L,CC,,0", "folder/x.png,2,L,CC,,0", "kept.png,3,L,CC,,0")
    assert [line for line, _, _ in problems(path, dataset_dir=root)] == [2, 3]


def test_a_data_root_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert len(read_manifest(write(tmp_path, "a.png,1,L,CC,,0"), dataset_dir=tmp_path / "link")) == 1


def test_missing_image_files_are_no_error_of_the_manifest(tmp_path: Path) -> None:
    assert len(read_manifest(write(tmp_path, "not/there.dcm,1,L,CC,,0"))) == 1


def test_manifest_errors_are_cohort_errors_and_survive_pickling(tmp_path: Path) -> None:
    import pickle

    with pytest.raises(CohortError) as caught:
        read_manifest(write(tmp_path, "a.png,1,L,CC,7,0"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and len(again.rows) == 1
