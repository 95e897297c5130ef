"""MONAI dictionary transforms that prepare a mammogram: each decides one step, records it and applies it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from pipeline.imaging.mammogram import VOIPolicy, stored_tensor
from pipeline.imaging.preparation import Preparation
from pipeline.imaging.reading import read_mammogram
from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.segmentation import breast_grid
from pipeline.imaging.steps import Background, Crop, Flip, Pad, Resize, Step, Stretch, enlarge_mask
from pipeline.imaging.store import load_prepared

Item = dict[Hashable, Any]

IN_FLIGHT = ("mammogram", "breast_mask")
"""Keys that live only inside the chain; :class:`ResizeImaged`, its last transform, drops them."""


class _RecordedTransform(MapTransform):
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

    def _prepare(self, item: Item, key: Hashable) -> None:
        raise NotImplementedError

    def _record(self, item: Item, key: Hashable, step: Step) -> None:
        item["preparation"] = item["preparation"].then(step)
        item[key] = step.apply(item[key])
        if "breast_mask" in item and isinstance(step, Crop | Flip):
            item["breast_mask"] = step.apply(item["breast_mask"])

    def _mask(self, item: Item) -> Tensor:
        if "breast_mask" not in item:
            raise ValueError(f"{type(self).__name__} needs the breast mask: put SegmentBreastd before it")
        return item["breast_mask"]


class ReadMammogramd(_RecordedTransform):
    """Read a mammogram: the path at ``keys`` becomes stored values, float32 (1, H, W).

    Uses ``laterality``, ``view`` and ``patient_id`` of the item where present (the manifest's) and sets ``laterality``,
    ``view``, ``spacing_mm``, ``provenance`` and ``preparation``, still without steps.

    Args:
        keys: the image key.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: see :func:`~pipeline.imaging.reading.read_mammogram`; a ``Compose`` wraps it, see ``refusal_of``.
    """

    def _prepare(self, item: Item, key: Hashable) -> None:
        facts = {name: item.get(name) for name in ("laterality", "view", "patient_id")}
        given = {name: str(value) for name, value in facts.items() if isinstance(value, str) and value}
        mammogram = read_mammogram(item[key], **given)
        item[key] = stored_tensor(mammogram.stored)[None]
        item["mammogram"] = mammogram
        item["laterality"] = str(mammogram.laterality)
        item["view"] = str(mammogram.view)
        item["spacing_mm"] = mammogram.spacing_mm
        item["provenance"] = dict(mammogram.provenance)
        rows, columns = mammogram.stored.shape
        item["preparation"] = Preparation(source_shape=(rows, columns))


class ApplyWindowd(_RecordedTransform):
    """Show the stored values: padding, modality, VOI and inversion, to [0, 1] with bright = dense.

    Args:
        keys: the image key.
        policy: ``auto`` (first VOI LUT, else first window, else full range of the stored bits), ``lut``, ``window`` or
            ``none`` (full range). Nothing is ever stretched to the image's own values here, see
            :class:`StretchContrastd`.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: ``bad_display`` if the file lacks what the policy insists on.
    """

    def __init__(
        self, keys: KeysCollection, *, policy: VOIPolicy | str = VOIPolicy.AUTO, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.policy = str(policy)
        if self.policy not in set(VOIPolicy):
            raise ValueError(f"policy {self.policy!r} is unknown: use one of {', '.join(VOIPolicy)}")

    def _prepare(self, item: Item, key: Hashable) -> None:
        display = item["mammogram"].presentation.display(self.policy)
        item["provenance"]["display"] += f"; {display.function} ({self.policy}{', inverted' if display.invert else ''})"
        self._record(item, key, display)


class SegmentBreastd(_RecordedTransform):
    """Find the breast; ``breast_mask``, bool (1, H, W), is added to the item.

    Args:
        keys: the image key.
        remove_background: set everything outside the breast to 0, so that letters, labels and film edges are gone.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: ``no_breast``.
    """

    def __init__(
        self, keys: KeysCollection, *, remove_background: bool = True, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.remove_background = remove_background

    def _prepare(self, item: Item, key: Hashable) -> None:
        picture = item[key]
        shape = (picture.shape[-2], picture.shape[-1])
        grid = breast_grid(picture[0])
        item["breast_mask"] = enlarge_mask(grid, shape)[None]
        if self.remove_background:
            self._record(item, key, Background.from_grid(grid, shape))


class StretchContrastd(_RecordedTransform):
    """Stretch the contrast between two percentiles of the breast's pixels: an explicit, recorded choice per image.

    Meant for digitised film, whose scale of grey differs from image to image.

    Args:
        keys: the image key.
        percentiles: percentiles of the breast's pixels that become 0 and 1.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: ``no_breast`` if all pixels of the breast are equal.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        percentiles: Sequence[float] = (1.0, 99.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        low, high = (float(value) for value in percentiles)
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {percentiles}: two rising numbers between 0 and 100")
        self.percentiles = (low, high)

    def _prepare(self, item: Item, key: Hashable) -> None:
        values = item[key][self._mask(item)].numpy()
        thinned = values[:: max(len(values) // 200_000, 1)]
        low, high = (float(value) for value in np.percentile(thinned, self.percentiles))
        if not high > low:
            raise Refusal(RefusalCode.NO_BREAST, f"the breast is uniform at {low:.3f}: no contrast to stretch")
        self._record(item, key, Stretch(low=low, high=high))


class CropToBreastd(_RecordedTransform):
    """Crop to the breast's bounding box.

    Args:
        keys: the image key.
        margin: added on every side, as a share of the box's longer side; stays inside the picture.
        allow_missing_keys: skip items without the key.
    """

    def __init__(self, keys: KeysCollection, *, margin: float = 0.02, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        if not 0 <= margin <= 1:
            raise ValueError(f"margin {margin}: a share of the breast's longer side, 0 to 1")
        self.margin = float(margin)

    def _prepare(self, item: Item, key: Hashable) -> None:
        mask = self._mask(item)[0]
        rows = torch.nonzero(mask.any(dim=1))[:, 0]
        columns = torch.nonzero(mask.any(dim=0))[:, 0]
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        extra = round(self.margin * max(bottom - top, right - left))
        top, left = max(top - extra, 0), max(left - extra, 0)
        bottom, right = min(bottom + extra, mask.shape[0]), min(right + extra, mask.shape[1])
        self._record(item, key, Crop(row=top, column=left, height=bottom - top, width=right - left))


class OrientChestWalld(_RecordedTransform):
    """Mirror the picture where needed, so that the chest wall is at the left.

    The pixels decide: the breast is broad at the chest wall and narrow at the nipple. What Patient Orientation and the
    usual hanging of the side say is recorded in ``provenance["chest_wall"]``; views stored mirrored exist.

    Args:
        keys: the image key.
        allow_missing_keys: skip items without the key.
    """

    def _prepare(self, item: Item, key: Hashable) -> None:
        found = chest_wall_of(self._mask(item)[0])
        tag = item["mammogram"].chest_wall
        usual = "left" if item["laterality"] == "L" else "right"
        item["provenance"]["chest_wall"] = "; ".join(
            (
                f"{found} (pixels)",
                f"PatientOrientation {'says nothing' if tag is None else 'agrees' if tag == found else 'disagrees'}",
                f"usual hanging of {item['laterality']} {'agrees' if usual == found else 'disagrees'}",
            )
        )
        self._record(item, key, Flip(width=item[key].shape[-1], applied=found == "right"))


def chest_wall_of(mask: Tensor) -> str:
    """Edge ("left" or "right") of a breast mask, bool (H, W), at which the breast is broader."""
    columns = torch.nonzero(mask.any(dim=0))[:, 0]
    first, last = int(columns[0]), int(columns[-1]) + 1
    strip = max((last - first) // 8, 1)
    left = int(mask[:, first : first + strip].sum())
    right = int(mask[:, last - strip : last].sum())
    return "left" if left >= right else "right"


class ResizeImaged(_RecordedTransform):
    """Resize with kept aspect and pad with zeros at the right and at the bottom; ends the chain.

    Drops what lives only inside the chain (the mammogram and its mask); ``image`` is then float32 (1, h, w) in [0, 1].

    Args:
        keys: the image key.
        image_size: one number for a square, or (height, width).
        allow_missing_keys: skip items without the key.
    """

    def __init__(
        self, keys: KeysCollection, *, image_size: int | Sequence[int], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(int(side) for side in image_size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"image_size {image_size!r}: one positive number or (height, width)")
        self.image_size = (sides[0], sides[1])

    def _prepare(self, item: Item, key: Hashable) -> None:
        rows, columns = item[key].shape[-2:]
        scale = min(self.image_size[0] / rows, self.image_size[1] / columns)
        target = (
            min(max(round(rows * scale), 1), self.image_size[0]),
            min(max(round(columns * scale), 1), self.image_size[1]),
        )
        self._record(item, key, Resize(source=(rows, columns), target=target))
        self._record(item, key, Pad(right=self.image_size[1] - target[1], bottom=self.image_size[0] - target[0]))
        item[key] = item[key].contiguous()
        for name in IN_FLIGHT:
            item.pop(name, None)


class LoadPreparedd(MapTransform):
    """Load prepared images from the store: path -> float32 (1, H, W) in [0, 1], a plain tensor.

    Args:
        keys: image keys.
        allow_missing_keys: skip items without a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> Item:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = load_prepared(item[key])
        return item
