"""The run directory: nothing is lost, and a resumed run cannot change what it trains."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs import ConfigurationError, RunDirectory
from pipeline.runs.directory import RunningError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_nothing_is_created_before_it_is_opened(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "runs", "a")
    assert not (tmp_path / "runs").exists()


def test_opening_writes_the_configuration(tmp_path: Path) -> None:
    path = RunDirectory(tmp_path, "a").open({"seed": 3, "where": tmp_path})
    assert json.loads((path / "config.json").read_text()) == {"seed": 3, "where": str(tmp_path)}
    assert (path / "checkpoints").is_dir() and (path / "artefacts").is_dir()


def test_earlier_runs_of_the_name_are_moved_aside_in_order(tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO", logger="pipeline.runs.directory"):
        for seed in range(3):
            RunDirectory(tmp_path, "a").open({"seed": seed})
    assert {p.name for p in tmp_path.iterdir()} == {"a", "a.1", "a.2"}
    seeds = [json.loads((tmp_path / name / "config.json").read_text())["seed"] for name in ("a.1", "a.2", "a")]
    assert seeds == [0, 1, 2]
    assert "an earlier run stood at" in caplog.text


def test_an_empty_folder_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    RunDirectory(tmp_path, "a").open({})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_resume_keeps_what_lies_there_and_may_go_on_for_longer(tmp_path: Path) -> None:
    path = RunDirectory(tmp_path, "a").open({"seed": 0, "max_epochs": 2, "resume": False, "lr": 0.1})
    (path / "checkpoints" / "latest.pt").write_text("x")
    RunDirectory(tmp_path, "a", resume=True).open({"seed": 0, "max_epochs": 4, "resume": True, "lr": 0.1})
    assert (path / "checkpoints" / "latest.pt").is_file() and not (tmp_path / "a.1").exists()
    assert json.loads((path / "config.json").read_text())["max_epochs"] == 4


@pytest.mark.parametrize("now", [{"seed": 0, "train": {"lr": 0.2}}, {"train": {"lr": 0.1}}])
def test_resume_with_another_configuration_names_what_changed(tmp_path: Path, now: dict) -> None:
    RunDirectory(tmp_path, "a").open({"seed": 0, "train": {"lr": 0.1}})
    before = (tmp_path / "a" / "config.json").read_text()
    changed = next(key for key in ("seed", "train") if now.get(key) != {"seed": 0, "train": {"lr": 0.1}}[key])
    with pytest.raises(ConfigurationError, match=rf"\({changed}: .* then, .* now\); give the same values, or another"):
        RunDirectory(tmp_path, "a", resume=True).open(now)
    assert (tmp_path / "a" / "config.json").read_text() == before


def test_a_folder_that_another_process_writes_to_is_left_alone_until_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.runs import RunDirectory; run = RunDirectory(sys.argv[1], 'a'); "
        "run.open({'seed': 1}); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        for resume in (False, True):
            with pytest.raises(RunningError, match="another process; wait for its end, or give another run_name"):
                RunDirectory(tmp_path, "a", resume=resume).open({"seed": 1})
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        other.kill()
    RunDirectory(tmp_path, "a").open({"seed": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.1"}


def test_a_file_system_without_locks_is_said_and_used(tmp_path: Path, monkeypatch, caplog) -> None:
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("pipeline.runs.directory.fcntl.lockf", lockf)
    assert (RunDirectory(tmp_path, "a").open({}) / "config.json").is_file()
    assert "cannot be locked" in caplog.text


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no plain folder name"):
        RunDirectory(tmp_path, name)


def test_provenance_holds_versions_times_and_the_facts_given(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "a")
    directory.open({})
    content = json.loads(directory.record_provenance(seeds={"seed": 0}, device="cpu").read_text())
    assert content["seeds"] == {"seed": 0} and content["device"] == "cpu"
    assert {"python", "torch", "monai", "arfl-mammography"} <= content["versions"].keys()
    assert content["started"] <= content["finished"] and content["duration_s"] >= 0
