"""What a grid shows while it runs: cells done and running, epochs, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import mean
from typing import Any

from tqdm import tqdm

from pipeline.experiments.cells import Cell, Shelf

BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} epochs [{elapsed}{postfix}]"
SHOWN = 4  # running cells that are named


class Progress:
    """A bar on a terminal, else one line whenever something changed."""

    def __init__(self, shelf: Shelf, cells: Sequence[Cell]) -> None:
        self.shelf = shelf
        self.cells = cells
        self._shown: tuple[Any, ...] = ()
        self._whole = {cell.name: cell.epochs() for cell in cells}
        self._ended: dict[str, list[float]] = {}
        self._started = time.monotonic()
        seconds, done = self._look()
        self._before = sum(map(sum, seconds.values()))
        # A bar that is redrawn in place is no use in a file; there, one line per change.
        self._in_place = sys.stderr.isatty()
        self._bar = tqdm(
            total=sum(self._whole.values()), initial=self._epochs(seconds, done), bar_format=BAR, unit="epoch",
            dynamic_ncols=True, mininterval=0,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.show([])
        self._bar.close()

    def _look(self) -> tuple[dict[str, list[float]], set[str]]:
        """Seconds of every epoch so far by cell, and the finished cells, whose histories are read once."""
        seconds: dict[str, list[float]] = {}
        for cell in self.cells:
            if cell.name not in self._ended:
                ended = self.shelf.done(cell)  # asked first: a history that is read now may be a finished one's
                seconds[cell.name] = self.shelf.seconds(cell)
                if ended:
                    self._ended[cell.name] = seconds[cell.name]
        return seconds | self._ended, set(self._ended)

    def _epochs(self, seconds: dict[str, list[float]], done: set[str]) -> int:
        return sum(whole if name in done else len(seconds[name]) for name, whole in self._whole.items())

    def seconds_left(self) -> float | None:
        """Time that the grid still takes, None before anything has been trained in this call.

        An epoch to come costs what one of its method took so far (with an attack some ten times one without); all in
        all, training so far took a share of the time since the start, the rest being tests, reports and waiting.
        """
        return self._left(*self._look())

    def _left(self, seconds: dict[str, list[float]], done: set[str]) -> float | None:
        rates: dict[str, list[float]] = {}
        for cell in self.cells:
            rates.setdefault(cell.variant.name, []).extend(seconds[cell.name])
        known = [each for method in rates.values() for each in method]
        trained = sum(known) - self._before
        if not known or trained <= 0:
            return None
        means = {name: mean(method or known) for name, method in rates.items()}
        to_come = sum(
            (self._whole[cell.name] - len(seconds[cell.name])) * means[cell.variant.name]
            for cell in self.cells
            if cell.name not in done
        )
        return to_come * (time.monotonic() - self._started) / trained

    def show(self, running: Sequence[str]) -> None:
        """Refresh.

        Args:
            running: labels of the cells that have been handed out.
        """
        seconds, done = self._look()
        epochs = self._epochs(seconds, done)
        if not self._in_place and (len(done), epochs, *running) == self._shown:
            return
        self._shown = (len(done), epochs, *running)
        self._bar.n = epochs
        self._bar.set_description(f"{len(done)}/{len(self.cells)} cells", refresh=False)
        left = self._left(seconds, done)
        told = [] if left is None else [f"about {tqdm.format_interval(round(left))} left"]
        if running:
            more = f" and {len(running) - SHOWN} more" if len(running) > SHOWN else ""
            told.append(f"running {', '.join(running[:SHOWN])}{more}")
        self._bar.set_postfix_str(", ".join(told), refresh=True)
        if not self._in_place:
            print(file=sys.stderr, flush=True)
