"""Where the breast is: a mask found at low resolution, without film frames, blanked labels and burned-in letters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn import functional

from pipeline.imaging.film import blanked_labels, film_frame, without_border_strips
from pipeline.imaging.padding import MOSTLY, continued, stands_for_air, unpadded_box, unpadded_means
from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.steps import enlarge_mask

GRID = 256
"""Longest side of the grid on which the breast is sought."""

SMALLEST_BREAST = 0.015
"""Smallest share of the picture that counts as a breast."""

SPLITS = 3
"""Most times that the dark part of the picture is split."""

APART = 0.03
"""Level of a dark part over that of its light part, below which both are different things: air and a faint breast."""

AIR = 0.2
"""Smallest share of the picture that a dark part covers to be air; blanked labels and padding cover less."""

AWAY = 0.06
"""Distance from the breast, share of the longer side, beyond which all is taken for air."""

SMALLEST_AIR = 0.05
"""Smallest share of the picture from which the unevenness of the air is told."""

MOST_CONTRAST = 0.2
"""Share of the breast's contrast that its fat reaches, however uneven the air is."""

CONTRAST = 0.06
"""Share of the breast's contrast that its rim reaches."""

NECK = 0.13
"""Widest neck by which a label hangs on the breast, share of the longer side; nipples stay."""

THINNEST_BREAST = 0.04
"""Smallest radius of a circle inside the breast, share of the shorter side; lettering is thinner."""


def segment_breast(pixels: np.ndarray | Tensor, *, padded: np.ndarray | None = None) -> np.ndarray:
    """Find the breast, with the pectoral muscle where it is in the picture.

    Args:
        pixels: display values (H, W) in [0, 1], bright = dense, any scale of contrast.
        padded: pixels that stand for padding, bool (H, W), as ``Mammogram.padded``; they count nowhere.

    Returns:
        Mask, bool (H, W); a cell of the working grid that is mostly padded is no breast.

    Raises:
        Refusal: ``no_breast`` if nothing plausible is found.
    """
    picture = as_picture(pixels)
    shape = (picture.shape[0], picture.shape[1])
    if padded is None or not padded.any():
        return enlarge_mask(breast_grid(picture), shape).numpy()
    means, share = unpadded_means(picture.float(), torch.from_numpy(np.ascontiguousarray(padded)), grid_shape(shape))
    return enlarge_mask(breast_grid(means, share), shape).numpy()


def as_picture(pixels: np.ndarray | Tensor) -> Tensor:
    """A tensor of the same values; flipped views, which torch refuses, are copied."""
    return pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))


def to_grid(picture: Tensor) -> np.ndarray:
    """Average a picture (H, W) to the working grid, at most ``GRID`` per side: float32 (h, w)."""
    height, width = picture.shape[-2:]
    size = grid_shape((height, width))
    return functional.interpolate(picture.reshape(1, 1, height, width).float(), size=size, mode="area")[0, 0].numpy()


def grid_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the working grid of a picture of ``shape``."""
    scale = min(1.0, GRID / max(shape))
    return max(round(shape[0] * scale), 2), max(round(shape[1] * scale), 2)


def breast_grid(pixels: Tensor, padded: Tensor | None = None) -> np.ndarray:
    """Find the breast on a grid of at most ``GRID`` per side: bool (h, w), see :func:`segment_breast`.

    Args:
        pixels: the picture, at any size, or, with padding, on the grid: means over the pixels that are none.
        padded: share of padded pixels in each cell, (h, w); None where nothing is padded. The breast is sought in the
            box that padding encloses, as if the picture ended there.
    """
    small = to_grid(pixels)
    if padded is None:
        return _sought(small, np.zeros_like(small, dtype=bool))
    hidden = padded.numpy() > MOSTLY
    box = unpadded_box(hidden)
    grid = np.zeros_like(hidden)
    grid[box] = _sought(small[box], hidden[box])
    grid &= ~hidden
    if not grid.any():
        raise Refusal(RefusalCode.NO_BREAST, "the largest structure lies in the padding: no breast")
    return grid


def _sought(small: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The breast in a picture (h, w); padding counts nowhere, unless it is the air itself, at its lowest level."""
    if hidden.any():
        air = stands_for_air(hidden)
        small = np.where(hidden, np.float32(0), small) if air else continued(small, hidden)
        hidden = hidden & (not air)
    frame = film_frame(small)
    smooth = ndimage.gaussian_filter(np.where(frame, 0, small), 1.0)
    usable = ~frame & ~blanked_labels(small) & ~hidden
    level = _level(smooth[usable])
    mask = _one_breast(smooth > level.threshold, frame)
    uneven = _uneven_air(smooth, usable, mask, level)
    return _plausible(mask if uneven is None else _one_breast(smooth > uneven, frame))


def _one_breast(candidate: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return _largest(without_border_strips(candidate | frame) & ~frame)


@dataclass(frozen=True)
class _Level:
    """Level of the air, its noise, level of the breast."""

    air: float
    noise: float
    breast: float

    @property
    def threshold(self) -> float:
        """Smallest value of the breast: above the air's noise and between two shares of the breast's contrast."""
        contrast = self.breast - self.air
        return self.air + min(max(4 * self.noise, CONTRAST * contrast), MOST_CONTRAST * contrast)


def _level(values: np.ndarray) -> _Level:
    """Levels of air and breast in a picture's values.

    Otsu's method on square roots splits dark from light, and the dark part again as long as it hides a faint breast:
    the light part may be the pectoral muscle or lettering alone. The background's level is the median of the last dark
    part, its noise their median absolute deviation; the breast's level is the median of all that is lighter.
    """
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    if not high > low:
        raise Refusal(RefusalCode.NO_BREAST, "the picture is uniform")
    dark = _darker(np.clip(values, low, high), low, high)
    for _ in range(SPLITS - 1):
        top = float(dark.max())
        if not top > low:
            break
        darker = _darker(dark, low, top)
        faint = dark[dark > darker.max()]
        if darker.size < AIR * values.size or np.median(darker) - low >= APART * (np.median(faint) - low):
            break
        dark = darker
    background = float(np.median(dark))
    noise = 1.4826 * float(np.median(np.abs(dark - background)))
    light = values[values > dark.max()]
    return _Level(background, noise, float(np.median(light)))


def _uneven_air(smooth: np.ndarray, usable: np.ndarray, mask: np.ndarray, level: _Level) -> np.ndarray | None:
    """Threshold (h, w) over air that is not equally dark everywhere; None where one value does as well.

    A second-order surface is fitted to the air well outside the first mask. It is used where it halves the noise.
    """
    away = usable & (ndimage.maximum_filter(mask.view(np.uint8), 2 * round(AWAY * max(mask.shape)) + 1) == 0)
    if away.mean() < SMALLEST_AIR:
        return None
    sides = (np.linspace(-1, 1, side, dtype=np.float32) for side in mask.shape)
    y, x = np.meshgrid(*sides, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    thin = np.s_[::3, ::3]
    known, values = terms[:, *thin][:, away[thin]].astype(np.float64), smooth[thin][away[thin]].astype(np.float64)
    weights = np.ones_like(values)
    for _ in range(4):  # reweighted: letters and stray light are outliers
        factors = np.linalg.solve((known * weights) @ known.T + 1e-6 * np.eye(6), (known * weights) @ values)
        off = np.abs(values - factors @ known)
        noise = 1.4826 * float(np.median(off))
        weights = 1 / np.maximum(1, off / max(2 * noise, 1e-6)) ** 2
    if noise > 0.5 * level.noise:
        return None
    low, high = np.percentile(values, [1, 90])
    surface = np.clip(np.tensordot(factors, terms, 1), low, high)
    return surface + np.maximum(4 * noise, CONTRAST * (level.breast - surface))


def _darker(values: np.ndarray, low: float, high: float) -> np.ndarray:
    roots = np.sqrt((values - low) / (high - low))
    return values[roots <= threshold_otsu(roots)]


def _largest(candidate: np.ndarray) -> np.ndarray:
    """The thickest structure of the largest component, holes filled; what hangs on by a neck is cut off."""
    side = max(candidate.shape)
    radius = max(int(round(0.012 * side)), 1)
    size = 2 * radius + 1  # square opening: separable, thin lettering and strips go
    opened = ndimage.maximum_filter(ndimage.minimum_filter(candidate.view(np.uint8), size), size)
    labels, count = ndimage.label(opened)
    if count == 0:
        raise Refusal(RefusalCode.NO_BREAST, "nothing stands out from the background")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return _without_attachments(_filled(labels == sizes.argmax()))


def _filled(mask: np.ndarray) -> np.ndarray:
    """Holes filled, also those that are open to the left or right border only, between two parts of the chest wall."""
    closed = np.pad(mask, ((0, 0), (1, 1)))
    for column, edge in ((0, mask[:, 0]), (-1, mask[:, -1])):
        rows = np.flatnonzero(edge)
        if rows.size:
            closed[rows[0] : rows[-1] + 1, column] = True
    return ndimage.binary_fill_holes(closed)[:, 1:-1]


def _without_attachments(mask: np.ndarray) -> np.ndarray:
    """Drop labels that touch the breast: parts that a neck narrower than ``NECK`` joins to the thickest part."""
    half = mask[::2, ::2]  # enough for a thickness
    depth = _depth(half)
    radius = min(NECK * max(half.shape) / 2, 0.5 * float(depth.max()))
    labels, count = ndimage.label(depth > radius)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    core = labels == sizes.argmax()
    reach = ndimage.distance_transform_edt(~core) <= 2 * radius
    kept = mask & np.kron(reach, np.ones((2, 2), dtype=bool))[: mask.shape[0], : mask.shape[1]]
    parts, count = ndimage.label(kept)
    return kept if count == 1 else parts == np.bincount(parts.ravel())[1:].argmax() + 1


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the outside; beyond the left and right border the mask goes on."""
    pad = mask.shape[1] // 4
    wide = np.pad(np.pad(mask, ((0, 0), (pad, pad)), mode="edge"), ((1, 1), (0, 0)))
    return ndimage.distance_transform_edt(wide)[1:-1, pad:-pad]


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
