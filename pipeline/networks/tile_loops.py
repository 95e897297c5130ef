"""Winograd's transforms of tiles as compiled loops, with ReLU, pooling and mask in the same pass.

T counts tiles, row by row, image by image. `loops` says what all loops share. Each loop works on a chunk of the tiles,
whose place is five numbers: `first_image` and `images` of the batch, `first_row` and `rows` of each image's grid of
tiles, all its `columns`.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pipeline.networks.loops import BLOCK, EXACT, LOOP, activate, masked

# The numbers of Toom and Cook's matrices for the points 0, +-3/4, +-3/2 and infinity (`winograd.matrices`).
_A, _B = np.float32(0.75), np.float32(1.5)
_A2, _B2 = np.float32(0.75**2), np.float32(1.5**2)
_A3, _B3 = np.float32(0.75**3), np.float32(1.5**3)
_A2B2, _SUM = np.float32(0.75**2 * 1.5**2), np.float32(0.75**2 + 1.5**2)
_AB2, _BA2 = np.float32(0.75 * 1.5**2), np.float32(1.5 * 0.75**2)


@njit(inline="always", **EXACT)
def _to_six(d0, d1, d2, d3, d4, d5):
    """B' d. The rows of the points +-a share their even and odd parts, those of +-b too."""
    even_a, odd_a = d4 - _B2 * d2, _A * (d3 - _B2 * d1)
    even_b, odd_b = d4 - _A2 * d2, _B * (d3 - _A2 * d1)
    first, last = d4 - _SUM * d2 + _A2B2 * d0, d5 - _SUM * d3 + _A2B2 * d1
    return first, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, last


@njit(inline="always", **EXACT)
def _to_four(m0, m1, m2, m3, m4, m5):
    """A' m."""
    s, d, t, e = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + s + t, _A * d + _B * e, _A2 * s + _B2 * t, _A3 * d + _B3 * e + m5


@njit(inline="always", **EXACT)
def _from_four(y0, y1, y2, y3):
    """A y, the transpose of `_to_four`."""
    s, d = y0 + _A2 * y2, _A * y1 + _A3 * y3
    t, e = y0 + _B2 * y2, _B * y1 + _B3 * y3
    return y0, s + d, s - d, t + e, t - e, y3


@njit(inline="always", **EXACT)
def _from_six(m0, m1, m2, m3, m4, m5):
    """B m, the transpose of `_to_six`."""
    s, d, t, e = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        _A2B2 * m0,
        _A2B2 * m5 - _AB2 * d - _BA2 * e,
        -_SUM * m0 - _B2 * s - _A2 * t,
        _A * d + _B * e - _SUM * m5,
        m0 + s + t,
        m5,
    )


@njit(**LOOP, **EXACT)
def input_tiles(maps, tiles, first_image, images, first_row, rows, columns):
    """Transform 6 x 6 tiles at distance 4 of `maps` (N, H, W, C) to `tiles` (36, T, C): B' d B."""
    channels = maps.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(images * rows * blocks):
        image, row, first = job // (rows * blocks), job // blocks % rows, job % blocks * BLOCK
        last = min(channels, first + BLOCK)
        count = last - first
        half = np.empty((6, 6, BLOCK), np.float32)
        source = maps[first_image + image]
        top = 4 * (first_row + row)
        for column in range(columns):
            tile = (image * rows + row) * columns + column
            for x in range(6):
                left = 4 * column + x
                d0, d1 = source[top, left, first:last], source[top + 1, left, first:last]
                d2, d3 = source[top + 2, left, first:last], source[top + 3, left, first:last]
                d4, d5 = source[top + 4, left, first:last], source[top + 5, left, first:last]
                for c in range(count):
                    half[0, x, c], half[1, x, c], half[2, x, c], half[3, x, c], half[4, x, c], half[5, x, c] = _to_six(
                        d0[c], d1[c], d2[c], d3[c], d4[c], d5[c]
                    )
            for y in range(6):
                t0, t1 = tiles[6 * y, tile, first:last], tiles[6 * y + 1, tile, first:last]
                t2, t3 = tiles[6 * y + 2, tile, first:last], tiles[6 * y + 3, tile, first:last]
                t4, t5 = tiles[6 * y + 4, tile, first:last], tiles[6 * y + 5, tile, first:last]
                for c in range(count):
                    t0[c], t1[c], t2[c], t3[c], t4[c], t5[c] = _to_six(
                        half[y, 0, c], half[y, 1, c], half[y, 2, c], half[y, 3, c], half[y, 4, c], half[y, 5, c]
                    )


@njit(**LOOP, **EXACT)
def output_tiles(tiles, bias, out, mask, keeping, first_image, images, first_row, rows, columns, height, width, pool):
    """Transform `tiles` (36, T, K) to 4 x 4 outputs A' m A plus bias; ReLU and pooling into maps `out` (N, H, W, K)."""
    channels = out.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(images * rows * blocks):
        image, row, first = job // (rows * blocks), job // blocks % rows, job % blocks * BLOCK
        last = min(channels, first + BLOCK)
        count = last - first
        half, values = np.empty((4, 6, BLOCK), np.float32), np.empty((4, 4, BLOCK), np.float32)
        bits, added = np.empty(BLOCK, np.int32), bias[first:last]
        for column in range(columns):
            tile = (image * rows + row) * columns + column
            for x in range(6):
                m0, m1 = tiles[x, tile, first:last], tiles[6 + x, tile, first:last]
                m2, m3 = tiles[12 + x, tile, first:last], tiles[18 + x, tile, first:last]
                m4, m5 = tiles[24 + x, tile, first:last], tiles[30 + x, tile, first:last]
                for c in range(count):
                    half[0, x, c], half[1, x, c], half[2, x, c], half[3, x, c] = _to_four(
                        m0[c], m1[c], m2[c], m3[c], m4[c], m5[c]
                    )
            for y in range(4):
                for c in range(count):
                    y0, y1, y2, y3 = _to_four(
                        half[y, 0, c], half[y, 1, c], half[y, 2, c], half[y, 3, c], half[y, 4, c], half[y, 5, c]
                    )
                    values[y, 0, c], values[y, 1, c] = y0 + added[c], y1 + added[c]
                    values[y, 2, c], values[y, 3, c] = y2 + added[c], y3 + added[c]
            n = first_image + image
            activate(values, bits, out[n], mask[n], keeping, first_row + row, column, first, count, height, width, pool)


@njit(**LOOP, **EXACT)
def output_gradient(gradient, mask, tiles, first_image, images, first_row, rows, columns, pool):
    """Transpose of `output_tiles`: from the maps' gradient (N, H, W, K) to `tiles` (36, T, K)."""
    channels = gradient.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(images * rows * blocks):
        image, row, first = job // (rows * blocks), job // blocks % rows, job % blocks * BLOCK
        last = min(channels, first + BLOCK)
        count = last - first
        half, values = np.empty((6, 4, BLOCK), np.float32), np.empty((4, 4, BLOCK), np.float32)
        bits = np.empty(BLOCK, np.int32)
        n = first_image + image
        for column in range(columns):
            tile = (image * rows + row) * columns + column
            masked(gradient[n], bits, mask[n], values, first_row + row, column, first, count, pool)
            for x in range(4):
                for c in range(count):
                    half[0, x, c], half[1, x, c], half[2, x, c], half[3, x, c], half[4, x, c], half[5, x, c] = (
                        _from_four(values[0, x, c], values[1, x, c], values[2, x, c], values[3, x, c])
                    )
            for y in range(6):
                t0, t1 = tiles[6 * y, tile, first:last], tiles[6 * y + 1, tile, first:last]
                t2, t3 = tiles[6 * y + 2, tile, first:last], tiles[6 * y + 3, tile, first:last]
                t4, t5 = tiles[6 * y + 4, tile, first:last], tiles[6 * y + 5, tile, first:last]
                for c in range(count):
                    t0[c], t1[c], t2[c], t3[c], t4[c], t5[c] = _from_four(
                        half[y, 0, c], half[y, 1, c], half[y, 2, c], half[y, 3, c]
                    )


@njit(**LOOP, **EXACT)
def input_gradient(tiles, maps, strips, first_image, images, first_row, rows, columns, below):
    """Transpose of `input_tiles`: 6 x 6 tiles B m B' from `tiles` (36, T, C), added where they overlap.

    Args:
        maps: (N, H, W, C); rows of these tiles are written, the two behind the last one added to if `below`.
        strips: (images, rows, 2, >= 4 columns + 2, C), room for the rows that reach into the next tiles.
    """
    channels = maps.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for job in prange(images * rows * blocks):
        image, row, first = job // (rows * blocks), job // blocks % rows, job % blocks * BLOCK
        last = min(channels, first + BLOCK)
        count = last - first
        half, values = np.empty((6, 6, BLOCK), np.float32), np.empty((6, 6, BLOCK), np.float32)
        for column in range(columns):
            tile = (image * rows + row) * columns + column
            for x in range(6):
                m0, m1 = tiles[x, tile, first:last], tiles[6 + x, tile, first:last]
                m2, m3 = tiles[12 + x, tile, first:last], tiles[18 + x, tile, first:last]
                m4, m5 = tiles[24 + x, tile, first:last], tiles[30 + x, tile, first:last]
                for c in range(count):
                    half[0, x, c], half[1, x, c], half[2, x, c], half[3, x, c], half[4, x, c], half[5, x, c] = (
                        _from_six(m0[c], m1[c], m2[c], m3[c], m4[c], m5[c])
                    )
            for y in range(6):
                v0, v1, v2 = values[y, 0], values[y, 1], values[y, 2]
                v3, v4, v5 = values[y, 3], values[y, 4], values[y, 5]
                for c in range(count):
                    v0[c], v1[c], v2[c], v3[c], v4[c], v5[c] = _from_six(
                        half[y, 0, c], half[y, 1, c], half[y, 2, c], half[y, 3, c], half[y, 4, c], half[y, 5, c]
                    )
            for y in range(6):
                for x in range(6):
                    if y < 4:
                        target = maps[first_image + image, 4 * (first_row + row) + y, 4 * column + x, first:last]
                    else:
                        target = strips[image, row, y - 4, 4 * column + x, first:last]
                    value = values[y, x]
                    if x < 2 and column > 0:
                        for c in range(count):
                            target[c] += value[c]
                    else:
                        for c in range(count):
                            target[c] = value[c]
    for job in prange(images * rows):
        image, row = job // rows, job % rows
        written = below or row + 1 < rows
        for y in range(2):
            for x in range(4 * columns + 2):
                target = maps[first_image + image, 4 * (first_row + row + 1) + y, x]
                strip = strips[image, row, y, x]
                if written:
                    for c in range(channels):
                        target[c] += strip[c]
                else:
                    for c in range(channels):
                        target[c] = strip[c]
