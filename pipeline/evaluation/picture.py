"""Pictures: maps of a prepared image drawn over the mammogram as it was acquired."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from pipeline.imaging import Preparation

HEIGHT = 360  # rows of a drawn picture
CHANGE_COLOURS = "PuOr_r"  # purple darker, orange brighter: told apart with every common form of colour blindness


class Canvas:
    """The acquired picture at display size, in its original orientation, and maps of the prepared image over it.

    Args:
        pixels: display values (H, W) in [0, 1] at full resolution.
        preparation: how the prepared image was made from the picture.
        text: drawn into the corner, e.g. side and view.
    """

    def __init__(self, pixels: np.ndarray, preparation: Preparation, *, text: str) -> None:
        rows, columns = pixels.shape
        height = min(HEIGHT, rows)
        width = max(round(columns * height / rows), 1)
        small = Image.fromarray(np.asarray(pixels, dtype=np.float32)).resize((width, height), Image.Resampling.BOX)
        self.picture = np.clip(np.asarray(small), 0, 1)
        grid_rows, grid_columns = np.mgrid[0:height, 0:width]
        centres = np.stack([(grid_rows + 0.5) * rows / height - 0.5, (grid_columns + 0.5) * columns / width - 0.5], -1)
        self.positions = preparation.to_prepared(centres.reshape(-1, 2)).numpy().reshape(height, width, 2)
        self.text = text

    def keep_breast(self, prepared: Tensor) -> None:
        """Blacken what the preparation blackened: everything outside the segmented breast.

        Args:
            prepared: the prepared image (h, w), 0 outside the breast.
        """
        breast = ndimage.binary_dilation(ndimage.binary_fill_holes(prepared.detach().cpu().numpy() > 0), iterations=1)
        inside = ndimage.map_coordinates(
            breast.astype(np.float32), np.moveaxis(self.positions, -1, 0), order=1, mode="constant", cval=0.0
        )
        self.picture = np.where(inside > 0.5, self.picture, np.float32(0))

    def onto(self, prepared: Tensor) -> np.ndarray:
        """Resample a map (h, w) of the prepared image onto the canvas; 0 outside."""
        values = prepared.detach().cpu().numpy()
        return ndimage.map_coordinates(values, np.moveaxis(self.positions, -1, 0), order=1, mode="constant", cval=0.0)

    def save(self, path: Path, *, change: Tensor | None = None, heat: Tensor | None = None) -> None:
        """Write a PNG: the picture, plus `change` in prepared pixels, under `heat` in [0, 1] in prepared pixels."""
        grey = self.picture if change is None else np.clip(self.picture + self.onto(change), 0, 1)
        colour = np.repeat(grey[..., None], 3, axis=2)
        if heat is not None:
            strength = np.clip(self.onto(heat), 0, 1)
            hot = matplotlib.colormaps["inferno"](strength)[..., :3]
            alpha = 0.75 * np.sqrt(strength)[..., None]
            colour = (1 - alpha) * colour + alpha * hot
        self._write(path, colour)

    def save_change(self, path: Path, change: Tensor, *, limit: float) -> None:
        """Write a PNG of `change` in prepared pixels alone, its colours from -limit to limit; pale where it is 0."""
        share = self.onto(change) / limit if limit > 0 else np.zeros_like(self.picture)
        self._write(path, matplotlib.colormaps[CHANGE_COLOURS](0.5 + 0.5 * np.clip(share, -1, 1))[..., :3])

    def _write(self, path: Path, colour: np.ndarray) -> None:
        image = Image.fromarray((255 * colour).round().astype(np.uint8))
        ImageDraw.Draw(image).text((6, 6), self.text, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0))
        image.save(path, optimize=True)
