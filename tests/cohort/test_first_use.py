"""Facts about the first steps with an archive of one's own: what is said, and the way back from a pseudonym."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from distributed import LocalCluster
from monai.transforms import Compose
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.cohort import CohortError, audit, engine, patient_folds, prepare_images, read_manifest
from pipeline.cohort.auditing.printing import printed
from pipeline.cohort.auditing.shortcuts import patient_facts, scan
from pipeline.cohort.pseudonyms import KEY_ENVIRONMENT
from pipeline.cohort.sources.identity import age_years
from pipeline.cohort.sources.labels import LabelColumns, read_labels
from pipeline.cohort.warden import WorkersError
from pipeline.imaging import ImageStore

from .archive import write_exam, write_image

Exams = Callable[..., pd.DataFrame]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients below folders that are called like their ids, a special image, a raw one, a text, a broken file."""
    monkeypatch.setenv(KEY_ENVIRONMENT, str(tmp_path / "secret" / "key"))
    root = tmp_path / "archive"
    for patient in ("0012345", "0020881"):
        write_exam(root / patient, patient=patient)
    spot = Dataset()
    spot.CodeValue, spot.CodingSchemeDesignator, spot.CodeMeaning = "399055006", "SCT", "Spot compression"
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399162004", "SCT", "CC"
    view.ViewModifierCodeSequence = [spot]
    write_image(root / "0012345" / "spot.dcm", patient="0012345", ViewCodeSequence=[view])
    write_image(root / "0012345" / "raw.dcm", patient="0012345", PresentationIntentType="FOR PROCESSING")
    (root / "0012345" / "report.txt").write_text("no image")
    (root / "0012345" / "broken.dcm").write_bytes((root / "0012345" / "0000.dcm").read_bytes()[:-20])
    (tmp_path / "labels.csv").write_text("MRN,pathology\n0012345,malignant\n0020881,benign\n", encoding="utf-8")
    return root


def listed(root: Path, *more: str) -> str:
    """What `manifest folder` prints, with links."""
    place = root.parent
    arguments = ["manifest", "folder", "--root", str(root), "--labels", str(place / "labels.csv")]
    arguments += ["--id-columns", "MRN=PatientID", "--label-column", "pathology", "--malignant", "malignant"]
    arguments += ["--benign", "benign", "--out", str(place / "mine.csv"), "--links", str(place / "links"), *more]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.output


def test_the_summary_says_what_was_not_checked_what_could_be_kept_and_what_comes_next(archive: Path) -> None:
    output = listed(archive)
    assert "left out as no_dicom: 1" in output and "left out as unreadable: 1" in output
    assert "--keep implant,implant_displaced,spot_compression" in output and "--for-processing log" in output
    assert "only headers were read" in output and "headers still hold names" in output
    links = archive.parent / "links"
    last = output.strip().splitlines()[-1]
    assert last.startswith("next: python -m pipeline audit") and last.endswith(f"--dataset_dir {links}")


def test_a_file_has_one_pseudonym_wherever_it_is_named_and_the_key_leads_back_to_its_path(archive: Path) -> None:
    listed(archive)
    names = pd.read_csv(archive.parent / "mine.csv", dtype=str)
    rejects = pd.read_csv(archive.parent / "mine.rejects.csv", dtype=str)
    kept = {Path(image).name: archive.parent / "links" / image for image in names["image"]}
    left = rejects["image"].tolist()
    result = CliRunner().invoke(app, ["manifest", "whose", *kept, *left, "--root", str(archive)])
    assert result.exit_code == 0, result.output
    found = dict(line.split(": ", 1) for line in result.output.splitlines())
    assert len(set(found.values())) == len(kept) + len(left) == 12
    for name, link in kept.items():
        assert (archive / found[name]).samefile(link)
    code = dict(zip(rejects["image"], rejects["code"], strict=True))
    assert {found[name]: code[name] for name in left} == {
        "0012345/spot.dcm": "special_image", "0012345/raw.dcm": "not_for_presentation",
        "0012345/report.txt": "no_dicom", "0012345/broken.dcm": "unreadable",
    }  # fmt: skip
    listed(archive, "--keep", "implant,implant_displaced,spot_compression")  # a file left out before keeps its name
    spot = next(name for name in left if found[name] == "0012345/spot.dcm")
    assert pd.read_csv(archive.parent / "mine.csv", dtype=str)["image"].str.endswith(f"{spot}.dcm").sum() == 1


def test_patients_and_examinations_are_found_by_their_headers_and_another_key_finds_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(archive)
    row = pd.read_csv(archive.parent / "mine.csv", dtype=str).iloc[0]
    for column, name in (("patient_id", "p-"), ("study_id", "s-")):
        assert row[column].startswith(name)
        result = CliRunner().invoke(app, ["manifest", "whose", row[column], "--root", str(archive)])
        folders = {line.split(": ", 1)[1].split("/")[0] for line in result.output.splitlines()}
        assert result.exit_code == 0 and len(folders) == 1 and len(result.output.splitlines()) >= 4
    monkeypatch.setenv(KEY_ENVIRONMENT, str(tmp_path / "secret" / "other"))
    result = CliRunner().invoke(app, ["manifest", "whose", row["patient_id"], "--root", str(archive)])
    assert isinstance(result.exception, CohortError) and "no pseudonym key" in str(result.exception)
    assert not (tmp_path / "secret" / "other").exists()


@pytest.mark.parametrize(
    ("tags", "age"),
    [
        ({"PatientAge": "000Y"}, None),
        ({"PatientBirthDate": "00000000", "StudyDate": "20200101"}, None),
        ({"PatientBirthDate": "00000000", "StudyDate": "00000000"}, None),
        ({"PatientAge": "000Y", "PatientBirthDate": "19600101", "StudyDate": "20200101"}, 60.0),
        ({"PatientAge": "051Y"}, 51.0),
    ],
)
def test_a_placeholder_is_no_age(tags: dict[str, str], age: float | None) -> None:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    assert age_years(dataset) == age


def words(**changes: object) -> LabelColumns:
    given = {"ids": {"mrn": "PatientID"}, "label": "result", "malignant": ("M",), "benign": ("B",)}
    return LabelColumns(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "lines"),
    [(1, "in line 2 cannot"), (2, "in lines 2, 3 cannot"), (12, "in lines 2, 3, 4, 5, 6 and 7 more")],
)
def test_words_that_no_option_explains_are_told_by_line_and_the_options_are_named(
    tmp_path: Path, wrong: int, lines: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("mrn,result\n" + "".join(f"{row},bösartig\n" for row in range(wrong)) + "x,M\n", encoding="utf-8")
    with pytest.raises(CohortError) as error:
        read_labels([table], words())
    assert lines in str(error.value) and "take the words that your table uses" in str(error.value)
    assert "bösartig" not in str(error.value)


def test_a_column_that_differs_only_in_case_is_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("MRN,who,result\n1,Smith,M\n")
    with pytest.raises(CohortError, match=r"lacks the column mrn \(differs only in case: MRN\)") as error:
        read_labels([table], words())
    assert "who" not in str(error.value)


@pytest.mark.parametrize(("malignant", "benign", "most"), [(4, 9, 4), (9, 3, 3), (2, 9, None)])
def test_too_few_patients_name_the_option_and_a_number_of_folds_that_works(
    malignant: int, benign: int, most: int | None
) -> None:
    labels = [1] * malignant + [0] * benign
    table = pd.DataFrame({"patient_id": [f"p{n}" for n in range(len(labels))], "patient_label": labels})
    with pytest.raises(CohortError, match="too few for 5 folds") as error:
        patient_folds(table, folds=5)
    if most is None:
        assert "take more patients" in str(error.value) and "--folds" not in str(error.value)
        return
    assert f"--cohort#folds {most} " in str(error.value) and f"--folds {most} " in str(error.value)
    assert patient_folds(table, folds=most)["fold"].nunique() == most


def test_an_audit_that_could_read_no_image_is_an_error_and_one_that_missed_some_says_so(
    tmp_path: Path, exams: Exams, chain: Compose
) -> None:
    exams(6)
    given: dict[str, Any] = {"preprocessing": chain, "workers": 0, "progress": False, "folds": 3}
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(CohortError, match="none of the 12 images could be prepared.*dataset_dir"):
        audit(tmp_path / "manifest.csv", dataset_dir=tmp_path / "elsewhere", **given)
    assert "LEAKS: none" in list(printed(audit(tmp_path / "manifest.csv", **given)))
    (tmp_path / "p001/R.png").unlink()
    lines = list(printed(audit(tmp_path / "manifest.csv", **given)))
    assert "LEAKS: none among 11 of 12 images; 1 could not be prepared" in lines
    unseen = list(printed(audit(tmp_path / "manifest.csv", preprocessing=None, folds=3)))
    assert "LEAKS: none in the table; no image was looked at" in unseen


def test_the_scan_asks_of_age_where_the_manifest_has_it(exams: Exams) -> None:
    listed = exams(20).assign(group_id="")
    nothing = pd.DataFrame()
    assert "age" not in [one.name for one in scan(patient_facts(listed, nothing, nothing))]
    old = listed.assign(age=[70.0 if label else 45.0 for label in listed["patient_label"]])
    found = {one.name: one for one in scan(patient_facts(old, nothing, nothing))}
    assert found["age"].warns and found["age"].association.auc.value == 1.0  # type: ignore[union-attr]
    as_text = old.assign(age=old["age"].map(str))  # a manifest whose rows contradict each other is audited as text
    assert (
        patient_facts(as_text, nothing, nothing)["age"].tolist() == patient_facts(old, nothing, nothing)["age"].tolist()
    )


def test_preparing_on_one_machine_listens_on_the_loopback_only_and_logs_nothing_of_dask(
    tmp_path: Path, exams: Exams, chain: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    exams(2)
    seen: set[str] = set()
    take = engine._through

    def looking(*arguments: object) -> Iterator[engine.Settled]:
        for connection in psutil.Process().net_connections():
            if connection.status == psutil.CONN_LISTEN:
                seen.add(connection.laddr.ip)
        return take(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(engine, "_through", looking)
        prepared, _ = prepare_images(
            read_manifest(tmp_path / "manifest.csv"), dataset_dir=tmp_path, chain=chain,
            store=ImageStore(tmp_path / "store"), workers=1, progress=False,
        )  # fmt: skip
    assert len(prepared) == 4 and seen <= {"127.0.0.1", "::1"}
    assert not [record for record in caplog.records if record.name.startswith("distributed")]


def test_a_cluster_without_the_package_is_one_error_that_says_what_to_install(
    tmp_path: Path, exams: Exams, chain: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams(2)
    monkeypatch.setattr(engine, "NEEDED", "a_package_that_is_not_there")
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        pytest.raises(WorkersError, match="not installed in the environment of the scheduler, worker tcp.*pip install"),
    ):  # fmt: skip
        prepare_images(
            read_manifest(tmp_path / "manifest.csv"), dataset_dir=tmp_path, chain=chain,
            store=ImageStore(tmp_path / "store"), scheduler=cluster.scheduler_address, progress=False,
        )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="sends the signal that a terminal sends to a group of processes")
def test_control_c_says_how_far_it_came_and_ends_every_process(tmp_path: Path, exams: Exams) -> None:
    exams(40)
    command = [sys.executable, "-m", "pipeline", "prepare", str(tmp_path / "manifest.csv")]
    command += ["--out", str(tmp_path / "store"), "--workers", "1", "--image-size", "32"]
    start = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); " + (
        "os.execv(sys.argv[1], sys.argv[1:])"  # a background process of a shell ignores SIGINT
    )
    running = subprocess.Popen(
        [sys.executable, "-c", start, *command], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 120
    while running.poll() is None and not list((tmp_path / "store").rglob("*.nii")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    told = running.communicate(timeout=60)[1]
    done = len(list((tmp_path / "store").rglob("*.nii")))
    assert running.returncode == 130, told
    line = next(line for line in told.splitlines() if line.startswith("stopped after"))
    assert " of 80 images; the same command goes on" in line and int(line.split()[2]) <= done < 80
    assert "Traceback" not in told and "distributed" not in told and "Abort" not in told
    alive = [
        p for p in psutil.process_iter(["cmdline"]) if "pipeline.cohort.workers" in " ".join(p.info["cmdline"] or [])
    ]
    assert not [process for process in alive if os.getpgid(process.pid) == running.pid]
