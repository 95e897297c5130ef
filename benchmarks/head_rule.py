"""The head's linear layers for a handful of rows: the measurements behind `pipeline/networks/untrained_linear.py`.

    python benchmarks/head_rule.py

With few rows a product costs the time to read the weights. The two large layers of VGG16's head go forward and back to
their input by PyTorch's product and by the loops of `head_loops`; medians in ms, how many times as fast the loops are,
and the GB/s at which the weights are read. Beside it the GB/s of a product with one vector. Weights are out of the
processor's cache before every product, as they are in an attack, where the other layers come between.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.networks.untrained_linear import runs_untrained, untrained_linear

LAYERS = ((25088, 4096), (4096, 4096))  # inputs, outputs
ROWS = (1, 2, 4, 5, 16)
CACHE = 512 << 20  # bytes, more than a processor's cache holds


def main(repeats: int = 9) -> None:
    print(f"{torch.get_num_threads()} threads; ms (GB/s of weights)")
    for inputs, outputs in LAYERS:
        layer = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
        size, vector = layer.weight.nbytes / 1e9, torch.randn(inputs)
        reading = median_seconds(lambda layer=layer, vector=vector: torch.mv(layer.weight, vector), repeats=repeats)
        print(f"{inputs} -> {outputs}: {size * 1e3:.0f} MB of weights, {size / reading:.0f} GB/s with one vector")
        for count in ROWS:
            rows = torch.randn(count, inputs).requires_grad_(True)
            for name, one in (("PyTorch", layer), ("loops", partial(untrained_linear, layer))):
                if name == "loops" and not runs_untrained(layer, rows):
                    print(f"  rows {count:2}, loops    not used")
                    continue
                forward = median_seconds(partial(one, rows), repeats=repeats)
                backward = median_seconds(*back_to_rows(one, rows), repeats=repeats)
                shown = "  ".join(
                    f"{way} {1e3 * seconds:5.1f} ({size / seconds:2.0f} GB/s)"
                    for way, seconds in (("forward", forward), ("back", backward))
                )
                print(f"  rows {count:2}, {name:8} {shown}")


def back_to_rows(one: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Callable[[], object], Callable[[], None]]:
    """The pass back, and what makes its graph outside the clock."""
    held: list[Tensor] = []

    def before() -> None:
        held[:] = [one(rows)]

    return lambda: torch.autograd.grad(held[0], rows, torch.ones_like(held[0])), before


def median_seconds(work: Callable[[], object], before: Callable[[], None] | None = None, *, repeats: int) -> float:
    """The median over `repeats`, after one pass that is not counted."""
    times = []
    for _ in range(repeats + 1):
        if before is not None:
            before()
        torch.zeros(CACHE // 4).add_(1)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    typer.run(main)
