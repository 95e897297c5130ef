"""One mammogram as read: stored values, display facts, side, view, spacing, and where each fact came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch

from pipeline.imaging.display import Display, Table, VOIFunction
from pipeline.imaging.refusal import Refusal, RefusalCode


class Laterality(StrEnum):
    """Side of the breast (Image Laterality, PS3.3 C.8.11.7)."""

    L = "L"
    R = "R"


class View(StrEnum):
    """Mammographic view by its common abbreviation (PS3.16 CID 4014)."""

    CC = "CC"
    MLO = "MLO"
    ML = "ML"
    LM = "LM"
    LMO = "LMO"
    FB = "FB"
    SIO = "SIO"
    ISO = "ISO"
    XCC = "XCC"
    XCCL = "XCCL"
    XCCM = "XCCM"


class VOIPolicy(StrEnum):
    """Which of the file's VOI transformations is used."""

    AUTO = "auto"  # the first table, else the first window, else the full range of the stored bits
    LUT = "lut"
    WINDOW = "window"
    NONE = "none"


@dataclass(frozen=True)
class Window:
    """One window of the file: centre, width and its explanation."""

    centre: float
    width: float
    explanation: str = ""


@dataclass(frozen=True)
class Presentation:
    """Everything a file says about how its stored values are to be shown; chooses nothing yet.

    Args:
        stored_range: lowest and highest value that the stored bits can hold.
        bits_stored: bits stored per pixel.
        windows: windows in the file's order.
        function: VOI LUT Function of the windows: LINEAR, LINEAR_EXACT or SIGMOID.
        tables: VOI LUTs in the file's order.
        slope: rescale slope.
        intercept: rescale intercept.
        modality_table: Modality LUT, in place of slope and intercept.
        padding: padded stored values, lowest and highest, both included.
        invert: MONOCHROME1 or Presentation LUT Shape INVERSE; of a raw image, high values stand for much radiation.
        raw: For Processing: detector values, which no window or table of the file is meant for.
        logarithmic: the raw values are logarithms already.
    """

    stored_range: tuple[float, float]
    bits_stored: int
    windows: tuple[Window, ...] = ()
    function: VOIFunction = VOIFunction.LINEAR
    tables: tuple[Table, ...] = ()
    slope: float = 1.0
    intercept: float = 0.0
    modality_table: Table | None = None
    padding: tuple[float, float] | None = None
    invert: bool = False
    raw: bool = False
    logarithmic: bool = False

    def already_presented(self) -> bool:
        """Whether the first window only says "these are all the bits" and would bend presented data (CMMD).

        True for a window that spans all stored bits, if the image has 8 bits or the explanation says "full width".
        """
        if not self.windows or self.slope != 1.0 or self.intercept != 0.0 or self.stored_range[0] != 0:
            return False
        window, levels = self.windows[0], 2**self.bits_stored
        spans = abs(window.width - levels) <= 1 and abs(window.centre - levels / 2) <= 1
        return spans and (self.bits_stored == 8 or "full width" in window.explanation.lower())

    def display(self, policy: VOIPolicy | str = VOIPolicy.AUTO) -> Display:
        """Decide the display step.

        Args:
            policy: ``auto`` takes the first table, else the first window, else the full range of the stored bits;
                ``lut`` and ``window`` insist on one; ``none`` takes the full range.

        Raises:
            Refusal: ``bad_display`` if the file lacks what the policy insists on, or its window is not allowed.
        """
        form, _ = self._form(policy)
        try:
            if form is VOIFunction.TABLE:
                return self._display(form, voi_table=self.tables[0])
            if form in (VOIFunction.RANGE, VOIFunction.LOG):
                low, high = self._modality_range()
                return self._display(form, low=low, high=high)
            return self._display(form, centre=self.windows[0].centre, width=self.windows[0].width)
        except ValueError as error:
            raise Refusal(RefusalCode.BAD_DISPLAY, f"{error}; use policy 'none' to show the full range") from error

    def voi_source(self, policy: VOIPolicy | str = VOIPolicy.AUTO) -> str:
        """Which VOI transformation :meth:`display` takes, in words for the provenance."""
        return self._form(policy)[1]

    def _form(self, policy: VOIPolicy | str) -> tuple[VOIFunction, str]:
        if policy not in set(VOIPolicy):
            raise ValueError(f"VOI policy {policy!r} is unknown: use one of {', '.join(VOIPolicy)}")
        if self.raw and policy in (VOIPolicy.LUT, VOIPolicy.WINDOW):
            raise Refusal(
                RefusalCode.BAD_DISPLAY, "no window or table is meant for a For Processing image; use policy 'auto'"
            )
        if policy == VOIPolicy.LUT and not self.tables:
            raise Refusal(RefusalCode.BAD_DISPLAY, "no VOI LUT Sequence (0028,3010) in the file; use policy 'auto'")
        if policy == VOIPolicy.WINDOW and not self.windows:
            raise Refusal(RefusalCode.BAD_DISPLAY, "no Window Center (0028,1050) in the file; use policy 'auto'")
        full = f"full range of {self.bits_stored} bits"
        if self.raw:
            return (VOIFunction.RANGE, full) if self.logarithmic else (VOIFunction.LOG, f"logarithm, {full}")
        if policy == VOIPolicy.LUT or policy == VOIPolicy.AUTO and self.tables:
            return VOIFunction.TABLE, f"VOI LUT 1 of {len(self.tables)}"
        if policy == VOIPolicy.NONE or not self.windows:
            return VOIFunction.RANGE, full
        if self.already_presented():
            return VOIFunction.RANGE, f"{full}, as the window says"
        window = self.windows[0]
        name = f" {window.explanation}" if window.explanation else ""
        return self.function, f"window 1 of {len(self.windows)}{name}: {window.centre:g}, {window.width:g}"

    def padded(self, stored: np.ndarray) -> np.ndarray:
        """Where stored values stand for padding, bool of the same shape (PS3.3 C.7.5.1.1.2)."""
        if self.padding is None:
            return np.zeros(stored.shape, dtype=bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])

    def _display(self, function: VOIFunction, **voi: Any) -> Display:
        return Display(
            function,
            slope=self.slope,
            intercept=self.intercept,
            modality_table=self.modality_table,
            padding=self.padding,
            invert=self.invert,
            **voi,
        )

    def _modality_range(self) -> tuple[float, float]:
        if self.modality_table is not None:
            return 0.0, float(2**self.modality_table.bits - 1)
        ends = [end * self.slope + self.intercept for end in self.stored_range]
        return min(ends), max(ends)


@dataclass(frozen=True, eq=False)
class Mammogram:
    """One mammogram, free of personal data.

    Args:
        stored: stored pixel values (H, W), integers.
        presentation: what the file says about showing them.
        laterality: side of the breast.
        view: mammographic view.
        spacing_mm: distance of pixel centres at the breast in mm, (row, column); None where the file does not say.
        provenance: fact -> tag or rule that it came from.
        patient_id: pseudonym given by the caller; never taken from the file.
        chest_wall: edge ("left" or "right") that Patient Orientation puts the chest wall at; None where not said.
    """

    stored: np.ndarray
    presentation: Presentation
    laterality: Laterality
    view: View
    spacing_mm: tuple[float, float] | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    patient_id: str | None = None
    chest_wall: str | None = None

    @cached_property
    def pixels(self) -> np.ndarray:
        """Display values, float32 (H, W) in [0, 1], bright = dense: the VOI's output at full resolution, unscaled."""
        return self.presentation.display().apply(stored_tensor(self.stored)).numpy()

    @cached_property
    def padded(self) -> np.ndarray:
        """Pixels that stand for padding, bool (H, W); they are black in ``pixels`` and belong into no statistic."""
        return self.presentation.padded(self.stored)


def stored_tensor(stored: np.ndarray) -> torch.Tensor:
    """Stored values (H, W) as a float32 tensor (exact up to 24 bits)."""
    return torch.from_numpy(np.ascontiguousarray(stored, dtype=np.float32))
