"""A grid: the order of its cells, failures, other versions, and that killing it loses nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.experiments.cells import Cell, Shelf
from pipeline.experiments.grid import Size, check, disk_line, open_shelf, prepare, run_grid, with_starts
from pipeline.experiments.progress import Progress
from pipeline.experiments.variants import GridError, variant


def cells(*names: str) -> list[Cell]:
    start = Cell(variant("standard"), 0, {"fold": 0, "test_budgets": [], "max_epochs": 1})
    return [Cell(variant(name), 0, {"fold": 0}, start=start) for name in names]


class Recording(Shelf):
    """A shelf on which a cell's run is a line in a list."""

    def __init__(self, folder: Path, fails: tuple[str, ...] = ()) -> None:
        super().__init__(folder)
        self.fails = fails
        self.order: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def run(self, cell: Cell, *, threads: int | None = None) -> None:
        with self.lock:
            self.order.append(cell.label)
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        time.sleep(0.05)
        with self.lock:
            self.at_once -= 1
        if cell.label in self.fails:
            raise GridError(f"cell {cell.label} failed")
        self.directory(cell).mkdir(parents=True)
        (self.directory(cell) / "done.json").write_text("{}")


def test_starts_come_first_and_once() -> None:
    ordered = with_starts(cells("dual", "trades"))
    assert [(cell.label, cell.start is None) for cell in ordered] == [
        ("standard fold 0", True), ("dual fold 0", False), ("trades fold 0", False),
    ]  # fmt: skip
    assert ordered[0].name.startswith("start-standard")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_waits_for_its_start_and_jobs_bound_what_runs_at_once(tmp_path: Path, jobs: int) -> None:
    shelf = Recording(tmp_path)
    ordered = with_starts(cells("dual", "trades", "mart", "alp"))
    assert run_grid(shelf, ordered, jobs=jobs) == []
    assert shelf.order[0] == "standard fold 0" and len(shelf.order) == 5
    assert shelf.most_at_once == jobs
    assert run_grid(shelf, ordered, jobs=jobs) == [] and len(shelf.order) == 5  # done cells are skipped


def test_a_failed_cell_does_not_end_the_others_and_a_failed_start_is_said(tmp_path: Path) -> None:
    shelf = Recording(tmp_path / "a", fails=("dual fold 0",))
    assert run_grid(shelf, with_starts(cells("dual", "trades"))) == ["cell dual fold 0 failed"]
    assert shelf.order[-1] == "trades fold 0"
    shelf = Recording(tmp_path / "b", fails=("standard fold 0",))
    failures = run_grid(shelf, with_starts(cells("dual", "trades")))
    assert shelf.order == ["standard fold 0"] and len(failures) == 3
    assert "dual fold 0: the cell that it starts from failed" in failures[1]


def test_cells_of_another_version_or_manifest_are_refused(tmp_path: Path) -> None:
    open_shelf(tmp_path, "first")
    open_shelf(tmp_path, "digest")  # nothing was run for the first
    (tmp_path / "cells").mkdir()
    open_shelf(tmp_path, "digest")
    with pytest.raises(GridError, match="manifest digest there, phantoms now.*another --out"):
        open_shelf(tmp_path, "")
    recorded = tmp_path / "grid.json"
    recorded.write_text(json.dumps(json.loads(recorded.read_text()) | {"version": "0.0.1"}))
    with pytest.raises(GridError, match="version 0.0.1 there"):
        open_shelf(tmp_path, "digest")


def test_cells_without_a_record_of_their_grid_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(GridError, match="no grid.json"):
        open_shelf(tmp_path, "digest")


def test_the_disk_counts_what_is_to_come_and_how_many_run_at_once(tmp_path: Path) -> None:
    shelf, chosen = Recording(tmp_path), with_starts(cells("dual", "trades"))
    sizes = {cell.name: Size(10**9, 3 * 10**9) for cell in chosen}
    assert "3.00 GB for the networks of cells to come and up to 3.00 GB" in disk_line(sizes, shelf, chosen)
    assert "up to 6.00 GB" in disk_line(sizes, shelf, chosen, jobs=2)
    run_grid(shelf, chosen[:1])
    assert "2.00 GB for the networks" in disk_line(sizes, shelf, chosen)
    assert "NOT ENOUGH" not in disk_line(dict.fromkeys(sizes, Size(1, 1)), shelf, chosen)
    assert "NOT ENOUGH" in disk_line(dict.fromkeys(sizes, Size(10**18, 1)), shelf, chosen)


def test_a_cell_killed_after_its_end_is_done_and_leaves_no_optimiser(tmp_path: Path) -> None:
    shelf, cell = Shelf(tmp_path), cells("dual")[0]
    checkpoints = shelf.directory(cell) / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "latest.pt").write_text("")
    (shelf.directory(cell) / "done.json").write_text("{}")
    shelf.run(cell)
    assert not (checkpoints / "latest.pt").exists()


def test_a_cell_that_another_process_runs_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The orphan of a killed call holds the lock, finishes the cell and ends.
    shelf, (cell,) = Shelf(tmp_path), [dataclasses.replace(cells("dual")[0], start=None, _digest=[])]
    shelf.logs.mkdir(parents=True)
    directory = shelf.directory(cell)
    script = (
        "import fcntl, pathlib, sys, time\n"
        "lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print('held', flush=True); time.sleep(1)\n"
        "folder = pathlib.Path(sys.argv[2]); folder.mkdir(parents=True); (folder / 'done.json').write_text('{}')\n"
    )
    arguments = [sys.executable, "-c", script, str(shelf.logs / f"{cell.name}.lock"), str(directory)]
    monkeypatch.setattr(shelf, "_run", lambda *_: pytest.fail("the cell was run beside the other process"))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None and orphan.stdout.readline() == b"held\n"
        shelf.run(cell)
    assert shelf.done(cell)


def _contents(shelf: Path) -> dict[str, str]:
    """Digest of every file of every finished cell."""
    finished = [path.parent for path in shelf.glob("cells/*/done.json")]
    files = [file for folder in finished for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(shelf)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _scores(shelf: Path, method: str) -> pd.DataFrame:
    (path,) = shelf.glob(f"cells/{method}-fold0-*/scores.csv")
    return pd.read_csv(path)


def test_a_grid_killed_at_random_moments_ends_as_one_that_was_not(tmp_path: Path, command, environment) -> None:
    chosen = ["phantoms", "--methods", "standard,dual", "--folds", "1", "--start_epochs", "1"]
    longer = ["--set", "max_epochs=3"]
    whole = subprocess.run(
        command("table", *chosen, *longer, out=tmp_path / "whole"), env=environment, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = tmp_path / "killed"
    line = command("table", *chosen, *longer, out=killed)
    moments, tries, done = random.Random(0), 0, False
    finished: dict[str, str] = {}
    epochs = [0]
    while not done and tries < 12:
        # The process alone, by SIGKILL (its run is orphaned) or SIGTERM, or the whole group.
        process = subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=moments.uniform(4, 10) if tries < 3 else 300)
            done = process.returncode == 0
        except subprocess.TimeoutExpired:
            ways = (os.kill, signal.SIGKILL), (os.kill, signal.SIGTERM), (os.killpg, signal.SIGKILL)
            send, number = ways[tries % 3]
            send(process.pid, number)
            process.wait(60)
        now = _contents(killed)
        assert {name: now.get(name) for name in finished} == finished, "a finished cell was touched"
        finished, tries = now, tries + 1
        histories = [pd.read_csv(path) for path in killed.glob("cells/*/history.csv")]
        epochs.append(sum(len(history) for history in histories))
    assert done and tries > 1, output
    assert epochs == sorted(epochs) and epochs[-1] == 1 + 3 + 3, epochs  # no finished epoch was lost
    for method in ("standard", "dual", "start-standard"):
        pd.testing.assert_frame_equal(_scores(tmp_path / "whole", method), _scores(killed, method))
    (best,) = killed.glob("cells/dual-*/checkpoints/best.pt")
    one = Cell(variant("dual"), 0, {"network_def#width": 0.0625})
    assert check([one])[one.name].kept == pytest.approx(best.stat().st_size, rel=0.1)
    assert not list(killed.glob("cells/*/checkpoints/latest.pt"))  # the optimiser's state is dropped
    for name in ("paper.csv", "pooled.csv", "comparisons.csv", "claims.csv"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_cells_run_on_a_dask_cluster(tmp_path: Path, command, environment) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra 'cluster')")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        chosen = ["phantoms", "--methods", "standard", "--folds", "1", "--scheduler", cluster.scheduler_address]
        line = command("table", *chosen, out=tmp_path)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(_scores(tmp_path, "standard")) > 0 and (tmp_path / "paper.md").is_file()


def test_the_time_left_is_weighed_by_what_each_method_takes(tmp_path: Path, monkeypatch) -> None:
    shelf, ordered = Shelf(tmp_path), cells("standard", "dual", "trades")
    ordered = [dataclasses.replace(cell, settings={"max_epochs": 4}, _digest=[], start=None) for cell in ordered]

    def epochs(cell: Cell, count: int, seconds: float) -> None:
        folder = shelf.directory(cell)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"epoch": n + 1, "seconds_loading": 1, "seconds_step": seconds - 1} for n in range(count)]
        pd.DataFrame(rows).to_csv(folder / "history.csv", index=False)

    standard, dual, trades = ordered
    epochs(standard, 4, 2)
    (shelf.directory(standard) / "done.json").write_text("{}")
    progress = Progress(shelf, ordered)
    assert progress.seconds_left() is None  # nothing was trained since
    epochs(dual, 2, 20)
    now = progress._started + 80
    monkeypatch.setattr(time, "monotonic", lambda: now)
    # Two epochs of dual, four of trades, whose cost is not known yet: the mean of all epochs so far.
    assert progress.seconds_left() == pytest.approx((2 * 20 + 4 * (4 * 2 + 2 * 20) / 6) * 80 / 40)
    epochs(trades, 1, 30)
    assert progress.seconds_left() == pytest.approx((2 * 20 + 3 * 30) * 80 / 70)


def test_images_are_prepared_once_and_changed_ones_are_noticed(tmp_path: Path) -> None:
    settings = {
        "phantom": {"patients": 20, "seed": 1, "height": 96, "workers": 1},
        "image_size": 32,
        "dataset_dir": str(tmp_path / "phantoms"),
        "store_dir": str(tmp_path / "store"),
    }
    shelf, cell = open_shelf(tmp_path / "grid", ""), Cell(variant("standard"), 0, settings)
    prepare(shelf, cell)
    (record,) = shelf.folder.glob("images-*.csv")
    first = record.read_text()
    assert len(pd.read_csv(record)) == 80
    prepare(shelf, dataclasses.replace(cell, fold=1, settings=settings | {"fold": 1}, _digest=[]))
    assert record.read_text() == first
    one, other = sorted((tmp_path / "phantoms").rglob("*.dcm"))[:2]
    one.write_bytes(other.read_bytes())
    with pytest.raises(GridError, match="1 images have changed since the cells in .*another --out"):
        prepare(shelf, cell)
    assert record.read_text() == first
