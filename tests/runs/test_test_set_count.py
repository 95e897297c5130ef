"""How often one test set was evaluated is counted over the runs of a folder."""

import json
from pathlib import Path

from pipeline.runs import RunDirectory


def evaluated(folder: Path, name: str, images: list[str]) -> dict:
    run = RunDirectory(folder, name)
    run.open({})
    return json.loads(run.record_provenance(test_images=images).read_text())["test set"]


def test_runs_on_the_same_test_images_count_whatever_their_order_and_others_do_not(tmp_path: Path) -> None:
    counts = [evaluated(tmp_path, f"run{i}", images)["evaluations in this folder of runs"]
              for i, images in enumerate([["a", "b"], ["b", "a"], ["a", "c"], ["a", "b"]])]  # fmt: skip
    assert counts == [1, 2, 1, 3]


def test_without_test_images_nothing_is_counted(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, "run")
    run.open({})
    assert "test set" not in json.loads(run.record_provenance().read_text())
    assert not (tmp_path / "test_sets.jsonl").exists()
