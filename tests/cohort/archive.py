"""A small made-up archive: DICOM files with sixteen pixels, whose every text tag may hold what must stay inside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

VIEW_CODES = {"CC": "399162004", "MLO": "399368009"}
ROOT = "1.2.826.0.1.3680043.8.498."


def uid(text: str) -> str:
    """A UID that depends on a text."""
    return ROOT + str(int.from_bytes(hashlib.sha256(text.encode()).digest()[:12]))


def write_image(
    path: Path, *, patient: str, side: str = "L", view: str = "CC", study: str = "1", seed: str = "", **tags: Any
) -> Dataset:
    """Write one image, For Presentation, and return its header.

    Args:
        path: file to write.
        patient: PatientID.
        side: ImageLaterality, "" for none.
        view: view in ViewCodeSequence, "" for none.
        study: examination of the patient; makes the Study Instance UID.
        seed: makes the pixels; by default every image has its own.
        tags: further tags by keyword, which override the others.
    """
    name = f"{patient}/{study}/{side}/{view}/{path.name}"
    dataset = Dataset()
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = uid(name), uid(f"{patient}/{study}")
    dataset.SeriesInstanceUID = uid(f"{patient}/{study}/{side}")
    dataset.PatientID, dataset.Modality, dataset.PresentationIntentType = patient, "MG", "FOR PRESENTATION"
    if side:
        dataset.ImageLaterality = side
    if view:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = VIEW_CODES[view], "SCT", view
        dataset.ViewCodeSequence = Sequence([item])
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 7, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = hashlib.shake_128((seed or name).encode()).digest(16)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_exam(folder: Path, *, patient: str, start: int = 0, **tags: Any) -> list[Dataset]:
    """Write the four views of an examination as 0000.dcm, 0001.dcm, ... from a number on."""
    order = [(side, view) for side in "LR" for view in ("CC", "MLO")]
    return [
        write_image(folder / f"{start + index:04d}.dcm", patient=patient, side=side, view=view, **tags)
        for index, (side, view) in enumerate(order)
    ]


def blank(path: Path, *, patient: str) -> None:
    """Write an image of zeros only."""
    write_image(path, patient=patient, PixelData=np.zeros(16, np.uint8).tobytes())
