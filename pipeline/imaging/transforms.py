"""MONAI dictionary transforms that prepare a mammogram: each decides one step and records it, the last applies all.

Until then the image key holds the stored pixels: what a decision needs to see is made of them in one pass, see
``pipeline.imaging.scan``, so that no step copies the picture at full size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from torch import Tensor

from pipeline.imaging.chest_wall import chest_wall_of
from pipeline.imaging.decoding import RawPolicy
from pipeline.imaging.facts import Conflicts
from pipeline.imaging.mammogram import VOIPolicy
from pipeline.imaging.pectoral import SURE, pectoral_grid
from pipeline.imaging.pectoral import VIEWS as PECTORAL_VIEWS
from pipeline.imaging.preparation import Preparation
from pipeline.imaging.reading import read_mammogram
from pipeline.imaging.recorded import IN_FLIGHT, Item, RecordedTransform
from pipeline.imaging.refusal import Refusal, RefusalCode
from pipeline.imaging.scan import native_tensor
from pipeline.imaging.segmentation import breast_grid, grid_shape
from pipeline.imaging.special import KEPT, checked_keep
from pipeline.imaging.steps import Background, Crop, Flip, Pad, Resize, Stretch


class ReadMammogramd(RecordedTransform):
    """Read a mammogram: the path at ``keys`` becomes stored values, integers (H, W).

    Uses ``laterality``, ``view`` and ``patient_id`` of the item where present (the manifest's) and sets ``laterality``,
    ``view``, ``spacing_mm``, ``provenance`` and ``preparation``, still without steps.

    Args:
        keys: the image key.
        keep: kinds of unusual images to read, of ``spot_compression, magnification, partial_view, implant_displaced,
            implant, localizer, contrast, synthetic, tomosynthesis, region, specimen, quality_control``; the others are
            refused.
        for_processing: ``refuse`` raw detector values, or show them by their logarithm, ``log``.
        conflicts: ``refuse`` an image whose sources contradict each other about side or view, or ``flag`` it.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: see :func:`~pipeline.imaging.reading.read_mammogram`; a ``Compose`` wraps it, see ``refusal_of``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        keep: Sequence[str] = KEPT,
        for_processing: RawPolicy | str = RawPolicy.REFUSE,
        conflicts: Conflicts | str = Conflicts.REFUSE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.keep = list(checked_keep(keep))
        self.for_processing = str(RawPolicy(for_processing))
        self.conflicts = str(Conflicts(conflicts))

    def _prepare(self, item: Item, key: Hashable) -> None:
        facts = {name: item.get(name) for name in ("laterality", "view", "patient_id")}
        given = {name: str(value) for name, value in facts.items() if isinstance(value, str) and value}
        mammogram = read_mammogram(
            item[key], **given, keep=self.keep, for_processing=self.for_processing, conflicts=self.conflicts
        )
        item[key] = native_tensor(mammogram.stored)
        item["mammogram"] = mammogram
        item["laterality"] = str(mammogram.laterality)
        item["view"] = str(mammogram.view)
        item["spacing_mm"] = mammogram.spacing_mm
        item["provenance"] = dict(mammogram.provenance)
        rows, columns = mammogram.stored.shape
        item["preparation"] = Preparation(source_shape=(rows, columns))


class ApplyWindowd(RecordedTransform):
    """Decide how the stored values are shown: padding, modality, VOI and inversion, to [0, 1] with bright = dense.

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
        presentation = item["mammogram"].presentation
        display = presentation.display(self.policy)
        item["provenance"]["voi"] = presentation.voi_source(self.policy)
        item["provenance"]["display"] += f"; {display.function} ({self.policy}{', inverted' if display.invert else ''})"
        self._record(item, display)


class SegmentBreastd(RecordedTransform):
    """Find the breast; its mask ``breast`` is added to the item, and ``tissue``, the same without a removed muscle.

    The breast mask holds the pectoral muscle whether it is removed or not: orientation and crop stay the same.

    Args:
        keys: the image key.
        remove_background: set everything outside the breast to 0, so that letters, labels and film edges are gone.
        remove_pectoral: set the pectoral muscle to 0 in the views that show it, where it is found with confidence;
            ``provenance["pectoral_muscle"]`` says what was done and how sure it is.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: ``no_breast``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        remove_background: bool = True,
        remove_pectoral: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.remove_background = remove_background
        self.remove_pectoral = remove_pectoral

    def _prepare(self, item: Item, key: Hashable) -> None:
        shape = item["preparation"].source_shape
        small, padded = item["preparation"].area_means(item[key], grid_shape(shape))
        grid = breast_grid(small, padded)
        kept = grid if self.remove_background else np.ones_like(grid)
        tissue = grid
        if self.remove_pectoral:
            muscle = self._find_muscle(item, small, grid)
            kept, tissue = kept & ~muscle, tissue & ~muscle
        item["breast"], item["tissue"] = Background.from_grid(grid, shape), Background.from_grid(tissue, shape)
        if not kept.all():
            self._record(item, Background.from_grid(kept, shape))

    def _find_muscle(self, item: Item, small: Tensor, grid: np.ndarray) -> np.ndarray:
        chest_wall, view = chest_wall_of(grid.sum(axis=0)), item["view"]
        muscle, confidence = pectoral_grid(small.numpy(), grid, chest_wall=chest_wall, view=view)
        if view not in PECTORAL_VIEWS:
            done = f"not looked for in {view or 'an unknown view'}"
        else:
            done = f"{'removed' if muscle.any() else 'kept'}, confidence {confidence:.2f} ({SURE} needed)"
        item["provenance"]["pectoral_muscle"] = done
        return muscle


class StretchContrastd(RecordedTransform):
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
        stored = item[key].numpy()
        values = stored[self._found(item, "tissue").mask().numpy()]
        values = values[~item["mammogram"].presentation.padded(values)]
        thinned = values[:: max(len(values) // 200_000, 1)].astype(np.float32)
        shown = item["preparation"].shown(torch.from_numpy(thinned)).numpy()
        low, high = (float(value) for value in np.percentile(shown, self.percentiles)) if shown.size else (0.0, 0.0)
        if not high > low:
            raise Refusal(RefusalCode.NO_BREAST, f"the breast is uniform at {low:.3f}: no contrast to stretch")
        self._record(item, Stretch(low=low, high=high))


class CropToBreastd(RecordedTransform):
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
        profiles = self._profiles(item)
        (top, bottom), (left, right) = ((int(np.argmax(p > 0)), p.size - int(np.argmax(p[::-1] > 0))) for p in profiles)
        extra = round(self.margin * max(bottom - top, right - left))
        top, left = max(top - extra, 0), max(left - extra, 0)
        bottom, right = min(bottom + extra, profiles[0].size), min(right + extra, profiles[1].size)
        self._record(item, Crop(row=top, column=left, height=bottom - top, width=right - left))


class OrientChestWalld(RecordedTransform):
    """Mirror the picture where needed, so that the chest wall is at the left.

    The pixels decide: the breast is broad at the chest wall and narrow at the nipple. They are checked against what
    Patient Orientation says, or, where it says nothing, against the usual hanging of the side (left breast: chest wall
    left); ``provenance["chest_wall"]`` holds all three, ``provenance["side_check"]`` the outcome: ``agrees``, or what
    disagrees. A picture that disagrees is mirrored, as many archives have them, or its side is wrong.

    Args:
        keys: the image key.
        side_check: ``flag`` an image whose pixels disagree, or ``refuse`` it.
        allow_missing_keys: skip items without the key.

    Raises:
        Refusal: ``side_conflict`` if the pixels disagree and ``side_check`` is ``refuse``.
    """

    def __init__(
        self, keys: KeysCollection, *, side_check: Conflicts | str = Conflicts.FLAG, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self.side_check = str(Conflicts(side_check))

    def _prepare(self, item: Item, key: Hashable) -> None:
        _, columns = self._profiles(item)
        found = chest_wall_of(columns)
        tag = item["mammogram"].chest_wall
        usual = "left" if item["laterality"] == "L" else "right"
        item["provenance"]["chest_wall"] = "; ".join(
            (
                f"{found} (pixels)",
                f"PatientOrientation {'says nothing' if tag is None else 'agrees' if tag == found else 'disagrees'}",
                f"usual hanging of {item['laterality']} {'agrees' if usual == found else 'disagrees'}",
            )
        )
        outcome = "agrees"
        if found != (tag or usual):
            outcome = "PatientOrientation disagrees" if tag else f"usual hanging of {item['laterality']} disagrees"
            if self.side_check == Conflicts.REFUSE:
                raise Refusal(
                    RefusalCode.SIDE_CONFLICT,
                    f"the breast touches the {found} edge, and the {outcome}: the picture is mirrored or the side is "
                    "wrong; look at it, or use side_check 'flag'",
                )
        item["provenance"]["side_check"] = outcome
        self._record(item, Flip(width=columns.size, applied=found == "right"))


class ResizeImaged(RecordedTransform):
    """Resize with kept aspect, pad with zeros at the right and at the bottom, and apply all steps; ends the chain.

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
        rows, columns = item["preparation"].shape
        scale = min(self.image_size[0] / rows, self.image_size[1] / columns)
        target = (
            min(max(round(rows * scale), 1), self.image_size[0]),
            min(max(round(columns * scale), 1), self.image_size[1]),
        )
        self._record(item, Resize(source=(rows, columns), target=target))
        self._record(item, Pad(right=self.image_size[1] - target[1], bottom=self.image_size[0] - target[0]))
        item[key] = item["preparation"].apply(item[key])
        for name in IN_FLIGHT:
            item.pop(name, None)
