"""How time and memory of our attack grow with image area, batch, steps and number of images; cost of the paper's grid.

    python benchmarks/scale_law.py --weights vgg16_features.pt --plot scale_law.png

Each factor is varied alone around 96 x 96 pixels, batch 4, 7 steps; a straight line is fitted by least squares, over
1 / batch for the batch, since what a batch costs once is shared by its images. The grid estimate counts
forward-equivalents (one forward pass of one image at 224 x 224, 15.47 GMAC) with the figures of the protocol and
divides by throughputs that are arguments: nothing in it was measured on a GPU.
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
from benchmarks.peers import BUDGET, Setting, setting
from pipeline.attacks import PGD

IMAGES, FOLDS, EPOCHS, ROWS = 5_202, 5, 100, 9
TRAINING_SHARE = 0.7
ATTACK = 14.0  # forward-equivalents of PGD-7
GMAC = 15.47


def main(
    weights: str = "none",
    threads: int = 2,
    repeats: int = 3,
    plot: Annotated[Path | None, typer.Option(help="PNG file")] = None,
    gpu_tflops: Annotated[float, typer.Option(help="sustained by one GPU, 10^12 operations a second")] = 30,
) -> None:
    torch.set_num_threads(threads)
    series = {
        "area (pixels)": [(s * s, _seconds(setting(s, 4, weights=weights), repeats)) for s in (64, 96, 128, 160, 224)],
        "batch": [(b, _seconds(setting(96, b, weights=weights), repeats)) for b in (1, 2, 4, 8, 16)],
        "steps": [(k, _seconds(setting(96, 4, weights=weights), repeats, steps=k)) for k in (1, 3, 7, 14, 28)],
        "images": [(n, _stream(setting(96, 4, weights=weights), n)) for n in (8, 16, 32, 64)],
    }
    fits = {}
    for name, points in series.items():
        x, y = np.array(points, dtype=float).T
        x = 1 / x if name == "batch" else x
        slope, intercept = np.polyfit(x, y, 1)
        explained = 1 - ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        fits[name] = slope, intercept
        unit = "s in all" if name == "images" else "s per image"
        values = ", ".join(f"{a:g}: {b:.3f}" for a, b in points)
        form = "/ x" if name == "batch" else "x"
        print(f"{name:14} {unit}: {values}; fit {intercept:.3f} + {slope:.3g} {form}, R2 {explained:.3f}")
    print("memory after 8 and 64 images: " + " and ".join(f"{m:.0f} MB" for m in _memory(weights)))
    grid(gpu_tflops)
    if plot is not None:
        draw(series, fits, plot)


def grid(gpu_tflops: float) -> None:
    """Print the paper's grid in forward-equivalents and GPU hours."""
    # Per image and epoch: a clean pass with the trained layers' gradients, attacked rows the attack and one more.
    per_image = {"A, B": 1.1, "C, D": ATTACK + 1.1, "E, F": ATTACK + 2.1, "G, H, I": ATTACK + 3.0}
    count = {"A, B": 2, "C, D": 2, "E, F": 2, "G, H, I": 3}
    training = IMAGES * TRAINING_SHARE * EPOCHS * FOLDS * sum(count[k] * per_image[k] for k in count)
    validation = IMAGES * 0.1 * EPOCHS * FOLDS * ROWS * (ATTACK + 2)
    test = IMAGES * 0.2 * FOLDS * ROWS * (3 * (ATTACK + 1) + 1)
    total = training + validation + test
    rate = gpu_tflops * 1e12 / (2 * GMAC * 1e9)
    print(
        f"paper's grid on CMMD (9 rows, 5 folds, 100 epochs, 224 x 224): {total / 1e6:.0f} million forward-equivalents "
        f"({training / total:.0%} training, {validation / total:.0%} validation, {test / total:.0%} test); "
        f"at {gpu_tflops:g} TFLOP/s ({rate:.0f} passes a second): {total / rate / 3600:.0f} h on one GPU, "
        f"{total / rate / 3600 / 8:.0f} h on eight (estimate)"
    )


def draw(series: dict[str, list[tuple[float, float]]], fits: dict[str, tuple[float, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(series), figsize=(4 * len(series), 3.5), layout="constrained")
    for axis, (name, points) in zip(axes, series.items(), strict=True):
        x, y = np.array(points, dtype=float).T
        slope, intercept = fits[name]
        axis.plot(x, y, "o")
        line = np.linspace(x.min(), x.max(), 100)
        axis.plot(line, intercept + slope * (1 / line if name == "batch" else line), "-", linewidth=1)
        axis.set(xlabel=name, ylabel="seconds" if name == "images" else "seconds per image", ylim=(0, None))
    figure.savefig(path, dpi=120)


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


def _memory(weights: str) -> list[float]:
    case = setting(96, 4, weights=weights)
    found = []
    for count in (8, 64):
        _stream(case, count)
        found.append(_status("VmRSS") / 1e3)
    return found


if __name__ == "__main__":
    typer.run(main)
