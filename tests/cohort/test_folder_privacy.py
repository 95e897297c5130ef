"""Facts about private archives: what is planted in tags, paths and tables comes out nowhere."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from pydicom.datadict import DicomDictionary
from typer.testing import CliRunner

from pipeline.__main__ import main
from pipeline.cohort import read_manifest
from pipeline.cohort.manifest_command import manifest as command
from pipeline.cohort.pseudonyms import KEY_ENVIRONMENT
from pipeline.cohort.sources.identity import path_identifies, path_tells
from pipeline.cohort.sources.links import link_files

from .archive import write_exam, write_image

PATIENT, OTHER, ACCESSION = "MRN7734521", "MRN8845632", "ACC5566778"
NAME, DATE, WORD = "PLANTEDNAME", "19471123", "PLANTEDWORD"
SECRETS = (PATIENT, OTHER, ACCESSION, NAME, DATE, "1947-11-23", WORD, "1.2.826")
KEPT = {
    # what the file needs to be a mammogram, and the ids that are planted apart
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality",
    "PresentationIntentType", "ImageLaterality", "PhotometricInterpretation", "SpecificCharacterSet", "PatientAge",
    "AccessionNumber", "PatientName", "PatientOrientation", "QualityControlImage", "ViewPosition", "Laterality",
}  # fmt: skip


def planted() -> dict[str, str]:
    """A word, name or date for every plain text tag of the main groups of PS3.6."""
    words = {"PN": f"{NAME}^{WORD}", "DA": DATE}
    words |= dict.fromkeys(("CS", "LO", "SH", "LT", "ST", "UT"), WORD)
    return {
        entry[4]: words[entry[0]]
        for tag, entry in DicomDictionary.items()
        if tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0028) and entry[0] in words
        if entry[4] and entry[4] not in KEPT and not entry[3]
    }


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(KEY_ENVIRONMENT, str(tmp_path / "private" / "key"))
    return tmp_path / "private" / "key"


@pytest.fixture
def archive(tmp_path: Path, key: Path) -> Path:
    """Two exams full of planted text, and files that cannot be used, each for another reason."""
    root = tmp_path / "images"
    text = planted()
    name = f"{NAME}^EVA"
    write_exam(root, patient=PATIENT, AccessionNumber=ACCESSION, PatientName=name, **text)
    write_exam(root, patient=OTHER, start=4, AccessionNumber="ACC1", PatientName=name, **text)
    write_image(root / "10.dcm", patient=OTHER, Modality=WORD, **text)
    write_image(root / "11.dcm", patient=OTHER, PhotometricInterpretation=WORD, **text)
    write_image(root / "12.dcm", patient=OTHER, PresentationIntentType=WORD, ViewPosition=WORD, view="", **text)
    write_image(root / "13.dcm", patient=OTHER, side="", Laterality=WORD[:1], **text)
    write_image(root / "14.dcm", patient=OTHER, Laterality="R", **text)
    write_image(root / "15.dcm", patient=f"{WORD}3", **text)
    whole = (root / "0000.dcm").read_bytes()
    (root / "16.dcm").write_bytes(whole[: len(whole) // 2])
    (root / f"{NAME}.txt").write_text(WORD)
    return root


def run(root: Path, table: Path, out: Path, *more: str) -> tuple[int, str]:
    """Run the command; its code and everything that it prints, with the text of its error and the log."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        arguments = ["folder", "--root", str(root), "--labels", str(table), "--out", str(out)]
        arguments += ["--label-column", "result", "--malignant", "M", "--benign", "B", *more]
        result = CliRunner().invoke(command, arguments)
    finally:
        logging.getLogger().removeHandler(handler)
    return result.exit_code, result.output + f"{result.exception!r}{result.exception}" + "\n".join(heard)


def assert_clean(text: str) -> None:
    assert not [secret for secret in SECRETS if secret.casefold() in text.casefold()]


def test_planted_text_reaches_no_output(archive: Path, tmp_path: Path, key: Path) -> None:
    table, out = tmp_path / "labels.csv", tmp_path / "out" / "mine.csv"
    table.write_text(f"PatientID,AccessionNumber,who,result\n{PATIENT},{ACCESSION},{NAME},M\n{OTHER},ACC1,{NAME},B\n"
                     f"{WORD}9,{WORD},{NAME},B\n")  # fmt: skip
    code, printed = run(archive, table, out, "--id-columns", "PatientID,AccessionNumber")
    assert code == 0, printed
    rejects = out.with_name("mine.rejects.csv").read_text()
    for text in (printed, out.read_text(), rejects, "\n".join(map(str, out.parent.rglob("*")))):
        assert_clean(text)
        assert key.read_text().strip() not in text
    assert len(read_manifest(out, dataset_dir=archive)) == 8
    for expected in ("not_mammogram", "unsupported_pixels", "side_conflict", "no_dicom", "row_without_file"):
        assert expected in rejects and f"left out as {expected}: " in printed


def test_a_second_run_gives_the_same_bytes_and_another_key_other_pseudonyms(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, out = tmp_path / "labels.csv", tmp_path / "out" / "mine.csv"
    table.write_text(f"PatientID,result\n{PATIENT},M\n{OTHER},B\n")
    written = []
    for key in ("one", "one", "two"):
        monkeypatch.setenv(KEY_ENVIRONMENT, str(tmp_path / "private" / key))
        assert run(archive, table, out, "--id-columns", "PatientID")[0] == 0
        written.append((out.read_bytes(), out.with_name("mine.rejects.csv").read_bytes()))
    assert written[0] == written[1] and written[0][0] != written[2][0] and written[0][1] != written[2][1]


@pytest.mark.parametrize(
    ("table", "more"),
    [
        (f"PatientID,result\n{PATIENT},{NAME}\n", ()),
        (f"{PATIENT},{NAME}\n{OTHER},M\n", ()),
        (f"PatientID,side,result\n{PATIENT},{WORD},M\n", ("--side-column", "side")),
        (f"PatientID,result\n{WORD},M\n", ()),
        (f'PatientID,result\n"{NAME},M\n{PATIENT},"M\n', ()),
        (f"PatientID,{NAME},{NAME},result\n{PATIENT},1,2,M\n", ()),
        (f"PatientID,result\n{PATIENT},M,{NAME}\n", ()),
        (f"PatientID,result\n{PATIENT},M\n{OTHER},B,{NAME},{NAME}\n", ()),
    ],
    ids=["label", "no header", "side", "no match", "quotes", "columns twice", "long row", "longer row"],
)
def test_planted_text_reaches_no_error(archive: Path, tmp_path: Path, table: str, more: tuple[str, ...]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(table)
    code, printed = run(archive, path, tmp_path / "out" / "mine.csv", "--id-columns", "PatientID", *more)
    assert code != 0 and "Error" in printed
    assert_clean(printed)


@pytest.mark.parametrize(
    "path",
    [f"{PATIENT}/1.dcm", f"{PATIENT.lower()}_L.dcm", f"{ACCESSION}.dcm", f"{NAME}/1.dcm", "1947/11/23/1.dcm",
     "scan-23.11.1947.dcm", "11-23-1947-NA/1.dcm"],
)  # fmt: skip
def test_paths_that_tell_are_an_error_and_links_are_the_way_out(tmp_path: Path, key: Path, path: str) -> None:
    root, links, out = tmp_path / "images", tmp_path / "links", tmp_path / "out" / "mine.csv"
    tags = {"AccessionNumber": ACCESSION, "PatientName": f"{NAME}^EVA", "PatientBirthDate": DATE}
    write_image(root / path, patient=PATIENT, **tags)
    table = tmp_path / "labels.csv"
    table.write_text(f"PatientID,result\n{PATIENT},M\n")
    code, printed = run(root, table, out, "--id-columns", "PatientID")
    assert code != 0 and "1 of 1 images" in printed and not out.exists()
    assert_clean(printed)
    for _ in range(2):
        code, printed = run(root, table, out, "--id-columns", "PatientID", "--links", str(links))
        assert code == 0, printed
    manifest = read_manifest(out, dataset_dir=links)
    assert_clean(printed + out.read_text() + "\n".join(str(file.relative_to(links)) for file in links.rglob("*")))
    assert (links / manifest["image"][0]).samefile(root / path)
    assert len([file for file in links.rglob("*") if file.is_file()]) == 1


def test_links_inside_the_archive_are_an_error(archive: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"PatientID,result\n{PATIENT},M\n")
    more = ("--id-columns", "PatientID", "--links", str(archive / "links"))
    code, printed = run(archive, table, tmp_path / "out" / "mine.csv", *more)
    assert code != 0 and "outside --root" in printed


def test_where_no_link_can_be_made_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another device")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_bytes(b"image")
    assert link_files([(tmp_path / "a", tmp_path / "new" / "b")]) == (0, 1)
    assert (tmp_path / "new" / "b").read_bytes() == b"image" and len(list((tmp_path / "new").iterdir())) == 1


def test_public_ids_are_kept_where_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENVIRONMENT, str(tmp_path / "private" / "key"))
    root, out = tmp_path / "images", tmp_path / "out" / "open.csv"
    write_exam(root / "case-17", patient="case-17")
    table = tmp_path / "labels.csv"
    table.write_text("PatientID,result\ncase-17,M\n")
    code, printed = run(root, table, out, "--id-columns", "PatientID", "--public-ids")
    assert code == 0, printed
    manifest = read_manifest(out, dataset_dir=root, allow_raw_ids=True)
    assert set(manifest["patient_id"]) == {"case-17"} and not (tmp_path / "private").exists()


@pytest.mark.parametrize(
    ("path", "word", "told"),
    [
        ("a/sleep.dcm", "Lee", False), ("a/lee_1.dcm", "Lee", True), ("a/12.dcm", "1", False), ("1/a.dcm", "1", True),
        ("x0012345y.dcm", "0012345", True), ("a.dcm", "", False), ("a(b.dcm", "a(b", True),
    ],
)  # fmt: skip
def test_short_words_must_stand_alone_in_a_path(path: str, word: str, told: bool) -> None:
    assert path_tells(path, [word]) is told


@pytest.mark.parametrize(
    ("path", "name", "told"),
    [("LiNa_a.dcm", "Li^Na", True), ("x/NALI2.dcm", "Li^Na", True), ("KimSu670304.dcm", "Kim^Su", True),
     ("a-670304.dcm", "", True), ("04.03.67/a.dcm", "", True), ("030467.dcm", "", True), ("Kim01.dcm", "Kim^Su", True),
     ("NLi.dcm", "Li^N", True), ("kimono.dcm", "Kim^Su", False), ("line_a.dcm", "Li^Na", False),
     ("1670304.dcm", "", False), ("6703041.dcm", "", False), ("670305.dcm", "", False)],
)  # fmt: skip
def test_joined_names_and_dates_with_short_years_tell(tmp_path: Path, path: str, name: str, told: bool) -> None:
    header = write_image(tmp_path / "1.dcm", patient="A1B2C3", PatientName=name, PatientBirthDate="19670304")
    assert path_identifies(header, path) is told


def test_a_path_of_numbers_tells_nothing(tmp_path: Path) -> None:
    header = write_image(tmp_path / "x.dcm", patient=PATIENT, StudyDate=DATE, PatientName=f"{NAME}^EVA")
    assert not path_identifies(header, "series3/0001.dcm") and path_identifies(header, f"{header.StudyInstanceUID}/1")


def test_the_command_line_prints_an_error_without_a_traceback(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(f"PatientID,result\n{PATIENT},{NAME}\n")
    arguments = ["manifest", "folder", "--root", archive, "--labels", table, "--out", tmp_path / "o.csv"]
    arguments += ["--id-columns", "PatientID", "--label-column", "result", "--malignant", "M", "--benign", "B"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 1 and "the label in line 2" in printed.err and "Traceback" not in printed.err
    assert_clean(printed.out + printed.err)
    assert not (tmp_path / "o.csv").exists() and not (tmp_path / "o.rejects.csv").exists()
