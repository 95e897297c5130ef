"""Evaluation of a checkpoint, prediction of one exam, and what both refuse."""

import json
import shutil
import time

import pandas as pd
import pydicom
import pytest
import torch
from monai.bundle import ckpt_export
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.cohort import phantom_manifest
from pipeline.evaluation import ExamError
from pipeline.networks import vgg16
from pipeline.runs import CheckpointError, load_network
from pipeline.runs.errors import own_error

from .conftest import BUNDLE, SMALL, workflow

FROM_CHECKPOINT = ("image_size", "network_def#width")


def evaluation(root, **changes):
    """The job of evaluate.json; the network's settings come from the checkpoint."""
    return workflow(
        root, "evaluate.json", small={k: v for k, v in SMALL.items() if k not in FROM_CHECKPOINT}, **changes
    )


def test_evaluate_gives_the_scores_of_the_run(trained, root):
    job = evaluation(root, run_name="trained")
    job.initialize()
    job.run()
    again = pd.read_csv(root / "runs" / "trained-evaluation" / "scores.csv")
    pd.testing.assert_frame_equal(again, pd.read_csv(trained / "scores.csv"), rtol=1e-5, atol=1e-6)


def test_a_misspelled_effort_leaves_an_earlier_evaluation_where_it_stands(trained, root):
    folder = root / "runs" / "kept-evaluation"
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    shutil.copytree(trained, root / "runs" / "kept")
    job = evaluation(root, run_name="kept", effort="medium")
    with pytest.raises(Exception) as caught:
        job.initialize()
    assert "'medium'" in str(own_error(caught.value)) and (folder / "report.json").read_text() == "{}"
    assert not folder.with_name("kept-evaluation.1").exists()


def test_ckpt_export_writes_the_plain_network_of_the_run(trained, root):
    exported = root / "model.ts"
    ckpt_export(
        net_id="network_def", filepath=str(exported), ckpt_file=str(trained / "checkpoints" / "best.pt"),
        meta_file=str(BUNDLE / "metadata.json"), config_file=str(BUNDLE / "train.json"), key_in_ckpt="network",
        input_shape=[1, 1, 32, 32], **{"network_def#width": SMALL["network_def#width"]},
    )  # fmt: skip
    network = vgg16(weights="none", width=SMALL["network_def#width"], head="compact", engine=False).eval()
    load_network(network, trained / "checkpoints" / "best.pt")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(exported).eval()(images), network(images))


def test_an_external_test_on_patients_of_the_training_is_refused(trained, root):
    job = evaluation(root, run_name="trained", external=True)
    job.initialize()
    with pytest.raises(Exception) as caught:
        job.run()
    error = own_error(caught.value)
    assert isinstance(error, CheckpointError)
    assert "remove the seen ones from the manifest" in str(error)


def test_the_training_images_under_other_ids_are_refused_in_an_external_test(trained, root):
    source = phantom_manifest(SMALL["phantom"], default_dir=root / "phantoms", progress=False)
    manifest = pd.read_csv(source, dtype=str)
    manifest["patient_id"] = "other-" + manifest["patient_id"]
    table = source.with_name("renamed.csv")
    manifest.to_csv(table, index=False)
    job = evaluation(root, run_name="trained", external=True, manifest=str(table), dataset_dir=str(source.parent))
    job.initialize()
    with pytest.raises(Exception) as caught:
        job.run()
    error = own_error(caught.value)
    seen = pd.read_csv(trained / "cohort.csv")["partition"].isin(["training", "validation"]).sum()
    assert isinstance(error, CheckpointError)
    assert f"0 of the patients and {seen} of the images" in str(error)


def test_an_external_test_on_other_patients_is_reported(trained, root):
    others = root / "others"
    source = phantom_manifest(SMALL["phantom"] | {"seed": 7}, default_dir=others, progress=False)
    manifest = pd.read_csv(source, dtype=str)
    manifest["patient_id"] = "other-" + manifest["patient_id"]
    table = source.with_name("renamed.csv")
    manifest.to_csv(table, index=False)
    # Settings of this call that are not those of the training: the report is on the network as it was trained.
    job = evaluation(
        root, run_name="trained", external=True, manifest=str(table), dataset_dir=str(source.parent), start_epoch=2,
        standard_ratio=0.25,
    )  # fmt: skip
    job.initialize()
    job.run()
    folder = root / "runs" / "trained-external"
    scores, report = pd.read_csv(folder / "scores.csv"), json.loads((folder / "report.json").read_text())
    method = json.loads((trained / "report.json").read_text())["overview"]["method"]
    assert report["overview"]["method"] == f"{method} on phantoms"
    tested, frozen = (scores[scores["partition"] == name] for name in ("test", "validation"))
    assert tested["patient_id"].nunique() == 20
    own = pd.read_csv(trained / "scores.csv").query("partition == 'validation'")
    assert sorted(frozen["logit"]) == pytest.approx(sorted(own["logit"]))
    trained_report = json.loads((trained / "report.json").read_text())
    ours, theirs = ([t["value"] for t in r["operating_points"]["thresholds"]] for r in (report, trained_report))
    assert None not in ours and ours == theirs
    assert report["operating_points"]["thresholds"][0]["attacks"][0]["sensitivity"]["total"] == 10


def test_an_image_size_other_than_the_checkpoints_is_refused(trained, root):
    job = evaluation(root, run_name="trained", image_size=64)
    with pytest.raises(Exception) as caught:
        job.initialize()
    assert "image_size comes from the checkpoint" in str(own_error(caught.value))


def test_an_exam_without_a_usable_image_ends_with_an_error_after_the_reasons_are_written(trained, tmp_path):
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "letter.txt").write_text("Dear colleague")
    result = CliRunner().invoke(
        app, ["predict", str(tmp_path / "exam"), "--checkpoint", str(trained / "checkpoints/best.pt"), "--out",
              str(tmp_path / "out")],
    )  # fmt: skip
    error = own_error(result.exception)
    assert isinstance(error, ExamError) and "1 unreadable" in str(error)
    assert json.loads((tmp_path / "out" / "exam.json").read_text())["refusals"][0]["code"] == "unreadable"


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
