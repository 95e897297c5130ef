"""The display step: stored DICOM values to [0, 1], bright = dense, differentiable in torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.imaging.steps import Pointwise


class VOIFunction(StrEnum):
    """How values of interest become display values (PS3.3 C.11.2)."""

    RANGE = "RANGE"  # no VOI: the full range of the stored bits
    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"
    TABLE = "TABLE"
    LOG = "LOG"  # no VOI: the logarithm of raw detector values


@dataclass(frozen=True)
class Table:
    """A DICOM lookup table (PS3.3 C.11.1.1, C.11.2.1.1), read as a piecewise-linear function.

    At integers it equals the DICOM table; between them it interpolates linearly, so that gradients exist. Inputs below
    the first mapped value give the first entry, inputs above the last one give the last entry.

    Args:
        first: first input value mapped (second value of LUT Descriptor).
        entries: the table's output values.
        bits: bits per entry (third value of LUT Descriptor); outputs span 0 .. 2**bits - 1.
    """

    first: int
    entries: tuple[int, ...]
    bits: int

    @cached_property
    def _array(self) -> np.ndarray:
        return np.asarray(self.entries, dtype=np.float64)

    def apply(self, values: Tensor) -> Tensor:
        """Map values (any shape, floating) through the table, in the table's own output units."""
        entries = torch.as_tensor(self._array, dtype=values.dtype, device=values.device)
        last = len(self.entries) - 1
        if last == 0:
            return entries[0] + 0 * values
        position = (values - self.first).clamp(0, last)
        if not position.requires_grad:
            whole = position.long()
            if torch.equal(whole.to(position.dtype), position):  # integers: the DICOM table itself, the same values
                return entries[whole]
        lower = position.detach().floor().clamp(max=last - 1)
        index = lower.long()
        start = entries[index]
        return start + (position - lower) * (entries[index + 1] - start)


@dataclass(frozen=True)
class Display(Pointwise):
    """Stored values to display values in DICOM's order, recorded once and replayed in torch.

    padding -> modality (rescale or table) -> VOI -> inversion, once -> [0, 1] -> padding set to 0.

    * LINEAR (C.11.2.1.2.1): y = (x - (c - 0.5)) / (w - 1) + 0.5, clipped to [0, 1]; w = 1 is a step at c - 0.5.
    * LINEAR_EXACT (C.11.2.1.3.2): y = (x - c) / w + 0.5, clipped.
    * SIGMOID (C.11.2.1.3.1): y = 1 / (1 + exp(-4 (x - c) / w)).
    * TABLE (C.11.2.1.1): piecewise-linear reading of the VOI LUT, divided by 2**bits - 1.
    * RANGE: y = (x - low) / (high - low), clipped; low and high are the ends of the stored bits' range.
    * LOG, for raw detector values: y = ln(1 + x - low) / ln(1 + high - low), clipped; attenuation is the logarithm of
      the radiation that came through (Beer and Lambert), so that equal tissue makes equal steps of grey.

    Padded pixels (C.7.5.1.1.2) carry no gradient. Values outside a clipped window carry none either.

    Args:
        function: see above.
        centre: window centre c; unused by TABLE, RANGE and LOG.
        width: window width w; unused by TABLE, RANGE and LOG.
        low: lowest modality value, RANGE and LOG only.
        high: highest modality value, RANGE and LOG only.
        voi_table: VOI LUT, TABLE only.
        slope: rescale slope.
        intercept: rescale intercept.
        modality_table: Modality LUT, used in place of slope and intercept.
        padding: lowest and highest stored value that stands for padding, both included; None without padding.
        invert: True for MONOCHROME1 or Presentation LUT Shape INVERSE.
    """

    function: VOIFunction
    centre: float = 0.5
    width: float = 1.0
    low: float = 0.0
    high: float = 1.0
    voi_table: Table | None = None
    slope: float = 1.0
    intercept: float = 0.0
    modality_table: Table | None = None
    padding: tuple[float, float] | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        name = VOIFunction(self.function)
        object.__setattr__(self, "function", name)
        smallest = {VOIFunction.LINEAR: 1.0}.get(name, np.finfo(float).tiny)
        if name in (VOIFunction.LINEAR, VOIFunction.LINEAR_EXACT, VOIFunction.SIGMOID) and not self.width >= smallest:
            raise ValueError(
                f"Window Width {self.width} is not allowed with {name}: LINEAR needs at least 1, the others more than 0"
            )
        if name in (VOIFunction.RANGE, VOIFunction.LOG) and not self.high > self.low:
            raise ValueError(f"display range ({self.low}, {self.high}) is empty: high must be above low")
        if name is VOIFunction.TABLE and self.voi_table is None:
            raise ValueError("display function TABLE needs voi_table")

    def modality(self, stored: Tensor) -> Tensor:
        """Stored values to modality values: Modality LUT, or slope and intercept (PS3.3 C.11.1)."""
        if self.modality_table is not None:
            return self.modality_table.apply(stored)
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored
        return stored * self.slope + self.intercept

    def apply(self, picture: Tensor) -> Tensor:
        """Map stored values (..., H, W) to display values of the same shape in [0, 1]."""
        values = self.modality(picture)
        if self.function is VOIFunction.TABLE:
            assert self.voi_table is not None
            shown = (self.voi_table.apply(values) / (2**self.voi_table.bits - 1)).clamp(0, 1)
        elif self.function is VOIFunction.SIGMOID:
            shown = torch.sigmoid((values - self.centre) * (4.0 / self.width))
        elif self.function is VOIFunction.LINEAR_EXACT:
            shown = ((values - self.centre) / self.width + 0.5).clamp(0, 1)
        elif self.function is VOIFunction.LINEAR and self.width == 1:
            shown = (values > self.centre - 0.5).to(values.dtype) + 0 * values
        elif self.function is VOIFunction.LINEAR:
            shown = ((values - (self.centre - 0.5)) / (self.width - 1) + 0.5).clamp(0, 1)
        elif self.function is VOIFunction.LOG:
            shown = (torch.log1p((values - self.low).clamp(min=0)) / np.log1p(self.high - self.low)).clamp(0, 1)
        else:
            shown = ((values - self.low) / (self.high - self.low)).clamp(0, 1)
        if self.invert:
            shown = 1 - shown
        if self.padding is not None:
            shown = shown.masked_fill(self.padded(picture), 0.0)
        return shown

    def padded(self, stored: Tensor) -> Tensor:
        """Where stored values stand for padding, bool of the same shape; such pixels belong into no statistic."""
        if self.padding is None:
            return torch.zeros_like(stored, dtype=torch.bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])
