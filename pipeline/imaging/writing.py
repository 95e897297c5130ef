"""Writing a mammogram as DICOM: Digital Mammography X-Ray Image, For Presentation, in several acquisition styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

__all__ = [
    "ACQUISITION_STYLES",
    "AcquisitionStyle",
    "Encoding",
    "Padding",
    "Photometric",
    "VoiForm",
    "stored_from_scene",
    "write_mammogram",
]


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

# Context group 4014 "View for mammography" in SNOMED CT (PS3.16).
_VIEW_CODES = {
    "CC": ("399162004", "cranio-caudal"),
    "MLO": ("399368009", "medio-lateral oblique"),
    "ML": ("399260004", "medio-lateral"),
    "LM": ("399352003", "latero-medial"),
}
_TRANSFER_SYNTAX = {Encoding.JPEG2000_LOSSLESS: JPEG2000Lossless, Encoding.RLE_LOSSLESS: RLELossless}
# The dark and bright end of a sigmoid window are only reached at infinity; these fractions are the ends we store.
_SIGMOID_END = 0.004
_WINDOW_SHARE = 0.90
_LUT_BITS = 12


def _window(style: AcquisitionStyle) -> tuple[float, float]:
    """Window Center and Width of a style, in stored values."""
    width = style.levels * _WINDOW_SHARE
    if style.voi in (VoiForm.SIGMOID, VoiForm.LUT_AND_WINDOWS):  # the width at which the ends take up the same share
        width /= np.log((1 - _SIGMOID_END) / _SIGMOID_END) / 2
    return style.levels / 2, float(round(width))


def _voi_tables(style: AcquisitionStyle) -> list[tuple[str, int, np.ndarray]]:
    """VOI LUTs of a style as (explanation, first stored value mapped, rising entries of 12 bits)."""
    center, width = _window(style)
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
    top = (1 << _LUT_BITS) - 1
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
    center, width = _window(style)
    if style.voi is VoiForm.LINEAR:
        stored = (output - 0.5) * (width - 1) + (center - 0.5)
    elif style.voi is VoiForm.SIGMOID:
        clipped = np.clip(output, _SIGMOID_END, 1 - _SIGMOID_END)
        stored = center + width / 4 * np.log(clipped / (1 - clipped))
    else:
        _, first, entries = _voi_tables(style)[0]
        top = (1 << _LUT_BITS) - 1
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


def write_mammogram(
    path: Path,
    scene: np.ndarray,
    *,
    style: AcquisitionStyle,
    laterality: str,
    view: str,
    spacing_mm: tuple[float, float],
    patient_id: str,
    study_uid: str,
    series_uid: str,
    instance_uid: str,
    instance_number: int = 1,
    patient_name: str = "Phantom",
    age: int | None = None,
    thickness_mm: float | None = None,
    date: str = "20200101",
    padding_mask: np.ndarray | None = None,
) -> None:
    """Write one Digital Mammography X-Ray Image, For Presentation (PS3.3 A.27, C.8.11.7).

    Same arguments, same bytes: nothing is taken from the clock.

    Args:
        path: file to write; its folder must exist.
        scene: (H, W), display values in [0, 1], bright = dense, as the picture is hung: chest wall left for L, right
            for R. A style with `flipped` stores the mirror image.
        style: acquisition style, for example one of `ACQUISITION_STYLES`.
        laterality: "L" or "R".
        view: "CC", "MLO", "ML" or "LM".
        spacing_mm: distance between (rows, columns) at the detector, in mm.
        patient_id: Patient ID (0010,0020).
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        instance_uid: SOP Instance UID.
        instance_number: Instance Number.
        patient_name: Patient's Name.
        age: age in years.
        thickness_mm: Body Part Thickness.
        date: every date in the file, YYYYMMDD.
        padding_mask: bool (H, W), True where the detector saw nothing.

    Raises:
        ValueError: scene not two-dimensional, not finite or outside [0, 1]; unknown side or view; mask of another shape.
    """
    scene = np.asarray(scene)
    if scene.ndim != 2:
        raise ValueError(f"{path}: the scene has shape {scene.shape}, allowed is (rows, columns)")
    low, high = float(scene.min()), float(scene.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        raise ValueError(f"{path}: the scene ranges from {low} to {high}, allowed is [0, 1]")
    if laterality not in ("L", "R"):
        raise ValueError(f"{path}: laterality is {laterality!r}, allowed are 'L' and 'R'")
    if view not in _VIEW_CODES:
        raise ValueError(f"{path}: view is {view!r}, allowed are {', '.join(_VIEW_CODES)}")
    if padding_mask is not None and padding_mask.shape != scene.shape:
        raise ValueError(f"{path}: padding_mask has shape {padding_mask.shape}, allowed is the scene's {scene.shape}")
    stored = stored_from_scene(scene, style=style, padding_mask=padding_mask)
    if style.flipped:
        stored = stored[:, ::-1]

    dataset = Dataset()
    _identify(dataset, patient_id=patient_id, patient_name=patient_name, age=age, date=date, style=style)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, instance_uid
    dataset.InstanceNumber = instance_number
    _describe_view(dataset, laterality=str(laterality), view=str(view), flipped=style.flipped)
    _describe_detector(dataset, spacing_mm=spacing_mm, thickness_mm=thickness_mm, shape=stored.shape)
    _describe_display(dataset, style=style, padded=padding_mask is not None)
    _set_pixels(dataset, np.ascontiguousarray(stored), style=style)
    dataset.save_as(path, enforce_file_format=True)


def _identify(
    dataset: Dataset, *, patient_id: str, patient_name: str, age: int | None, date: str, style: AcquisitionStyle
) -> None:
    """Patient, study, series, equipment and SOP common modules."""
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", date)
        setattr(dataset, f"{name}Time", "120000")
    dataset.AccessionNumber = ""
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = style.manufacturer
    dataset.ManufacturerModelName = f"{style.name} simulator"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = f"{patient_name}^"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F"
    if age is not None:
        dataset.PatientAge = f"{age:03d}Y"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1


def _describe_view(dataset: Dataset, *, laterality: str, view: str, flipped: bool) -> None:
    """Anatomy and orientation: what is where in the stored pixels (PS3.3 C.8.11.7, C.7.6.1.1.1)."""
    along_row = "A" if (laterality == "L") != flipped else "P"
    medial = "R" if laterality == "L" else "L"
    down_column = {"CC": medial, "MLO": "F" + medial}.get(view, "F")
    dataset.PatientOrientation = [along_row, down_column]
    dataset.ImageLaterality = laterality
    dataset.BodyPartExamined = "BREAST"
    dataset.AnatomicRegionSequence = DicomSequence([_code("76752008", "Breast")])
    view_item = _code(*_VIEW_CODES[view])
    view_item.ViewModifierCodeSequence = DicomSequence()
    dataset.ViewCodeSequence = DicomSequence([view_item])
    dataset.OrganExposed = "BREAST"
    dataset.BreastImplantPresent = "NO"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _describe_detector(
    dataset: Dataset, *, spacing_mm: tuple[float, float], thickness_mm: float | None, shape: Sequence[int]
) -> None:
    """Detector, positioner and acquisition (PS3.3 C.8.11.4, C.8.11.7)."""
    spacing = [f"{value:.6g}" for value in spacing_mm]
    dataset.ImagerPixelSpacing = spacing
    dataset.DetectorElementSpacing = spacing
    dataset.DetectorType = "DIRECT"
    dataset.DetectorConfiguration = "AREA"
    dataset.PositionerType = "MAMMOGRAPHIC"
    dataset.EstimatedRadiographicMagnificationFactor = "1"
    dataset.KVP = "30"
    dataset.AcquisitionContextSequence = DicomSequence()
    dataset.FieldOfViewShape = "RECTANGLE"
    dataset.FieldOfViewDimensions = [round(n * value) for n, value in zip(shape, spacing_mm, strict=True)]
    if thickness_mm is not None:
        dataset.BodyPartThickness = f"{thickness_mm:.0f}"


def _describe_display(dataset: Dataset, *, style: AcquisitionStyle, padded: bool) -> None:
    """Modality LUT (identity), VOI, Presentation LUT Shape and padding (PS3.3 C.11.1, C.11.2, C.8.11.3)."""
    inverse = style.photometric is Photometric.MONOCHROME1
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverse else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"  # side and view letters do not identify anyone
    dataset.QualityControlImage = "NO"
    if style.voi in (VoiForm.LUT, VoiForm.LUT_AND_WINDOWS):
        items = []
        for name, first, entries in _voi_tables(style):
            item = Dataset()
            item.add_new("LUTDescriptor", "US", [len(entries), first, _LUT_BITS])
            item.LUTExplanation = name
            item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
            items.append(item)
        dataset.VOILUTSequence = DicomSequence(items)
    if style.voi is not VoiForm.LUT:
        center, width = _window(style)
        names = {"NORMAL": 1.0}
        if style.voi is VoiForm.LUT_AND_WINDOWS:
            names |= {"HARDER": 0.85, "SOFTER": 1.2}
        dataset.WindowCenter = [f"{center:g}"] * len(names)
        dataset.WindowWidth = [f"{width * factor:g}" for factor in names.values()]
        dataset.WindowCenterWidthExplanation = list(names)
        dataset.VOILUTFunction = "LINEAR" if style.voi is VoiForm.LINEAR else "SIGMOID"
    if padded and style.padding is not Padding.NONE:
        dataset.add_new("PixelPaddingValue", "US", style.padding_value)
        if style.padding is Padding.RANGE:
            dataset.add_new("PixelPaddingRangeLimit", "US", style.padding_limit)


def _set_pixels(dataset: Dataset, stored: np.ndarray, *, style: AcquisitionStyle) -> None:
    """Image pixel module and file meta information."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = str(style.photometric)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, style.bits_stored, style.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if style.encoding is Encoding.UNCOMPRESSED:
        dataset.add_new("PixelData", "OW", stored.astype("<u2").tobytes())
    else:
        dataset.compress(_TRANSFER_SYNTAX[style.encoding], stored, generate_instance_uid=False)
