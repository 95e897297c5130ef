"""Read one mammogram, DICOM or grey PNG, or refuse it with a reason."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from pipeline.imaging import decoding, facts
from pipeline.imaging.mammogram import Mammogram, Presentation
from pipeline.imaging.refusal import Refusal, RefusalCode

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_mammogram(
    path: str | PathLike[str],
    *,
    laterality: str | None = None,
    view: str | None = None,
    patient_id: str | None = None,
) -> Mammogram:
    """Read a mammogram in DICOM's order: decode, padding, modality LUT, VOI, inversion exactly once.

    Args:
        path: DICOM file, or 8- or 16-bit grey PNG (told apart by content, not by name).
        laterality: ``L`` or ``R`` from a manifest; needed for a PNG, fills a gap in DICOM, must not contradict it.
        view: view from a manifest, for example ``CC``; same rules.
        patient_id: pseudonym to keep with the image; the file's own identity is never read.

    Returns:
        The mammogram with ``stored`` values and ``pixels``, float32 (H, W) in [0, 1], bright = dense.

    Raises:
        Refusal: with a code of :class:`~pipeline.imaging.refusal.RefusalCode`.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            start = file.read(8)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Refusal(RefusalCode.MISSING_FILE, "no such file; check the manifest's image column", str(path)) from error
    except OSError as error:
        raise Refusal(RefusalCode.UNREADABLE, f"cannot be opened: {error.strerror}", str(path)) from error
    try:
        read = _read_png if start == PNG_SIGNATURE else _read_dicom
        mammogram = read(source, laterality, view)
    except Refusal as refusal:
        raise refusal.at(path) from refusal.__cause__
    return replace(mammogram, patient_id=patient_id)


def _read_png(source: Path, laterality: str | None, view: str | None) -> Mammogram:
    if not laterality:
        raise Refusal(RefusalCode.UNKNOWN_SIDE, "a PNG does not say its side; give laterality (L or R)")
    if not view:
        raise Refusal(RefusalCode.UNKNOWN_VIEW, "a PNG does not say its view; give view (for example CC or MLO)")
    try:
        with Image.open(source) as picture:
            mode = picture.mode
            stored = np.array(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refusal(RefusalCode.UNREADABLE, f"the PNG is damaged: {error}") from error
    bits = {"L": 8, "I;16": 16, "I": 16}.get(mode)
    if bits is None or stored.ndim != 2 or min(stored.shape) < 2:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"PNG of mode {mode} and shape {stored.shape}: 8- or 16-bit grey")
    return Mammogram(
        stored=stored,
        presentation=Presentation(stored_range=(0.0, float(2**bits - 1)), bits_stored=bits),
        laterality=facts.checked_laterality(laterality),
        view=facts.checked_view(view),
        provenance={
            "laterality": "manifest",
            "view": "manifest",
            "spacing_mm": "not stated",
            "display": f"PNG, {bits}-bit grey",
        },
    )


def _read_dicom(source: Path, laterality: str | None, view: str | None) -> Mammogram:
    try:
        with warnings.catch_warnings():
            # pydicom warns of text that is too long for its type, and quotes it: no harm here, and possibly personal.
            warnings.simplefilter("ignore", category=UserWarning)
            dataset = pydicom.dcmread(source)
            decoding.check_object(dataset)
            side_view, view_source = facts.read_view(dataset, view)
            side, side_source = facts.read_laterality(dataset, side_view, laterality)
            spacing, spacing_source = facts.read_spacing(dataset)
            presentation = decoding.read_presentation(dataset)
            stored = decoding.decode(dataset)
    except InvalidDicomError as error:
        raise Refusal(RefusalCode.UNREADABLE, "neither DICOM (no DICM marker) nor PNG") from error
    except (ValueError, AttributeError, TypeError, KeyError, EOFError, OSError, struct.error) as error:
        raise Refusal(RefusalCode.UNREADABLE, f"the DICOM file is damaged ({type(error).__name__})") from error
    oblique = facts.oblique_side(dataset, side_view)
    provenance = {
        "laterality": side_source + ("; PatientOrientation disagrees" if oblique not in (None, side) else ""),
        "view": view_source,
        "spacing_mm": spacing_source,
        "display": f"{dataset.PhotometricInterpretation}, {dataset.BitsStored} bits stored",
        "transfer_syntax": dataset.file_meta.TransferSyntaxUID.name,
    }
    modifiers = [
        str(modifier.get("CodeMeaning", ""))
        for item in dataset.get("ViewCodeSequence") or []
        for modifier in item.get("ViewModifierCodeSequence") or []
    ]
    if any(modifiers):
        provenance["view_modifier"] = ", ".join(modifiers)
    return Mammogram(
        stored=stored,
        presentation=presentation,
        laterality=side,
        view=side_view,
        spacing_mm=spacing,
        provenance=provenance,
        chest_wall=facts.chest_wall_side(dataset),
    )
