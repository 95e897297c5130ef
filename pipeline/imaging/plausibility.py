"""Whether a breast mask can be true: faults that no breast has, and a score by which to look at the doubtful ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SMALLEST, LARGEST = 0.05, 0.85
"""Share of the picture that a breast covers; on 2,000 films of DDSM 0.09 to 0.79 were found."""

EDGE = 0.08
"""Widest film edge between the picture's border and the chest wall, share of the width."""

CHEST_WALL = 0.2
"""Shortest stretch of chest wall in the picture, share of the height."""

STROKE = 0.03
"""Widest stroke of a letter, share of the longer side."""

LETTER = 0.5
"""How far a letter rises above its ground, share of the contrast between breast and air."""

WHITE = 0.08
"""How far a letter rises above its ground, share of the picture's highest value."""

GROUND = 0.25
"""How far a letter's ground may rise above the air, share of the contrast between breast and air."""

STEP = 0.04
"""Smallest step in brightness at the outline that is one, share of the contrast between breast and air."""

SPECK = 0.0004
"""Share of the picture that one letter inside the mask covers at least; smaller ones are dust and calcifications."""


@dataclass(frozen=True)
class MaskCheck:
    """What speaks against a breast mask.

    Args:
        faults: any of "components", "chest wall", "area", "letters".
        doubt: 0 for a mask without faults and with a smooth outline that parts light from dark all along; 1 is added
            for each fault.
    """

    faults: tuple[str, ...]
    doubt: float


def check_mask(pixels: np.ndarray, mask: np.ndarray, *, chest_wall: str) -> MaskCheck:
    """Check a breast mask against what every mammogram shows.

    One component; at the chest wall, within a film edge of the picture's border; a plausible area; no letters inside,
    which are thin bright strokes on a ground as dark as the air. The doubt adds up the faults, the share of the mask
    that a smoothing of its outline would change, and the share of the outline without a step in brightness.

    Args:
        pixels: display values (H, W) in [0, 1], bright = dense; 300 pixels a side are enough, more take longer.
        mask: bool (H, W), the breast.
        chest_wall: edge at which the breast must lie, "left" or "right".

    Returns:
        The faults and the doubt.
    """
    if chest_wall == "right":
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    faults = []
    if ndimage.label(mask)[1] != 1:
        faults.append("components")
    columns = mask[:, : max(round(EDGE * mask.shape[1]), 1)].sum(axis=0)
    wall = columns.max() / mask.shape[0]
    if wall < CHEST_WALL:
        faults.append("chest wall")
    share = float(mask.mean())
    if not SMALLEST <= share <= LARGEST:
        faults.append("area")
    letters = _letters(pixels, mask)
    if letters.any():
        faults.append("letters")
    return MaskCheck(tuple(faults), len(faults) + _unrest(mask) + _weak_outline(pixels, mask))


def _letters(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Letters inside the mask, bool (H, W)."""
    width = max(round(STROKE * max(pixels.shape)), 3)
    air, breast = (float(np.median(pixels[part])) if part.any() else 0.0 for part in (~mask, mask))
    contrast = max(breast - air, 0.0)
    height = max(LETTER * contrast, WHITE * float(pixels.max()))
    strokes = ndimage.white_tophat(pixels, size=width) > height
    ground = ndimage.minimum_filter(ndimage.median_filter(pixels, size=3), size=2 * width + 1)
    # Near the skin and the film's edge the dark outside is no ground of a letter: look well inside the mask only.
    inside = ndimage.binary_erosion(mask, iterations=width)
    labels, count = ndimage.label(strokes & inside & (ground <= air + GROUND * contrast), np.ones((3, 3)))
    sizes = ndimage.sum_labels(labels > 0, labels, np.arange(1, count + 1))
    return np.isin(labels, 1 + np.flatnonzero(sizes >= SPECK * mask.size))


def _unrest(mask: np.ndarray) -> float:
    """Share of the mask that changes when its outline is smoothed (closed and opened by a disc)."""
    radius = max(round(0.03 * max(mask.shape)), 1)
    padded = np.pad(mask, 2 * radius, mode="edge")
    near = ndimage.distance_transform_edt(~padded) <= radius
    closed = ndimage.distance_transform_edt(near) > radius
    kept = ndimage.distance_transform_edt(closed) > radius
    smooth = ndimage.distance_transform_edt(~kept) <= radius
    return float((smooth ^ padded).sum() / max(padded.sum(), 1))


def _weak_outline(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Share of the outline, film edges apart, at which the inside is hardly brighter than the outside."""
    width = max(round(0.015 * max(mask.shape)), 2)
    core = ndimage.binary_erosion(mask, iterations=width, border_value=1)
    reach = ndimage.binary_dilation(mask, iterations=width)
    outline = mask & ~ndimage.binary_erosion(mask, border_value=1)
    top, side = (max(round(EDGE * length), width) for length in mask.shape)
    outline[:top] = outline[-top:] = outline[:, :side] = outline[:, -side:] = False
    inner, outer = (_local_mean(pixels, band, 4 * width + 1) for band in (core, ~reach))
    contrast = float(np.median(pixels[mask])) - float(np.median(pixels[~mask])) if 0 < mask.mean() < 1 else 1.0
    weak = outline & ~(inner - outer > STEP * contrast)
    return float(weak.sum() / max(outline.sum(), 1))


def _local_mean(pixels: np.ndarray, band: np.ndarray, size: int) -> np.ndarray:
    weight = ndimage.uniform_filter(band.astype(np.float64), size)
    total = ndimage.uniform_filter(np.where(band, pixels, 0).astype(np.float64), size)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-6)
