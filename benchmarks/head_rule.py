"""Into how many pieces a linear layer of the head is cut: the measurements behind `FORWARD_PIECES, BACKWARD_PIECES`.

    python benchmarks/head_rule.py

With a handful of rows a product costs the time to read the weights. The two large layers of VGG16's head go forward and
back to their input as one product (`nn.Linear`) and as a batch of products over pieces of the outputs; the fastest of
`repeats`, in ms, how many times as fast as one product, and the GB/s at which the weights are read. Beside it the GB/s
of a product with one vector. Weights are out of the processor's cache before every product, as they are in an attack,
where the other layers come between. The rule is fixed in `pipeline/networks/untrained_linear.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

LAYERS = ((25088, 4096), (4096, 4096))  # inputs, outputs
ROWS = (1, 4, 16)
PIECES = (4, 16, 64)
CACHE = 512 << 20  # bytes, more than a processor's cache holds


def main(
    repeats: int = 20,
    threads: Annotated[int, typer.Option(help="0 for torch's default")] = 0,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    print(f"{torch.get_num_threads()} threads; ms (times as fast as one product, GB/s of weights)")
    for inputs, outputs in LAYERS:
        layer = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
        size, vector = layer.weight.nbytes / 1e9, torch.randn(inputs)
        (reading,) = fastest([partial(torch.mv, layer.weight, vector)], repeats)
        print(f"{inputs} -> {outputs}: {size * 1e3:.0f} MB of weights, {size / reading:.0f} GB/s with one vector")
        print(f"  {'':17}{'one product':>22}" + "".join(f"{f'{pieces} pieces':>22}" for pieces in PIECES))
        for rows in ROWS:
            for direction in (forward, backward):
                times = fastest(direction(layer, rows), repeats)
                cells = [f"{t * 1e3:.1f} ({times[0] / t:.2f}x, {size / t:.0f} GB/s)" for t in times]
                label = f"rows {rows}, {direction.__name__}"
                print(f"  {label:17}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def forward(layer: nn.Linear, count: int) -> list[Callable[[], Tensor]]:
    """The product as `nn.Linear` and in pieces."""
    rows, weight = torch.randn(count, layer.in_features), layer.weight

    def in_pieces(pieces: int) -> Tensor:
        # bmm by name: matmul folds the batch into one product where the rows require gradients.
        parts = weight.view(pieces, -1, weight.shape[1]).transpose(1, 2)
        return torch.bmm(rows.expand(pieces, -1, -1), parts).transpose(0, 1).flatten(1)

    return [lambda: layer(rows), *_checked(in_pieces, layer(rows))]


def backward(layer: nn.Linear, count: int) -> list[Callable[[], Tensor]]:
    """The gradient of the input, as autograd takes it and in pieces."""
    rows, weight = torch.randn(count, layer.in_features, requires_grad=True), layer.weight
    gradient = torch.randn(count, layer.out_features)
    result = layer(rows)

    def whole() -> Tensor:
        return torch.autograd.grad(result, rows, gradient, retain_graph=True)[0]

    def in_pieces(pieces: int) -> Tensor:
        parts = gradient.unflatten(1, (pieces, -1)).transpose(0, 1)
        return torch.bmm(parts, weight.view(pieces, -1, weight.shape[1])).sum(dim=0)

    return [whole, *_checked(in_pieces, whole())]


def _checked(in_pieces: Callable[[int], Tensor], expected: Tensor) -> list[Callable[[], Tensor]]:
    for pieces in PIECES:
        torch.testing.assert_close(in_pieces(pieces), expected, rtol=1e-3, atol=1e-3)
    return [partial(in_pieces, pieces) for pieces in PIECES]


def fastest(functions: list[Callable[[], Tensor]], repeats: int) -> list[float]:
    """Seconds of each; they take turns, so that a slow moment hits all alike."""
    other = torch.ones(CACHE // 4)
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for number, function in enumerate(functions):
            other.sum()  # in place of the weights in the cache
            started = time.perf_counter()
            function()
            best[number] = min(best[number], time.perf_counter() - started)
    return best


if __name__ == "__main__":
    typer.run(main)
