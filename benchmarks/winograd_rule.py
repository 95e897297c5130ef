"""Direct convolution or Winograd, and how many bytes of tiles at once: the measurements behind `RULE`.

    python benchmarks/winograd_rule.py --size 160 --batch 4

For each width of VGG16, one layer with the map it has at this image size goes forward (mask kept) and backward, by
oneDNN and by Winograd with chunks of several sizes; the fastest of `repeats`, in ms per image. The rule is fixed in
`pipeline/networks/frozen.py`, never chosen at run time: the same command must give the same scores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import typer
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.networks.kernels import DirectKernel, Kernel, Maps, WinogradKernel
from pipeline.networks.scratch import Scratch

WIDTHS = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))  # channels and by how much the image is reduced
CHUNKS_MIB = (1, 2, 4, 8, 16, 32)


def main(size: int = 160, batch: int = 4, repeats: int = 8, threads: int = 2) -> None:
    torch.set_num_threads(threads)
    print(f"{size} x {size}, batch {batch}; ms per image, forward + backward")
    print(f"{'layer':>16}{'direct':>14}" + "".join(f"{f'{chunk} MiB':>14}" for chunk in CHUNKS_MIB))
    for channels, reduced in WIDTHS:
        side = size // reduced
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        kernels: list[Kernel] = [DirectKernel(conv)]
        kernels += [WinogradKernel(conv, chunk << 20) for chunk in CHUNKS_MIB]
        times = [_time(kernel, channels, side, batch, repeats) for kernel in kernels]
        print(f"{f'{channels} @ {side}':>16}" + "".join(f"{f'{a:.1f} + {b:.1f}':>14}" for a, b in times), flush=True)


def _time(kernel: Kernel, channels: int, side: int, batch: int, repeats: int) -> tuple[float, float]:
    scratch = Scratch()
    source = Maps(scratch, "source", batch, side, side, channels, tiles=kernel.tiles)
    target = Maps(scratch, "target", batch, side, side, channels, tiles=kernel.tiles)
    back = Maps(scratch, "back", batch, side, side, channels, tiles=kernel.tiles)
    source.image.normal_()
    source.frame()
    keep = torch.empty(batch, *kernel.keep_shape(side, side), dtype=torch.bool)
    forward = backward = float("inf")
    with torch.no_grad():
        for _ in range(repeats):
            started = time.perf_counter()
            kernel.forward(source, target, False, keep, scratch)
            middle = time.perf_counter()
            kernel.adjoint(target, keep, back, False, scratch)
            forward, backward = min(forward, middle - started), min(backward, time.perf_counter() - middle)
    return forward * 1e3 / batch, backward * 1e3 / batch


if __name__ == "__main__":
    typer.run(main)
