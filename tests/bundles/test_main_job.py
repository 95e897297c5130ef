"""The main job: what it leaves behind, twice the same, resumed the same."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from ignite.engine import Events
from monai.bundle import verify_net_in_out

from pipeline.methods.rows import adversarial_rows

from .conftest import BUNDLE, SMALL, workflow
from .kill_and_resume import kill_and_resume


def test_the_run_directory_holds_everything(trained):
    tables = ["config.json", "provenance.json", "flow.json", "cohort.csv", "rejects.csv", "history.csv", "scores.csv"]
    results = ["report.json", "report.html", "artefacts/gallery.json", "checkpoints/best.pt", "checkpoints/latest.pt"]
    assert [name for name in tables + results if not (trained / name).is_file()] == []
    assert list((trained / "tensorboard").iterdir())
    assert len(pd.read_csv(trained / "history.csv")) == SMALL["max_epochs"]


def test_whole_exams_are_scored_clean_and_at_every_budget(trained):
    scores, cohort = pd.read_csv(trained / "scores.csv"), pd.read_csv(trained / "cohort.csv")
    for partition, attacks in (("test", {"clean", "pgd-1@0.001", "pgd-1@0.01"}), ("validation", {"clean"})):
        images = set(cohort.loc[cohort["partition"] == partition, "image_id"])
        rows = scores[scores["partition"] == partition]
        assert set(rows["attack_id"]) == attacks
        for _, part in rows.groupby("attack_id"):
            assert set(part["image_id"]) == images and len(part) == len(images)
    assert not set(cohort.loc[cohort["partition"] == "training", "image_id"]) & set(scores["image_id"])


def test_the_same_command_gives_the_same_scores(trained, root):
    job = workflow(root, run_name="again")
    job.initialize()
    job.run()
    assert (root / "runs" / "again" / "scores.csv").read_bytes() == (trained / "scores.csv").read_bytes()


def test_a_killed_run_resumes_bit_identically(tmp_path):
    proof = kill_and_resume(tmp_path, kills=2, epochs=12)
    assert proof["kills"] == 2 and proof["after"][-1] > 0


def test_the_job_runs_from_elsewhere_and_ends_with_the_place_of_its_report(tmp_path):
    # As after `pip install -e .`: the package is found, the folder has nothing in it.
    environment = os.environ | {"PYTHONPATH": str(BUNDLE.parents[1])}
    files = str([str(BUNDLE / name) for name in ("train.json", "presets/smoke.json")])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--run_name", "away"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "report: runs/away/report.html"
    assert (tmp_path / "runs/away/report.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phantoms", "runs", "store"]


@pytest.mark.parametrize(
    ("overlay", "ratio", "term"),
    [("standard", 1, False), ("standard_arfl", 1, True), ("adversarial", 0, False), ("adversarial_arfl", 0, True),
     ("dual", 0.5, False), ("dual_arfl", 0.5, True)],
)  # fmt: skip
def test_the_overlays_are_the_rows_of_the_paper(trained, root, overlay, ratio, term):
    job = workflow(root, f"methods/{overlay}.json", run_name=overlay, max_epochs=1)
    job.initialize()
    handlers = {type(handler).__name__: handler for handler in job.parser.get_parsed_content("train#handlers")}
    assert handlers["AdversarialTraining"].standard_ratio == ratio
    assert ("ARFL" in handlers) == term
    if term:
        assert handlers["ARFL"].weight == 10
    rows = []
    trainer = job.parser.get_parsed_content("train#trainer")
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=1),
        lambda e: rows.append(adversarial_rows(e.state.batch, len(e.state.output["pred"])).float().mean().item()),
    )
    job.run()
    assert rows == [1 - ratio], "share of attacked rows in a batch"
    history = pd.read_csv(root / "runs" / overlay / "history.csv")
    assert ("robust_loss" in history) == term and history["classification_loss"].notna().all()


@pytest.mark.parametrize("overlays", [(), ("evaluate.json",)])
def test_train_has_every_property_of_a_training_bundle(trained, root, overlays):
    job = workflow(root, *overlays, run_name="trained")
    job.initialize()
    assert job.check_properties() == []
    assert not (root / "runs" / "trained.1").exists(), "checking properties must not touch the run directory"


def test_the_network_fits_the_metadata():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(BUNDLE / "metadata.json"),
        config_file=str(BUNDLE / "train.json"),
        device="cpu",
    )
