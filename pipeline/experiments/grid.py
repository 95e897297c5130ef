"""Running a grid of cells: what is done is skipped, what was broken off goes on, on one machine or a Dask cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from monai.bundle import ConfigParser

from pipeline import __version__
from pipeline.experiments.cells import Cell, Shelf
from pipeline.experiments.progress import Progress
from pipeline.experiments.variants import GridError
from pipeline.imaging import chain_digest
from pipeline.runs import check_configuration
from pipeline.runs.directory import write_atomically
from pipeline.runs.errors import own_error

FORMAT = 1
POLL_SECONDS = 2.0


def open_shelf(folder: Path, manifest_digest: str) -> Shelf:
    """The grid's folder, new or from an earlier call.

    Raises:
        GridError: it holds cells of another version of this package or of another manifest.
    """
    about = {"format": FORMAT, "version": __version__, "manifest": manifest_digest}
    recorded = folder / "grid.json"
    if recorded.is_file() and (folder / "cells").exists():  # a call that failed before its first cell holds nothing
        found = json.loads(recorded.read_text(encoding="utf-8"))
        changed = [key for key in about if found.get(key) != about[key]]
        if changed:
            shown = ", ".join(f"{key} {_named(found.get(key))} there, {_named(about[key])} now" for key in changed)
            raise GridError(f"{folder} holds the cells of another grid ({shown}); give another --out, or move it away")
    if not recorded.is_file() and (folder / "cells").exists():
        raise GridError(f"{folder} holds cells, but no grid.json that says of which grid; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(recorded, json.dumps(about, indent=1))
    return Shelf(folder.resolve())


def _named(value: Any) -> str:
    """A version, the digest of a manifest in short, or phantoms, which have none."""
    return "phantoms" if value == "" else str(value)[:10]


def with_starts(cells: Iterable[Cell]) -> list[Cell]:
    """Cells with those that they start from in front, each once."""
    ordered: dict[str, Cell] = {}
    for cell in cells:
        if cell.start is not None:
            ordered.setdefault(cell.start.name, cell.start)
    for cell in cells:
        ordered.setdefault(cell.name, cell)
    return list(ordered.values())


def prepare(shelf: Shelf, cell: Cell) -> None:
    """Prepare the images once, before the cells ask for them, and hold them against those of earlier calls.

    Args:
        shelf: the grid's folder; receives images-<digest of the preparation>.csv.
        cell: any of the grid; all have the same images.

    Raises:
        GridError: images have changed since cells of this folder were run.
    """
    parser = _parser(cell)
    parser.get_parsed_content("imports")
    cohort = parser.get_parsed_content("cohort")
    chain = chain_digest(parser.get_parsed_content("preprocessing"))
    now = {image: Path(path).stem for image, path in zip(cohort.table["image"], cohort.table["prepared"], strict=True)}
    file = shelf.folder / f"images-{chain[:10]}.csv"
    before: dict[str, str] = {}
    if file.is_file():
        recorded = pd.read_csv(file, dtype=str, keep_default_na=False)
        before = dict(zip(recorded["image"], recorded["prepared"], strict=True))
    gone = {image: "" for image in cohort.rejects["image"] if image in before}
    changed = sorted(image for image, key in (now | gone).items() if before.get(image, key) != key)
    if changed:
        raise GridError(
            f"{len(changed)} images have changed since the cells in {shelf.folder} were run, the first {changed[0]}; "
            "bring them back, or give another --out"
        )
    table = pd.DataFrame(sorted((before | now).items()), columns=["image", "prepared"])
    write_atomically(file, table.to_csv(index=False))


class Size(NamedTuple):
    """Bytes that a cell takes: `kept` when it is finished, `peak` while it runs."""

    kept: int
    peak: int


def check(cells: Sequence[Cell]) -> dict[str, Size]:
    """Check the configuration of every variant and build its network, method and terms, before anything runs.

    Returns:
        What each cell takes of the disk, by the cell's name.

    Raises:
        GridError: a combination that makes no sense, with the reason.
    """
    known: dict[str, Size] = {}
    sizes: dict[str, Size] = {}
    for cell in cells:
        key = json.dumps([cell.variant.name, {k: v for k, v in cell.settings.items() if k != "fold"}], default=str)
        if key not in known:
            known[key] = _built(cell)
        sizes[cell.name] = known[key]
    return sizes


def _built(cell: Cell) -> Size:
    parser = _parser(cell)
    if parser["batch_size"] % cell.ranks:
        raise GridError(f"{cell.label}: batch_size {parser['batch_size']} is no multiple of --ranks {cell.ranks}")
    try:
        parser.get_parsed_content("imports")
        rules = parser.get_parsed_content("rules")
        check_configuration(parser.get_parsed_content("bundle_root"), rules=rules, parser=parser)
        network = parser.get_parsed_content("network")
        for slot in ("method", "arfl", "awp", "ema", "extra", "validate#key_metric", "test#metric"):
            parser.get_parsed_content(slot)
    except Exception as error:
        own = own_error(error)
        raise GridError(f"{cell.label}: {own or error}") from error
    whole = sum(p.numel() * p.element_size() for p in network.parameters())
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    kept = whole + (trained if parser["ema_decay"] else 0)
    # A file is replaced when the new one is whole: two best.pt, two latest.pt with both of AdamW's moments.
    return Size(kept, 2 * kept + 2 * (kept + 2 * trained))


def _parser(cell: Cell) -> ConfigParser:
    # Outside a run there are no ranks, so that the data-parallel wrapper cannot be built.
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in cell.single_files]))
    for key, value in cell.settings.items():
        parser[key] = value
    return parser


def disk_line(sizes: Mapping[str, Size], shelf: Shelf, cells: Sequence[Cell], *, jobs: int = 1) -> str:
    """What the cells that are not finished will take of the disk, and what is free."""
    free = shutil.disk_usage(shelf.folder).free
    left = [sizes[cell.name] for cell in cells if not shelf.done(cell)]
    kept = sum(size.kept for size in left)
    peak = sum(sorted((size.peak for size in left), reverse=True)[:jobs])
    warning = "; THIS IS NOT ENOUGH" if free < kept + peak else ""
    return (
        f"disk: {_size(kept)} for the networks of cells to come and up to {_size(peak)} while they run; "
        f"{_size(free)} are free{warning}"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def run_grid(shelf: Shelf, cells: Sequence[Cell], *, jobs: int = 1, scheduler: str | None = None) -> list[str]:
    """Run what is not done; a cell that fails does not end the others.

    Args:
        shelf: where the cells lie.
        cells: starts in front of what starts from them.
        jobs: cells at the same time on this machine.
        scheduler: address of a Dask scheduler whose workers see the same folders; then `jobs` does not count.

    Returns:
        Failures, one line each.
    """
    left = [cell for cell in cells if not shelf.done(cell)]
    with Progress(shelf, cells) as progress:
        if scheduler is not None:
            return _on_cluster(shelf, left, scheduler, progress)
        threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
        with ThreadPoolExecutor(max_workers=jobs) as pool, _stopping(shelf):
            return _in_order(left, lambda cell: pool.submit(shelf.run, cell, threads=threads), progress, at_once=jobs)


@contextmanager
def _stopping(shelf: Shelf) -> Iterator[None]:
    """End the runs when this process is interrupted or told to end (SIGTERM), rather than leave them orphaned."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if ours else None
    try:
        yield
    except BaseException:
        shelf.stop()
        print("\nstopped; the same command goes on from each cell's last epoch", file=sys.stderr, flush=True)
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _in_order(left: Sequence[Cell], submit: Any, progress: Progress, *, at_once: int | None = None) -> list[str]:
    """Submit cells whose start is done or failed, at most `at_once` of them; collect failures."""
    waiting = list(left)
    running: dict[Future[None], Cell] = {}
    unfinished = {cell.name for cell in left}
    failed: dict[str, str] = {}
    while waiting or running:
        for cell in list(waiting):
            if cell.start is not None and cell.start.name in failed:
                failed[cell.name] = f"cell {cell.label}: the cell that it starts from failed"
            elif cell.start is not None and cell.start.name in unfinished:
                continue
            elif at_once is not None and len(running) >= at_once:
                break
            else:
                running[submit(cell)] = cell
            waiting.remove(cell)
        progress.show([cell.label for cell in running.values()])
        finished, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            cell = running.pop(future)
            error = future.exception()
            if error is not None:
                failed[cell.name] = str(error)
            unfinished.discard(cell.name)
    return list(failed.values())


def _on_cluster(shelf: Shelf, left: Sequence[Cell], scheduler: str, progress: Progress) -> list[str]:
    try:
        from distributed import Client
    except ImportError as error:
        raise GridError("--scheduler needs Dask: pip install 'arfl-mammography[cluster]'") from error
    tasks: list[Any] = []
    pool = ThreadPoolExecutor(max_workers=max(len(left), 1))
    with Client(scheduler) as client:

        def submit(cell: Cell) -> Future[None]:
            tasks.append(client.submit(_run_elsewhere, shelf.folder, cell, key=cell.name, pure=False))
            return pool.submit(tasks[-1].result)

        try:
            return _in_order(left, submit, progress)
        except BaseException:
            client.cancel(tasks)  # what waits for a worker; a cell that runs goes on to its end
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run_elsewhere(folder: Path, cell: Cell) -> None:
    Shelf(folder).run(cell)
