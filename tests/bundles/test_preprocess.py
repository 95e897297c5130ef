"""Facts about preprocess.json: it prepares what train.json reads, and does what the command does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.imaging import chain_digest
from pipeline.phantom import write_cohort

BUNDLE = Path(__file__).parents[2] / "bundles" / "arfl"


def run(**settings: object) -> None:
    job = ConfigWorkflow(
        config_file=str(BUNDLE / "preprocess.json"), workflow_type="infer", logging_file=False, **settings
    )
    job.initialize()
    job.run()


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.rglob("*") if path.suffix in (".nii", ".json")}


def test_the_bundle_and_the_command_write_the_same_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_cohort(tmp_path / "cohort", patients=2, height=160, workers=1, progress=False)
    run(manifest=str(manifest), dataset_dir=str(manifest.parent), store_dir=str(tmp_path / "bundle"), workers=0)
    assert "prepared: 8 of 8 images" in capfd.readouterr().out
    result = CliRunner().invoke(app, ["prepare", str(manifest), "--out", str(tmp_path / "command"), "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert len(contents(tmp_path / "bundle")) == 16
    assert contents(tmp_path / "bundle") == contents(tmp_path / "command")
    for store in ("bundle", "command"):
        assert (tmp_path / store / "ledger.csv").is_file()


def test_without_arguments_it_prepares_the_phantoms_of_the_main_job(tmp_path: Path) -> None:
    small = {"patients": 4, "seed": 0, "height": 96, "workers": 1}
    places = {"dataset_dir": str(tmp_path / "phantoms"), "store_dir": str(tmp_path / "store")}
    run(phantom=small, **places, workers=0)
    assert len(list((tmp_path / "store").rglob("*.nii"))) == 16


def test_its_chain_size_and_places_are_those_of_the_main_job() -> None:
    digests = []
    for name in ("preprocess.json", "train.json"):
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / name))
        digests.append(chain_digest(parser.get_parsed_content("preprocessing")))
    assert digests[0] == digests[1]
    ours, main = (json.loads((BUNDLE / name).read_text()) for name in ("preprocess.json", "train.json"))
    for entry in ("dataset_dir", "manifest", "phantom", "store_dir", "image_size"):
        assert ours[entry] == main[entry], entry
