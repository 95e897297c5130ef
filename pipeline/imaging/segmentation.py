"""Where the breast is: a mask found at low resolution, without film frames, blanked labels and burned-in letters."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn import functional

from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.steps import enlarge_mask

GRID = 256
"""Longest side of the grid on which the breast is sought."""

FRAME = 0.06
"""Widest film edge at a border, share of the side."""

FRAME_LENGTH = 0.1
"""Shortest film edge, share of the side it lies along; calcifications and clips are shorter."""

STRAY = 0.12
"""Widest stray light along the left and right border, share of the width."""

SMALLEST_BREAST = 0.015
"""Smallest share of the picture that counts as a breast."""

SPLIT_AGAIN = 0.15
"""Light share of the picture below which the dark part is split once more."""

THINNEST_BREAST = 0.04
"""Smallest radius of a circle inside the breast, share of the shorter side; lettering is thinner."""


def segment_breast(pixels: np.ndarray | Tensor) -> np.ndarray:
    """Find the breast, with the pectoral muscle where it is in the picture.

    Args:
        pixels: display values (H, W) in [0, 1], bright = dense, any scale of contrast.

    Returns:
        Mask, bool (H, W).

    Raises:
        Refusal: ``no_breast`` if nothing plausible is found.
    """
    picture = torch.as_tensor(pixels)
    return enlarge_mask(breast_grid(picture), (picture.shape[0], picture.shape[1])).numpy()


def breast_grid(pixels: Tensor) -> np.ndarray:
    """Find the breast on a grid of at most ``GRID`` per side: bool (h, w), see :func:`segment_breast`."""
    height, width = pixels.shape[-2:]
    scale = min(1.0, GRID / max(height, width))
    grid = (max(round(height * scale), 2), max(round(width * scale), 2))
    small = functional.interpolate(pixels.reshape(1, 1, height, width).float(), size=grid, mode="area")[0, 0].numpy()
    frame = film_frame(small)
    smooth = ndimage.gaussian_filter(np.where(frame, 0, small), 1.0)
    candidate = (smooth > _threshold(smooth[~frame & ~_blanked(small)])) | frame
    return _plausible(_largest(_without_border_strips(candidate) & ~frame))


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


def _without_border_strips(candidate: np.ndarray) -> np.ndarray:
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


def _threshold(values: np.ndarray) -> float:
    """Smallest value of the breast: above the background's noise and above a small share of the breast's contrast.

    Otsu's method on square roots splits dark from light; the background's level is the median of the dark values and
    its noise their median absolute deviation.
    """
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    if not high > low:
        raise Refusal(RefusalCode.NO_BREAST, "the picture is uniform")
    dark, light = _split(np.clip(values, low, high), low, high)
    if light.size < SPLIT_AGAIN * values.size:
        # The light part may only be the pectoral muscle or lettering above a faint breast on black film.
        top = float(dark.max())
        darker, faint = _split(dark, low, top) if top > low else (dark, dark)
        if np.median(darker) - low < 0.25 * (np.median(faint) - low):
            dark, light = darker, faint
    background = float(np.median(dark))
    noise = 1.4826 * float(np.median(np.abs(dark - background)))
    return background + max(4 * noise, 0.06 * (float(np.median(light)) - background))


def _split(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    roots = np.sqrt((values - low) / (high - low))
    split = threshold_otsu(roots)
    return values[roots <= split], values[roots > split]


def _blanked(small: np.ndarray) -> np.ndarray:
    """Labels blanked out in black: the darkest values, if few and set apart from the next ones."""
    span = float(np.percentile(small, 99)) - float(small.min())
    darkest = small <= small.min() + 0.01 * span
    between = (small <= small.min() + 0.06 * span) & ~darkest
    if darkest.mean() < 0.15 and between.sum() < 0.5 * darkest.sum():
        return ndimage.binary_dilation(darkest, iterations=2)
    return np.zeros_like(darkest)


def _largest(candidate: np.ndarray) -> np.ndarray:
    radius = max(int(round(0.012 * max(candidate.shape))), 1)
    size = 2 * radius + 1  # square opening: separable, thin lettering and strips go
    opened = ndimage.maximum_filter(ndimage.minimum_filter(candidate.view(np.uint8), size), size)
    labels, count = ndimage.label(opened)
    if count == 0:
        raise Refusal(RefusalCode.NO_BREAST, "nothing stands out from the background")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def _plausible(mask: np.ndarray) -> np.ndarray:
    share = float(mask.mean())
    if share < SMALLEST_BREAST:
        raise Refusal(
            RefusalCode.NO_BREAST,
            f"the largest structure covers {share:.1%} of the picture, less than {SMALLEST_BREAST:.1%}: no breast",
        )
    coarse = np.pad(mask[::2, ::2], 1)  # half the grid is enough for a thickness
    thickness = 2 * float(ndimage.distance_transform_edt(coarse).max()) / min(mask.shape)
    if thickness < THINNEST_BREAST:
        raise Refusal(
            RefusalCode.NO_BREAST,
            f"the largest structure holds a circle of radius {thickness:.1%} of the side, "
            f"less than {THINNEST_BREAST:.1%}: lettering or a line, no breast",
        )
    columns = np.flatnonzero(mask.any(axis=0))
    if min(columns[0], mask.shape[1] - 1 - columns[-1]) > 0.15 * mask.shape[1]:
        raise Refusal(RefusalCode.NO_BREAST, "the largest structure lies away from both side edges: no chest wall")
    return mask
