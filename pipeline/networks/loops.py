"""What the engine's compiled loops share: threads, and ReLU with pooling on one 4 x 4 tile.

What lies between two matrix products of a frozen convolution is bound by memory; written as tensor operations it takes
ten passes over a map, compiled by Numba it takes one. Every tile is computed by itself, so that results do not depend
on the number of threads. Arrays are NHWC, float32 and contiguous; maps have a frame (see `kernels.Maps`). Channels go
in blocks that stay in the first-level cache.

A mask holds 16 bits for each tile and channel: bit 4 y + x says that the gradient passes ReLU and pooling at (y, x).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numba import njit

BLOCK = 64  # channels
ZERO = np.float32(0)
EXACT: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
LOOP: dict[str, Any] = {"parallel": True, "cache": True}
_LOCK = threading.RLock()


@contextmanager
def loop_threads() -> Iterator[None]:
    """Run loops on as many threads as PyTorch uses; one pass at a time, since not every thread pool takes two."""
    with _LOCK:
        _start_pool()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        yield


@cache
def _start_pool() -> None:
    """Start Numba's threads. Its OpenMP pool sets all of OpenMP to the processors, PyTorch too: put back."""
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


@njit(**EXACT)
def activate(values, bits, out, mask, keeping, row, column, first, count, height, width, pool):
    """ReLU and pooling of one tile.

    Args:
        values: (4, 4, block), before the ReLU.
        bits: room for int32 (block,).
        out: (H, W, K), framed maps of one image.
        mask: uint16 (rows, columns, K) of one image, written if `keeping`.
        row, column: of the tile.
        first, count: channels first to first + count.
        height, width: of the image before pooling; outside it, and in an odd row that pooling leaves, no bit is set.
    """
    last = first + count
    high, wide = min(4, height - 4 * row), min(4, width - 4 * column)
    if keeping:
        for c in range(count):
            bits[c] = 0
    if pool:
        for y in range(2):
            for x in range(2):
                target = out[1 + 2 * row + y, 1 + 2 * column + x, first:last]
                upper_left, upper_right = values[2 * y, 2 * x], values[2 * y, 2 * x + 1]
                lower_left, lower_right = values[2 * y + 1, 2 * x], values[2 * y + 1, 2 * x + 1]
                if keeping and 2 * y + 1 < high and 2 * x + 1 < wide:
                    here = 8 * y + 2 * x
                    for c in range(count):
                        # Of equal values the first, as in PyTorch's pooling.
                        best, place = upper_left[c], np.int32(here)
                        if upper_right[c] > best:
                            place = np.int32(here + 1)
                        best = max(best, upper_right[c])
                        if lower_left[c] > best:
                            place = np.int32(here + 4)
                        best = max(best, lower_left[c])
                        if lower_right[c] > best:
                            place = np.int32(here + 5)
                        best = max(best, lower_right[c])
                        target[c] = max(best, ZERO)
                        bits[c] |= np.int32(best > ZERO) << place
                else:
                    for c in range(count):
                        best = max(max(upper_left[c], upper_right[c]), max(lower_left[c], lower_right[c]))
                        target[c] = max(best, ZERO)
    else:
        for y in range(4):
            for x in range(4):
                target, value = out[1 + 4 * row + y, 1 + 4 * column + x, first:last], values[y, x]
                for c in range(count):
                    target[c] = max(value[c], ZERO)
                if keeping and y < high and x < wide:
                    place = np.int32(4 * y + x)
                    for c in range(count):
                        bits[c] |= np.int32(value[c] > ZERO) << place
    if keeping:
        kept = mask[row, column, first:last]
        for c in range(count):
            kept[c] = bits[c]


@njit(**EXACT)
def masked(gradient, bits, mask, values, row, column, first, count, pool):
    """Transpose of `activate`: the tile's gradient before ReLU and pooling goes to `values` (4, 4, block)."""
    last = first + count
    kept = mask[row, column, first:last]
    for c in range(count):
        bits[c] = kept[c]
    for y in range(4):
        for x in range(4):
            if pool:
                behind = gradient[1 + 2 * row + y // 2, 1 + 2 * column + x // 2, first:last]
            else:
                behind = gradient[1 + 4 * row + y, 1 + 4 * column + x, first:last]
            bit, value = np.int32(1 << (4 * y + x)), values[y, x]
            for c in range(count):
                value[c] = behind[c] if bits[c] & bit != 0 else ZERO  # selected: outside the image may be anything
