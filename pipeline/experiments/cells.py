"""Cells of a grid: one MONAI bundle run each, in a directory named by the digest of its configuration."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from pipeline import bundle_file
from pipeline.experiments.variants import GridError, Variant
from pipeline.networks import weights_digest
from pipeline.runs.directory import write_atomically

# Where a run writes and on what it runs; neither is part of what is computed.
PLACES = ("output_dir", "run_name", "resume", "device", "store_dir", "dataset_dir", "bundle_root")
AUXILIARY = "auxiliary"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        variant: the method.
        fold: the fold.
        settings: overrides of the configuration, beside the overlays.
        presets: further overlays, e.g. bundles/arfl/presets/ddsm200.json.
        manifest_digest: SHA-256 of the manifest, "" for phantoms.
        start: the cell whose best network this one starts from.
        value: the varied value, in a sweep.
        ranks: processes of a distributed run.
    """

    variant: Variant
    fold: int
    settings: Mapping[str, Any]
    presets: tuple[Path, ...] = ()
    manifest_digest: str = ""
    start: Cell | None = None
    value: float | None = None
    ranks: int = 1
    _digest: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def files(self) -> list[Path]:
        """Configuration files: the main job, the method, its terms, the presets."""
        return [*self.single_files, bundle_file("multi_gpu_train.json")] if self.ranks > 1 else self.single_files

    @property
    def single_files(self) -> list[Path]:
        """The same for one process."""
        return [bundle_file("train.json"), *self.variant.files, *self.presets]

    @property
    def digest(self) -> str:
        """First ten digits of the SHA-256 of everything that decides what the run computes."""
        if not self._digest:
            parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in self.files]))
            for key, value in self.settings.items():
                parser[key] = value
            configuration = {key: value for key, value in parser.get().items() if key not in PLACES}
            for key in ("weights", "initial_weights"):
                # Files count by what they hold: moved ones are the same, written over ones are not.
                configuration[key] = _file_digest(configuration.get(key))
            content = {
                "configuration": configuration | {"manifest": self.manifest_digest},
                "start": self.start.digest if self.start else None,
            }
            text = json.dumps(content, sort_keys=True, default=str)
            self._digest.append(hashlib.sha256(text.encode()).hexdigest()[:10])
        return self._digest[0]

    @property
    def name(self) -> str:
        """Name of the run directory."""
        role = "start-" if self.settings.get("test_budgets") == [] and self.start is None else ""
        return f"{role}{self.variant.name}-fold{self.fold}-{self.digest}"

    @property
    def label(self) -> str:
        value = "" if self.value is None else f" {self.value:g}"
        return f"{self.variant.name}{value} fold {self.fold}"

    def epochs(self) -> int:
        """Epochs of the whole run."""
        parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in self.files]))
        return int(self.settings.get("max_epochs", parser["max_epochs"]))


class Shelf:
    """The folder in which a grid's cells lie.

    Args:
        folder: `cells/` and `logs/` are made below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = folder / "cells"
        self.logs = folder / "logs"
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._guard = threading.Lock()

    def directory(self, cell: Cell) -> Path:
        return self.cells / cell.name

    def done(self, cell: Cell) -> bool:
        """Is the cell finished?"""
        return (self.directory(cell) / "done.json").is_file()

    def seconds(self, cell: Cell) -> list[float]:
        """What each epoch of a cell took, from its history."""
        names = ("seconds_loading", "seconds_attack", "seconds_step")
        return [sum(float(row.get(name) or 0) for name in names) for row in self._history(cell)]

    def _history(self, cell: Cell) -> list[dict[str, str]]:
        history = self.directory(cell) / "history.csv"
        if not history.is_file():
            return []
        with history.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def run(self, cell: Cell, *, threads: int | None = None) -> None:
        """Run a cell to its end, from its last epoch if it was broken off; nothing happens to a finished one.

        Afterwards the optimiser's state is dropped. Where another process runs the same cell, such as the orphan of a
        killed call, this one waits for its end.

        Raises:
            GridError: the run failed; its log is named.
        """
        if self.done(cell):
            self._drop_optimiser(cell)
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        self.cells.mkdir(parents=True, exist_ok=True)
        with self._alone(cell) as lock:
            if not self.done(cell):
                self._run(cell, threads, lock)

    def stop(self) -> None:
        """End the runs of this process; each goes on from its last epoch when it is run again."""
        with self._guard:
            self._stopped = True
            for process in self._processes:
                process.terminate()

    def _run(self, cell: Cell, threads: int | None, lock: int) -> None:
        places: dict[str, Any] = {"output_dir": str(self.cells), "run_name": cell.name, "resume": True}
        if cell.start is not None:
            places["initial_weights"] = str(self.directory(cell.start) / "checkpoints" / "best.pt")
        overlay = self.logs / f"{cell.name}.json"
        write_atomically(overlay, json.dumps(dict(cell.settings) | places, indent=1))
        files = [*cell.files, overlay]
        self._bundle(cell, files, threads, lock)
        if cell.variant.branches and cell.settings.get("test_budgets") != []:
            branch = self.logs / f"{cell.name}-{AUXILIARY}.json"
            write_atomically(branch, json.dumps({"network_def#test_branch": AUXILIARY, "resume": False}))
            # One process scores it: evaluation is short beside training.
            self._bundle(cell, [*cell.single_files, overlay, bundle_file("evaluate.json"), branch], threads, lock)
        # In this order: killed in between, the cell is done, and the optimiser's state is dropped next time.
        about = {"digest": cell.digest, "cell": cell.label, "code": code_digest()}
        write_atomically(self.directory(cell) / "done.json", json.dumps(about))
        self._drop_optimiser(cell)

    def _drop_optimiser(self, cell: Cell) -> None:
        (self.directory(cell) / "checkpoints" / "latest.pt").unlink(missing_ok=True)

    def codes(self, cells: Iterable[Cell]) -> set[str]:
        """Digests of the code that made finished cells."""
        files = [self.directory(cell) / "done.json" for cell in cells if self.done(cell)]
        return {json.loads(file.read_text(encoding="utf-8")).get("code", "") for file in files}

    def scores(self, cell: Cell) -> dict[str, Path]:
        """scores.csv of a finished cell by branch; "" is the network as it is tested by default."""
        found = {"": self.directory(cell) / "scores.csv"}
        if cell.variant.branches:
            found[AUXILIARY] = self.cells / f"{cell.name}-evaluation" / "scores.csv"
        return found

    @contextmanager
    def _alone(self, cell: Cell) -> Iterator[int]:
        """Hold the cell's lock. The run inherits it: it is free when this process and the run have both ended."""
        with (self.logs / f"{cell.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.warning("cell %s is being run by another process; waiting for its end", cell.label)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def _bundle(self, cell: Cell, files: Sequence[Path], threads: int | None, lock: int) -> None:
        launcher = [sys.executable, "-m"]
        if cell.ranks > 1 and not any(file.name == "evaluate.json" for file in files):
            launcher += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(cell.ranks), "-m"]
        command = [*launcher, "monai.bundle", "run", "--config_file", str([str(file) for file in files])]
        environment = dict(os.environ)
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        package = str(bundle_file("train.json").parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
        log = self.logs / f"{cell.name}.txt"
        with log.open("a", encoding="utf-8") as output:
            with self._guard:
                if self._stopped:
                    raise GridError(f"cell {cell.label} was not run: the grid was stopped")
                process = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,)
                )
                self._processes.add(process)
            code = process.wait()
            with self._guard:
                self._processes.discard(process)
        if self._stopped and code != 0:
            raise GridError(f"cell {cell.label} was stopped; the same command goes on from its last epoch")
        if code != 0:
            reason = _last_error(log.read_text(encoding="utf-8", errors="replace")) or f"exit status {code}"
            raise GridError(f"cell {cell.label} failed ({reason}); see {log}")


def code_digest() -> str:
    """First ten digits of the SHA-256 of the package's source."""
    package = Path(bundle_file("train.json")).parents[2] / "pipeline"
    content = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        content.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return content.hexdigest()[:10]


def _file_digest(value: Any) -> Any:
    """The SHA-256 of a file, if it is one; else the value."""
    if not isinstance(value, str) or not Path(value).is_file():
        return value
    file = Path(value)
    return _content_digest(file.resolve(), file.stat().st_mtime_ns)


@cache
def _content_digest(file: Path, _modified: int) -> str:
    return weights_digest(file)


def _last_error(log: str) -> str:
    """The last line of a log that names an error, without torchrun's own, which says only that a rank failed."""
    lines = [re.sub(r"^\[rank\d+\]:\s*", "", line.strip()) for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Refused|NotEstimable)\b", line)]
    errors = [line for line in errors if "ChildFailedError" not in line]
    return (errors or lines or [""])[-1]
