"""Writing a mammogram as DICOM: Digital Mammography X-Ray Image, For Presentation, in several acquisition styles."""

from __future__ import annotations

from collections.abc import Sequence
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

from pipeline.imaging.styles import (
    ACQUISITION_STYLES,
    LUT_BITS,
    AcquisitionStyle,
    Encoding,
    Padding,
    Photometric,
    VoiForm,
    stored_from_scene,
    voi_tables,
    window,
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


# Context group 4014 "View for mammography" in SNOMED CT (PS3.16).
_VIEW_CODES = {
    "CC": ("399162004", "cranio-caudal"),
    "MLO": ("399368009", "medio-lateral oblique"),
    "ML": ("399260004", "medio-lateral"),
    "LM": ("399352003", "latero-medial"),
}
_TRANSFER_SYNTAX = {Encoding.JPEG2000_LOSSLESS: JPEG2000Lossless, Encoding.RLE_LOSSLESS: RLELossless}


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
        ValueError: scene not two-dimensional, not finite or outside [0, 1]; unknown side or view; mask of other shape.
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
        for name, first, entries in voi_tables(style):
            item = Dataset()
            item.add_new("LUTDescriptor", "US", [len(entries), first, LUT_BITS])
            item.LUTExplanation = name
            item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
            items.append(item)
        dataset.VOILUTSequence = DicomSequence(items)
    if style.voi is not VoiForm.LUT:
        center, width = window(style)
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
