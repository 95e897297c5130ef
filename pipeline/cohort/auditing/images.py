"""What an audit measures of every image: its file, a few technical tags, and its prepared picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from tqdm import tqdm

from pipeline.cohort.auditing.looks import read_levels
from pipeline.cohort.auditing.terms import TERMS, numbered, terms
from pipeline.cohort.raw_ids import is_raw_id
from pipeline.imaging import ImageStore, Preparation
from pipeline.imaging.parsing import open_dataset, silenced
from pipeline.imaging.reading import PNG_SIGNATURE
from pipeline.imaging.steps import Flip
from pipeline.imaging.store import LEVELS

MEASURES = (
    "file_size",
    "rows",
    "columns",
    "bit_depth",
    "syntax",
    "device",
    "raw_id",
    "spacing",
    "mean_intensity",
    "breast_intensity",
    "breast_share",
    "breast_area",
    "chest_wall",
    *TERMS,
)


def image_facts(prepared: pd.DataFrame, *, root: Path, store: ImageStore, progress: bool = False) -> pd.DataFrame:
    """Measure every prepared image.

    Args:
        prepared: rows of a manifest with ``image``, ``patient_id`` and ``prepared`` (path in the store).
        root: the data root.
        store: the image store, which keeps the preparations.
        progress: show a bar.

    Returns:
        One row per image with the columns ``MEASURES``: file_size (bytes), rows, columns (stored pixels), bit_depth,
        syntax and ``TERMS`` (known terms or numbers, "" where not stated), device (digest, "" where not stated), raw_id
        (bool), spacing (mm, NaN not stated), mean_intensity and breast_intensity (of the prepared picture and of its
        breast, [0, 1]), breast_share (of the stored picture, [0, 1]), breast_area (mm2, NaN without a spacing),
        chest_wall ("left", "right": the edge of the stored picture at which the pixels show it, "" unknown).
    """
    rows = zip(prepared["image"], prepared["patient_id"], prepared["prepared"], strict=True)
    bar = tqdm(rows, total=len(prepared), desc="measuring", unit="image", disable=not progress)
    table = pd.DataFrame(list(_measured(bar, root, store)), columns=list(MEASURES))
    return table.assign(**{name: numbered(table[name]) for name in TERMS}).set_axis(prepared.index)


def _measured(rows: Any, root: Path, store: ImageStore) -> Iterator[dict[str, Any]]:
    for image, patient_id, path in rows:
        file = root / image
        facts: dict[str, Any] = {"file_size": os.stat(file).st_size, "raw_id": is_raw_id(file, patient_id)}
        yield facts | _stored(file) | _prepared(path, store)


def _stored(file: Path) -> dict[str, Any]:
    """Facts of the stored file. The file was prepared before, so it is a sound DICOM or picture file."""
    with file.open("rb") as stream:
        picture_file = stream.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
    if not picture_file:
        with silenced():  # pydicom's warnings quote header text
            return _dicom(open_dataset(file, header_only=True))
    with Image.open(file) as picture:
        bits = 8 if picture.mode == "L" else 16
    return {
        "bit_depth": bits,
        "syntax": file.suffix.lower().lstrip("."),
        "device": "",
        **dict.fromkeys(TERMS, ""),
    }


def _dicom(dataset: pydicom.Dataset) -> dict[str, Any]:
    serial = [str(dataset.get(tag, "")).strip() for tag in ("Manufacturer", "DeviceSerialNumber")]
    syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    return {
        "bit_depth": int(dataset.get("BitsStored", 0)),
        "syntax": str(getattr(syntax, "name", syntax)),
        "device": _digest("|".join(serial)) if serial[1] else "",
        **terms(dataset),
    }


def _prepared(path: str, store: ImageStore) -> dict[str, Any]:
    levels = read_levels(path)
    breast = levels > 0
    sidecar = store.sidecar(path)
    preparation: Preparation = sidecar["preparation"]
    height, width = preparation.source_shape
    row, column = preparation.spacing((1.0, 1.0))
    spacing = sidecar.get("spacing_mm")
    area = float(breast.sum()) * row * column
    flips = [step for step in preparation.steps if isinstance(step, Flip)]
    return {
        "rows": height,
        "columns": width,
        "spacing": float(spacing[0]) if spacing else np.nan,
        "mean_intensity": float(levels.mean()) / LEVELS,
        "breast_intensity": float(levels[breast].mean()) / LEVELS if breast.any() else np.nan,
        "breast_share": area / (height * width),
        "breast_area": area * spacing[0] * spacing[1] if spacing else np.nan,
        "chest_wall": {0: "", 1: "right" if flips and flips[0].applied else "left"}[min(len(flips), 1)],
    }


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
