"""How many bytes of transformed tiles at once: the measurements behind `RULE`, beside direct convolution.

    python benchmarks/winograd_rule.py --size 160 --batch 4

For each width of VGG16, one layer with the map it has at this image size goes forward (mask kept) and backward, by
oneDNN (convolution and gradient alone, no ReLU or mask) and by Winograd with chunks of several sizes; the fastest of
`repeats`, in ms per image. The rule is fixed in `pipeline/networks/frozen.py`, never chosen at run time: the same
command must give the same scores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import typer
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.networks.kernels import Maps, WinogradKernel, empty_mask
from pipeline.networks.loops import loop_threads
from pipeline.networks.scratch import Scratch

WIDTHS = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))  # channels and by how much the image is reduced
CHUNKS_MIB = (0.5, 1, 2, 4, 8, 16, 32)


def main(size: int = 160, batch: int = 4, repeats: int = 8, threads: int = 2) -> None:
    torch.set_num_threads(threads)
    print(f"{size} x {size}, batch {batch}; ms per image, forward + backward")
    print(f"{'layer':>16}{'direct':>14}" + "".join(f"{f'{chunk} MiB':>14}" for chunk in CHUNKS_MIB))
    for channels, reduced in WIDTHS:
        side = size // reduced
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        times = [_direct(conv, side, batch, repeats)]
        kernels = [WinogradKernel(conv, int(chunk * 2**20)) for chunk in CHUNKS_MIB]
        times += [_time(kernel, channels, side, batch, repeats) for kernel in kernels]
        print(f"{f'{channels} @ {side}':>16}" + "".join(f"{f'{a:.1f} + {b:.1f}':>14}" for a, b in times), flush=True)


def _direct(conv: nn.Conv2d, side: int, batch: int, repeats: int) -> tuple[float, float]:
    conv = conv.to(memory_format=torch.channels_last).requires_grad_(False)
    images = torch.randn(batch, conv.in_channels, side, side).contiguous(memory_format=torch.channels_last)
    images.requires_grad_(True)
    forward = backward = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        result = conv(images)
        middle = time.perf_counter()
        torch.autograd.grad(result, images, result.detach())
        forward, backward = min(forward, middle - started), min(backward, time.perf_counter() - middle)
    return forward * 1e3 / batch, backward * 1e3 / batch


def _time(kernel: WinogradKernel, channels: int, side: int, batch: int, repeats: int) -> tuple[float, float]:
    scratch = Scratch()
    source = Maps(scratch, "source", batch, side, side, channels)
    target = Maps(scratch, "target", batch, side, side, channels)
    back = Maps(scratch, "back", batch, side, side, channels)
    source.image.normal_()
    source.frame()
    mask = empty_mask(batch, side, side, channels)
    forward = backward = float("inf")
    with torch.no_grad(), loop_threads():
        for _ in range(repeats):
            started = time.perf_counter()
            kernel.forward(source, target, False, mask, scratch)
            middle = time.perf_counter()
            kernel.adjoint(target, mask, back, False, scratch)
            forward, backward = min(forward, middle - started), min(backward, time.perf_counter() - middle)
    return forward * 1e3 / batch, backward * 1e3 / batch


if __name__ == "__main__":
    typer.run(main)
