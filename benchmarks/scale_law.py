"""How time and memory of our attack grow with image area, batch, steps and number of images; cost of the paper's grid.

    python benchmarks/scale_law.py --weights vgg16_features.pt --figure scale_law.png

Each factor is varied alone around 96 x 96 pixels, batch 4, 7 steps; a straight line is fitted by least squares, over
1 / batch for the batch, since what a batch costs once is shared by its images. `--figure` draws points and fits.

The grid estimate counts the passes of one image at 224 x 224 (F) that the protocol asks for, an attack at the 14 of a
direct loop, and multiplies by the seconds of F: on the CPU the plain network's, measured in this run unless
given, on a GPU 15.47 GMAC at the throughput given. Nothing in it was measured on a GPU.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.attack_speed import _status
from benchmarks.peers import BUDGET, Setting, forward_ms, setting
from pipeline.attacks import PGD

IMAGES, FOLDS, EPOCHS = 5_202, 5, 100
TRAINING, VALIDATION, TEST = 0.7, 0.1, 0.2  # shares of the images
SIZE, GMAC = 224, 15.47
ATTACK = 14.0  # F of PGD-7: seven passes forward and seven back to the images
# F per image and epoch of training. A clean pass with the trained layers' gradients is 1.1, a batch of clean and
# attacked rows 2.1 or, with a second clean pass, 3.0; attacked rows need the attack first.
PER_IMAGE = {"A, B": 1.1, "C, D": ATTACK + 1.1, "E, F": ATTACK + 2.1, "G, H, I": ATTACK + 3.0}
BUDGETS = 3  # of the attacks at test


def main(
    weights: str = "none",
    threads: int = 2,
    repeats: int = 3,
    size: Annotated[int, typer.Option(help="side in pixels where another factor is varied")] = 96,
    sizes: Annotated[str, typer.Option(help="sides in pixels")] = "64,96,128,160,224",
    batches: Annotated[str, typer.Option(help="images per batch")] = "1,2,4,8,16",
    steps: Annotated[str, typer.Option(help="steps of the attack")] = "1,3,7,14,28",
    counts: Annotated[str, typer.Option(help="numbers of images, multiples of 4")] = "8,16,32,64",
    figure: Annotated[Path | None, typer.Option(help="PNG or SVG file: points and fits")] = None,
    forward: Annotated[float | None, typer.Option(help="F on the CPU in ms; measured if not given")] = None,
    gpu_tflops: Annotated[float, typer.Option(help="sustained by one GPU, 10^12 operations a second")] = 30,
) -> None:
    torch.set_num_threads(threads)
    base = setting(size, 4, weights=weights)
    numbers = _numbers(counts)
    series: dict[str, list[tuple[float, float]]] = {
        "images": [(n, _stream(base, n)) for n in numbers],
        "area (pixels)": [(s * s, _seconds(setting(s, 4, weights=weights), repeats)) for s in _numbers(sizes)],
        "steps": [(k, _seconds(base, repeats, steps=k)) for k in _numbers(steps)],
        "batch": [(b, _seconds(setting(size, b, weights=weights), repeats)) for b in _numbers(batches)],
    }
    fits = {}
    for name, points in series.items():
        x, y = np.array(points, dtype=float).T
        x = 1 / x if name == "batch" else x
        slope, intercept = np.polyfit(x, y, 1)
        explained = 1 - ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        fits[name] = slope, intercept, explained
        unit = "s in all" if name == "images" else "s per image"
        values = ", ".join(f"{a:g}: {b:.3f}" for a, b in points)
        form = "/ x" if name == "batch" else "x"
        print(f"{name:14} {unit}: {values}; fit {intercept:.3f} + {slope:.3g} {form}, R2 {explained:.3f}")
    few, many = min(numbers), max(numbers)
    memory = " and ".join(f"{most:.0f} MB" for most in _memory(base, (few, many)))
    print(f"memory after {few} and {many} images: {memory}")
    if figure is not None:
        draw(series, fits, figure)
    if forward is None:
        forward = min(forward_ms(setting(SIZE, batch, weights=weights)) for batch in (1, 4))
    grid(forward, gpu_tflops)


def grid(forward: float, gpu_tflops: float) -> None:
    """Print the paper's grid in F, and its time on this CPU and on GPUs.

    Args:
        forward: milliseconds of F on the CPU.
        gpu_tflops: 10^12 operations a second of one GPU.
    """
    count = {rows: len(rows.split(",")) for rows in PER_IMAGE}
    every_row = sum(count[rows] * PER_IMAGE[rows] for rows in PER_IMAGE)
    all_rows = sum(count.values())
    training = IMAGES * TRAINING * EPOCHS * FOLDS * every_row
    validation = IMAGES * VALIDATION * EPOCHS * FOLDS * all_rows * (ATTACK + 2)
    test = IMAGES * TEST * FOLDS * all_rows * (BUDGETS * (ATTACK + 1) + 1)
    total = training + validation + test
    gpu = 2 * GMAC * 1e9 / (gpu_tflops * 1e12)
    terms = " + ".join(f"{count[rows]} x {PER_IMAGE[rows]:g} ({rows})" for rows in PER_IMAGE)
    cpu_days, gpu_hours = total * forward / 1e3 / 86400, total * gpu / 3600
    print(f"paper's grid on CMMD, {all_rows} rows, {FOLDS} folds, {EPOCHS} epochs, {SIZE} x {SIZE} (estimate):")
    print(f"  F per image and epoch: {terms} = {every_row:.1f}")
    print(f"  training: {IMAGES} x {TRAINING} images x {EPOCHS} x {FOLDS} x {every_row:.1f} F = {training:.3g} F")
    print(
        f"  validation: {IMAGES} x {VALIDATION} images x {EPOCHS} x {FOLDS} x {all_rows} rows x ({ATTACK:g} + 2) F "
        f"= {validation:.3g} F"
    )
    print(
        f"  test: {IMAGES} x {TEST} images x {FOLDS} x {all_rows} rows x ({BUDGETS} x ({ATTACK:g} + 1) + 1) F "
        f"= {test:.3g} F"
    )
    print(f"  all: {total:.4g} F")
    print(f"  this CPU, plain network: {total:.4g} x F of {forward:.1f} ms = {cpu_days:.0f} days")
    print(
        f"  one GPU: F = 2 x {GMAC} GMAC / {gpu_tflops:g} TFLOP/s = {gpu * 1e3:.2f} ms; {total:.4g} x F = "
        f"{gpu_hours:.0f} h; eight: {gpu_hours / 8:.0f} h"
    )


def draw(series: dict[str, list[tuple[float, float]]], fits: dict[str, tuple[float, float, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(4 * len(series), 3.5), layout="constrained")
    for axis, (name, points) in zip(axes, series.items(), strict=True):
        x, y = np.array(points, dtype=float).T
        slope, intercept, explained = fits[name]
        axis.plot(x, y, "o", label="measured")
        line = np.linspace(x.min(), x.max(), 200)
        law = f"{intercept:.3g} + {slope:.3g} " + ("/ x" if name == "batch" else "x")
        fit = intercept + slope * (1 / line if name == "batch" else line)
        axis.plot(line, fit, "-", linewidth=1, label=f"{law}, R\u00b2 {explained:.3f}")
        unit = "seconds in all" if name == "images" else "seconds per image"
        axis.set(xlabel=name, ylabel=unit, ylim=(0, 1.3 * max(y.max(), fit.max())))  # room for the legend
        axis.legend(loc="upper right" if name == "batch" else "upper left", frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _seconds(case: Setting, repeats: int, steps: int = 7) -> float:
    """Per image, the best of `repeats`."""
    attack = PGD(budget=BUDGET, steps=steps)
    attack(case.network, case.images, case.labels, seed=0)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        attack(case.network, case.images, case.labels, seed=0)
        best = min(best, time.perf_counter() - started)
    return best / len(case.images)


def _stream(case: Setting, count: int) -> float:
    """Seconds for `count` images, batch after batch."""
    attack = PGD(budget=BUDGET)
    attack(case.network, case.images, case.labels, seed=0)
    started = time.perf_counter()
    for _ in range(count // len(case.images)):
        attack(case.network, case.images, case.labels, seed=0)
    return time.perf_counter() - started


def _memory(case: Setting, counts: tuple[int, int]) -> list[float]:
    """Resident megabytes after so many images (Linux)."""
    found = []
    for count in counts:
        _stream(case, count)
        found.append(_status("VmRSS") / 1e3)
    return found


if __name__ == "__main__":
    typer.run(main)
