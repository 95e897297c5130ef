"""A stand-in for the download of CMMD: the real headers of all 5,202 images with sixteen made-up pixels each."""

from __future__ import annotations

import ast
import functools
import hashlib
import struct
from pathlib import Path

import pandas as pd
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

SIDE = 4  # pixels
SAME_PIXELS = {f"D2-0284_1-{number}": f"D1-0202_1-{number}" for number in range(1, 5)} | {"D1-1292_1-1": "D1-0808_1-1"}
NOT_TAGS = {"image_id", "folder", "ViewCodeMeaning", "ViewCodeValue", "Rows", "Columns"}
LISTS = {"PatientOrientation", "ImageType", "ImagerPixelSpacing"}


def read_headers(folder: Path) -> pd.DataFrame:
    """The real tags, one row per image, with the folder of the series as the archive's downloader lays it out."""
    tags = pd.read_csv(folder / "dicom_tags.csv.gz", dtype="str", keep_default_na=False)
    series = pd.read_csv(folder / "nbia_series.csv.gz", dtype="str", keep_default_na=False)
    places = series.set_index("Series UID")["File Location"].str.replace("\\", "/").str.removeprefix("./")
    return tags.assign(folder=tags["SeriesInstanceUID"].map(places))


def write_descriptive(headers: pd.DataFrame, root: Path) -> None:
    """Folders by patient and date, files 1-1.dcm, 1-2.dcm, ..., with the list and licence that lie beside them."""
    for row in headers.to_dict("records"):
        path = root / row["folder"] / _name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(row))
    (root / "metadata.csv").write_text("Series UID,Collection\n")
    (root / "CMMD" / "LICENSE").write_text("CC BY 4.0\n")


def link_classic(headers: pd.DataFrame, written: Path, root: Path) -> None:
    """The same files in folders by Study and Series UID, with names by the SOP Instance UID."""
    for row in headers.to_dict("records"):
        place = root / "CMMD" / row["StudyInstanceUID"] / row["SeriesInstanceUID"]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row['SOPInstanceUID']}.dcm").hardlink_to(written / row["folder"] / _name(row))


def _name(row: dict[str, str]) -> str:
    return f"{row['image_id'].split('_')[1]}.dcm"


def encode(row: dict[str, str]) -> bytes:
    """One file, Explicit VR Little Endian (PS3.5 7.1.2, PS3.10 7.1); elements that repeat are encoded once."""
    meta = b"".join(
        _element(tag, "UI", value)
        for tag, value in (
            (0x00020002, row["SOPClassUID"]),
            (0x00020003, row["SOPInstanceUID"]),
            (0x00020010, str(ExplicitVRLittleEndian)),
        )
    )
    told = {Tag(name): _tag(name, value) for name, value in row.items() if name not in NOT_TAGS and value}
    told[Tag("Rows")] = _tag("Rows", str(SIDE))
    told[Tag("Columns")] = _tag("Columns", str(SIDE))
    told[Tag("ViewCodeSequence")] = _view(row["ViewCodeValue"], row["ViewCodeMeaning"])
    pixels = _pixels(SAME_PIXELS.get(row["image_id"], row["image_id"]), int(row["BitsAllocated"]) // 8)
    told[Tag(0x7FE00010)] = _long(0x7FE00010, b"OW", pixels)
    dataset = b"".join(told[tag] for tag in sorted(told))
    return b"\0" * 128 + b"DICM" + _element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + dataset


@functools.lru_cache(maxsize=50_000)
def _tag(name: str, value: str) -> bytes:
    kind = dictionary_VR(name)
    if kind in ("US", "SS", "US or SS"):
        return _element(Tag(name), "US", struct.pack("<H", int(value) % 2**16))
    text = "\\".join(str(part) for part in ast.literal_eval(value)) if name in LISTS else value
    return _element(Tag(name), kind, text)


@functools.lru_cache
def _view(code: str, meaning: str) -> bytes:
    item = _tag("CodeValue", code) + _tag("CodingSchemeDesignator", "SCT") + _tag("CodeMeaning", meaning)
    header = struct.pack("<HHI", 0xFFFE, 0xE000, len(item))
    return _long(Tag("ViewCodeSequence"), b"SQ", header + item)


def _element(tag: int, kind: str, value: str | bytes) -> bytes:
    data = value.encode("latin-1") if isinstance(value, str) else value
    data += (b"\0" if kind == "UI" else b" ") * (len(data) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind.encode(), len(data)) + data


def _long(tag: int, kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, kind, 0, len(value)) + value


def _pixels(seed: str, width: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(SIDE * SIDE * width)
