"""One view of one breast as display values, with the true masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.phantom.anatomy import FIELD_HEIGHT_MM, FIELD_WIDTH_MM, BreastShape, Outline, outline_of
from pipeline.phantom.fields import enlarge
from pipeline.phantom.lesions import Finding, LesionKind, draw_lesion
from pipeline.phantom.letters import draw_letters
from pipeline.phantom.tissue import draw_tissue

__all__ = ["Scene", "add_finding", "draw_scene", "grid_of"]

_AIR = 0.012


@dataclass(frozen=True)
class Scene:
    """A view as it is hung: chest wall left for L, right for R.

    Args:
        pixels: float32 (rows, columns), display values in [0, 1], bright = dense.
        breast: bool (rows, columns), everything inside the skin, pectoral muscle included.
        pectoral: bool (rows, columns), the pectoral muscle, inside the breast; empty in CC.
        lesion: uint8 (rows, columns): 0 none, 1 benign, 2 malignant.
        padding: bool (rows, columns), a frame that the detector does not cover; styles without padding show air.
        air: bool (rows, columns), neither breast nor letters; some vendors blank it as padding.
        spacing_mm: (rows, columns).
    """

    pixels: np.ndarray
    breast: np.ndarray
    pectoral: np.ndarray
    lesion: np.ndarray
    padding: np.ndarray
    air: np.ndarray
    spacing_mm: tuple[float, float]


def grid_of(height: int) -> tuple[tuple[int, int], float]:
    """(rows, columns) and pixel spacing in mm of a picture `height` rows high."""
    spacing = FIELD_HEIGHT_MM / height
    return (height, round(FIELD_WIDTH_MM / spacing)), spacing


def draw_scene(
    shape: BreastShape,
    finding: Finding,
    *,
    laterality: str,
    view: str,
    generator: np.random.Generator,
    height: int,
    noise: float,
) -> Scene:
    """Draw one view.

    Args:
        shape: the breast.
        finding: its finding.
        laterality: "L" or "R".
        view: "CC" or "MLO".
        generator: source of the view's own variation.
        height: rows of the picture.
        noise: standard deviation in display values at full exposure.

    Returns:
        the scene.
    """
    grid, spacing = grid_of(height)
    coarse = (-(-grid[0] // 2), -(-grid[1] // 2))
    outline = outline_of(shape, view=view, generator=generator, grid=coarse, spacing=FIELD_HEIGHT_MM / coarse[0])
    pixels, distance = draw_tissue(shape, outline, generator=generator, grid=grid, spacing=spacing)
    breast = distance > 0.5 * spacing
    pectoral = breast & (enlarge(outline.pectoral, grid) > 0.5)
    lesion = np.zeros(grid, dtype=np.uint8)
    if finding.kind is not LesionKind.NONE:
        add_finding(pixels, lesion, breast, finding, outline, view=view, generator=generator, spacing=spacing)
    if laterality == "R":
        pixels, breast, lesion = pixels[:, ::-1].copy(), breast[:, ::-1], lesion[:, ::-1]
        pectoral = pectoral[:, ::-1]
    pixels += np.where(breast, 0, np.float32(_AIR))
    grain = generator.standard_normal(grid, dtype=np.float32)
    pixels += grain * np.where(breast, np.float32(noise), np.float32(0.25 * noise))
    padding = _frame(grid, generator, laterality)
    letters = _burn_letters(pixels, f"{laterality} {view}", laterality)
    pixels[padding] = 0
    np.clip(pixels, 0, 1, out=pixels)
    return Scene(pixels, breast, pectoral, lesion, padding, ~(breast | letters), (spacing, spacing))


def add_finding(
    pixels: np.ndarray,
    lesion: np.ndarray,
    breast: np.ndarray,
    finding: Finding,
    outline: Outline,
    *,
    view: str,
    generator: np.random.Generator,
    spacing: float,
) -> None:
    """Add a finding in place, and take its integral evenly from the whole breast: the mean stays as it was.

    The distance from the chest wall is the same share of the depth in both views, as for a real lesion.
    """
    patch = draw_lesion(finding, generator=generator, spacing=spacing)
    row_mm, column_mm = _position(finding, outline, view)
    half = patch.added.shape[0] // 2
    top, left = int(row_mm / spacing) - half, int(column_mm / spacing) - half
    inside = (
        slice(max(top, 0), min(top + 2 * half + 1, pixels.shape[0])),
        slice(max(left, 0), min(left + 2 * half + 1, pixels.shape[1])),
    )
    part = (slice(inside[0].start - top, inside[0].stop - top), slice(inside[1].start - left, inside[1].stop - left))
    added = patch.added[part] * breast[inside]
    pixels[inside] += added
    pixels[breast] -= added.sum() / breast.sum()
    lesion[inside][patch.region[part] & breast[inside]] = 2 if finding.malignant else 1


def _position(finding: Finding, outline: Outline, view: str) -> tuple[float, float]:
    """(row, column) in mm of a finding's centre: off the muscle and at least its size below the skin."""
    row, _ = outline.nipple
    first, last = outline.extent
    if view == "CC":
        row_mm = row + finding.across * (last - first) / 2 * 0.9
    else:
        row_mm = row - (finding.up * (last - row) * 1.1 if finding.up < 0 else finding.up * 0.7 * row)
    muscle_mm = float(outline.pectoral[int(row_mm / outline.spacing)].sum()) * outline.spacing
    column_mm = max(finding.depth * outline.depth_at(row), muscle_mm + 0.8 * finding.radius_mm)
    return row_mm, max(min(column_mm, outline.depth_at(row_mm) - 1.3 * finding.radius_mm), finding.radius_mm)


def _frame(grid: tuple[int, int], generator: np.random.Generator, laterality: str) -> np.ndarray:
    """A frame above, below and opposite the chest wall of 0.5 to 2 % of the picture."""
    top, bottom, side = (max(round(float(generator.uniform(0.005, 0.02)) * grid[0]), 1) for _ in range(3))
    padding = np.zeros(grid, dtype=bool)
    padding[:top] = padding[-bottom:] = True
    if laterality == "L":
        padding[:, -side:] = True
    else:
        padding[:, :side] = True
    return padding


def _burn_letters(pixels: np.ndarray, text: str, laterality: str) -> np.ndarray:
    """Letters in the upper corner away from the chest wall, in place; gives their pixels."""
    letters = draw_letters(text, height=max(round(0.028 * pixels.shape[0]), 7))
    margin = round(0.04 * pixels.shape[0])
    rows = slice(margin, margin + letters.shape[0])
    first = pixels.shape[1] - margin - letters.shape[1] if laterality == "L" else margin
    burned = np.zeros(pixels.shape, dtype=bool)
    burned[rows, first : first + letters.shape[1]] = letters
    pixels[burned] = 0.95
    return burned
