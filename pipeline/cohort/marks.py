"""By what an image is known again under another name: digests of its SOP Instance UID and of its pixels as stored."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset

from pipeline.imaging.parsing import open_dataset, refusing
from pipeline.imaging.reading import PNG_SIGNATURE

SHAPE = ("Rows", "Columns", "BitsStored", "PixelRepresentation")


@dataclass(frozen=True)
class Marks:
    """Digests (SHA-256, hexadecimal) that two copies of an image share, whatever else their headers say.

    Args:
        sop_uid: of the SOP Instance UID (0008,0018); "" where there is none.
        stored: of the pixels as encoded, with their shape and transfer syntax; "" where there are none.
    """

    sop_uid: str = ""
    stored: str = ""


def read_marks(path: Path) -> Marks:
    """Read the marks of a DICOM file, or of a PNG, which has no UID.

    Raises:
        Refusal: the file is damaged.
    """
    with path.open("rb") as file:
        if file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE:
            digest = hashlib.sha256()
            for part in _pixel_chunks(file):
                digest.update(part)
            return Marks(stored=digest.hexdigest())
    with refusing("DICOM file"):
        return marks_of(open_dataset(path))


def marks_of(dataset: Dataset) -> Marks:
    """The marks of a data set with its pixels."""
    uid = str(dataset.get("SOPInstanceUID", "")).strip()
    pixels = dataset.get("PixelData")
    if not pixels:
        return Marks(sop_uid=_hashed(uid))
    shape = [str(dataset.get(tag)) for tag in SHAPE] + [str(dataset.file_meta.get("TransferSyntaxUID", ""))]
    stored = hashlib.sha256(f"{'|'.join(shape)}:".encode())
    stored.update(pixels)
    return Marks(sop_uid=_hashed(uid), stored=stored.hexdigest())


def _pixel_chunks(file: BinaryIO) -> Iterator[bytes]:
    """What says the pixels of a PNG, read from behind its signature (ISO/IEC 15948, 5.3): header, palette, data."""
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if kind in (b"IHDR", b"PLTE", b"IDAT"):
            yield file.read(length)
            file.seek(4, 1)  # checksum
        else:
            file.seek(length + 4, 1)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
