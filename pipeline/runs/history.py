"""History: what each epoch cost and reached, one row an epoch in history.csv."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pipeline.runs.directory import RunDirectory, write_atomically
from pipeline.runs.seeds import rank_of

logger = logging.getLogger(__name__)


class RunningMeans:
    """Means over an epoch, kept as tensors on their device and read once, at the end of the epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Any]] = {}
        self._totals: dict[str, float] = {}

    def add(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add a sum over `count` things; the mean is the ratio of what was added."""
        total = total.detach() if isinstance(total, Tensor) else total
        held = self._sums.get(name)
        self._sums[name] = [total, count] if held is None else [held[0] + total, held[1] + count]

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add to a duration, of which the epoch's total is published."""
        self._totals[name] = self._totals.get(name, 0.0) + seconds

    def reset(self, _engine: Engine | None = None) -> None:
        self._sums.clear()
        self._totals.clear()

    def publish(self, engine: Engine) -> None:
        """Write means, over all ranks, and durations into `engine.state.metrics`, where MONAI's handlers look.

        Raises:
            FloatingPointError: a mean loss that is not a finite number, before any checkpoint is written.
        """
        sums = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        for name, (total, count) in _over_ranks(sums).items():
            engine.state.metrics[name] = total / count if count else math.nan
            if name.endswith("_loss") and not math.isfinite(engine.state.metrics[name]):
                raise FloatingPointError(
                    f"{name} is {engine.state.metrics[name]} in epoch {engine.state.epoch}; allowed are finite "
                    "numbers; lower learning_rate or arfl_weight, or look for constant or broken images"
                )
        engine.state.metrics.update(self._totals)


def _over_ranks(sums: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return sums
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, sums)
    names = dict.fromkeys(name for part in parts for name in part)
    pairs = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: (sum(t for t, _ in found), sum(c for _, c in found)) for name, found in pairs.items()}


_MEANS: WeakKeyDictionary[Engine, RunningMeans] = WeakKeyDictionary()


def running_means(engine: Engine) -> RunningMeans:
    """The engine's running means; made, and tied to its epochs, on first use."""
    if engine not in _MEANS:
        means = _MEANS[engine] = RunningMeans()
        engine.add_event_handler(Events.EPOCH_STARTED, means.reset)
        engine.add_event_handler(Events.EPOCH_COMPLETED, means.publish)
    return _MEANS[engine]


class History:
    """Handler: time loading and steps; one row an epoch in history.csv, the same as TensorBoard scalars.

    Attach it after the validation handler, whose metrics stand in the row.

    Times are those of the calling process; on CUDA a step's work may still be under way when its time is taken, so
    that only the sum over an epoch is meaningful there.

    Args:
        run_directory: where `history.csv` and `tensorboard/` go.
        validator: the evaluator whose metrics stand in the row.
    """

    def __init__(self, run_directory: RunDirectory, validator: Engine | None = None) -> None:
        self.run_directory = run_directory
        self.validator = validator
        self.rows: list[dict[str, Any]] | None = None
        self._seconds = {"loading": 0.0, "step": 0.0}
        self._mark = 0.0

    @property
    def path(self) -> Path:
        return self.run_directory.path / "history.csv"

    def attach(self, engine: Engine) -> None:
        running_means(engine)
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._stop, "loading")
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop, "step")
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _forget(self, _engine: Engine) -> None:
        self.rows = None

    def _begin(self, engine: Engine) -> None:
        # A resumed run keeps the rows of the epochs before; only now has every handler's start restored its epoch.
        if self.rows is None:
            self.rows = []
            if engine.state.epoch > 1 and self.path.is_file():
                with self.path.open(newline="", encoding="utf-8") as file:
                    self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < engine.state.epoch]
        self._seconds = {"loading": 0.0, "step": 0.0}

    def _start(self, _engine: Engine) -> None:
        self._mark = time.perf_counter()

    def _stop(self, _engine: Engine, what: str) -> None:
        self._seconds[what] += time.perf_counter() - self._mark

    def _write(self, engine: Engine) -> None:
        metrics = dict(engine.state.metrics)
        if self.validator is not None and self.validator.state.epoch == engine.state.epoch:
            metrics |= self.validator.state.metrics
        row: dict[str, Any] = {"epoch": engine.state.epoch}
        row |= {name: f"{value:.6g}" for name, value in metrics.items() if isinstance(value, int | float)}
        row |= {f"seconds_{what}": f"{value:.3f}" for what, value in self._seconds.items()}
        self.rows = [*(self.rows or []), row]
        if rank_of(engine) != 0:
            return
        columns = list(dict.fromkeys(key for entry in self.rows for key in entry))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self.run_directory.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, text.getvalue())
        shown = "  ".join(f"{name} {value}" for name, value in row.items() if name != "epoch")
        logger.info("epoch %d/%s  %s", engine.state.epoch, engine.state.max_epochs, shown)
        # Opened per epoch: a killed run loses nothing, and building the bundle makes no folder.
        with SummaryWriter(str(self.run_directory.path / "tensorboard"), purge_step=engine.state.epoch) as board:
            for name, value in row.items():
                if name != "epoch":
                    board.add_scalar(name, float(value), engine.state.epoch)
