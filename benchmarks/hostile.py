"""Ten thousand damaged and hostile files: no error but a refusal, no hang, and bombs are refused early and cheaply.

    python -m benchmarks.hostile run --out hostile.csv                     # 0 to 9999; goes on where it was stopped
    python -m benchmarks.hostile run --out hostile.csv --first 5000 --last 7500
    python -m benchmarks.hostile report hostile.csv                        # by mutation and code
    python -m benchmarks.hostile pool --first 0 --last 1000                # through the worker processes of `prepare`

Each mutant is a pure function of its number and the seed, see ``benchmarks.mutants``; it goes through the whole
preparation, from the file to the store. With ``--calibration FILE`` a real file joins the small ones made here.
"""

from __future__ import annotations

import csv
import faulthandler
import resource
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from monai.transforms import Compose

from benchmarks.base_files import base_files
from benchmarks.mutants import BOMBS, mutant
from pipeline.cohort import prepare_images
from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    ImageStore,
    OrientChestWalld,
    ReadMammogramd,
    ResizeImaged,
    SegmentBreastd,
    explain,
    prepare_item,
)

MUTANTS = 10_000
HANG = 5.0
"""Seconds after which a file counts as a hang."""
STUCK = 120.0
"""Seconds after which the process is ended, where C code holds it."""
BOMB_SECONDS, BOMB_MIB = 1.0, 512
COLUMNS = ("number", "mutation", "base", "bytes", "code", "seconds", "cpu_seconds", "extra_mib", "detail")
GIVEN: dict[Any, str] = {"laterality": "L", "view": "MLO"}

app = typer.Typer(add_completion=False, help=__doc__.splitlines()[0])
Calibration = Annotated[Path | None, typer.Option(help="A real DICOM file to damage too.")]


class _Late(BaseException):
    """The alarm of a file went off."""


def whole_chain() -> Compose:
    """The preparation from file to network input, at 32 pixels."""
    key = "image"
    steps = [ReadMammogramd(key), ApplyWindowd(key), SegmentBreastd(key), CropToBreastd(key), OrientChestWalld(key)]
    return Compose([*steps, ResizeImaged(key, image_size=32)])


def bases_with(calibration: Path | None) -> dict[str, bytes]:
    """The small files, and the real one if it is given."""
    bases = base_files()
    return bases if calibration is None else bases | {"calibration": calibration.read_bytes()}


def outcome_of(path: Path, chain: Compose, store: ImageStore, key: str) -> tuple[str, str]:
    """Prepare one file: its refusal's code, "prepared", "hang", or "uncaught"; and a detail."""
    try:
        item = prepare_item(chain, {"image": str(path), **GIVEN})
        store.put(key, item["image"], {str(name): value for name, value in item.items()})
    except _Late:
        return "hang", ""
    except Exception as error:
        code, reason = explain(error)
        return ("uncaught", f"{reason}: {error}") if code == "unexpected" else (code, reason)
    return "prepared", ""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Table to write; files that stand in it are not run again.")],
    first: int = 0,
    last: int = MUTANTS,
    seed: int = 0,
    calibration: Calibration = None,
) -> None:
    """Prepare mutants one after the other in this process, each under an alarm."""
    torch.set_num_threads(1)
    done = set(pd.read_csv(out)["number"]) if out.exists() else set()
    bases, chain = bases_with(calibration), whole_chain()
    signal.signal(signal.SIGALRM, _ring)
    with tempfile.TemporaryDirectory() as folder, out.open("a", newline="", encoding="utf-8") as file:
        table, path, store = csv.writer(file), Path(folder) / "mutant", ImageStore(Path(folder) / "store")
        if not done:
            table.writerow(COLUMNS)
        path.write_bytes(bases["explicit"])
        outcome_of(path, chain, store, "0" * 64)  # imports and compiled code are not the mutant's
        for number in range(first, last):
            if number in done:
                continue
            mutation, base, content = mutant(number, bases, seed=seed)
            path.write_bytes(content)
            before = _new_peak()
            started, worked = time.perf_counter(), time.process_time()
            faulthandler.dump_traceback_later(STUCK, exit=True)
            signal.setitimer(signal.ITIMER_REAL, HANG)
            code, detail = outcome_of(path, chain, store, f"{number:064x}")
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            times = (f"{time.perf_counter() - started:.4f}", f"{time.process_time() - worked:.4f}")
            extra = f"{_memory('VmHWM') - before:.1f}"
            table.writerow((number, mutation, base, len(content), code, *times, extra, detail))
            file.flush()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    typer.echo(f"largest child, with what it shares with this process: {children:.0f} MiB")
    report(out)


def _ring(*_: Any) -> None:
    raise _Late


def _memory(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def _new_peak() -> float:
    """Forget the peak of the resident size (proc(5), clear_refs) and return the size now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


@app.command()
def report(table: Path) -> None:
    """Print what became of the mutants, by mutation and code, and the slowest and largest."""
    rows = pd.read_csv(table, keep_default_na=False)
    counts = pd.crosstab(rows["code"], rows["mutation"], margins=True)
    typer.echo(counts.T.to_string())
    by = rows.groupby("mutation")[["seconds", "cpu_seconds", "extra_mib"]]
    typer.echo(by.agg(["median", "max"]).round(3).to_string())
    bombs = rows[rows["mutation"].isin(BOMBS)]
    uncaught = (rows["code"] == "uncaught").sum()
    hangs = ((rows["code"] == "hang") | (rows["seconds"] > HANG)).sum()
    typer.echo(f"files: {len(rows)}; errors that are no refusal: {uncaught}; longer than {HANG:g} s: {hangs}")
    slow, busy = ((bombs[name] >= BOMB_SECONDS).sum() for name in ("seconds", "cpu_seconds"))
    typer.echo(
        f"bombs: {len(bombs)}; {BOMB_SECONDS:g} s and more: {slow}, of processor time: {busy}; "
        f"{BOMB_MIB} MiB and more: {(bombs['extra_mib'] >= BOMB_MIB).sum()}"
    )
    for row in rows[rows["code"].isin(["uncaught", "hang"])].head(20).itertuples():
        typer.echo(f"  {row.number} {row.mutation} {row.base}: {row.code} {row.detail[:200]}")


@app.command()
def pool(first: int = 0, last: int = 1000, seed: int = 0, workers: int = 2, calibration: Calibration = None) -> None:
    """Prepare mutants as a cohort, through the worker processes; every file must come back with an outcome."""
    bases = bases_with(calibration)
    with tempfile.TemporaryDirectory() as name:
        root, rows = Path(name), []
        for number in range(first, last):
            mutation, base, content = mutant(number, bases, seed=seed)
            (root / f"{number:05d}").write_bytes(content)
            rows.append({"image": f"{number:05d}", "patient_id": f"p{number:05d}", **GIVEN, "mutation": mutation})
        manifest = pd.DataFrame(rows)
        started = time.perf_counter()
        prepared, rejects = prepare_images(
            manifest, dataset_dir=root, chain=whole_chain(), store=ImageStore(root / "store"), workers=workers,
            progress=False,
        )  # fmt: skip
        typer.echo(rejects["code"].value_counts().to_string())
        typer.echo(
            f"files: {len(manifest)}; prepared: {len(prepared)}; refused: {len(rejects)}; "
            f"without an outcome: {len(manifest) - len(prepared) - len(rejects)}; "
            f"{(time.perf_counter() - started):.0f} s with {workers} worker processes"
        )


if __name__ == "__main__":
    app()
