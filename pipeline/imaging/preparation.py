"""The preparation of one image: recorded once, replayed in torch, and turned round for points."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.imaging import scan
from pipeline.imaging.display import Display, Table
from pipeline.imaging.padding import any_padded, tabled_unpadded_means, unpadded_means
from pipeline.imaging.steps import Background, Crop, Flip, Pad, Resize, Step, Stretch

STEPS: dict[str, type] = {kind.__name__: kind for kind in (Display, Stretch, Background, Crop, Flip, Resize, Pad)}
"""Steps that a preparation may hold, by name."""


_RANKS = {Display: 0, Stretch: 0, Background: 0, Crop: 1, Flip: 2, Resize: 3, Pad: 4}
"""Order of the steps in a single pass; those of rank 0 leave every pixel where it is."""


@dataclass(frozen=True)
class Preparation:
    """Ordered steps from stored to prepared pixels; the only code that turns one into the other.

    Args:
        source_shape: (rows, columns) of the stored picture.
        steps: steps in the order in which they act.
    """

    source_shape: tuple[int, int]
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Preparation:
        """Return the preparation with one more step at its end."""
        return replace(self, steps=(*self.steps, step))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) after the steps."""
        rows, columns = self.source_shape
        for step in self.steps:
            if isinstance(step, Crop):
                rows, columns = step.height, step.width
            elif isinstance(step, Resize):
                rows, columns = step.target
            elif isinstance(step, Pad):
                rows, columns = rows + step.bottom, columns + step.right
        return rows, columns

    def apply(self, stored: Tensor) -> Tensor:
        """Turn stored values into prepared pixels; gradients flow back to floating stored values.

        Args:
            stored: stored values (H, W). Floating ones go through the steps one by one and keep their type; integers
                give float32, in one pass where they have 8 or 16 bits, which is the same within half a grey level of
                65,535.

        Returns:
            Prepared pixels (1, h, w) in [0, 1].

        Raises:
            ValueError: if the shape is not that of the picture that the preparation was recorded on.
        """
        if tuple(stored.shape) != tuple(self.source_shape):
            raise ValueError(
                f"stored picture has shape {tuple(stored.shape)}, the preparation was recorded on {self.source_shape}"
            )
        if not stored.is_floating_point():
            scanned = self._scanned(stored.cpu().numpy())
            if scanned is not None:
                return scanned.to(stored.device)
        picture = (stored if stored.is_floating_point() else stored.to(torch.float32))[None]
        for step in self.steps:
            picture = step.apply(picture)
        return picture

    def shown(self, values: Tensor) -> Tensor:
        """Display values in [0, 1] of stored values (any shape, floating) inside the breast."""
        for step in self.steps:
            if isinstance(step, Display | Stretch):
                values = step.apply(values)
        return values

    def area_means(self, stored: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Means of the shown picture over the cells of a grid, before any geometry; padded pixels count nowhere.

        Args:
            stored: stored values (H, W).
            grid: (rows, columns) of the result.

        Returns:
            Means over the pixels that are no padding, float32 ``grid``, 0 in a cell without any; and the share of
            padded pixels in each cell, float32 ``grid``, None where no pixel is padded.
        """
        pixels = stored.cpu().numpy()
        if scan.tabled(pixels):
            values = scan.every_value(pixels)
            table, chosen = self.shown(values).numpy(), self._padded(values).numpy()
            if not chosen.any() or not any_padded(pixels, chosen):
                return torch.from_numpy(scan.area_means(pixels, table, grid)), None
            means, share = tabled_unpadded_means(pixels, table, chosen, grid)
            return torch.from_numpy(means), torch.from_numpy(share)
        shown, padded = self.shown(stored.to(torch.float32)), self._padded(stored)
        if not padded.any():
            return functional.interpolate(shown[None, None], size=grid, mode="area")[0, 0], None
        return unpadded_means(shown, padded, grid)

    def _padded(self, stored: Tensor) -> Tensor:
        """Where stored values stand for padding, bool of their shape."""
        display = next((step for step in self.steps if isinstance(step, Display)), None)
        return torch.zeros_like(stored, dtype=torch.bool) if display is None else display.padded(stored)

    def _scanned(self, pixels: np.ndarray) -> Tensor | None:
        """Prepared pixels in one pass, None where the steps come in another order than the pass has."""
        ranks = [_RANKS[type(step)] for step in self.steps]
        resize = next((step for step in self.steps if isinstance(step, Resize)), None)
        once = all(ranks.count(rank) < 2 for rank in ranks if rank)
        if resize is None or not once or ranks != sorted(ranks) or not scan.tabled(pixels):
            return None
        box, mirrored, pad, outside = (0, 0, *self.source_shape), False, (0, 0, 0, 0), torch.zeros(1)
        masks = []
        for step in self.steps:
            if isinstance(step, Background):
                if float(outside) != 0:
                    return None  # what lies outside the first mask only would be shown otherwise
                masks.append(step)
            elif isinstance(step, Stretch) and masks:
                outside = step.apply(outside)
            elif isinstance(step, Crop):
                box = (step.row, step.column, step.height, step.width)
            elif isinstance(step, Flip):
                mirrored = step.applied
            elif isinstance(step, Pad):
                pad = (0, step.right, 0, step.bottom)
        small = scan.resized(
            pixels,
            self.shown(scan.every_value(pixels)).numpy(),
            box=box,
            mirrored=mirrored,
            target=resize.target,
            mask=_joint(masks),
            outside=float(outside),
        )
        return functional.pad(torch.from_numpy(small).clamp(0, 1), pad)[None]

    def to_prepared(self, points: Any) -> Tensor:
        """Map stored pixels to prepared ones: points (N, 2) as (row, column), float64; pixel centres are integers."""
        moved = _points(points)
        for step in self.steps:
            moved = step.to_prepared(moved)
        return moved

    def to_source(self, points: Any) -> Tensor:
        """Map prepared pixels back to stored ones: points (N, 2) as (row, column), float64."""
        moved = _points(points)
        for step in reversed(self.steps):
            moved = step.to_source(moved)
        return moved

    def spacing(self, spacing_mm: tuple[float, float]) -> tuple[float, float]:
        """Spacing (row, column) in mm of the prepared image, from that of the stored one."""
        ends = self.to_source([[0.0, 0.0], [1.0, 1.0]])
        step = (ends[1] - ends[0]).abs().tolist()
        return spacing_mm[0] * step[0], spacing_mm[1] * step[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; tables are compressed."""
        steps = [{"step": type(step).__name__, **_encoded(step)} for step in self.steps]
        return {"source_shape": list(self.source_shape), "steps": steps}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Preparation:
        """Rebuild a preparation from :meth:`to_dict`.

        Raises:
            ValueError: for a step that this version does not know.
        """
        steps = []
        for entry in record["steps"]:
            settings = {name: _decoded(value) for name, value in entry.items() if name != "step"}
            if entry["step"] not in STEPS:
                raise ValueError(f"preparation step {entry['step']!r} is unknown: one of {', '.join(STEPS)}")
            steps.append(STEPS[entry["step"]](**settings))
        rows, columns = record["source_shape"]
        return cls(source_shape=(int(rows), int(columns)), steps=tuple(steps))


def _joint(masks: list[Background]) -> np.ndarray | None:
    """What lies inside all masks: on the grid of the only one, or at full size; None without a mask."""
    if len(masks) < 2:
        return masks[0].grid_mask() if masks else None
    return np.logical_and.reduce([mask.mask().numpy() for mask in masks])


def _points(points: Any) -> Tensor:
    moved = torch.as_tensor(np.asarray(points) if not isinstance(points, Tensor) else points).to(torch.float64)
    if moved.ndim != 2 or moved.shape[1] != 2:
        raise ValueError(f"points have shape {tuple(moved.shape)}: (N, 2) with row and column needed")
    return moved


def _encoded(step: Any) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in fields(step):
        value = getattr(step, field.name)
        if isinstance(value, Table):
            packed = zlib.compress(np.asarray(value.entries, dtype="<u2").tobytes())
            value = {"first": value.first, "bits": value.bits, "entries": base64.b64encode(packed).decode()}
        record[field.name] = list(value) if isinstance(value, tuple) else value
    return record


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        entries = np.frombuffer(zlib.decompress(base64.b64decode(value["entries"])), dtype="<u2")
        return Table(first=int(value["first"]), entries=tuple(entries.tolist()), bits=int(value["bits"]))
    return tuple(value) if isinstance(value, list) else value
