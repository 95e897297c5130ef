"""Pixels and display facts out of a DICOM dataset."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder

from pipeline.imaging import decoders
from pipeline.imaging.display import Table, VOIFunction
from pipeline.imaging.facts import view_modifiers
from pipeline.imaging.frames import frame_count, shown_frame
from pipeline.imaging.mammogram import Presentation, Window
from pipeline.imaging.refusal import Refusal, RefusalCode, known
from pipeline.imaging.special import KEPT, Special, check_special, special_kinds

FOR_PROCESSING_CLASSES = frozenset(
    {
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.BreastProjectionXRayImageStorageForProcessing,
        uid.DigitalXRayImageStorageForProcessing,
    }
)
PROJECTION_MODALITIES = ("CR", "DX", "RG", "OT")
"""Modalities that may hold a mammogram if the body part says breast: digitised film and computed radiography."""
MODALITIES = (*PROJECTION_MODALITIES, "CT", "MR", "US", "NM", "PT", "XA", "RF", "SC", "SR", "PR", "KO", "SEG", "DOC")
PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
"""Defined terms that a reason may quote (PS3.3 C.7.3.1.1.1 and C.7.6.3.1.2, the usual ones)."""
LOSSLESS_CODECS = frozenset(
    {
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
    }
)
"""Syntaxes whose values are the very ones that were encoded; lossy ones may overshoot the highest by a little."""
EXPLANATIONS = ("NORMAL", "HARDER", "SOFTER")
"""Window Center & Width Explanations that the provenance may quote; other text may hold anything."""


class RawPolicy(StrEnum):
    """What happens to For Processing images, which hold raw detector values."""

    REFUSE = "refuse"
    LOG = "log"  # shown by the logarithm of the values, see VOIFunction.LOG


def is_raw(dataset: Dataset) -> bool:
    """Whether a data set is a For Processing image (SOP class, or Presentation Intent Type (0008,0068))."""
    intent = str(dataset.get("PresentationIntentType", "")).strip().upper()
    return str(dataset.get("SOPClassUID", "")) in FOR_PROCESSING_CLASSES or intent == "FOR PROCESSING"


def check_object(
    dataset: Dataset, *, keep: Collection[str] = KEPT, for_processing: RawPolicy | str = RawPolicy.REFUSE
) -> None:
    """Refuse what is no mammogram for presentation with one grey frame, unless the caller wants it.

    Args:
        dataset: header.
        keep: kinds of unusual images that are kept, see :class:`~pipeline.imaging.special.Special`.
        for_processing: ``refuse`` or ``log``.

    Raises:
        Refusal: ``not_mammogram``, ``special_image``, ``not_for_presentation``, ``no_pixels`` or
            ``unsupported_pixels``.
    """
    modality = str(dataset.get("Modality", "")).strip()
    body = str(dataset.get("BodyPartExamined", "") or dataset.get("OrganExposed", "")).strip().upper()
    kinds = special_kinds(dataset, view_modifiers(dataset))
    check_special([kind for kind in kinds if kind is Special.TOMOSYNTHESIS], keep)
    if frame_count(dataset) > 1 and Special.TOMOSYNTHESIS not in kinds:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, "several frames, and no tomosynthesis: stacks are not read")
    if modality != "MG" and not (modality in PROJECTION_MODALITIES and body == "BREAST"):
        raise Refusal(
            RefusalCode.NOT_MAMMOGRAM,
            f"Modality (0008,0060) is {known(modality, MODALITIES)}: MG, or a projection image with "
            "BodyPartExamined BREAST",
        )
    check_special(kinds, keep)
    if is_raw(dataset) and for_processing == RawPolicy.REFUSE:
        raise Refusal(
            RefusalCode.NOT_FOR_PRESENTATION,
            "a For Processing image holds raw detector values; use the For Presentation image of the view, or read "
            "with for_processing='log'",
        )
    if "PixelData" not in dataset:
        raise Refusal(RefusalCode.NO_PIXELS, "Pixel Data (7FE0,0010) is missing")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refusal(
            RefusalCode.UNSUPPORTED_PIXELS,
            f"{samples} samples per pixel, PhotometricInterpretation {known(photometric, PHOTOMETRICS)}: "
            "one sample of MONOCHROME1 or MONOCHROME2",
        )


def decode(dataset: Dataset) -> np.ndarray:
    """Decode the stored values (H, W) of an image, or of the middle frame of a stack.

    Bits above High Bit (old overlays) are cleared, or become the sign of signed values. Where several decoders can, the
    fastest is tried first, see :data:`~pipeline.imaging.decoders.ORDER`.

    Raises:
        Refusal: ``unsupported_syntax`` without a decoder, ``unreadable`` for damaged pixel data, ``pixel_size`` for
            values that Bits Stored cannot hold.
    """
    syntax = uid.UID(str(getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID", "")))
    pixels = _native(dataset, syntax) if syntax in decoders.NATIVE else _decompressed(dataset, syntax)
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"pixel array of shape {pixels.shape}: one frame (rows, columns)")
    if syntax in LOSSLESS_CODECS:
        _check_range(pixels, int(dataset.BitsStored))
    return _stored_bits(pixels, dataset, packed=syntax in decoders.NATIVE or syntax == uid.RLELossless)


def _native(dataset: Dataset, syntax: uid.UID) -> np.ndarray:
    try:
        pixels, _ = get_decoder(syntax).as_array(dataset, index=shown_frame(dataset), **decoders.AS_STORED)
    except MemoryError:
        raise
    except Exception as error:
        raise Refusal(RefusalCode.UNREADABLE, f"pixel data cannot be read ({syntax.name})") from error
    return np.asarray(pixels)


def _decompressed(dataset: Dataset, syntax: uid.UID) -> np.ndarray:
    installed = decoders.decoders_for(syntax)
    if not installed:
        packages = decoders.missing_packages(syntax)
        advice = f"install {packages}" if packages else "convert the file, for example with gdcmconv --raw"
        raise Refusal(RefusalCode.UNSUPPORTED_SYNTAX, f"no decoder for transfer syntax {syntax.name}; {advice}")
    failures: list[Exception] = []
    for decoder in installed:
        try:
            return decoders.decode_frame(dataset, decoder, shown_frame(dataset))
        except MemoryError:
            raise
        except Exception as failure:  # each decoder has errors of its own; the next may be more tolerant
            failures.append(failure)
    tried = f"{syntax.name}; tried {', '.join(installed)}"
    if all("support" in str(failure).lower() for failure in failures):  # "unsupported", "does not support"
        raise Refusal(
            RefusalCode.UNSUPPORTED_SYNTAX,
            f"no decoder supports this kind of {tried}; convert the file, for example with gdcmconv --raw",
        )
    raise Refusal(RefusalCode.UNREADABLE, f"pixel data cannot be decoded ({tried})") from failures[0]


def _check_range(pixels: np.ndarray, bits: int) -> None:
    """Refuse values that Bits Stored cannot hold; those of a codec without a sign may be the bits of negative ones."""
    low, high = int(pixels.min()), int(pixels.max())
    if low < -(2 ** (bits - 1)) or high >= 2**bits:
        raise Refusal(
            RefusalCode.PIXEL_SIZE,
            f"decoded values reach from {low} to {high}, beyond Bits Stored (0028,0101), {bits}; mend the tag at its "
            "source",
        )


def _stored_bits(pixels: np.ndarray, dataset: Dataset, *, packed: bool) -> np.ndarray:
    """Bits Stored below High Bit as a number; codecs other than RLE give such numbers, but may lack the sign."""
    bits, signed, width = int(dataset.BitsStored), pixels.dtype.kind == "i", 8 * pixels.dtype.itemsize
    high = max(int(dataset.HighBit), bits - 1) if packed else bits - 1
    if high >= width or bits >= width or not (packed or signed):
        return pixels
    if not signed and high == bits - 1:
        return pixels & (2**bits - 1)
    return (pixels << (width - 1 - high)) >> (width - bits)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(part) for part in (value if hasattr(value, "append") else [value])]


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def explanations(dataset: Dataset) -> list[str]:
    """Window Center & Width Explanations (0028,1055), those that are known terms; the others empty."""
    return [_term(text) for text in _texts(dataset.get("WindowCenterWidthExplanation"))]


def _term(text: str) -> str:
    """A window's explanation if it is a known term; other text may hold anything."""
    term = text.strip().upper()
    return "full width" if "FULL WIDTH" in term else term if term in EXPLANATIONS else ""


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
            RefusalCode.BAD_DISPLAY, "VOI LUT Function (0028,1056) is unknown: LINEAR, LINEAR_EXACT or SIGMOID"
        )
    centres, widths = _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))
    notes = explanations(dataset)
    if len(centres) != len(widths):
        raise Refusal(RefusalCode.BAD_DISPLAY, f"{len(centres)} Window Centers but {len(widths)} Window Widths")
    notes += [""] * len(centres)
    little = bool(getattr(dataset, "original_encoding", (None, True))[1])
    modality_items = dataset.get("ModalityLUTSequence") or []
    table = read_table(modality_items[0], signed_input=signed, little_endian=little) if modality_items else None
    intercept = float(dataset.get("RescaleIntercept") or 0)
    slope = (_numbers(dataset.get("RescaleSlope")) or [1.0])[0]
    if slope == 0:
        raise Refusal(
            RefusalCode.BAD_DISPLAY,
            "Rescale Slope (0028,1053) is 0, which shows every pixel alike: mend it at its source",
        )
    signed_voi = table is None and (signed or low * slope + intercept < 0)
    voi_items = dataset.get("VOILUTSequence") or []
    photometric = str(dataset.PhotometricInterpretation).strip().upper()
    shape = str(dataset.get("PresentationLUTShape", "") or "").strip().upper()
    raw = is_raw(dataset)
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
        invert=_inverted(dataset) if raw else photometric == "MONOCHROME1" or shape == "INVERSE",
        raw=raw,
        logarithmic=raw and str(dataset.get("PixelIntensityRelationship", "")).strip().upper() == "LOG",
    )


def _inverted(dataset: Dataset) -> bool:
    """Whether high values of a raw image stand for much radiation, and so for little tissue.

    Pixel Intensity Relationship Sign (0028,1041) says it (PS3.3 C.8.11.3.1.2); where it is missing, MONOCHROME1.
    """
    sign = dataset.get("PixelIntensityRelationshipSign")
    if sign in (1, -1):
        return bool(sign == 1)
    return str(dataset.PhotometricInterpretation).strip().upper() == "MONOCHROME1"


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
