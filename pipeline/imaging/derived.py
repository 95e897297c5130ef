"""Writing a derived DICOM image: another image's picture with changed stored values, in a valid object of its own."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from pipeline.imaging import decoding, frames, guard, parsing
from pipeline.imaging.described import EMPTY, PICTURE
from pipeline.imaging.refusal import Refusal, RefusalCode

_UID_SPACE = uuid.UUID("d2b1a0b0-5b0c-5d53-8f0e-2f6a1f0f9a41")
METHOD = "Only attributes of the picture are kept; ids are pseudonyms"
"""De-identification Method (0012,0063), at most 64 characters."""

LOSSY_METHODS = {
    # Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1) of a transfer syntax that loses, or may lose, something.
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGExtended12Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
    uid.JPEG2000: "ISO_15444_1",
    uid.HTJ2K: "ISO_15444_15",
}
REVERSIBLE = frozenset({uid.JPEG2000, uid.HTJ2K})
"""Transfer syntaxes that may also hold a reversible codestream: believed where the file says that nothing was lost."""

PIXEL_GROUP, TRAILING_GROUP = 0x7FE0, 0xFFFC
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
"""An overlay lies in unused bits where it has an Overlay Bit Position (60xx,0102) and no Overlay Data (60xx,3000)."""
OF_THE_ORIGINAL = ("SmallestImagePixelValue", "LargestImagePixelValue")
"""True of the original's pixels only, and not needed."""


def write_derived(
    source: str | PathLike[str],
    target: str | PathLike[str],
    stored: np.ndarray,
    *,
    description: str,
    seed: int,
    patient_id: str | None,
) -> str:
    """Write a picture with changed stored values as a derived image of the one that it was made of.

    The new object has ImageType DERIVED, a Derivation Description, a Source Image Sequence that points to the original
    (PS3.3 C.7.6.1, C.7.6.1.1.3), SOP and Series Instance UIDs of its own under the 2.25 root (PS3.5 B.2), and native
    pixels in Explicit VR Little Endian, so that nothing is lost. Where the original was compressed with loss, the new
    one says so. Nothing is taken from the clock: same arguments, same bytes.

    Args:
        source: the original DICOM file, of a single frame.
        target: file to write; its folder must exist. It appears under its name only when it is complete.
        stored: stored values (H, W), integers inside the range of Bits Stored.
        description: Derivation Description (0008,2111).
        seed: of the UIDs, which depend on it, on the original's and on the picture.
        patient_id: pseudonym to write. Only the attributes of :data:`~pipeline.imaging.described.PICTURE` are kept
            then, Study Instance UID is hashed, and Patient Identity Removed (0012,0062) is YES, unless Burned In
            Annotation says that the picture itself shows who it is. None keeps everything that the original says of
            patient and study.

    Returns:
        SOP Instance UID of the new object.

    Raises:
        Refusal: of the reader; ``unsupported_pixels`` for a stack of frames.
        ValueError: values of another shape or outside the range of the stored bits.
    """
    with parsing.refusing("DICOM file"):
        original = parsing.open_dataset(source)
        guard.check_pixels(original)
        if frames.frame_count(original) > 1:
            raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, "several frames; derived images are written of single ones")
        low, high = (int(end) for end in decoding.read_presentation(original).stored_range)
    _check(stored, shape=(int(original.Rows), int(original.Columns)), low=low, high=high)
    with parsing.refusing("DICOM file"):
        dataset = _described(original) if patient_id is not None else _whole(original)
        _identify(dataset, original, stored, seed=seed, patient_id=patient_id, description=description)
        _set_lossy_history(dataset, original)
        _set_pixels(dataset, original, stored)
        _replace(Path(target), dataset)
    return str(dataset.SOPInstanceUID)


def _check(stored: np.ndarray, *, shape: tuple[int, int], low: int, high: int) -> None:
    if stored.shape != shape or stored.dtype.kind not in "iu":
        raise ValueError(
            f"the picture is {stored.dtype} of shape {stored.shape}; whole numbers of shape {shape} needed"
        )
    if stored.min() < low or stored.max() > high:
        raise ValueError(f"the picture spans {stored.min()} to {stored.max()}; the stored bits hold {low} to {high}")


def _described(original: Dataset) -> Dataset:
    """Only what describes the picture, and empty values where an object must have the attribute."""
    dataset = _picture_only(original)
    for keyword in EMPTY:
        setattr(dataset, keyword, None)
    if "WindowCenterWidthExplanation" in original:
        dataset.WindowCenterWidthExplanation = decoding.explanations(original)
    return dataset


def _picture_only(item: Dataset) -> Dataset:
    kept = Dataset()
    for element in item:
        if element.keyword not in PICTURE:
            continue
        value: Any = element.value
        if element.VR == "SQ":
            value = Sequence([_picture_only(part) for part in value])
        kept.add_new(element.tag, element.VR, value)
    return kept


def _whole(original: Dataset) -> Dataset:
    """Everything but the pixels: also without overlays in their unused bits, and small copies in sequences (icons)."""
    dataset = Dataset()
    left_out = {PIXEL_GROUP, TRAILING_GROUP} | {
        group for group in OVERLAY_GROUPS if (group, 0x0102) in original and (group, 0x3000) not in original
    }
    for element in original:
        copies = element.VR == "SQ" and any("PixelData" in part for item in element.value for part in _levels(item))
        if element.tag.group not in left_out and element.keyword not in OF_THE_ORIGINAL and not copies:
            dataset.add_new(element.tag, element.VR, element.value)
    return dataset


def _levels(item: Dataset) -> list[Dataset]:
    """An item and all items inside it."""
    return [
        item,
        *(part for element in item if element.VR == "SQ" for inner in element.value for part in _levels(inner)),
    ]


def _identify(
    dataset: Dataset, original: Dataset, stored: np.ndarray, *, seed: int, patient_id: str | None, description: str
) -> None:
    """General image, SOP common and patient modules of the new object."""
    content = hashlib.sha256(np.ascontiguousarray(stored, dtype="<i4").tobytes()).hexdigest()
    hashed = {
        name: _uid(name, seed, str(original.get(name, "")), *extra)
        for name, extra in (
            ("SOPInstanceUID", (content, description, str(patient_id))),
            ("SeriesInstanceUID", (description, str(patient_id))),
            ("StudyInstanceUID", (str(patient_id),)),
        )
    }
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = hashed["SOPInstanceUID"], hashed["SeriesInstanceUID"]
    types = [str(part) for part in _values(original.get("ImageType"))]
    dataset.ImageType = ["DERIVED", *(types[1:] or ["PRIMARY"])]
    dataset.DerivationDescription = description
    purpose = _code("121322", "Source image for image processing operation")
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = original.SOPClassUID, original.SOPInstanceUID
    if patient_id is not None:  # PS3.15 E.1.1: references change with the instances; the same file, the same reference
        item.ReferencedSOPInstanceUID = _uid("ReferencedSOPInstanceUID", seed, str(original.SOPInstanceUID))
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = Sequence([purpose])
    dataset.SourceImageSequence = Sequence([item])
    dataset.DerivationCodeSequence = Sequence([_code("113042", "Pixel by pixel addition")])
    if patient_id is not None:
        dataset.StudyInstanceUID = hashed["StudyInstanceUID"]
        dataset.PatientID = patient_id
        shown = str(original.get("BurnedInAnnotation", "")).strip().upper() == "YES"
        dataset.PatientIdentityRemoved = "NO" if shown else "YES"
        dataset.DeidentificationMethod = METHOD
        dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _set_lossy_history(dataset: Dataset, original: Dataset) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5): the history stays, though these pixels are native."""
    syntax = uid.UID(str(original.file_meta.TransferSyntaxUID))
    said = str(original.get("LossyImageCompression", "") or "")
    lossy = syntax in LOSSY_METHODS and not (syntax in REVERSIBLE and said == "00")
    if not lossy:
        return  # "01" of an earlier compression has been copied with its ratio and method
    ratios = _values(original.get("LossyImageCompressionRatio"))
    methods = _values(original.get("LossyImageCompressionMethod"))
    native = int(original.Rows) * int(original.Columns) * int(original.BitsStored) / 8
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = ratios or [f"{native / len(original.PixelData):.4g}"]
    if not methods and len(ratios) < 2:
        dataset.LossyImageCompressionMethod = LOSSY_METHODS[syntax]
    dataset.DerivationCodeSequence.append(_code("113040", "Lossy Compression"))


def _set_pixels(dataset: Dataset, original: Dataset, stored: np.ndarray) -> None:
    """Image pixel module with the bits at the lower end, and file meta information."""
    allocated = int(original.BitsAllocated)
    dataset.BitsAllocated, dataset.BitsStored = allocated, int(original.BitsStored)
    dataset.HighBit = dataset.BitsStored - 1
    signed = int(original.get("PixelRepresentation") or 0) == 1
    data = np.ascontiguousarray(stored, dtype=f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    dataset.add_new("PixelData", "OW" if allocated > 8 else "OB", data + b"\0" * (len(data) % 2))
    if not bool(getattr(original, "original_encoding", (None, True))[1]):
        _swap_words(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian


def _swap_words(dataset: Dataset) -> None:
    """Other words of a big-endian original are still in its order of bytes."""
    for element in dataset.iterall():
        if element.VR == "OW" and element.keyword != "PixelData" and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, dtype=">u2").astype("<u2").tobytes()


def _uid(*parts: object) -> str:
    """A UID of the 2.25 root (PS3.5 B.2) that depends on the parts alone."""
    return f"2.25.{uuid.uuid5(_UID_SPACE, '/'.join(map(str, parts))).int}"


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "append") else [value]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _replace(target: Path, dataset: Dataset) -> None:
    """Write to a temporary name in the same folder, then rename."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
    os.close(descriptor)
    try:
        dataset.save_as(temporary, enforce_file_format=True)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
