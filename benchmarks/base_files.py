"""Small mammograms of many transfer syntaxes, DICOM and PNG, the same bytes on every call."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments

from pipeline.imaging.writing import ACQUISITION_STYLES, write_mammogram

GDCM_SYNTAXES = {
    "jpeg_baseline": (8, "JPEGBaselineProcess1"),
    "jpeg_extended": (12, "JPEGExtendedProcess2_4"),
    "jpeg_lossless": (12, "JPEGLosslessProcess14_1"),
    "jpeg_ls": (12, "JPEGLSLossless"),
}


@contextmanager
def unwatched() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _scene(height: int = 96, width: int = 80) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (0.42 * height)) ** 2 + (columns / (0.7 * width)) ** 2 < 1
    noise = np.random.default_rng(7).random((height, width))
    return np.where(inside, 0.45 + 0.3 * noise, 0.02 * noise)


def base_files() -> dict[str, bytes]:
    """Small mammograms that are read without complaint, by syntax; the same bytes on every call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {}
        for style in ACQUISITION_STYLES:
            path = folder / f"{style.name}.dcm"
            write_mammogram(
                path, _scene(), style=style, laterality="L", view="MLO", spacing_mm=(0.1, 0.1), patient_id="x",
                study_uid="1.2.3", series_uid="1.2.3.4", instance_uid="1.2.3.4.5",
            )  # fmt: skip
            files[f"style_{style.name}"] = path.read_bytes()
        files["explicit"] = _written(_mammogram(12), uid.ExplicitVRLittleEndian)
        files["implicit"] = _written(_mammogram(12), uid.ImplicitVRLittleEndian)
        files["big_endian"] = _written(_mammogram(12, order=">"), uid.ExplicitVRBigEndian)
        files["deflated"] = _written(_mammogram(12), uid.DeflatedExplicitVRLittleEndian)
        for key, (bits, syntax) in GDCM_SYNTAXES.items():
            files[key] = _compressed(_mammogram(bits), folder, syntax)
    files["png"] = _png((_scene() * 255).astype(np.uint8))
    files["png_16_bit"] = _png((_scene() * 65535).astype(np.uint16))
    return files


def _png(levels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def _mammogram(bits: int, *, order: str = "<") -> Dataset:
    allocated = 8 if bits == 8 else 16
    stored = (_scene() * (2**bits - 1)).astype(f"{order}u{allocated // 8}")
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Phantom^", "x", ""
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "MLO"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "399368009", "SCT", "medio-lateral oblique"
    item.ViewModifierCodeSequence = [Dataset()]
    item.ViewModifierCodeSequence[0].CodeValue = "399197002"
    dataset.ViewCodeSequence = [item]
    dataset.WindowCenter, dataset.WindowWidth = str(2 ** (bits - 1)), str(2**bits - 2)
    dataset.WindowCenterWidthExplanation, dataset.VOILUTFunction = "NORMAL", "LINEAR"
    dataset.ImagerPixelSpacing = ["0.1", "0.1"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
        allocated,
        bits,
        bits - 1,
        0,
    )
    dataset.add_new("PixelData", "OW" if allocated == 16 else "OB", stored.tobytes())
    return dataset


def _written(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _compressed(dataset: Dataset, folder: Path, syntax: str) -> bytes:
    """The data set with pixels compressed by gdcm, which knows syntaxes that pydicom does not write."""
    source, target = folder / "source.dcm", folder / "target.dcm"
    source.write_bytes(_written(dataset, uid.ExplicitVRLittleEndian))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    change, writer = gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    done = reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    done = done and change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    if not (done and writer.Write()):
        raise RuntimeError(f"gdcm cannot write {syntax}")
    made = pydicom.dcmread(target)
    frame = next(generate_fragments(made.PixelData[8 + int.from_bytes(made.PixelData[4:8], "little") :]))
    dataset.PixelData = encapsulate([frame])  # only the frame: gdcm's header holds the time
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return _written(dataset, made.file_meta.TransferSyntaxUID)
