"""Facts about the command `prepare`: it fills the store once, and its ledger has a row for every image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import typer
from typer.testing import CliRunner

from pipeline.cohort import CohortError
from pipeline.cohort.command import prepare
from pipeline.cohort.ledger import read_ledger

KEY = {"keys": "image"}
STEPS = ("ReadMammogramd", "ApplyWindowd", "SegmentBreastd", "CropToBreastd", "OrientChestWalld")
CONFIG = {
    "image_size": 64,
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            *({"_target_": f"pipeline.imaging.{step}", **KEY} for step in STEPS),
            {"_target_": "pipeline.imaging.ResizeImaged", **KEY, "image_size": "@image_size"},
        ],
    },
}


def test_prepare_fills_the_store_and_a_second_run_adds_nothing(
    tmp_path: Path, exams: Callable[..., pd.DataFrame]
) -> None:
    exams(2)
    (tmp_path / "p001/R.png").unlink()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    app = typer.Typer()
    app.command()(prepare)
    arguments = [str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "store"), "--workers", "0"]
    arguments += ["--config", str(tmp_path / "config.json")]
    ledgers = []
    for place in ([], ["--dataset_dir", str(tmp_path)]):  # by default the manifest's folder
        result = CliRunner().invoke(app, [*arguments, *place])
        assert result.exit_code == 0, result.output
        assert "prepared: 3 of 4 images" in result.output and "refused as missing_file: 1" in result.output
        assert len(list((tmp_path / "store").rglob("*.nii"))) == 3
        ledgers.append(read_ledger(tmp_path / "store/ledger.csv"))
    kept = [column for column in ledgers[0] if column != "seconds"]
    pd.testing.assert_frame_equal(ledgers[0][kept], ledgers[1][kept])
    assert ledgers[1]["code"].tolist() == ["", "", "", "missing_file"]
    assert ledgers[1]["patient_id"].tolist() == ["p000", "p000", "p001", "p001"]
    for key in ledgers[1]["prepared"][:3]:
        assert (tmp_path / "store" / key[:2] / f"{key}.nii").is_file()
    assert CliRunner().invoke(app, [*arguments, "--image-size", "32"]).exit_code == 0
    assert len(list((tmp_path / "store").rglob("*.nii"))) == 6


def test_a_data_root_below_which_nothing_lies_is_an_error(tmp_path: Path, exams: Callable[..., pd.DataFrame]) -> None:
    exams(2)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "elsewhere").mkdir()
    app = typer.Typer()
    app.command()(prepare)
    arguments = [str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "store"), "--workers", "0"]
    arguments += ["--config", str(tmp_path / "config.json"), "--dataset_dir", str(tmp_path / "elsewhere")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, CohortError) and "none of the 4 images could be prepared" in str(
        result.exception
    )
