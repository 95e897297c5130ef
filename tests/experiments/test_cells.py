"""A cell's digest names what is computed, nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.experiments.cells import Cell, Shelf, _last_error
from pipeline.experiments.variants import variant


def cell(name: str = "dual", fold: int = 0, **settings: object) -> Cell:
    return Cell(variant(name), fold, {"fold": fold, "seed": 0} | settings)


def test_the_digest_is_the_same_for_the_same_run() -> None:
    assert cell().digest == cell().digest
    assert len(cell().digest) == 10 and cell().name == f"dual-fold0-{cell().digest}"
    assert cell(standard_ratio=0.5).digest == cell().digest  # the overlay's own value


@pytest.mark.parametrize(
    "place",
    [{"dataset_dir": "/elsewhere"}, {"store_dir": "/elsewhere"}, {"device": "cpu"}, {"output_dir": "/elsewhere"}],
)
def test_places_are_no_part_of_it(place: dict[str, str]) -> None:
    assert cell(**place).digest == cell().digest


@pytest.mark.parametrize(
    "other",
    [
        cell("dual_arfl"),
        cell(fold=1),
        cell(seed=1),
        cell(budget=0.02),
        cell(**{"network_def#width": 0.5}),
        dataclasses.replace(cell(), manifest_digest="abc", _digest=[]),
        dataclasses.replace(cell(), start=cell("standard"), _digest=[]),
        dataclasses.replace(cell(), ranks=2, _digest=[]),
    ],
)
def test_whatever_changes_the_run_changes_it(other: Cell) -> None:
    assert other.digest != cell().digest


@pytest.mark.parametrize("key", ["weights", "initial_weights"])
def test_files_count_by_what_they_hold(tmp_path: Path, key: str) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (cell(**{key: str(tmp_path / name)}).digest for name in "abc")
    assert a == b != c and a != cell().digest
    (tmp_path / "b").write_bytes(b"3")
    assert cell(**{key: str(tmp_path / "b")}).digest not in (a, c)


def test_of_an_error_that_torchrun_wraps_the_first_is_told() -> None:
    log = """[rank0]: Traceback (most recent call last):
    [rank0]: pipeline.runs.checkpoints.CheckpointError: checkpoint 'x' is damaged
    torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
    ====================
    """
    assert _last_error(log) == "pipeline.runs.checkpoints.CheckpointError: checkpoint 'x' is damaged"
    assert _last_error("no such thing\n") == "no such thing" and _last_error("") == ""


def test_a_start_with_other_settings_is_another_start() -> None:
    first, second = (dataclasses.replace(cell(), start=cell("standard", learning_rate=r), _digest=[]) for r in (1, 2))
    assert first.digest != second.digest


def test_progress_is_read_from_the_history_and_done_json(tmp_path: Path) -> None:
    shelf, one = Shelf(tmp_path), cell(max_epochs=7)
    assert not shelf.done(one) and shelf.seconds(one) == [] and one.epochs() == 7
    directory = shelf.directory(one)
    directory.mkdir(parents=True)
    (directory / "history.csv").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    assert len(shelf.seconds(one)) == 2
    (directory / "done.json").write_text(json.dumps({}))
    assert shelf.done(one)
