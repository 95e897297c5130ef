"""Padding on the working grid: means without it, and whether it stands for air, which many makers blank with it."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.scan import LOOP, SUM, as_bits

MOSTLY = 0.5
"""Share of padded pixels from which a cell of the grid is padded."""

NARROWEST = 8
"""Fewest cells per side of a picture without its padding; less shows no breast."""

FEW = 0.03
"""Share of the picture below which padding is no air, but blanked text or defects; air around a breast covers 0.12 at
least (150 masks of DDSM)."""

LONG = 0.15
"""Shortest straight edge of a shutter or of a turned film, share of the longer side."""

OFF_LINE = 1.5 / 256
"""Share of the longer side by which a line may leave its straight course: on the grid, its own steps take up to 1 cell.
"""

OUTLINED = 192
"""Fewest cells of the longer side on which an arc is told from a straight line; on fewer, padding is taken for air."""

TURNED = 0.4
"""Share of the picture beyond which padding is air whatever its bound: a film turned by 15 degrees leaves 0.37."""

BORDER = 1.5
"""Cells from the border of the box within which an edge runs along it."""

STRAIGHT = 0.75
"""Share of a bound in straight edges from which it is a shutter's. Measured: 0.93 to 1 for films turned by 2 to 15
degrees, 1 for octagonal shutters, at most 0.60 for the outlines of breasts (150 of DDSM; GE's blanked air 0.28)."""


def unpadded_box(padded: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the part of a picture that its padding encloses.

    Args:
        padded: cells that are padded, bool (h, w).

    Raises:
        Refusal: ``no_breast`` if there is next to nothing but padding.
    """
    sides = [np.flatnonzero(~padded.all(axis=axis)) for axis in (1, 0)]
    if min(side.size for side in sides) < min(NARROWEST, *padded.shape):
        raise Refusal(RefusalCode.NO_BREAST, f"padding covers {padded.mean():.1%} of the picture: no breast")
    return slice(sides[0][0], sides[0][-1] + 1), slice(sides[1][0], sides[1][-1] + 1)


def stands_for_air(padded: np.ndarray) -> bool:
    """Whether the padding inside the box follows the outline of a breast: then it took the place of the air.

    Padding that lies where nothing was exposed (shutters, turned films) is bounded by long straight edges.

    Args:
        padded: padded cells in the box of :func:`unpadded_box`, bool (h, w).
    """
    side = max(padded.shape)
    if padded.mean() < FEW:
        return False
    if padded.mean() > TURNED or side < OUTLINED:
        return True
    parts, _ = ndimage.label(~padded)
    shown = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    outline = max(find_contours(np.pad(shown, 1).astype(np.float32), 0.5), key=len) - 1
    corners = approximate_polygon(outline, OFF_LINE * side)
    edges, middles = np.abs(np.diff(corners, axis=0)), (corners[1:] + corners[:-1]) / 2
    lengths = np.hypot(*edges.T)
    outer = np.zeros(len(lengths), dtype=bool)  # along the border of the box
    for axis, cells in enumerate(padded.shape):
        near = (middles[:, axis] < BORDER) | (middles[:, axis] > cells - 1 - BORDER)
        outer |= near & (edges[:, axis] <= BORDER)
    bound = lengths[~outer]
    return float(bound[bound >= LONG * side].sum()) < STRAIGHT * float(bound.sum())


def continued(small: np.ndarray, padded: np.ndarray) -> np.ndarray:
    """The picture with its nearest values in the place of padding, so that no edge of padding is seen: (h, w)."""
    nearest = ndimage.distance_transform_edt(padded, return_distances=False, return_indices=True)
    return small[tuple(nearest)]


def any_padded(stored: np.ndarray, padded: np.ndarray) -> bool:
    """Whether a stored picture (H, W) holds a padded value; ``padded`` is bool (2**bits,), see ``scan.every_value``."""
    return bool(_any_padded(as_bits(stored), padded))


@njit(**LOOP)
def _any_padded(bits, padded):
    for row in range(bits.shape[0]):
        found = False
        for pixel in bits[row]:
            found |= padded[pixel]
        if found:
            return True
    return False


def tabled_unpadded_means(
    stored: np.ndarray, table: np.ndarray, padded: np.ndarray, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """As ``scan.area_means``, over the pixels that are no padding.

    Args:
        stored: stored pixels (H, W).
        table: float32 (2**bits,), see ``scan.every_value``.
        padded: which values are padding, bool (2**bits,).
        grid: (rows, columns).

    Returns:
        Means, float32 ``grid``, 0 in a cell without other pixels; and the share of padded pixels, float32 ``grid``.
    """
    return _unpadded_means(as_bits(stored), np.where(padded, np.float32(0), table), padded, *grid)


@njit(**LOOP, **SUM)
def _unpadded_means(bits, table, padded, rows, columns):
    height, width = bits.shape
    small, share = np.zeros((rows, columns), dtype=np.float32), np.empty((rows, columns), dtype=np.float32)
    line, absent = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.int32)
    for row in range(rows):
        first, last = row * height // rows, -(-(row + 1) * height // rows)
        line[:] = 0
        absent[:] = 0
        for source in range(first, last):
            pixels = bits[source]
            for column in range(width):
                line[column] += table[pixels[column]]
                absent[column] += padded[pixels[column]]
        for column in range(columns):
            left, right = column * width // columns, -(-(column + 1) * width // columns)
            total, missing, count = np.float32(0), 0, (last - first) * (right - left)
            for source in range(left, right):
                total += line[source]
                missing += absent[source]
            share[row, column] = np.float32(missing) / np.float32(count)
            if missing < count:
                small[row, column] = total / np.float32(count - missing)
    return small, share


def unpadded_means(shown: Tensor, padded: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """As :func:`tabled_unpadded_means`, of a shown picture, floating (H, W), and its padded pixels, bool (H, W)."""
    weights = torch.stack([(~padded).to(shown.dtype), shown.masked_fill(padded, 0)])
    kept, sums = interpolate(weights[None], size=grid, mode="area")[0].float()
    return torch.where(kept > 0, sums / kept.clamp(min=torch.finfo(torch.float32).tiny), 0), 1 - kept
