"""What a grid leaves, from real cells: rows of the branches, tables, figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from pipeline.experiments.saliency_figure import saliency_figure
from pipeline.statistics import pool_patients


@pytest.fixture(scope="module")
def grid(tmp_path_factory, command, environment) -> Path:
    folder = tmp_path_factory.mktemp("outcome")
    line = command("table", "phantoms", "--methods", "dual,dual_arfl,dsbn", "--folds", "1", out=folder)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "F dual + ARFL" in done.stdout
    return folder


def test_dsbn_has_a_row_for_each_way_through_it(grid: Path) -> None:
    table = pd.read_csv(grid / "paper.csv").set_index("method")
    branches = ["dsbn", "dsbn (auxiliary branch)", "dsbn (oracle, not deployable)"]
    assert list(table.index) == ["dual", "dual_arfl", *branches]
    # The oracle sends clean images through the main branch and attacked ones through the other.
    assert table.loc[branches[2], "clean"] == table.loc["dsbn", "clean"]
    assert table.loc[branches[2], "pgd-1@0.001"] == table.loc[branches[1], "pgd-1@0.001"]
    main, other = (pd.read_csv(path) for path in _scores(grid))
    clean = [part[(part["attack_id"] == "clean") & (part["partition"] == "test")] for part in (main, other)]
    assert (clean[0]["logit"].to_numpy() != clean[1]["logit"].to_numpy()).any()  # two branches, not one twice
    compared = pd.read_csv(grid / "comparisons.csv")
    assert not compared["second"].str.contains("oracle").any()


def test_the_tables_hold_the_aucs_of_the_scores(grid: Path) -> None:
    main, _ = (pd.read_csv(path) for path in _scores(grid))
    folds = pd.read_csv(grid / "folds.csv").set_index(["method", "attack_id"])
    test = main[main["partition"] == "test"]
    for attack_id in ("clean", "pgd-1@0.001"):
        patients = pool_patients(test[test["attack_id"] == attack_id], within_breast="mean", across_breasts="max")
        pairs = [
            (one > other) + 0.5 * (one == other)
            for one in patients.loc[patients["patient_label"] == 1, "logit"]
            for other in patients.loc[patients["patient_label"] == 0, "logit"]
        ]
        assert folds.loc[("dsbn", attack_id), "auc"] == pytest.approx(sum(pairs) / len(pairs))


def test_tables_and_figures_are_written(grid: Path) -> None:
    for name in ("paper", "pooled", "comparisons", "claims", "folds"):
        for ending in ("csv", "md", "tex"):
            assert (grid / f"{name}.{ending}").stat().st_size > 0
    for name in ("figure2", "budget_curve"):
        assert (grid / f"{name}.png").stat().st_size > 10_000 and (grid / f"{name}.svg").is_file()


def test_figure_2_finds_images_that_have_moved_since_the_run(grid: Path, places, tmp_path: Path) -> None:
    runs = []
    for name in ("dual", "dual_arfl"):
        (run,) = grid.glob(f"cells/{name}-fold0-*")
        shutil.copytree(run, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"dataset_dir": str(tmp_path / "gone")}))
        runs.append(tmp_path / name)
    files = saliency_figure(*runs, tmp_path, places={"dataset_dir": places["dataset_dir"]})
    assert [file.name for file in files] == ["figure2.png", "figure2.svg"] and all(file.is_file() for file in files)
    assert not (tmp_path / "gone").exists()


def test_tables_are_written_without_the_networks_and_the_missing_figure_is_named(
    grid: Path, command, environment
) -> None:
    for network in grid.glob("cells/dual*/checkpoints/best.pt"):
        network.unlink()
    line = command("table", "phantoms", "--methods", "dual,dual_arfl", "--folds", "1", out=grid)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(0 to run)" in done.stdout and "Figure 2 was not drawn" in done.stdout


def _scores(grid: Path) -> list[Path]:
    """Scores of DSBN through its main and its auxiliary branch."""
    (main,) = [path for path in grid.glob("cells/dsbn-*/scores.csv") if "evaluation" not in str(path)]
    (auxiliary,) = grid.glob("cells/dsbn-*-evaluation/scores.csv")
    return [main, auxiliary]
