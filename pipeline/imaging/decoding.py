"""Pixels and display facts out of a DICOM dataset."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pipeline.imaging.display import Table, VOIFunction
from pipeline.imaging.mammogram import Presentation, Window
from pipeline.imaging.refusal import Refusal, RefusalCode

FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
PROJECTION_MODALITIES = ("CR", "DX", "RG", "OT")
"""Modalities that may hold a mammogram if the body part says breast: digitised film and computed radiography."""


def check_object(dataset: Dataset) -> None:
    """Refuse what is no mammogram for presentation with one grey frame.

    Raises:
        Refusal: ``not_mammogram``, ``not_for_presentation``, ``no_pixels`` or ``unsupported_pixels``.
    """
    sop_class, modality = str(dataset.get("SOPClassUID", "")), str(dataset.get("Modality", "")).strip()
    body = str(dataset.get("BodyPartExamined", "") or dataset.get("OrganExposed", "")).strip().upper()
    if sop_class == TOMOSYNTHESIS or int(dataset.get("NumberOfFrames") or 1) > 1:
        frames = dataset.get("NumberOfFrames")
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"NumberOfFrames {frames}: tomosynthesis and stacks are not read")
    if modality != "MG" and not (modality in PROJECTION_MODALITIES and body == "BREAST"):
        raise Refusal(
            RefusalCode.NOT_MAMMOGRAM,
            f"Modality (0008,0060) is {modality or 'empty'!r}: MG, or a projection image of BodyPartExamined BREAST",
        )
    if str(dataset.get("QualityControlImage", "")).strip().upper() == "YES":
        raise Refusal(RefusalCode.NOT_MAMMOGRAM, "Quality Control Image (0028,0300) is YES: no patient's breast")
    intent = str(dataset.get("PresentationIntentType", "")).strip().upper()
    if sop_class == FOR_PROCESSING or intent == "FOR PROCESSING":
        raise Refusal(
            RefusalCode.NOT_FOR_PRESENTATION, "a For Processing image holds raw detector values; use For Presentation"
        )
    if "PixelData" not in dataset:
        raise Refusal(RefusalCode.NO_PIXELS, "Pixel Data (7FE0,0010) is missing")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refusal(
            RefusalCode.UNSUPPORTED_PIXELS,
            f"{samples} samples per pixel, PhotometricInterpretation {photometric!r}: "
            "one sample of MONOCHROME1 or MONOCHROME2",
        )


def decode(dataset: Dataset) -> np.ndarray:
    """Decode the stored values (H, W), with bits above High Bit (old overlays) cleared.

    Raises:
        Refusal: ``unsupported_syntax`` without a decoder, ``unreadable`` for damaged pixel data.
    """
    syntax = UID(str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", "")))
    try:
        pixels = np.asarray(dataset.pixel_array)
    except NotImplementedError as error:
        raise Refusal(RefusalCode.UNSUPPORTED_SYNTAX, f"no decoder for transfer syntax {syntax.name}") from error
    except (RuntimeError, ValueError, AttributeError, KeyError, EOFError, OSError, IndexError, struct.error) as error:
        if "missing dependencies" in str(error) or "Unable to decode" in str(error) and "plugin" in str(error):
            raise Refusal(
                RefusalCode.UNSUPPORTED_SYNTAX,
                f"transfer syntax {syntax.name} could not be decoded; install python-gdcm and pylibjpeg-openjpeg",
            ) from error
        raise Refusal(RefusalCode.UNREADABLE, f"pixel data cannot be decoded ({syntax.name}): {error}") from error
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"pixel array of shape {pixels.shape}: one frame (rows, columns)")
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if pixels.dtype.kind == "u" and bits < allocated and not syntax.is_compressed:
        pixels = (pixels >> max(int(dataset.HighBit) + 1 - bits, 0)) & (2**bits - 1)
    return pixels


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(part) for part in (value if hasattr(value, "append") else [value])]


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def read_table(item: Dataset, *, signed_input: bool, little_endian: bool = True) -> Table:
    """One item of a VOI or Modality LUT Sequence (PS3.3 C.11.1.1).

    The number of entries 0 stands for 65,536; the first mapped value is signed where the input is.

    Raises:
        Refusal: ``bad_display`` for a descriptor or data that do not fit together.
    """
    descriptor = [int(part) for part in item.LUTDescriptor]
    count, first, bits = descriptor
    count = count or 65536
    first = first - 65536 if signed_input and first > 32767 else first
    first = first + 65536 if not signed_input and first < 0 else first
    data = item.LUTData
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        data = np.frombuffer(data, dtype=("<u2" if little_endian else ">u2") if wide else "u1")
    entries = np.asarray(data, dtype=np.int64)[:count]
    if len(entries) != count or not 1 <= bits <= 16:
        raise Refusal(
            RefusalCode.BAD_DISPLAY,
            f"LUT Descriptor (0028,3002) {descriptor} does not fit {len(entries)} entries of LUT Data; bits 1 to 16",
        )
    return Table(first=first, entries=tuple(int(entry) for entry in np.clip(entries, 0, 2**bits - 1)), bits=bits)


def read_presentation(dataset: Dataset) -> Presentation:
    """Collect the display facts of a dataset, choosing nothing (PS3.3 C.7.5.1.1.2, C.11.1, C.11.2, C.11.6).

    Raises:
        Refusal: ``bad_display`` for tags that contradict the standard.
    """
    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    low = -(2 ** (bits - 1)) if signed else 0
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    if function not in (VOIFunction.LINEAR, VOIFunction.LINEAR_EXACT, VOIFunction.SIGMOID):
        raise Refusal(
            RefusalCode.BAD_DISPLAY, f"VOI LUT Function (0028,1056) {function!r}: LINEAR, LINEAR_EXACT or SIGMOID"
        )
    centres, widths = _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))
    notes = _texts(dataset.get("WindowCenterWidthExplanation"))
    if len(centres) != len(widths):
        raise Refusal(RefusalCode.BAD_DISPLAY, f"{len(centres)} Window Centers but {len(widths)} Window Widths")
    notes += [""] * len(centres)
    little = bool(getattr(dataset, "original_encoding", (None, True))[1])
    modality_items = dataset.get("ModalityLUTSequence") or []
    table = read_table(modality_items[0], signed_input=signed, little_endian=little) if modality_items else None
    intercept = float(dataset.get("RescaleIntercept") or 0)
    slope = float(dataset.get("RescaleSlope") or 1)
    signed_voi = table is None and (signed or low * slope + intercept < 0)
    voi_items = dataset.get("VOILUTSequence") or []
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    shape = str(dataset.get("PresentationLUTShape", "") or "").strip().upper()
    return Presentation(
        stored_range=(float(low), float(low + 2**bits - 1)),
        bits_stored=bits,
        windows=tuple(Window(c, w, note) for c, w, note in zip(centres, widths, notes, strict=False)),
        function=VOIFunction(function),
        tables=tuple(read_table(item, signed_input=signed_voi, little_endian=little) for item in voi_items),
        slope=slope,
        intercept=intercept,
        modality_table=table,
        padding=_padding(dataset, signed),
        invert=photometric == "MONOCHROME1" or shape == "INVERSE",
    )


def _padding(dataset: Dataset, signed: bool) -> tuple[float, float] | None:
    """Padded range, both ends included, whichever of value and limit is lower (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    wrap = 2 ** int(dataset.BitsAllocated)
    ends = [int(value), int(value if limit is None else limit)]
    if signed:
        ends = [end - wrap if end >= wrap // 2 else end for end in ends]
    else:
        ends = [end + wrap if end < 0 else end for end in ends]
    return float(min(ends)), float(max(ends))
