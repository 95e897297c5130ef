"""What a film shows beside the breast: saturated edges, stray light along the borders, labels blanked in black."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

FRAME = 0.06
"""Widest film edge at a border, share of the side."""

FRAME_LENGTH = 0.1
"""Shortest film edge, share of the side it lies along; calcifications and clips are shorter."""

STRAY = 0.12
"""Widest stray light along the left and right border, share of the width."""


def film_frame(small: np.ndarray) -> np.ndarray:
    """Saturated film edges along the borders, bool (h, w).

    A line from the border inwards counts where its last saturated pixel lies within ``FRAME`` and the brightness then
    drops at once; a bright pectoral muscle runs on or fades. Such lines count side by side only, ``FRAME_LENGTH`` of
    them, so that a calcification near the chest wall stays. Saturated pixels of the rim that touch them count too.
    """
    bright = small >= 0.95 * small.max()
    frame = np.zeros(small.shape, dtype=bool)
    rim = np.zeros(small.shape, dtype=bool)
    for turns in range(4):
        lines, values, marked, edge = (np.rot90(array, turns) for array in (bright, small, frame, rim))  # views
        depth = max(int(round(FRAME * lines.shape[1])), 2)
        edge[:, :depth] = True
        last = depth - np.argmax(lines[:, depth::-1], axis=1)  # last saturated column of each line
        beyond = np.take_along_axis(values, np.minimum(last + 3, lines.shape[1] - 1)[:, None], axis=1)[:, 0]
        begins = lines[:, : max(depth // 2, 1)].any(axis=1)
        ends = begins & (last < depth) & (beyond < 0.87 * small.max())
        ends = _long_runs(ends, max(int(FRAME_LENGTH * ends.size), 3))
        marked |= ends[:, None] & (np.arange(lines.shape[1])[None] <= last[:, None])
    if not frame.any():
        return frame
    return ndimage.binary_dilation(ndimage.binary_propagation(frame, mask=frame | (bright & rim)))


def _long_runs(flags: np.ndarray, length: int) -> np.ndarray:
    """Keep runs of at least ``length`` flags, bool (N,); single gaps inside a run are bridged first."""
    bridged = flags | (np.roll(flags, 1) & np.roll(flags, -1))
    return flags & ndimage.binary_opening(bridged, np.ones(length, dtype=bool))


def without_border_strips(candidate: np.ndarray) -> np.ndarray:
    """Drop runs that start at a border and end soon: stray light along a film edge, broadest at the chest wall."""
    kept = candidate.copy()
    for view, share in ((kept, STRAY), (kept[:, ::-1], STRAY), (kept.T, FRAME), (kept.T[:, ::-1], FRAME)):
        depth = max(int(round(share * view.shape[1])), 2)
        zone = view[:, : depth + 1].copy()
        gap = max(depth // 3, 1)  # the film's own dark rim may lie outside the light
        zone[:, :gap] = np.logical_or.accumulate(zone[:, gap - 1 :: -1], axis=1)[:, ::-1]
        reach = np.where(zone.all(axis=1), 0, np.argmin(zone, axis=1))
        view[np.arange(view.shape[1])[None] < reach[:, None]] = False
    return kept


def blanked_labels(small: np.ndarray) -> np.ndarray:
    """Labels blanked out in black: the darkest values, if few and set apart from the next ones."""
    span = float(np.percentile(small, 99)) - float(small.min())
    darkest = small <= small.min() + 0.01 * span
    between = (small <= small.min() + 0.06 * span) & ~darkest
    if darkest.mean() < 0.15 and between.sum() < 0.5 * darkest.sum():
        return ndimage.binary_dilation(darkest, iterations=2)
    return np.zeros_like(darkest)
