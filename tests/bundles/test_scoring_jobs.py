"""Evaluation of a checkpoint, prediction of one exam, and what both refuse."""

import json
import shutil
import time

import pandas as pd
import pydicom
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.cohort import phantom_manifest
from pipeline.evaluation import ExamError
from pipeline.runs import CheckpointError
from pipeline.runs.errors import own_error

from .conftest import SMALL, workflow


def test_evaluate_gives_the_scores_of_the_run(trained, root):
    job = workflow(root, "evaluate.json", run_name="trained")
    job.initialize()
    job.run()
    again = pd.read_csv(root / "runs" / "trained-evaluation" / "scores.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(trained / "scores.csv"), rtol=1e-5, atol=1e-6)


def test_an_external_test_on_patients_of_the_training_is_refused(trained, root):
    job = workflow(root, "evaluate.json", run_name="trained", external=True)
    job.initialize()
    with pytest.raises(Exception) as caught:
        job.run()
    error = own_error(caught.value)
    assert isinstance(error, CheckpointError)
    assert "remove them from the manifest" in str(error)


def test_an_external_test_on_other_patients_is_reported(trained, root):
    others = root / "others"
    source = phantom_manifest(SMALL["phantom"] | {"seed": 7}, default_dir=others, progress=False)
    manifest = pd.read_csv(source, dtype=str)
    manifest["patient_id"] = "other-" + manifest["patient_id"]
    table = source.with_name("renamed.csv")
    manifest.to_csv(table, index=False)
    job = workflow(
        root, "evaluate.json", run_name="trained", external=True, manifest=str(table), dataset_dir=str(source.parent),
        weights="none",
    )  # fmt: skip
    job.initialize()
    job.run()
    folder = root / "runs" / "trained-external"
    scores, report = pd.read_csv(folder / "scores.csv"), json.loads((folder / "report.json").read_text())
    assert set(scores["partition"]) == {"test"}
    assert scores["patient_id"].nunique() == 20
    assert "not estimable" in json.dumps(report) or "validation" in json.dumps(report["operating_points"])


def exam_of(trained, root, target):
    """Copy one test patient's files into `target`; return them by image id of the scores."""
    scores = pd.read_csv(trained / "scores.csv").query("partition == 'test' and attack_id == 'clean'")
    patient = scores["patient_id"].iloc[0]
    data = next((root / "phantoms").iterdir())
    target.mkdir()
    for number, image in enumerate(scores.loc[scores["patient_id"] == patient, "image_id"]):
        shutil.copy(data / image, target / f"Doe_Jane_{number}.dcm")
    return scores[scores["patient_id"] == patient]


def test_predict_scores_an_exam_as_the_run_did(trained, root, tmp_path):
    expected = exam_of(trained, root, tmp_path / "exam")
    started = time.perf_counter()
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "exam"), "--checkpoint", str(trained / "checkpoints/best.pt"), "--out",
              str(tmp_path / "out")], catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0
    assert time.perf_counter() - started < 60  # a guard against hanging, no benchmark
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    images = table[table["level"] == "image"].set_index(["laterality", "view"])["logit"]
    reference = expected.set_index(["laterality", "view"])["logit"]
    assert (images - reference).abs().max() < 1e-3
    breasts = reference.groupby("laterality").mean()
    patient = float(table.loc[table["level"] == "patient", "logit"].iloc[0])
    assert patient == pytest.approx(breasts.max(), abs=1e-3)
    assert len(list((tmp_path / "out").glob("*_saliency.png"))) == 4


def test_predict_names_refusals_and_missing_views_and_leaks_nothing(trained, root, tmp_path):
    exam_of(trained, root, tmp_path / "exam")
    files = sorted((tmp_path / "exam").iterdir())
    header = pydicom.dcmread(files[0], stop_before_pixels=True)
    files[1].write_bytes(files[1].read_bytes()[:3000])
    (tmp_path / "exam" / "Doe_Jane_letter.txt").write_text("Dear colleague")
    arguments = ["predict", str(tmp_path / "exam"), "--checkpoint", str(trained / "checkpoints/best.pt"), "--out",
                 str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    content = json.loads((tmp_path / "out" / "exam.json").read_text())
    assert len(content["refusals"]) == 2
    assert len(content["missing_views"]) == 1
    secrets = ["Doe_Jane", str(header.PatientID), str(header.PatientName)]
    for file in (tmp_path / "out").iterdir():
        assert not [s for s in secrets if s in file.name or s.encode() in file.read_bytes()], file.name
    assert not [s for s in secrets if s in result.output]


def test_two_patients_in_one_folder_are_refused(trained, root, tmp_path):
    exam_of(trained, root, tmp_path / "exam")
    file = sorted((tmp_path / "exam").iterdir())[0]
    dataset = pydicom.dcmread(file)
    dataset.PatientID = "SOMEONE ELSE"
    dataset.save_as(file)
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "exam"), "--checkpoint", str(trained / "checkpoints/best.pt"), "--out",
              str(tmp_path / "out")],
    )  # fmt: skip
    error = own_error(result.exception)
    assert isinstance(error, ExamError)
    assert "SOMEONE" not in str(error)


def test_inference_has_every_property(trained, root, tmp_path):
    exam_of(trained, root, tmp_path / "exam")
    job = workflow(
        root, main="inference.json", workflow_type="infer", dataset_dir=str(tmp_path / "exam"),
        checkpoint=str(trained / "checkpoints/best.pt"), output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    job.initialize()
    assert job.check_properties() == []
    assert not (tmp_path / "out").exists()
