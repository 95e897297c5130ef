"""Benign and malignant findings as small added pictures, made so that no finding changes an image's mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from pipeline.phantom.fields import power_law_field

__all__ = ["BENIGN", "MALIGNANT", "Difficulty", "Finding", "LesionKind", "Patch", "draw_lesion"]


_MARGIN_MM = 1.5  # around each calcification, part of its region


class LesionKind(StrEnum):
    """What a breast shows; the `lesion` column of the manifest."""

    NONE = "none"
    SMOOTH_MASS = "smooth_mass"
    COARSE_CALCIFICATIONS = "coarse_calcifications"
    SPICULATED_MASS = "spiculated_mass"
    FINE_CALCIFICATIONS = "fine_calcifications"
    ASYMMETRY = "asymmetry"


BENIGN = (LesionKind.NONE, LesionKind.SMOOTH_MASS, LesionKind.COARSE_CALCIFICATIONS)
MALIGNANT = (LesionKind.SPICULATED_MASS, LesionKind.FINE_CALCIFICATIONS, LesionKind.ASYMMETRY)


class Difficulty(StrEnum):
    """How conspicuous findings are, benign and malignant alike."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"

    @property
    def contrast(self) -> float:
        """Factor on the contrast of every finding."""
        return {"easy": 1.35, "medium": 1.0, "hard": 0.55}[self.value]

    @property
    def size(self) -> float:
        """Factor on the size of every finding."""
        return {"easy": 1.2, "medium": 1.0, "hard": 0.75}[self.value]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding of one breast, seen in both of its views.

    Args:
        kind: what it is.
        depth: distance from the chest wall as a share of the breast's depth.
        across: position across the CC view, -1 to 1.
        up: position along the MLO view, -1 (below the nipple) to 1 (above).
        radius_mm: half size.
        contrast: display contrast of the same size in every kind.
    """

    kind: LesionKind
    depth: float
    across: float
    up: float
    radius_mm: float
    contrast: float

    @property
    def malignant(self) -> bool:
        """Whether the finding makes its breast malignant."""
        return self.kind in MALIGNANT


@dataclass(frozen=True)
class Patch:
    """A finding drawn: `added` float32 (n, n) display values and the bool (n, n) region that belongs to it."""

    added: np.ndarray
    region: np.ndarray


def draw_lesion(finding: Finding, *, generator: np.random.Generator, spacing: float) -> Patch:
    """Draw a finding, centred in a square patch of odd side.

    Masses of both classes have the same contrast over the same core, calcifications of both the same integral: size and
    brightness alone do not tell them apart.

    Args:
        finding: anything but LesionKind.NONE.
        generator: source of the view's own variation.
        spacing: pixel spacing in mm.

    Returns:
        the patch.
    """
    half = max(int(np.ceil(2.6 * finding.radius_mm / spacing)), 2)
    axis = (np.arange(-half, half + 1) * (spacing / finding.radius_mm)).astype(np.float32)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    if finding.kind in (LesionKind.FINE_CALCIFICATIONS, LesionKind.COARSE_CALCIFICATIONS):
        return _calcifications(finding, generator, rows, columns, spacing)
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    if finding.kind is LesionKind.ASYMMETRY:
        shape = _asymmetry(generator, rows, columns)
    elif finding.kind is LesionKind.SPICULATED_MASS:
        shape = _spiculated(generator, radius, angle)
    else:
        shape = _smooth(generator, radius, angle)
    return Patch(shape * np.float32(finding.contrast), shape > 0.4 * shape.max())


def _ripple(generator: np.random.Generator, angle: np.ndarray, orders: range, size: float) -> np.ndarray:
    """1 plus a few angular waves: the relative radius of an irregular outline."""
    result = np.ones_like(angle)
    for order in orders:
        result += size / np.sqrt(len(orders)) * generator.normal() * np.cos(order * angle + generator.uniform(0, 6.3))
    return np.clip(result, 0.4, 1.7)


def _smooth(generator: np.random.Generator, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Oval or gently lobulated, circumscribed."""
    outline = _ripple(generator, angle, range(2, 4), 0.12)
    scaled = radius / outline
    return special.expit((0.9 - scaled) / 0.06) * np.sqrt(np.clip(1 - 0.4 * scaled**2, 0.2, None))


def _spiculated(generator: np.random.Generator, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """A ragged core with lines that radiate from it."""
    core = special.expit((1 - radius / (0.62 * _ripple(generator, angle, range(3, 9), 0.25))) / 0.14)
    count = int(generator.integers(13, 19))
    directions = (np.arange(count) + generator.uniform(-0.35, 0.35, count)) * (2 * np.pi / count)
    rays = np.zeros_like(radius)
    for direction in directions:
        length, bend, width = generator.uniform(1.3, 2.2), generator.normal(0, 0.12), generator.uniform(0.05, 0.085)
        turn = np.angle(np.exp(1j * (angle - direction - bend * radius))).astype(np.float32)
        fade = np.clip((length - radius) / (length - 0.4), 0, 1)
        ray = np.exp(-((turn * radius / (width * (0.5 + fade))) ** 2)) * np.sqrt(fade)
        rays = np.maximum(rays, ray * (np.abs(turn) < 1.5) * generator.uniform(0.6, 1.0))
    return np.maximum(core, 0.8 * rays).astype(np.float32)


def _asymmetry(generator: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Dense tissue without a border, wider than a mass of the same radius."""
    tilt, stretch = generator.uniform(0, np.pi), generator.uniform(0.7, 1.0)
    along, across = rows * np.cos(tilt) + columns * np.sin(tilt), columns * np.cos(tilt) - rows * np.sin(tilt)
    field = power_law_field(generator, rows.shape)
    distance = np.sqrt(along**2 + (across / stretch) ** 2) + 0.22 * field
    return (special.expit((1.6 - distance) / 0.2) * np.clip(0.8 + 0.2 * field, 0.1, 1.3)).astype(np.float32)


def _calcifications(
    finding: Finding, generator: np.random.Generator, rows: np.ndarray, columns: np.ndarray, spacing: float
) -> Patch:
    """Many fine grains of differing shape in a cluster, or a few coarse round ones, of the same total contrast."""
    fine = finding.kind is LesionKind.FINE_CALCIFICATIONS
    count = int(generator.integers(28, 45) if fine else generator.integers(3, 6))
    spread = 0.45 if fine else 0.65
    added, region = np.zeros_like(rows), np.zeros(rows.shape, dtype=bool)
    half = rows.shape[0] // 2
    for _ in range(count):
        centre = np.clip(generator.normal(0, spread, 2), -1.7, 1.7) * finding.radius_mm / spacing + half
        if fine:
            sigma = generator.uniform(0.22, 0.42) * np.array([1.0, generator.uniform(1.0, 2.2)])
        else:
            sigma = generator.uniform(0.75, 1.1) * np.array([1.0, generator.uniform(1.0, 1.2)])
        reach = int(np.ceil(max(4 * sigma.max(), _MARGIN_MM) / spacing)) + 2
        first, last = np.maximum(centre.astype(int) - reach, 0), np.minimum(centre.astype(int) + reach, 2 * half) + 1
        window = (slice(first[0], last[0]), slice(first[1], last[1]))
        down, right = np.ogrid[window]
        down, right = down - centre[0], right - centre[1]
        tilt = generator.uniform(0, np.pi)
        # Grains below the pixel are widened to 0.4 pixels and keep their integral.
        pixels = np.sqrt((sigma / spacing) ** 2 + 0.16)
        along = (down * np.cos(tilt) + right * np.sin(tilt)) / pixels[0]
        across = (right * np.cos(tilt) - down * np.sin(tilt)) / pixels[1]
        squared = along**2 + across**2
        grain = np.exp(-squared / 2) if fine else np.exp(-((squared / 2.6) ** 2))
        level = generator.uniform(0.5, 1.0) * np.prod(sigma / spacing) / np.prod(pixels)
        added[window] += (level * grain).astype(np.float32)
        region[window] |= np.hypot(down, right) * spacing < _MARGIN_MM
    # Integral over the image in mm2: near the mean of both kinds with grains of full display contrast.
    total = 85.0 * finding.contrast / spacing**2
    return Patch(np.minimum(added * np.float32(total / added.sum()), 0.9).astype(np.float32), region)
