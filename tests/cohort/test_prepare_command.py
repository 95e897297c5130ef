"""Facts about the command `prepare`: it fills the store once and writes the rejects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import typer
from typer.testing import CliRunner

from pipeline.cohort.command import prepare

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
    arguments = [str(tmp_path / "manifest.csv"), "--root", str(tmp_path), "--store", str(tmp_path / "store")]
    arguments += ["--config", str(tmp_path / "config.json"), "--workers", "0", "--rejects", str(tmp_path / "r.csv")]
    for _ in range(2):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "prepared: 3 of 4 images" in result.output and "missing_file: 1" in result.output
        assert len(list((tmp_path / "store").rglob("*.nii"))) == 3
    assert pd.read_csv(tmp_path / "r.csv")["image"].tolist() == ["p001/R.png"]
    assert CliRunner().invoke(app, [*arguments, "--image-size", "32"]).exit_code == 0
    assert len(list((tmp_path / "store").rglob("*.nii"))) == 6
