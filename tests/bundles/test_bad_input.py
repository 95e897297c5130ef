"""Bad input to the main job: our own message, what is allowed and what to do, as the last line printed."""

import subprocess
import sys

import pandas as pd
import pydicom
import pytest

from pipeline.runs.errors import own_error

from .conftest import BUNDLE, SMALL, workflow


@pytest.fixture(scope="module")
def data(trained, root):
    return next(path for path in (root / "phantoms").iterdir() if (path / "manifest.csv").is_file())


def message(root, **changes):
    """What our own innermost error says when the job runs with these changes."""
    job = workflow(root, **({"run_name": "bad"} | changes))
    with pytest.raises(Exception) as caught:
        job.initialize()
        job.run()
    error = own_error(caught.value)
    assert error is not None, caught.value
    return str(error)


def table(data, tmp_path, change):
    manifest = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    path = tmp_path / "manifest.csv"
    change(manifest).to_csv(path, index=False)
    return {"manifest": str(path), "dataset_dir": str(data), "weights": "none"}


def first(column, value):
    def change(manifest):
        manifest.loc[0, column] = value
        return manifest

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.head(0), ["manifest.csv", "no row"]),
        (lambda m: m.assign(colour="red"), ["colour"]),
        (first("image", "../elsewhere.dcm"), ["elsewhere.dcm"]),
        (first("label", "2"), ["label", "2"]),
        (lambda m: m[m["patient_label"] == "0"], ["class"]),
        (lambda m: m[m["patient_id"].isin(sorted(set(m["patient_id"]))[:4])], ["fold"]),
    ],
    ids=["empty", "unknown column", "outside the root", "label 2", "one class", "few patients"],
)
def test_a_bad_manifest_is_refused_with_its_reason(root, data, tmp_path, change, words):
    text = message(root, **table(data, tmp_path, change))
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest": "nowhere.csv", "weights": "none"}, ["nowhere.csv"]),
        ({"max_epoch": 3}, ["max_epoch", "max_epochs"]),
        ({"weights": "nowhere.pt", "network_def#width": 1.0}, ["nowhere.pt", "imagenet"]),
        ({"amp": True}, ["CUDA"]),
        ({"run_name": "a/b"}, ["a/b"]),
        ({"network_def#widht": 0.5}, ["network_def#widht", "'width'"]),
        ({"train#max_epochs": 3}, ["train#max_epochs", "'max_epochs'"]),
        ({"phantom": {"pateints": 3}}, ["pateints", "patients"]),
        ({"batch_size": 0}, ["batch_size", "from 1 on"]),
        ({"image_size": 16}, ["image_size", "32"]),
        ({"max_epochs": "many"}, ["max_epochs", "whole numbers"]),
        ({"learning_rate": -1.0}, ["learning_rate", "above 0"]),
        ({"start_epoch": 3}, ["start_epoch", "from 1 to max_epochs"]),
        ({"fold": 7}, ["fold 7", "0, 1, 2, 3, 4"]),
        ({"budget": -0.1}, ["budget"]),
        ({"standard_ratio": 2}, ["standard_ratio", "0 (attacked only) to 1 (clean only)"]),
        ({"initial_weights": "nowhere.pt"}, ["nowhere.pt", "checkpoints/best.pt"]),
        ({"effort": "medium"}, ["'medium'", "none, demo, quick, full"]),
    ],
    ids=[
        "no manifest", "misspelled key", "no weights", "amp on a CPU", "run name", "misspelled argument",
        "misspelled key of a group", "misspelled setting of phantoms", "batch of none", "image too small",
        "epochs as a word", "negative learning rate",
        "method after the end", "fold", "negative budget", "ratio", "no checkpoint", "effort",
    ],
)  # fmt: skip
def test_a_bad_configuration_is_refused_with_what_is_allowed(trained, root, changes, words):
    text = message(root, **changes)
    assert [word for word in words if word not in text] == []


def test_imagenet_weights_out_of_reach_are_an_error(trained, root, monkeypatch):
    def out_of_reach(*_arguments, **_settings):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", out_of_reach)
    text = message(root, weights="imagenet", **{"network_def#width": 1.0})
    assert "'imagenet' is out of reach" in text and "no route to host" in text and '"none"' in text


def test_a_real_manifest_needs_a_choice_of_weights(root, data, tmp_path):
    settings = table(data, tmp_path, lambda m: m) | {"weights": None}
    text = message(root, **settings)
    assert "weights" in text and "none" in text


def test_a_loss_that_is_no_number_ends_the_run(trained, root):
    text = message(root, learning_rate=1e30)
    assert "classification_loss" in text and "learning_rate" in text


def test_single_bad_images_are_rejected_and_the_run_goes_on(root, data, tmp_path):
    copy = tmp_path / "data"
    manifest = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    for image in manifest["image"]:
        (copy / image).parent.mkdir(parents=True, exist_ok=True)
        (copy / image).write_bytes((data / image).read_bytes())
    missing, damaged, other = manifest["image"].iloc[[0, 5, 9]]
    (copy / missing).unlink()
    (copy / damaged).write_bytes((copy / damaged).read_bytes()[:2000])
    chest = pydicom.dcmread(copy / other)
    chest.file_meta.MediaStorageSOPClassUID = chest.SOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    chest.Modality, chest.BodyPartExamined = "CR", "CHEST"
    chest.save_as(copy / other)
    manifest.to_csv(copy / "manifest.csv", index=False)
    job = workflow(
        root,
        run_name="rejects",
        manifest=str(copy / "manifest.csv"),
        dataset_dir=str(copy),
        weights="none",
        max_epochs=1,
    )
    job.initialize()
    job.run()
    rejects = pd.read_csv(root / "runs" / "rejects" / "rejects.csv").set_index("image")
    assert rejects.loc[missing, "code"] == "missing_file"
    assert rejects.loc[other, "code"] == "not_mammogram"
    assert set(rejects.index) == {missing, damaged, other}


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--bugdet", "0.1"], "ConfigurationError:", ["'bugdet'", "'budget'"]),
        (["--weights", "nowhere.pt", "--network_def#width", "1.0"], "WeightsError:", ["nowhere.pt", "imagenet"]),
    ],
    ids=["misspelled key", "no weights"],
)
def test_the_last_line_printed_is_our_own_message(root, tmp_path, arguments, kind, words):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "train.json"), *arguments]
    places = {"dataset_dir": root / "phantoms", "store_dir": root / "store", "output_dir": tmp_path / "runs"}
    settings = places | {"phantom": SMALL["phantom"]}
    command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=BUNDLE.parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    last = done.stderr.strip().split("\n\n")[-1]
    assert last.startswith(kind) and [word for word in words if word not in last] == []
    assert not (tmp_path / "runs").exists(), "a run that cannot start leaves no directory"
