"""The strong test, certificates and DICOM attack in the jobs: evaluation, external test, a failure, two ranks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.cohort import phantom_manifest
from pipeline.evaluation import strong
from pipeline.evaluation.extras import EvaluationError
from pipeline.evaluation.picture import Canvas
from pipeline.imaging import Preparation, load_prepared, read_mammogram
from pipeline.runs.errors import own_error

from .conftest import SMALL, workflow
from .test_distributed import run
from .test_scoring_jobs import evaluation

TINY = {
    "name": "demo", "patients": 4, "starts": 1, "apgd_steps": 2, "universal_steps": 2, "square_queries": 2,
    "spsa_steps": 1, "spsa_samples": 2, "noise_draws": 1, "distance_steps": 2, "smoothing_draws": 8,
    "dicom_patients": 1,
}  # fmt: skip


FEW_LEVELS = {"test#dicom#limit": 2}


def report_of(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole_job(trained, root):
    """Evaluation with everything; a budget of the run is one of the strong test's, and ARFL trained its features."""
    shutil.copytree(trained, root / "runs" / "strong")
    job = evaluation(root, run_name="strong", effort=TINY, surrogate=None, test_budgets=[0.001, 0.1], **FEW_LEVELS)
    job.initialize()
    job.run()
    return job


@pytest.fixture(scope="module")
def evaluated(whole_job, root):
    """Its folder."""
    return root / "runs" / "strong-evaluation"


def test_an_evaluation_with_effort_fills_the_sections(evaluated):
    report = report_of(evaluated)
    assert {report[name]["status"] for name in ("strong", "gates", "dicom_attack")} == {"given"}
    assert report["certified"]["n"]["patients"] == 4
    labels = [attack["label"] for attack in report["strong"]["attacks"]]
    assert "against the features of ARFL" in labels and "universal, 2 steps" in labels
    assert report["dicom_attack"]["threshold"] == pytest.approx(report["operating_points"]["thresholds"][0]["value"])
    assert report["certified"]["threshold"] == report["dicom_attack"]["threshold"]
    assert report["overview"]["strongest"]["patients"] == 4


def test_the_gallery_says_which_breast_is_malignant(evaluated):
    cohort = pd.read_csv(evaluated / "cohort.csv").set_index("image_id")
    images = json.loads((evaluated / "artefacts" / "gallery.json").read_text())["images"]
    assert images
    for image in images:
        assert image["breast_label"] == cohort.loc[image["image"], "label"]
    report = report_of(evaluated)
    best = torch.load(evaluated.with_name("strong") / "checkpoints" / "best.pt", weights_only=True)
    assert report["overview"]["epoch"] == best["epoch"] and not report["overview"]["external"]


def test_the_gallery_of_a_job_is_black_outside_the_breast(whole_job, evaluated, tmp_path):
    gallery = json.loads((evaluated / "artefacts" / "gallery.json").read_text())
    cohort = whole_job.parser.get_parsed_content("cohort")
    prepared_as = {item["image_id"]: Path(item["image"]) for item in cohort.items("test", "scoring")}
    for image in gallery["images"]:
        prepared = prepared_as[image["image"]]
        sidecar = json.loads(prepared.with_suffix(".json").read_text(encoding="utf-8"))
        source = Path(cohort.root) / image["image"]
        pixels = read_mammogram(source, laterality=image["laterality"], view=image["view"]).pixels
        drawn = []
        for name in ("whole", "breast"):
            canvas = Canvas(
                pixels,
                Preparation.from_dict(sidecar["preparation"]),
                text=f"{image['laterality']} {image['view']}",
            )
            if name == "breast":
                canvas.keep_breast(load_prepared(prepared)[0])
            canvas.save(tmp_path / f"{name}.png")
            drawn.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
        shown = np.asarray(Image.open(evaluated / image["scenes"][0]["picture"]))
        assert (shown == drawn[1]).all() and (drawn[0] != drawn[1]).any()


def test_a_budget_of_the_strong_test_may_be_one_of_the_run(evaluated):
    scores = pd.read_csv(evaluated / "scores.csv")
    assert not scores.duplicated(["image_id", "attack_id"]).any()
    report = report_of(evaluated)
    assert [point["budget"] for point in report["robustness"]["points"]] == [0.0, 0.001, 0.1]
    places = {attack["attack_id"]: attack for attack in report["strong"]["attacks"]}
    assert places["pgd-1@0.1"]["forward_passes"] is None and places["pgd-1@0.03"]["forward_passes"] > 0


def test_an_external_test_calls_at_the_threshold_of_the_training(trained, root):
    others = root / "strangers"
    source = phantom_manifest(SMALL["phantom"] | {"seed": 9, "patients": 8}, default_dir=others, progress=False)
    manifest = pd.read_csv(source, dtype=str)
    manifest["patient_id"] = "stranger-" + manifest["patient_id"]
    table = source.with_name("strangers.csv")
    manifest.to_csv(table, index=False)
    shutil.copytree(trained, root / "runs" / "away")
    job = evaluation(
        root,
        run_name="away",
        external=True,
        manifest=str(table),
        dataset_dir=str(source.parent),
        effort=TINY,
        **FEW_LEVELS,
    )
    job.initialize()
    job.run()
    report, own = report_of(root / "runs" / "away-external"), report_of(trained)
    frozen = own["operating_points"]["thresholds"][0]["value"]
    assert frozen != 0 and report["overview"]["external"]
    assert report["dicom_attack"]["threshold"] == pytest.approx(frozen)
    assert report["certified"]["threshold"] == pytest.approx(frozen)


def test_files_of_another_manifest_are_named_and_patients_of_the_training_left_out(trained, root):
    source = phantom_manifest(SMALL["phantom"], default_dir=root / "phantoms", progress=False)
    seen = set(pd.read_csv(trained / "cohort.csv").query("partition == 'training'")["patient_id"])
    manifest = pd.read_csv(source, dtype=str)
    rows = manifest[manifest["patient_id"].isin(sorted(seen)[:2])]
    stranger = manifest[~manifest["patient_id"].isin(seen)]
    stranger = stranger[stranger["patient_id"] == stranger["patient_id"].iloc[0]].assign(patient_id="new")
    table = source.with_name("files.csv")
    pd.concat([rows, stranger]).to_csv(table, index=False)
    shutil.copytree(trained, root / "runs" / "files")
    job = evaluation(
        root, run_name="files", effort=TINY | {"patients": 0, "dicom_patients": 5}, dicom_manifest=str(table),
        dicom_dir=str(source.parent), **FEW_LEVELS,
    )  # fmt: skip
    job.initialize()
    job.run()
    section = report_of(root / "runs" / "files-evaluation")["dicom_attack"]
    assert section["origin"] == "files.csv" and [row["patient_id"] for row in section["patients"]] == ["new"]


def test_a_failure_of_the_strong_test_leaves_scores_and_report_and_ends_with_an_error(trained, root, monkeypatch):
    asked = {}

    def full(*_args, **others):
        asked.update(others)
        raise MemoryError("out of memory in Square")

    monkeypatch.setattr(strong, "strong_attacks", full)
    shutil.copytree(trained, root / "runs" / "short")
    job = evaluation(root, run_name="short", effort=TINY | {"dicom_patients": 0}, surrogate=None)
    job.initialize()
    with pytest.raises(Exception) as caught:
        job.run()
    error = own_error(caught.value)
    assert isinstance(error, EvaluationError) and "out of memory in Square" in str(error)
    assert (asked["feature_term"].weight, asked["feature_term"].scale) == (10.0, 1.0)  # those of the training
    folder = root / "runs" / "short-evaluation"
    own = pd.read_csv(trained / "scores.csv")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "scores.csv"), own, rtol=1e-5, atol=1e-6)
    report = report_of(folder)
    assert report["strong"]["status"] == "missing" and "out of memory in Square" in report["strong"]["reason"]
    assert report["robustness"]["status"] == "given" and report["certified"]["n"]["patients"] == 4


def test_the_main_job_with_effort_trains_a_surrogate_and_attacks_its_own_feature_term(root, monkeypatch):
    asked, attacks = {}, strong.strong_attacks

    def listened(*args, **others):
        asked.update(others)
        return attacks(*args, **others)

    monkeypatch.setattr(strong, "strong_attacks", listened)
    changes = {"effort": TINY | {"dicom_patients": 0}, "arfl_weight": 3.0, "feature_scale": "auto", "max_epochs": 1}
    job = workflow(root, "terms/after_relu.json", run_name="whole", **changes)
    job.initialize()
    job.run()
    best = torch.load(root / "runs" / "whole" / "checkpoints" / "best.pt", weights_only=True)
    measured = next(state["scale"] for name, state in best["handlers"].items() if name.startswith("ARFL-"))
    term = asked["feature_term"]
    assert (term.weight, term.scale, term.after_relu) == (3.0, measured, True) and measured != 1.0
    report = report_of(root / "runs" / "whole")
    assert "another seed" in report["strong"]["surrogate"]
    assert "against the features of ARFL" in [attack["label"] for attack in report["strong"]["attacks"]]


def test_two_ranks_measure_once_what_one_does(evaluated, trained, root):
    shutil.copytree(trained, root / "runs" / "pair")
    run(
        root, "pair", ranks=2, overlays=("evaluate.json", "multi_gpu_evaluate.json"), leave_out=("image_size",),
        effort=json.dumps(TINY | {"dicom_patients": 0}), surrogate="none", test_budgets="[0.001, 0.1]",
    )  # fmt: skip
    one, two = report_of(evaluated), report_of(root / "runs" / "pair-evaluation")
    for name in ("attacks", "distances"):
        assert len(one["strong"][name]) == len(two["strong"][name])
    values = [[attack["auc"]["value"] for attack in report["strong"]["attacks"]] for report in (one, two)]
    assert values[0] == pytest.approx(values[1])
    facts = {row["name"] for row in two["reproducibility"]["facts"]}
    assert "test set: evaluations in this folder of runs" in facts
