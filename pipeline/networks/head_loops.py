"""Products of a handful of rows with a large matrix of weights, bound by the time to read the weights once.

MKL reads them at half the memory's speed for two to four rows, forward and back; these loops read four rows of weights
together, from which all the batch's rows are served (benchmarks/head_rule.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from pipeline.networks.loops import EXACT, LOOP

ROWS = 4  # rows of a batch that the loops are written for
# A sum over inputs is a vector of partial sums; the order is that of the compiled code, the same for every output.
SUM: dict[str, Any] = EXACT | {"fastmath": {"contract", "nsz", "reassoc"}}


@njit(**SUM, **LOOP)
def product(rows, weight, out):
    """Write rows (4, C) times weight (K, C), transposed, to out (4, K). K is a multiple of 4."""
    x0, x1, x2, x3 = rows[0], rows[1], rows[2], rows[3]
    for group in prange(weight.shape[0] // 4):
        k = 4 * group
        a, b, c, d = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
        c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = np.float32(0)
        for i in range(weight.shape[1]):
            a0, a1, a2, a3 = a0 + x0[i] * a[i], a1 + x1[i] * a[i], a2 + x2[i] * a[i], a3 + x3[i] * a[i]
            b0, b1, b2, b3 = b0 + x0[i] * b[i], b1 + x1[i] * b[i], b2 + x2[i] * b[i], b3 + x3[i] * b[i]
            c0, c1, c2, c3 = c0 + x0[i] * c[i], c1 + x1[i] * c[i], c2 + x2[i] * c[i], c3 + x3[i] * c[i]
            d0, d1, d2, d3 = d0 + x0[i] * d[i], d1 + x1[i] * d[i], d2 + x2[i] * d[i], d3 + x3[i] * d[i]
        out[0, k], out[1, k], out[2, k], out[3, k] = a0, a1, a2, a3
        out[0, k + 1], out[1, k + 1], out[2, k + 1], out[3, k + 1] = b0, b1, b2, b3
        out[0, k + 2], out[1, k + 2], out[2, k + 2], out[3, k + 2] = c0, c1, c2, c3
        out[0, k + 3], out[1, k + 3], out[2, k + 3], out[3, k + 3] = d0, d1, d2, d3


@njit(**EXACT, **LOOP)
def transposed_product(gradient, weight, out, ranges):
    """Write gradient (4, K) times weight (K, C) to out (4, C). K is a multiple of 4.

    Columns go in so many ranges, best one for each thread; each is summed over the rows of weights in their order.
    """
    count, columns = weight.shape
    width = -(-columns // ranges)
    for number in prange(ranges):
        first, last = min(columns, number * width), min(columns, (number + 1) * width)
        for n in range(4):
            out[n, first:last] = np.float32(0)
        y0, y1, y2, y3 = out[0, first:last], out[1, first:last], out[2, first:last], out[3, first:last]
        for k in range(0, count, 4):
            g0, g1, g2, g3 = gradient[0], gradient[1], gradient[2], gradient[3]
            a, b = weight[k, first:last], weight[k + 1, first:last]
            c, d = weight[k + 2, first:last], weight[k + 3, first:last]
            for i in range(last - first):
                y0[i] += g0[k] * a[i] + g0[k + 1] * b[i] + g0[k + 2] * c[i] + g0[k + 3] * d[i]
                y1[i] += g1[k] * a[i] + g1[k + 1] * b[i] + g1[k + 2] * c[i] + g1[k + 3] * d[i]
                y2[i] += g2[k] * a[i] + g2[k + 1] * b[i] + g2[k + 2] * c[i] + g2[k + 3] * d[i]
                y3[i] += g3[k] * a[i] + g3[k + 1] * b[i] + g3[k + 2] * c[i] + g3[k + 3] * d[i]
