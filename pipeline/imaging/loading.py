"""The transform that a data loader uses: prepared images out of the store."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform

from pipeline.imaging.store import load_prepared


class LoadPreparedd(MapTransform):
    """Load prepared images from the store: path -> float32 (1, H, W) in [0, 1], a plain tensor.

    Args:
        keys: image keys.
        allow_missing_keys: skip items without a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = load_prepared(item[key])
        return item
