"""Geometric and pointwise steps of a preparation: frozen values that act on pictures and on points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.imaging import scan


class Step(Protocol):
    """One recorded step.

    Points are (N, 2) coordinates (row, column); pixel centres are integers, the first pixel's is (0, 0).
    """

    def apply(self, picture: Tensor) -> Tensor:
        """Act on a picture (..., H, W), differentiably."""

    def to_prepared(self, points: Tensor) -> Tensor:
        """Map points of the step's input to its output."""

    def to_source(self, points: Tensor) -> Tensor:
        """Map points of the step's output to its input."""


class Pointwise:
    """Base of steps that leave every pixel where it is."""

    def to_prepared(self, points: Tensor) -> Tensor:
        """Return the points unchanged."""
        return points

    def to_source(self, points: Tensor) -> Tensor:
        """Return the points unchanged."""
        return points


@dataclass(frozen=True)
class Stretch(Pointwise):
    """Linear stretch: low becomes 0, high becomes 1, clipped to [0, 1].

    Args:
        low: display value that becomes 0.
        high: display value that becomes 1.
    """

    low: float
    high: float

    def apply(self, picture: Tensor) -> Tensor:
        """Stretch a picture (..., H, W) in [0, 1]."""
        return ((picture - self.low) / (self.high - self.low)).clamp(0, 1)


@dataclass(frozen=True)
class Background(Pointwise):
    """Sets everything outside the breast to 0.

    The mask is kept at low resolution as run lengths (row by row, starting with background); it is enlarged
    bilinearly and cut at one half, see :func:`enlarge_mask`.

    Args:
        shape: (rows, columns) of the picture.
        grid: (rows, columns) of the low-resolution mask.
        runs: lengths of alternating runs of background and breast.
    """

    shape: tuple[int, int]
    grid: tuple[int, int]
    runs: tuple[int, ...]

    @classmethod
    def from_grid(cls, mask: np.ndarray, shape: tuple[int, int]) -> Background:
        """Encode a low-resolution mask, bool (h, w), for a picture of ``shape``."""
        flat = mask.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
        return cls(shape=shape, grid=(mask.shape[0], mask.shape[1]), runs=tuple([0, *runs] if flat[0] else runs))

    def grid_mask(self) -> np.ndarray:
        """The low-resolution mask, bool (h, w)."""
        values = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(values, self.runs).reshape(self.grid)

    def mask(self) -> Tensor:
        """The mask at the picture's resolution, bool (H, W)."""
        return enlarge_mask(self.grid_mask(), self.shape)

    def apply(self, picture: Tensor) -> Tensor:
        """Set the background of a picture (..., H, W) to 0."""
        return picture.masked_fill(~self.mask().to(picture.device), 0.0)


def enlarge_mask(mask: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Enlarge a low-resolution mask, bool (h, w), to bool ``shape`` with a smooth outline."""
    return torch.from_numpy(mask if mask.shape == tuple(shape) else scan.enlarged(mask, shape))


@dataclass(frozen=True)
class Crop:
    """Keeps a box.

    Args:
        row: first row kept.
        column: first column kept.
        height: rows kept.
        width: columns kept.
    """

    row: int
    column: int
    height: int
    width: int

    def apply(self, picture: Tensor) -> Tensor:
        """Crop a picture (..., H, W)."""
        return picture[..., self.row : self.row + self.height, self.column : self.column + self.width]

    def to_prepared(self, points: Tensor) -> Tensor:
        """Map points into the box."""
        return points - points.new_tensor([self.row, self.column])

    def to_source(self, points: Tensor) -> Tensor:
        """Map points of the box to the whole picture."""
        return points + points.new_tensor([self.row, self.column])


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Args:
        width: columns of the picture.
        applied: False records that the picture already was the right way round.
    """

    width: int
    applied: bool = True

    def apply(self, picture: Tensor) -> Tensor:
        """Mirror a picture (..., H, W)."""
        return picture.flip(-1) if self.applied else picture

    def to_prepared(self, points: Tensor) -> Tensor:
        """Mirror points."""
        if not self.applied:
            return points
        return torch.stack([points[:, 0], self.width - 1 - points[:, 1]], dim=1)

    def to_source(self, points: Tensor) -> Tensor:
        """Mirror points back."""
        return self.to_prepared(points)


@dataclass(frozen=True)
class Resize:
    """Resamples with an antialiasing triangle filter, so that every source pixel contributes.

    Args:
        source: (rows, columns) before.
        target: (rows, columns) after.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    def apply(self, picture: Tensor) -> Tensor:
        """Resize a picture (..., H, W) in [0, 1]; rounding above 1 is clipped."""
        flat = picture.reshape(-1, 1, *picture.shape[-2:])
        small = functional.interpolate(flat, size=self.target, mode="bilinear", antialias=True, align_corners=False)
        return small.reshape(*picture.shape[:-2], *self.target).clamp(0, 1)

    def _scale(self, points: Tensor) -> Tensor:
        return points.new_tensor([self.source[0] / self.target[0], self.source[1] / self.target[1]])

    def to_prepared(self, points: Tensor) -> Tensor:
        """Map points to the resized picture."""
        return (points + 0.5) / self._scale(points) - 0.5

    def to_source(self, points: Tensor) -> Tensor:
        """Map points of the resized picture back."""
        return (points + 0.5) * self._scale(points) - 0.5


@dataclass(frozen=True)
class Pad:
    """Adds zeros at the right and at the bottom.

    Args:
        right: columns added.
        bottom: rows added.
    """

    right: int
    bottom: int

    def apply(self, picture: Tensor) -> Tensor:
        """Pad a picture (..., H, W)."""
        return functional.pad(picture, (0, self.right, 0, self.bottom))

    def to_prepared(self, points: Tensor) -> Tensor:
        """Return the points unchanged: nothing is added above or to the left."""
        return points

    def to_source(self, points: Tensor) -> Tensor:
        """Return the points unchanged; points in the padding map outside the picture."""
        return points
