"""Base of the transforms of a preparation chain: each handles one image and records its step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from pipeline.imaging.scan import mask_profiles
from pipeline.imaging.steps import Background, Crop, Flip, Step

Item = dict[Hashable, Any]

IN_FLIGHT = ("mammogram", "breast", "tissue")
"""Keys that live only inside the chain; :class:`ResizeImaged`, its last transform, drops them."""


class RecordedTransform(MapTransform):
    """Base of the transforms between reading and resizing; handles one image per item."""

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys {self.keys}: one image key per item, since one preparation is recorded per item")

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        item = dict(data)
        for key in self.key_iterator(item):
            self._prepare(item, key)
        return item

    @abstractmethod
    def _prepare(self, item: Item, key: Hashable) -> None:
        """Decide the step for the image at `key`, from what the item holds, and record it."""

    def _record(self, item: Item, step: Step) -> None:
        item["preparation"] = item["preparation"].then(step)

    def _found(self, item: Item, name: str) -> Background:
        if name not in item:
            raise ValueError(f"{type(self).__name__} needs the breast mask: put SegmentBreastd before it")
        return item[name]

    def _profiles(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the breast in each row and in each column of the picture as cropped and mirrored so far."""
        breast = self._found(item, "breast")
        rows, columns = mask_profiles(breast.grid_mask(), breast.shape)
        for step in item["preparation"].steps:
            if isinstance(step, Crop):
                rows = rows[step.row : step.row + step.height]
                columns = columns[step.column : step.column + step.width]
            elif isinstance(step, Flip) and step.applied:
                columns = columns[::-1]
        return rows, columns
