"""Acquisition styles: how different vendors store one and the same displayed picture."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

__all__ = [
    "ACQUISITION_STYLES",
    "LUT_BITS",
    "AcquisitionStyle",
    "Encoding",
    "Padding",
    "Photometric",
    "VoiForm",
    "stored_from_scene",
    "voi_tables",
    "window",
]

# The dark and bright end of a sigmoid window are only reached at infinity; these fractions are the ends we store.
_SIGMOID_END = 0.004
_WINDOW_SHARE = 0.90
LUT_BITS = 12


class Photometric(StrEnum):
    """Photometric Interpretation (0028,0004); MONOCHROME1 goes with Presentation LUT Shape INVERSE (PS3.3 C.8.11.3)."""

    MONOCHROME1 = "MONOCHROME1"
    MONOCHROME2 = "MONOCHROME2"


class VoiForm(StrEnum):
    """How the VOI transformation is described (PS3.3 C.11.2)."""

    LINEAR = "LINEAR"
    SIGMOID = "SIGMOID"
    LUT = "LUT"
    LUT_AND_WINDOWS = "LUT_AND_WINDOWS"


class Encoding(StrEnum):
    """Transfer syntaxes; all of them keep every stored value."""

    UNCOMPRESSED = "UNCOMPRESSED"
    JPEG2000_LOSSLESS = "JPEG2000_LOSSLESS"
    RLE_LOSSLESS = "RLE_LOSSLESS"


class Padding(StrEnum):
    """Pixel padding: none, one Pixel Padding Value, or a value with a Range Limit (PS3.3 C.7.5.1.1.2)."""

    NONE = "NONE"
    VALUE = "VALUE"
    RANGE = "RANGE"


@dataclass(frozen=True, kw_only=True)
class AcquisitionStyle:
    """One vendor's way of storing the same picture.

    Args:
        name: short name, the `vendor` column of a phantom manifest.
        bits_stored: 9 to 16; Bits Allocated is always 16.
        photometric: MONOCHROME2, or MONOCHROME1 with Presentation LUT Shape INVERSE.
        voi: form of the VOI transformation.
        encoding: transfer syntax.
        padding: form of the pixel padding.
        flipped: False stores the picture as it is hung (chest wall left for L, right for R); True stores its mirror
            image, and Patient Orientation says so.
        manufacturer: Manufacturer (0008,0070).
    """

    name: str
    bits_stored: int
    photometric: Photometric
    voi: VoiForm
    encoding: Encoding
    padding: Padding
    flipped: bool
    manufacturer: str

    def __post_init__(self) -> None:
        if not 9 <= self.bits_stored <= 16:
            raise ValueError(f"style {self.name!r}: bits_stored is {self.bits_stored}, allowed are 9 to 16")

    @property
    def levels(self) -> int:
        """Number of stored values, 2 ** bits_stored."""
        return 1 << self.bits_stored

    @property
    def padding_value(self) -> int:
        """The stored value farthest on the dark side: 0, or the largest one for MONOCHROME1."""
        return self.levels - 1 if self.photometric is Photometric.MONOCHROME1 else 0

    @property
    def padding_limit(self) -> int:
        """End of the padding range, 1/128 of the stored range from the padding value (GE writes 0 to 30 at 12 bits)."""
        return abs(self.padding_value - self.levels // 128)


ACQUISITION_STYLES: tuple[AcquisitionStyle, ...] = (
    AcquisitionStyle(
        name="alder", bits_stored=12, photometric=Photometric.MONOCHROME2, voi=VoiForm.LINEAR,
        encoding=Encoding.UNCOMPRESSED, padding=Padding.NONE, flipped=False, manufacturer="Alder Phantoms",
    ),
    AcquisitionStyle(
        name="birch", bits_stored=14, photometric=Photometric.MONOCHROME1, voi=VoiForm.LINEAR,
        encoding=Encoding.UNCOMPRESSED, padding=Padding.VALUE, flipped=True, manufacturer="Birch Phantoms",
    ),
    AcquisitionStyle(
        name="cedar", bits_stored=12, photometric=Photometric.MONOCHROME2, voi=VoiForm.SIGMOID,
        encoding=Encoding.JPEG2000_LOSSLESS, padding=Padding.RANGE, flipped=False, manufacturer="Cedar Phantoms",
    ),
    AcquisitionStyle(
        name="dogwood", bits_stored=12, photometric=Photometric.MONOCHROME2, voi=VoiForm.LUT,
        encoding=Encoding.RLE_LOSSLESS, padding=Padding.VALUE, flipped=True, manufacturer="Dogwood Phantoms",
    ),
    AcquisitionStyle(
        name="elm", bits_stored=14, photometric=Photometric.MONOCHROME1, voi=VoiForm.SIGMOID,
        encoding=Encoding.JPEG2000_LOSSLESS, padding=Padding.RANGE, flipped=False, manufacturer="Elm Phantoms",
    ),
    AcquisitionStyle(
        name="fir", bits_stored=12, photometric=Photometric.MONOCHROME2, voi=VoiForm.LUT_AND_WINDOWS,
        encoding=Encoding.UNCOMPRESSED, padding=Padding.RANGE, flipped=False, manufacturer="Fir Phantoms",
    ),
)  # fmt: skip


def window(style: AcquisitionStyle) -> tuple[float, float]:
    """Window Center and Width of a style, in stored values."""
    width = style.levels * _WINDOW_SHARE
    if style.voi in (VoiForm.SIGMOID, VoiForm.LUT_AND_WINDOWS):  # the width at which the ends take up the same share
        width /= np.log((1 - _SIGMOID_END) / _SIGMOID_END) / 2
    return style.levels / 2, float(round(width))


def voi_tables(style: AcquisitionStyle) -> list[tuple[str, int, np.ndarray]]:
    """VOI LUTs of a style as (explanation, first stored value mapped, rising entries of 12 bits)."""
    center, width = window(style)
    first = round(style.levels * (1 - _WINDOW_SHARE) / 2)
    stored = np.arange(first, style.levels - first, dtype=np.float64)
    if style.voi is VoiForm.LUT:
        t = (stored - stored[0]) / (stored[-1] - stored[0])
        curves = {"NORMAL": t - 0.4 * np.sin(2 * np.pi * t) / (2 * np.pi)}  # a rising S
    else:
        curves = {
            name: 1 / (1 + np.exp(-4 * (stored - center) / (width * factor)))
            for name, factor in (("NORMAL", 1.0), ("HARDER", 0.85), ("SOFTER", 1.2))
        }
    top = (1 << LUT_BITS) - 1
    return [(name, first, np.rint(curve * top).astype(np.uint16)) for name, curve in curves.items()]


def stored_from_scene(
    scene: np.ndarray, *, style: AcquisitionStyle, padding_mask: np.ndarray | None = None
) -> np.ndarray:
    """Stored values whose VOI transformation (and inversion for MONOCHROME1) gives the scene back.

    The inverse of PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) or of the style's VOI LUT, rounded. The order of
    the pixels is kept: flipping is the business of `write_mammogram`.

    Args:
        scene: (H, W), display values in [0, 1], bright = dense.
        style: how to store.
        padding_mask: bool (H, W), True where the detector saw nothing; ignored by styles without padding.

    Returns:
        uint16 (H, W), below 2 ** bits_stored; no value outside the mask falls into the padding range.
    """
    output = 1.0 - scene if style.photometric is Photometric.MONOCHROME1 else scene
    center, width = window(style)
    if style.voi is VoiForm.LINEAR:
        stored = (output - 0.5) * (width - 1) + (center - 0.5)
    elif style.voi is VoiForm.SIGMOID:
        clipped = np.clip(output, _SIGMOID_END, 1 - _SIGMOID_END)
        stored = center + width / 4 * np.log(clipped / (1 - clipped))
    else:
        _, first, entries = voi_tables(style)[0]
        top = (1 << LUT_BITS) - 1
        # For each displayed level the stored value that maps nearest to it, by a table as long as the LUT's output.
        nearest = np.interp(np.arange(4 * top + 1) / 4, entries.astype(np.float64), np.arange(len(entries)) + first)
        stored = nearest[np.rint(output * (4 * top)).astype(np.intp)]
    stored = np.rint(stored).astype(np.uint16)
    if padding_mask is not None and style.padding is not Padding.NONE:
        value = np.full(scene.shape[0], style.padding_value, dtype=np.int64)
        if style.padding is Padding.RANGE:  # rows alternate within the range, as a detector's offsets would
            span = abs(style.padding_limit - style.padding_value)
            value = np.abs(value - np.arange(scene.shape[0]) * 7 % (span + 1))
        stored = np.where(padding_mask, value[:, None].astype(np.uint16), stored)
    return stored
