"""Fat, fibroglandular tissue, ligaments, vessels, muscle and skin of one breast in one view."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, special

from pipeline.phantom.anatomy import BreastShape, Outline
from pipeline.phantom.fields import enlarge, power_law_field

__all__ = ["draw_tissue"]

# Display values; fat, glands and muscle sit where processed mammograms show them.
_FAT, _GLAND, _MUSCLE, _SKIN = 0.30, 0.30, 0.28, 0.10
_LIGAMENT, _VESSEL, _TEXTURE = 0.035, 0.07, 0.045


def draw_tissue(
    shape: BreastShape, outline: Outline, *, generator: np.random.Generator, grid: tuple[int, int], spacing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the tissue of one view, chest wall at the left, without noise and findings.

    Slow structures are drawn on the outline's coarser grid and enlarged; texture and skin line on the full one.

    Args:
        shape: the breast.
        outline: its geometry in this view, on a coarser grid.
        generator: source of the view's own variation.
        grid: (rows, columns) of the result.
        spacing: of the result, in mm.

    Returns:
        float32 (rows, columns), display values from 0 to about 0.9; 0 outside the breast.
        float32 (rows, columns), distance from the skin in mm, 0 outside.
    """
    rows = (np.arange(outline.distance.shape[0], dtype=np.float32)[:, None] + 0.5) * outline.spacing
    columns = (np.arange(outline.distance.shape[1], dtype=np.float32)[None, :] + 0.5) * outline.spacing
    coarse = outline.distance.shape
    gland = _gland(shape, outline, power_law_field(generator, coarse), rows, columns)
    slow = _FAT + _GLAND * gland
    ridges = power_law_field(generator, coarse, exponent=3.4)
    slow += _LIGAMENT * np.exp(-((ridges / 0.05) ** 2))
    slow += _VESSEL * _vessels(outline, generator, coarse) * (1 - 0.6 * gland)
    muscle = outline.pectoral
    slow = slow * (1 - muscle) + (_FAT + _MUSCLE + 0.02 * ridges) * muscle

    distance = enlarge(outline.distance, grid)
    picture = enlarge(slow, grid)
    picture += _TEXTURE * power_law_field(generator, grid)
    # Under the paddles the breast's free edge is round; processing lifts it but does not flatten it.
    rim = np.clip(distance / (0.5 * shape.thickness_mm), 0, 1)
    picture *= 0.32 + 0.68 * np.sqrt(np.clip(1 - (1 - rim) ** 2, 0, None))
    picture += _SKIN * np.exp(-(((distance - 0.9) / 0.7) ** 2))
    picture *= np.clip(distance / spacing, 0, 1)
    return np.clip(picture, 0, None, out=picture), distance


def _gland(
    shape: BreastShape, outline: Outline, field: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Share of fibroglandular tissue: a power-law field, denser in a cone behind the nipple."""
    row, depth = outline.nipple
    half = 0.42 * shape.height_mm
    along = (columns - 0.52 * depth) / (0.42 * depth)
    across = (rows - row + 0.05 * shape.height_mm) / half
    cone = 1.2 - (along**2 + across**2)
    under_skin = np.clip((outline.distance - 4) / 8, 0, 1)  # a layer of fat below the skin
    threshold = 1.9 - 3.0 * shape.density
    drive = 0.75 * field + np.clip(cone, -2.5, 1.2) - threshold
    return under_skin * special.expit(2.6 * drive)


def _vessels(outline: Outline, generator: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    """A few winding lines of one to two mm between the chest wall and the nipple, in [0, 1]."""
    row, depth = outline.nipple
    picture = np.zeros(grid, dtype=np.float32)
    steps = np.linspace(0, 1, 700)
    for _ in range(int(generator.integers(3, 7))):
        start = row + generator.uniform(-0.45, 0.45) * (outline.extent[1] - outline.extent[0])
        stop = row + generator.uniform(-0.12, 0.12) * (outline.extent[1] - outline.extent[0])
        phases = generator.uniform(0, 2 * np.pi, 3)
        wave = sum(generator.normal(0, 4) / k * np.sin(8.2 * k * steps + phase) for k, phase in enumerate(phases, 1))
        x = steps * generator.uniform(0.6, 0.95) * depth
        y = start + (stop - start) * steps**1.3 + wave * np.sin(np.pi * steps)
        index_row, index_column = (y / outline.spacing).astype(int), (x / outline.spacing).astype(int)
        keep = (index_row >= 0) & (index_row < grid[0]) & (index_column >= 0) & (index_column < grid[1])
        line = np.zeros(grid, dtype=np.float32)
        line[index_row[keep], index_column[keep]] = (1 - 0.6 * steps[keep]).astype(np.float32)
        picture = np.maximum(picture, line)
    sigma = 0.55 / outline.spacing
    blurred = ndimage.gaussian_filter(picture, sigma)
    return np.clip(blurred * (2.5 * max(sigma, 0.4)), 0, 1)
