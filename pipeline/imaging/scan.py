"""Passes over the stored pixels that make what a preparation needs without a full-size copy; loops by Numba.

A stored picture has at most 65,536 different values, so all pointwise steps become one table. Each pass looks a row up,
and reduces it at once: to the working grid of the segmentation, or to the prepared picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

LOOP: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
SUM: dict[str, Any] = {"fastmath": {"contract", "nsz", "reassoc"}}
"""Sums may be reordered, so that they run in vector registers."""

STRAIGHT = 1 / 65535 / 16
"""Distance from a straight line that nobody sees: a sixteenth of a grey level of the store."""

TABLE_BITS = (8, 16)
"""Bits per stored pixel for which every value can be tabled."""


def tabled(stored: np.ndarray) -> bool:
    """Whether the values of a stored picture can all be looked up in one table."""
    return stored.dtype.kind in "iu" and 8 * stored.dtype.itemsize in TABLE_BITS


def every_value(stored: np.ndarray) -> Tensor:
    """Every value that a stored pixel can have, float32 (2**bits,), in the order of its bits read as unsigned."""
    bits = 8 * stored.dtype.itemsize
    unsigned = np.arange(2**bits, dtype=f"u{bits // 8}")
    return torch.from_numpy(unsigned.view(stored.dtype.newbyteorder("=")).astype(np.float32))


def as_bits(stored: np.ndarray) -> np.ndarray:
    """A stored picture (H, W) as unsigned numbers of the same bits, row by row in memory."""
    native = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    return native.view(f"u{stored.dtype.itemsize}")


def straight(table: np.ndarray) -> tuple[np.float32, np.float32]:
    """Slope and offset of a table that is a straight line (within ``STRAIGHT``), else 0 and 0.

    The mean of such a line needs no look-up, and is three times as fast in vector registers.
    """
    places = np.arange(table.size)
    slope = (float(table[-1]) - float(table[0])) / (table.size - 1)
    if np.abs(table - (table[0] + slope * places)).max() > STRAIGHT:
        return np.float32(0), np.float32(0)
    return np.float32(slope), np.float32(table[0])


def native_tensor(stored: np.ndarray) -> Tensor:
    """Stored values (H, W) as a tensor of the same integers."""
    return torch.from_numpy(np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("=")))


def area_means(stored: np.ndarray, table: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Mean of the looked-up values over each cell of a grid, as PyTorch's resize with mode "area".

    Args:
        stored: stored pixels (H, W).
        table: float32 (2**bits,), see :func:`every_value`.
        grid: (rows, columns); a cell spans floor(i * H / rows) to ceil((i + 1) * H / rows), likewise for columns.

    Returns:
        float32 ``grid``.
    """
    return _area_means(as_bits(stored), table, *straight(table), *grid)


@njit(**LOOP, **SUM)
def _area_means(bits, table, slope, offset, rows, columns):
    height, width = bits.shape
    small = np.empty((rows, columns), dtype=np.float32)
    line = np.empty(width, dtype=np.float32)
    for row in range(rows):
        first, last = row * height // rows, -(-(row + 1) * height // rows)
        line[:] = 0
        for source in range(first, last):
            pixels = bits[source]
            if slope == 0:
                for column in range(width):
                    line[column] += table[pixels[column]]
            else:
                for column in range(width):
                    line[column] += np.float32(pixels[column])
        for column in range(columns):
            left, right = column * width // columns, -(-(column + 1) * width // columns)
            total = np.float32(0)
            for source in range(left, right):
                total += line[source]
            mean = total / np.float32((last - first) * (right - left))
            small[row, column] = mean if slope == 0 else slope * mean + offset
    return small


def triangle_weights(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of PyTorch's antialiased bilinear resize along one axis.

    Returns:
        First source pixel of each target pixel, int64 (target,), and its weights, float32 (target, taps), 0 beyond.
    """
    half, one = np.float32(0.5), np.float32(1)  # single precision throughout, so that the rounding is PyTorch's
    scale = np.float32(source) / np.float32(target)
    reach = max(scale, one)
    centre = scale * (np.arange(target, dtype=np.float32) + half)
    first = np.maximum((centre - reach + half).astype(np.int64), 0)
    count = np.minimum((centre + reach + half).astype(np.int64), source) - first
    taps = np.arange(count.max())
    offsets = taps.astype(np.float32) + (first.astype(np.float32) - centre)[:, None] + half
    weights = np.clip(one - np.abs(offsets * (one / reach)), 0, None)
    weights[taps >= count[:, None]] = 0
    return first, weights / weights.sum(axis=1, keepdims=True, dtype=np.float32)


def resized(
    stored: np.ndarray,
    table: np.ndarray,
    *,
    box: tuple[int, int, int, int],
    mirrored: bool,
    target: tuple[int, int],
    mask: np.ndarray | None,
    outside: float,
) -> np.ndarray:
    """Look up, mask, crop, mirror and resize in one pass.

    Args:
        stored: stored pixels (H, W).
        table: float32 (2**bits,).
        box: first row, first column, rows and columns of the part that is kept.
        mirrored: left and right change places, after the crop.
        target: (rows, columns) of the result.
        mask: the breast on a grid, bool (h, w), enlarged as by ``enlarge_mask``; None keeps all.
        outside: value outside the mask.

    Returns:
        float32 ``target``.
    """
    height, width = stored.shape
    row_first, row_weights = triangle_weights(box[2], target[0])
    column_first, column_weights = triangle_weights(box[3], target[1])
    grid = np.ones((1, 1), dtype=np.float32) if mask is None else mask.astype(np.float32)
    across, down = upper_weights(width, grid.shape[1]), upper_weights(height, grid.shape[0])
    return _resized(
        as_bits(stored), table, *box, mirrored, row_first, row_weights, column_first, column_weights,
        grid, *down, *across, np.float32(outside),
    )  # fmt: skip


@njit(**LOOP, **SUM)
def _resized(
    bits, table, top, left, rows, columns, mirrored, row_first, row_weights, column_first, column_weights,
    grid, row_cell, row_share, column_cell, column_share, outside,
):  # fmt: skip
    height, width = row_first.size, column_first.size
    row_taps, column_taps = row_weights.shape[1], column_weights.shape[1]
    result = np.zeros((height, width), dtype=np.float32)
    line = np.empty(columns + column_taps, dtype=np.float32)
    line[columns:] = 0
    ahead = 0
    reduced = np.empty(width, dtype=np.float32)
    cells = np.empty(grid.shape[1], dtype=np.float32)
    for row in range(rows):
        pixels = bits[top + row, left : left + columns]
        blank = not _looked_up(
            pixels, table, line, left, columns, grid, row_cell[top + row], row_share[top + row], column_cell,
            column_share, cells, outside,
        )  # fmt: skip
        if mirrored and not blank:
            for column in range(columns // 2):
                other = columns - 1 - column
                line[column], line[other] = line[other], line[column]
        if blank and outside == 0:
            continue
        for column in range(width):
            start = column_first[column]
            total = np.float32(0)
            for tap in range(column_taps):
                total += column_weights[column, tap] * line[start + tap]
            reduced[column] = total
        while ahead < height and row_first[ahead] + row_taps <= row:
            ahead += 1
        for target in range(ahead, height):
            tap = row - row_first[target]
            if tap < 0:
                break
            if tap < row_taps and row_weights[target, tap] > 0:
                weight = row_weights[target, tap]
                for column in range(width):
                    result[target, column] += weight * reduced[column]
    return result


@njit(cache=True, nogil=True, inline="always")
def _looked_up(
    pixels, table, line, left, columns, grid, cell, share, column_cell, column_share, cells, outside
):  # fmt: skip
    """Fill a line with the looked-up pixels inside the mask and `outside` elsewhere; False if none is inside."""
    below = min(cell + 1, grid.shape[0] - 1)
    any_inside = False
    all_inside = True
    for each in range(grid.shape[1]):
        cells[each] = _blended(grid[cell, each], grid[below, each], share)
        any_inside |= cells[each] > 0
        all_inside &= cells[each] == 1
    if not any_inside:
        line[:columns] = outside
        return False
    if all_inside:
        for column in range(columns):
            line[column] = table[pixels[column]]
        return True
    last = grid.shape[1] - 1
    column = 0
    while column < columns:
        first = column_cell[left + column]
        end = column + 1
        while end < columns and column_cell[left + end] == first:
            end += 1
        here, there = cells[first], cells[min(first + 1, last)]
        if here == 1 and there == 1:
            for each in range(column, end):
                line[each] = table[pixels[each]]
        elif here == 0 and there == 0:
            line[column:end] = outside
        else:
            for each in range(column, end):
                inside = _blended(here, there, column_share[left + each]) > np.float32(0.5)
                line[each] = table[pixels[each]] if inside else outside
        column = end
    return True


@njit(cache=True, nogil=True)
def _blended(here, there, share):
    """(1 - share) * here + share * there, each product rounded on its own."""
    return (np.float32(1) - share) * here + share * there


def upper_weights(size: int, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``size`` pixels lies between the ``grid`` cells, as PyTorch's bilinear resize has it.

    Returns:
        Lower cell, int64 (size,), and the share of the next cell, float32 (size,).
    """
    scale = np.float32(grid) / np.float32(size)
    where = np.maximum((np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0))
    cell = np.minimum(where.astype(np.int64), grid - 1)
    return cell, np.clip(where - cell.astype(np.float32), 0, 1).astype(np.float32)


def enlarged(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask on a grid, bool (h, w), enlarged bilinearly to bool ``shape`` and cut at one half."""
    across, down = upper_weights(shape[1], mask.shape[1]), upper_weights(shape[0], mask.shape[0])
    return _enlarged(mask.astype(np.float32), *down, *across)


@njit(**LOOP)
def _enlarged(grid, row_cell, row_share, column_cell, column_share):
    height, width = row_cell.size, column_cell.size
    large = np.zeros((height, width), dtype=np.bool_)
    cells = np.empty(grid.shape[1], dtype=np.float32)
    values = np.arange(2, dtype=np.float32)[1:]
    line = np.empty(width, dtype=np.float32)
    pixels = np.zeros(width, dtype=np.uint8)
    for row in range(height):
        if _looked_up(
            pixels, values, line, 0, width, grid, row_cell[row], row_share[row], column_cell, column_share, cells,
            np.float32(0),
        ):  # fmt: skip
            for column in range(width):
                large[row, column] = line[column] > 0
    return large


def mask_profiles(mask: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of an enlarged mask in each row and each column, without enlarging it.

    Args:
        mask: on a grid, bool (h, w), see :func:`enlarged`.
        shape: (rows, columns) of the picture.

    Returns:
        int64 (rows,) and (columns,).
    """
    across, down = upper_weights(shape[1], mask.shape[1]), upper_weights(shape[0], mask.shape[0])
    return _mask_profiles(mask.astype(np.float32), *down, *across)


@njit(**LOOP)
def _mask_profiles(grid, row_cell, row_share, column_cell, column_share):
    height, width = row_cell.size, column_cell.size
    rows, changes = np.zeros(height, dtype=np.int64), np.zeros(width + 1, dtype=np.int64)
    starts = np.searchsorted(column_cell, np.arange(grid.shape[1] + 1))
    last_row, last = grid.shape[0] - 1, grid.shape[1] - 1
    cells = np.empty(grid.shape[1], dtype=np.float32)
    for row in range(height):
        cell = row_cell[row]
        for each in range(grid.shape[1]):
            cells[each] = _blended(grid[cell, each], grid[min(cell + 1, last_row), each], row_share[row])
        for each in range(grid.shape[1]):
            here, there = cells[each], cells[min(each + 1, last)]
            start, end = starts[each], starts[each + 1]
            if here == 0 and there == 0:
                continue
            if here == 1 and there == 1:
                rows[row] += end - start
                changes[start] += 1
                changes[end] -= 1
                continue
            for column in range(start, end):
                if _blended(here, there, column_share[column]) > np.float32(0.5):
                    rows[row] += 1
                    changes[column] += 1
                    changes[column + 1] -= 1
    return rows, np.cumsum(changes)[:width]
