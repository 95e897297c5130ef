"""The outline of a compressed breast in one view: skin, distance to it, pectoral muscle. All lengths in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

__all__ = ["FIELD_HEIGHT_MM", "FIELD_WIDTH_MM", "BreastShape", "Outline", "outline_of"]

# Field of view, rows and columns: close to the 18 x 24 cm format.
FIELD_HEIGHT_MM = 240.0
FIELD_WIDTH_MM = 192.0


@dataclass(frozen=True, kw_only=True)
class BreastShape:
    """One breast under compression.

    Args:
        depth_mm: chest wall to nipple in CC.
        height_mm: extent along the chest wall in CC.
        thickness_mm: distance between the paddles.
        density: share of fibroglandular tissue, 0 to 1.
    """

    depth_mm: float
    height_mm: float
    thickness_mm: float
    density: float


@dataclass(frozen=True)
class Outline:
    """Geometry of one view on a grid of `spacing` mm; chest wall at the left (column 0).

    Args:
        border: (rows,) distance in mm from the chest wall to the skin in each row; 0 where there is no breast.
        distance: float32 (rows, columns), mm from the skin inwards, 0 outside.
        pectoral: float32 (rows, columns) in [0, 1], 1 in the muscle.
        nipple: (row, column) of the nipple in mm.
        spacing: grid spacing in mm.
        extent: (first, last) row of the breast in mm.
    """

    border: np.ndarray
    distance: np.ndarray
    pectoral: np.ndarray
    nipple: tuple[float, float]
    spacing: float
    extent: tuple[float, float]

    def depth_at(self, row_mm: float) -> float:
        """Distance from the chest wall to the skin at a row, both in mm."""
        return float(np.interp(row_mm / self.spacing - 0.5, np.arange(len(self.border)), self.border))


def _profile_cc(t: np.ndarray) -> np.ndarray:
    """Relative depth of a CC breast; t from -1 (top) to 1 (bottom)."""
    return np.sqrt(np.clip(1 - np.abs(t) ** 2.3, 0, None))


def _profile_mlo(u: np.ndarray, v: np.ndarray, axilla: float) -> np.ndarray:
    """Relative depth of an MLO breast; u in [0, 1] up from the nipple to the image's edge, v down to the fold."""
    upper = axilla + (1 - axilla) * np.cos(np.pi / 2 * np.clip(u, 0, 1)) ** 1.15
    lower = np.sqrt(np.clip(1 - np.clip(v, 0, None) ** 2.1, 0, None))
    return np.where(u > 0, upper, lower)


def outline_of(
    shape: BreastShape, *, view: str, generator: np.random.Generator, grid: tuple[int, int], spacing: float
) -> Outline:
    """Draw the outline of one view.

    Args:
        shape: the breast.
        view: "CC" or "MLO" (with pectoral muscle).
        generator: source of the view's own variation.
        grid: (rows, columns) of the maps.
        spacing: grid spacing in mm.

    Returns:
        the outline; chest wall at the left.
    """
    rows = (np.arange(grid[0]) + 0.5) * spacing
    columns = (np.arange(grid[1]) + 0.5) * spacing
    wobble = generator.normal(0, 1, 4) * np.array([0.02, 0.012, 0.006, 0.004])
    if view == "CC":
        centre = FIELD_HEIGHT_MM / 2 + generator.uniform(-8, 8)
        half = shape.height_mm / 2
        depth = shape.depth_mm
        t = (rows - centre) / half
        relative = _profile_cc(t)
        nipple_row = centre + generator.uniform(-0.08, 0.08) * half
        extent = (centre - half, centre + half)
    else:
        nipple_row = FIELD_HEIGHT_MM * generator.uniform(0.52, 0.6)
        depth = shape.depth_mm * generator.uniform(1.0, 1.08)
        fold = min(nipple_row + 0.56 * shape.height_mm, FIELD_HEIGHT_MM - 6)
        t = (rows - nipple_row) / (fold - nipple_row)
        relative = _profile_mlo((nipple_row - rows) / nipple_row, t, generator.uniform(0.34, 0.5))
        extent = (0.0, fold)
    ripple = sum(w * np.sin((k + 1) * np.pi * (t + 1) / 2 + p) for k, (w, p) in
                 enumerate(zip(wobble, generator.uniform(0, 2 * np.pi, 4), strict=True)))  # fmt: skip
    border = depth * relative * (1 + ripple)
    border += 3.0 * np.exp(-(((rows - nipple_row) / 3.5) ** 2))  # nipple
    border = np.where((rows > extent[0]) & (rows < extent[1]), np.clip(border, 0, FIELD_WIDTH_MM - 12), 0)
    inside = columns[None, :] < border[:, None]
    distance = _distance_to_skin(inside, spacing)
    pectoral = np.zeros(grid, dtype=np.float32)
    if view == "MLO":
        width = depth * generator.uniform(0.42, 0.58)
        length = FIELD_HEIGHT_MM * generator.uniform(0.45, 0.62)
        edge = width * np.clip(1 - rows / length, 0, None) ** generator.uniform(0.75, 1.0)
        pectoral = special.expit((edge[:, None] - columns[None, :]) / 0.8)
        pectoral = np.where(edge[:, None] > 0, pectoral, 0).astype(np.float32)
    return Outline(border, distance, pectoral, (nipple_row, float(depth)), spacing, extent)


def _distance_to_skin(inside: np.ndarray, spacing: float) -> np.ndarray:
    """Distance to the nearest point outside; the chest wall and the image's edges are not skin."""
    margin = max(int(60 / spacing), 1)
    padded = np.pad(inside, ((margin, margin), (margin, 0)), mode="edge")
    distance = ndimage.distance_transform_edt(padded)[margin:-margin, margin:] * spacing
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), 0.8)
    return np.where(inside, smooth, 0).astype(np.float32)
