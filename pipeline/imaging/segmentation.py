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

SMALLEST_BREAST = 0.015
"""Smallest share of the picture that counts as a breast."""

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
    inside = ~frame
    candidate = (smooth > _threshold(smooth[inside])) & inside
    return _plausible(_largest(_without_border_strips(candidate)))


def film_frame(small: np.ndarray) -> np.ndarray:
    """Saturated film edges along the borders, bool (h, w).

    A line from the border inwards counts where its last saturated pixel lies within ``FRAME`` and the brightness then
    drops at once; a bright pectoral muscle runs on or fades.
    """
    bright = small >= 0.95 * small.max()
    frame = np.zeros(small.shape, dtype=bool)
    for turns in range(4):
        lines, values, marked = (np.rot90(array, turns) for array in (bright, small, frame))  # border is column 0
        depth = max(int(round(FRAME * lines.shape[1])), 2)
        last = depth - np.argmax(lines[:, depth::-1], axis=1)  # last saturated column of each line
        beyond = np.take_along_axis(values, np.minimum(last + 3, lines.shape[1] - 1)[:, None], axis=1)[:, 0]
        ends = lines[:, : depth + 1].any(axis=1) & (last < depth) & (beyond < 0.8 * small.max())
        marked |= ends[:, None] & (np.arange(lines.shape[1])[None] <= last[:, None])
    return ndimage.binary_dilation(frame) if frame.any() else frame


def _without_border_strips(candidate: np.ndarray) -> np.ndarray:
    """Drop runs that start at the left or right border and end within ``FRAME``: stray light along a film edge."""
    kept = candidate.copy()
    for view in (kept, kept[:, ::-1], kept.T, kept.T[:, ::-1]):
        depth = max(int(round(FRAME * view.shape[1])), 2)
        ends = ~view[:, : depth + 1].all(axis=1)
        reach = np.where(ends, np.argmin(view[:, : depth + 1], axis=1), 0)
        view[np.arange(view.shape[1])[None] < reach[:, None]] = False
    return kept


def _threshold(values: np.ndarray) -> float:
    low, high = np.percentile(values, [0.5, 99.5])
    if not high > low:
        raise Refusal(RefusalCode.NO_BREAST, "the picture is uniform")
    values = np.clip(values, low, high)
    roots = np.sqrt((values - low) / (high - low))
    split = threshold_otsu(roots)
    dark, light = values[roots <= split], values[roots > split]
    background = float(np.median(dark))
    noise = 1.4826 * float(np.median(np.abs(dark - background)))
    return background + max(4 * noise, 0.06 * (float(np.median(light)) - background))


def _largest(candidate: np.ndarray) -> np.ndarray:
    radius = max(int(round(0.012 * max(candidate.shape))), 1)
    disk = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    opened = ndimage.binary_opening(np.pad(candidate, radius, mode="edge"), disk)[radius:-radius, radius:-radius]
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
    thickness = float(ndimage.distance_transform_edt(np.pad(mask, 1)).max()) / min(mask.shape)
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
