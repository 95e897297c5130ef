"""The pectoral muscle of an oblique view: the edge at which brightness falls off around the upper corner."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from torch import Tensor

from pipeline.imaging.segmentation import as_picture, to_grid
from pipeline.imaging.steps import enlarge_mask

VIEWS = ("MLO",)
"""Views in which the muscle is looked for; it lies in the upper corner at the chest wall."""

ANGLES, RADII = 64, 160
"""Grid of polar coordinates around the corner."""

ACROSS = np.linspace(0.12, 1.0, 34)
"""Widths of the muscle at the top that are tried, share of the breast's width in the picture."""

DOWN = np.linspace(0.15, 1.1, 36)
"""Lengths of the muscle along the chest wall that are tried, share of the breast's height in the picture."""

BAND = 0.2
"""Farthest that the curved edge departs from the straight line, share of the distance from the corner."""

STRIP = 0.08
"""Width of the strips compared on both sides of the edge, share of the distance from the corner."""

CLEAR_STEP = 0.2
"""Fall of the logarithm of brightness across an edge that nobody doubts."""

LARGEST = 0.5
"""Share of the breast above which a muscle is not believed; of nine larger ones on 1,000 films most took in glands."""

SURE = 0.5
"""Confidence from which on the muscle is removed; below, nothing is."""


def pectoral_muscle(
    pixels: np.ndarray | Tensor, *, breast: np.ndarray | Tensor, chest_wall: str, view: str
) -> tuple[np.ndarray, float]:
    """Find the pectoral muscle.

    A straight line is sought first, as in Karssemeijer (Phys Med Biol 43:365, 1998), then bent along the best path in
    polar coordinates around the corner between chest wall and upper border.

    Args:
        pixels: display values (H, W) in [0, 1], bright = dense.
        breast: bool (H, W), the breast with the muscle, see :func:`~pipeline.imaging.segment_breast`.
        chest_wall: edge at which the chest wall lies, "left" or "right".
        view: view as the mammogram names it; all but ``VIEWS`` give no muscle.

    Returns:
        Mask of the muscle, bool (H, W), inside the breast; empty below the confidence ``SURE``.
        Confidence, 0 to 1: how much of the edge is a clear step in brightness. 0 for other views and where
            the edge takes in more than ``LARGEST`` of the breast.

    Raises:
        ValueError: for another chest wall, or if the shapes differ.
    """
    picture, mask = as_picture(pixels), as_picture(breast)
    if picture.shape != mask.shape:
        raise ValueError(f"pixels are {tuple(picture.shape)}, breast is {tuple(mask.shape)}: give both at one size")
    muscle, confidence = pectoral_grid(to_grid(picture), to_grid(mask) > 0.5, chest_wall=chest_wall, view=view)
    shape = (picture.shape[0], picture.shape[1])
    return enlarge_mask(muscle, shape).numpy() & mask.numpy(), confidence


def pectoral_grid(small: np.ndarray, breast: np.ndarray, *, chest_wall: str, view: str) -> tuple[np.ndarray, float]:
    """Find the muscle on the working grid: bool (h, w) and the confidence, see :func:`pectoral_muscle`."""
    if chest_wall not in ("left", "right"):
        raise ValueError(f"chest_wall is {chest_wall!r}: 'left' or 'right'")
    if view not in VIEWS or not breast.any():
        return np.zeros_like(breast), 0.0
    turn = np.s_[:, :: 1 if chest_wall == "left" else -1]
    muscle, confidence = _in_upper_left(small[turn], breast[turn])
    if confidence < SURE:
        return np.zeros_like(breast), confidence
    return np.ascontiguousarray(muscle[turn]), confidence


def _in_upper_left(small: np.ndarray, breast: np.ndarray) -> tuple[np.ndarray, float]:
    rows, columns = np.flatnonzero(breast.any(axis=1)), np.flatnonzero(breast.any(axis=0))
    corner = (rows[0], columns[0])
    extent = (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    level = np.log(small + 0.1 * float(np.median(small[breast])) + 1e-6)
    theta = (np.arange(ANGLES) + 0.5) / ANGLES * (np.pi / 2)
    longest = float(np.hypot(*extent))
    radius = (np.arange(RADII) + 0.5) / RADII * longest
    places = np.stack([corner[0] + np.sin(theta)[:, None] * radius, corner[1] + np.cos(theta)[:, None] * radius])
    smooth, known = _smooth_inside(level, breast)
    polar, down, across, known = (
        ndimage.map_coordinates(array, places, order=1, mode="nearest")
        for array in (smooth, *np.gradient(smooth), known.astype(np.float32))
    )
    known = known > 0.5
    down, across = np.where(known, down, 0), np.where(known, across, 0)
    line, normal = _straight(down, across, theta, longest, extent)
    edge = _curved(-(down * normal[0] + across * normal[1]), line, longest)
    confidence = _confidence(polar, known, edge, longest)
    y, x = np.mgrid[: small.shape[0], : small.shape[1]] - np.array(corner)[:, None, None]
    angle = np.arctan2(y, x)
    muscle = breast & (y >= 0) & (x >= 0) & (np.hypot(y, x) < np.interp(angle, theta, edge))
    return muscle, confidence if muscle.sum() <= LARGEST * breast.sum() else 0.0


def _smooth_inside(level: np.ndarray, breast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed inside the breast without a look at the outside; and where that is known well, off the skin."""
    sigma = 0.012 * max(breast.shape)
    weight = ndimage.gaussian_filter(breast.astype(np.float32), sigma, mode="nearest")
    total = ndimage.gaussian_filter(np.where(breast, level, 0).astype(np.float32), sigma, mode="nearest")
    return total / np.maximum(weight, 1e-3), weight > 0.9


def _straight(
    down: np.ndarray, across: np.ndarray, theta: np.ndarray, longest: float, extent: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Distance (angles,) from the corner to the best line, and the line's outward normal (row, column)."""
    b, a = (grid.ravel()[:, None] for grid in np.meshgrid(DOWN * extent[0], ACROSS * extent[1], indexing="ij"))
    distance = 1 / (np.sin(theta) / b + np.cos(theta) / a)
    index = (distance / longest * RADII).astype(np.intp)
    seen = index < RADII
    index = np.minimum(index, RADII - 1)
    place = np.arange(ANGLES)[None]
    norm = np.hypot(1 / a, 1 / b)
    fall = -(down[place, index] / b + across[place, index] / a) / norm
    length = distance**2 * seen  # of the line's piece in each angle, up to a factor common to the line
    cap = float(np.percentile(np.hypot(down, across), 95)) + 1e-9  # no bright spot makes a line
    score = (np.clip(fall, -cap, cap) * length).sum(axis=1) / length.sum(axis=1)
    best = int(score.argmax())
    scale = float(norm[best, 0])
    return distance[best], (1 / float(b[best, 0]) / scale, 1 / float(a[best, 0]) / scale)


def _curved(fall: np.ndarray, line: np.ndarray, longest: float) -> np.ndarray:
    """Distance (angles,) from the corner along the path of steepest fall near the line (dynamic programming)."""
    radius = (np.arange(RADII) + 0.5) / RADII * longest
    off = (radius[None] - line[:, None]) / (BAND * line[:, None])
    scale = float(np.percentile(fall, 98)) + 1e-9
    gain = np.where(np.abs(off) <= 1, np.clip(fall / scale, -1, 1) - 0.3 * off**2, -1e3)
    best, came = gain[0], np.zeros(fall.shape, dtype=np.intp)
    moves = np.arange(-4, 5)
    for angle in range(1, ANGLES):
        padded = np.pad(best, 4, constant_values=-1e9)
        options = np.stack([padded[4 + move : 4 + move + RADII] - 0.02 * move**2 for move in moves])
        came[angle] = options.argmax(axis=0)
        best = options.max(axis=0) + gain[angle]
    path = np.empty(ANGLES, dtype=np.intp)
    path[-1] = best.argmax()
    for angle in range(ANGLES - 1, 0, -1):
        path[angle - 1] = np.clip(path[angle] + moves[came[angle, path[angle]]], 0, RADII - 1)
    return ndimage.gaussian_filter1d(radius[path], 1.5, mode="nearest")


def _confidence(polar: np.ndarray, known: np.ndarray, edge: np.ndarray, longest: float) -> float:
    """Share of the edge's length, in angles, at which brightness falls clearly from inside to outside."""
    share = (np.arange(RADII) + 0.5)[None] / RADII * longest / edge[:, None] - 1
    inner, outer = (
        np.divide((polar * part).sum(axis=1), part.sum(axis=1), out=np.full(ANGLES, np.nan), where=part.any(axis=1))
        for part in (known & (share < -STRIP / 4) & (share > -STRIP), known & (share > STRIP / 4) & (share < STRIP))
    )
    fall = inner - outer
    seen = np.isfinite(fall)
    if seen.mean() < 0.3:
        return 0.0
    return float(np.clip(fall[seen] / CLEAR_STEP, 0, 1).mean())
