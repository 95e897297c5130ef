"""The first layer as compiled loops: one grey channel in, ReLU, pooling and mask in the same pass."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pipeline.networks.loops import BLOCK, EXACT, LOOP, ZERO, activate, masked


@njit(**LOOP, **EXACT)
def grey_output(padded, weight, out, mask, keeping, height, width, pool):
    """First layer: 3 x 3 filters on one channel, ReLU and pooling.

    Args:
        padded: (N, H, W), framed images.
        weight: (10, K), nine filter positions and the bias.
        out: (N, H, W, K), framed maps.
    """
    rows, columns = (height + 3) // 4, (width + 3) // 4
    channels = weight.shape[1]
    for job in prange(len(padded) * rows):
        n, row = job // rows, job % rows
        values, bits = np.empty((4, 4, BLOCK), np.float32), np.empty(BLOCK, np.int32)
        image = padded[n]
        for column in range(columns):
            for first in range(0, channels, BLOCK):
                last = min(channels, first + BLOCK)
                count = last - first
                # One by one: a slice of both axes is not known to be contiguous, and loops over it are not vectorised.
                w0, w1, w2 = weight[0, first:last], weight[1, first:last], weight[2, first:last]
                w3, w4, w5 = weight[3, first:last], weight[4, first:last], weight[5, first:last]
                w6, w7, w8 = weight[6, first:last], weight[7, first:last], weight[8, first:last]
                added = weight[9, first:last]
                for y in range(4):
                    for x in range(4):
                        line0, line1, line2 = image[4 * row + y], image[4 * row + y + 1], image[4 * row + y + 2]
                        left = 4 * column + x
                        p0, p1, p2 = line0[left], line0[left + 1], line0[left + 2]
                        p3, p4, p5 = line1[left], line1[left + 1], line1[left + 2]
                        p6, p7, p8 = line2[left], line2[left + 1], line2[left + 2]
                        value = values[y, x]
                        for c in range(count):
                            upper = p0 * w0[c] + p1 * w1[c] + p2 * w2[c]
                            middle = p3 * w3[c] + p4 * w4[c] + p5 * w5[c]
                            value[c] = added[c] + upper + middle + (p6 * w6[c] + p7 * w7[c] + p8 * w8[c])
                activate(values, bits, out[n], mask[n], keeping, row, column, first, count, height, width, pool)


@njit(**LOOP, fastmath={"contract", "nsz", "reassoc"}, error_model="numpy")  # sums over channels in vector registers
def grey_gradient(gradient, mask, weight, strips, pool):
    """Transpose of `grey_output`: each row of tiles (N, rows, 6, >= 4 columns + 2) by itself; its caller adds them."""
    _, rows, columns, channels = mask.shape
    for job in prange(len(mask) * rows):
        n, row = job // rows, job % rows
        values, bits = np.empty((4, 4, BLOCK), np.float32), np.empty(BLOCK, np.int32)
        strip = strips[n, row]
        strip[:] = 0
        for column in range(columns):
            for first in range(0, channels, BLOCK):
                last = min(channels, first + BLOCK)
                count = last - first
                masked(gradient[n], bits, mask[n], values, row, column, first, count, pool)
                for y in range(4):
                    for x in range(4):
                        value = values[y, x]
                        for position in range(9):
                            total, w = ZERO, weight[position, first:last]
                            for c in range(count):
                                total += value[c] * w[c]
                            strip[y + position // 3, 4 * column + x + position % 3] += total
