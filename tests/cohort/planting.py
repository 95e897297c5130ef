"""DICOM files with names, ids, dates planted in every text tag, and the search for what was planted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom import config, uid
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag

PLANTED = {
    "AE": "PLANTEDAE",
    "AS": "097Y",
    "CS": "PLANTEDCS",
    "DA": "19431217",
    "DS": "4711815.25",
    "DT": "19431217114733.918273",
    "IS": "4711815",
    "LO": "Planted Zoe 4711815",
    "LT": "planted remark about Zoe, 19431217",
    "PN": "Planted^Zoe",
    "SH": "PLANTED 4711815",
    "ST": "planted street 4711815",
    "TM": "114733.918273",
    "UC": "planted words",
    "UI": "1.2.4711815.99",
    "UR": "http://planted.example/zoe",
    "UT": "planted text on Zoe",
}
"""Value representation -> what is planted."""

TOKENS = (b"planted", b"zoe", b"19431217", b"4711815", b"114733.9", b"097y")
"""What must not be found, in any case of letters."""

NEEDED = frozenset(
    {
        "SpecificCharacterSet", "SOPClassUID", "Modality", "PresentationIntentType", "ImageLaterality", "Laterality",
        "ViewPosition", "PatientOrientation", "BodyPartExamined", "QualityControlImage", "PhotometricInterpretation",
        "NumberOfFrames", "PresentationLUTShape", "VOILUTFunction", "WindowCenter", "WindowWidth", "RescaleSlope",
        "RescaleIntercept", "ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing",
        "EstimatedRadiographicMagnificationFactor", "BreastImplantPresent", "ImageType",
    }
)  # fmt: skip
"""Tags that reading relies on: planted one at a time, see ``spoiled``, because most make a file refused."""


COMMON = frozenset(
    {
        "AccessionNumber", "AcquisitionDateTime", "BodyPartThickness", "DeviceSerialNumber", "ImageComments",
        "InstanceNumber", "InstitutionAddress", "InstitutionName", "OperatorsName", "OtherPatientNames", "PatientAge",
        "PatientBirthDate", "PatientComments", "PatientID", "PatientName", "ProtocolName", "ReferringPhysicianName",
        "SOPInstanceUID", "SeriesDescription", "StationName", "StudyDate", "StudyDescription", "StudyInstanceUID",
        "StudyTime",
    }
)  # fmt: skip
"""Text tags that most mammograms have."""


def planted_dataset(scene: np.ndarray, *, every: bool = False) -> Dataset:
    """A left MLO view with something planted in its common text tags, or every one that reading does not rely on."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
            group = tag >> 16
            if not every and keyword not in COMMON:
                continue
            if vr in PLANTED and keyword and keyword not in NEEDED and group > 2 and group != 0x7FE0 and not retired:
                count = int(multiplicity.split("-")[0]) if multiplicity[0].isdigit() else 1
                value = "\\".join([PLANTED[vr]] * count).encode()
                value += b" " * (len(value) % 2)
                dataset[tag] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
        block = dataset.private_block(0x0019, "PLANTED ZOE", create=True)
        block.add_new(0x01, "LO", PLANTED["LO"])
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.ImageLaterality = "L"
    item, modifier = _code("399368009"), _code("442581004")
    item.ViewModifierCodeSequence = [modifier, _code("PLANTED")]
    dataset.ViewCodeSequence = [item]
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    table.LUTExplanation = PLANTED["LO"]
    dataset.VOILUTSequence = [table]
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = "2048", "4095", "LINEAR"
    dataset.WindowCenterWidthExplanation = PLANTED["LO"]
    dataset.ImagerPixelSpacing = ["0.1", "0.1"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = scene.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.add_new("PixelData", "OW", (scene * 4095).astype("<u2").tobytes())
    return dataset


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", PLANTED["LO"]
    item.CodeValue = value
    return item


def written(dataset: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """The bytes of a file, whatever its values are."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.FileMetaInformationGroupLength = 0
    meta = {0x00020002: PLANTED["UI"], 0x00020003: PLANTED["UI"], 0x00020010: syntax, 0x00020012: PLANTED["UI"]}
    for tag, text in (meta | {0x00020013: PLANTED["SH"], 0x00020016: PLANTED["AE"]}).items():
        dataset.file_meta.add_new(tag, {0x00020013: "SH", 0x00020016: "AE"}.get(tag, "UI"), text)
    dataset.preamble = bytes(128)
    stream = BytesIO()
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        pydicom.dcmwrite(stream, dataset, implicit_vr=False, little_endian=True)
    finally:
        config.settings.writing_validation_mode = before
    return stream.getvalue()


def spoiled(scene: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Files with text planted in one of the tags that reading relies on, or damaged, each with what was done."""
    numbers = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
    for name in (*sorted(NEEDED), *numbers):
        dataset = planted_dataset(scene)
        vr = DicomDictionary[Tag(name)][0]
        value = PLANTED.get(vr, PLANTED["LO"]).encode() if vr not in ("DS", "IS") else PLANTED["LO"].encode()
        value += b" " * (len(value) % 2)
        dataset[name] = RawDataElement(Tag(name), "LO" if name in numbers else vr, len(value), value, 0, False, True)
        yield keyword_for_tag(name), written(dataset)
    for name in ("IS", "DS"):
        dataset = planted_dataset(scene)
        dataset.NumberOfFrames = PLANTED["IS"]
        dataset.WindowWidth = "0" if name == "DS" else "1"
        yield f"NumberOfFrames {name}", written(dataset)
    for name in ("CodeValue", "CodeMeaning"):
        dataset = planted_dataset(scene)
        setattr(dataset.ViewCodeSequence[0], name, PLANTED["SH"])
        yield f"view {name}", written(dataset)
    yield "syntax", written(planted_dataset(scene), syntax=PLANTED["UI"])
    yield "no such syntax", written(planted_dataset(scene), syntax="Planted Zoe")
    yield "cut", written(planted_dataset(scene))[:-500]
    yield "half", written(planted_dataset(scene))[:20_000]
    yield "not DICOM", b"Planted^Zoe 19431217 " * 100
    dataset = planted_dataset(scene * 0)
    yield "no breast", written(dataset)


def found_in(*texts: str | bytes) -> set[bytes]:
    """Tokens that stand in any of the texts."""
    contents = [text.encode("utf-8", "replace") if isinstance(text, str) else text for text in texts]
    return {token for token in TOKENS for content in contents if token in content.lower()}


def found_below(folder: Path) -> dict[str, set[bytes]]:
    """Names and bytes of all files below a folder that hold a token."""
    every = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    hits = {name: found_in(name, path.read_bytes() if path.is_file() else b"") for name, path in every.items()}
    return {name: tokens for name, tokens in hits.items() if tokens}
