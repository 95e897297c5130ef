"""The commands: what they refuse before anything runs, and a sweep to its figure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table", "nothing.csv"], "no manifest 'nothing.csv'"),
        (["table", "{manifest}"], "--dataset_dir is missing"),
        (["table", "{manifest}", "--dataset_dir", "{folder}"], "--weights: nothing chosen"),
        (["table", "phantoms", "--preset", "large"], "preset 'large' is unknown; allowed are ddsm200"),
        (["table", "phantoms", "--folds", "6"], "folds are 0 to 4"),
        (["table", "phantoms", "--folds", "one"], "--folds 'one'"),
        (["table", "phantoms", "--attacks", "1e-3,strong"], "--attacks '1e-3,strong'"),
        (["table", "phantoms", "--methods", "mart+trades"], "joins two methods"),
        (["table", "phantoms", "--set", "learning_rate"], "--set 'learning_rate' is no KEY=VALUE"),
        (["table", "phantoms", "--preset", "smoke", "--set", "layer=classifier.0"], "classifier.0"),
        (["table", "phantoms", "--preset", "smoke", "--set", "learning_rat=1"], "did you mean 'learning_rate'"),
        (["table", "phantoms", "--preset", "smoke", "--set", "batch_size=0"], "batch_size"),
        (["table", "phantoms", "--preset", "smoke", "--ranks", "3"], "batch_size 8 is no multiple of --ranks 3"),
        (["table", "phantoms", "--published", "ddsm"], "--published 'ddsm' is unknown; allowed are upmc, cmmd"),
        (["table", "phantoms", "--attacks", ""], "--attacks ''"),
        (["table", "phantoms", "--attacks=-1"], "allowed are numbers from 0 on"),
        (["table", "phantoms", "--preset", "smoke", "--set", "patience=5"], "patience is a whole number"),
        (["sweep", "standard_ratio", "phantoms", "--method", "trades"], "trades does not depend on standard_ratio"),
        (["sweep", "lambda", "phantoms"], "parameter 'lambda' is unknown; allowed are standard_ratio, weight, budget"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(tmp_path: Path, arguments: list[str], words: str) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("patient_id\n")
    filled = [text.format(manifest=manifest, folder=tmp_path) for text in arguments]
    result = CliRunner().invoke(app, [*filled, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert words in str(result.exception) + result.output
    assert not (tmp_path / "out" / "cells").exists()


def test_a_cell_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "grid.json").write_text('{"format": 1, "version": "0.0.1", "manifest": ""}')
    result = CliRunner().invoke(app, ["table", "phantoms", "--preset", "smoke", "--out", str(tmp_path)])
    assert result.exit_code != 0
    assert "version 0.0.1 there" in str(result.exception) + result.output


def test_a_sweep_gives_a_curve_with_one_point_per_value(tmp_path: Path, command, environment) -> None:
    line = command("sweep", "weight", "phantoms", "--values", "1,10", "--folds", "1", out=tmp_path)
    for _ in range(2):  # the second call finds everything done
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "(0 to run)" in done.stdout
    points = pd.read_csv(tmp_path / "sweeps" / "dual_arfl" / "weight.csv")
    assert sorted(points["value"].unique()) == [1, 10] and set(points["attack_id"]) == {"clean", "pgd-1@0.001"}
    configurations = sorted(tmp_path.glob("cells/*/config.json"))
    assert len(configurations) == 2
    assert (tmp_path / "figure3.png").stat().st_size > 10_000 and (tmp_path / "figure3.svg").is_file()
