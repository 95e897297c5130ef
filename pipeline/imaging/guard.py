"""Checks of a file before anything is decoded: what it says of its pixels must be possible, and not too much."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable
from itertools import islice
from os import PathLike
from typing import BinaryIO, TypeVar

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets, parse_fragments

from pipeline.imaging.codestream import jpeg2000_size, jpeg_size, rle_segments
from pipeline.imaging.isolation import run_apart
from pipeline.imaging.parsing import MEBI, Limits
from pipeline.imaging.refusal import Refusal, RefusalCode

Result = TypeVar("Result")

IMAGE_CLASSES = frozenset(
    {
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.BreastTomosynthesisImageStorage,
        uid.BreastProjectionXRayImageStorageForPresentation,
        uid.BreastProjectionXRayImageStorageForProcessing,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.ComputedRadiographyImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    }
)
"""SOP classes in which mammograms occur (PS3.4 B.5): digital, digitised film, computed radiography."""

FRAGMENTS = 10_000
"""Most fragments of one compressed frame; writers use one, or pieces of 16 KiB and more (PS3.5 A.4)."""

HEADER_SHARE = MEBI
"""Bytes at the start of a compressed frame in which its frame header must stand."""

RLE_GAIN = 64
"""Most that RLE gains: 128 equal bytes become 2 (PS3.5 G.3.1)."""

LOSSLESS_JPEG_GAIN = 16
"""Most that JPEG Lossless gains: a bit per sample of 16 (ISO/IEC 10918-1, H.1.2.2; a Huffman code has a bit)."""

DEFLATE_GAIN = 1032
"""Most that deflate gains (RFC 1951: 258 bytes by two codes of a bit each)."""

COMPRESSED_LOSS = 4
"""A compressed frame of more than so many times the size of its pixels holds something else."""

DECODED_BYTES = 4
"""Most bytes of a decoded pixel; decoders give 1 or 2 for 8 or 16 bits allocated, some 4."""

SMALLEST_SIDE = 16
"""Rows or columns below which a picture shows no breast."""

DISPLAY_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
LARGEST_NUMBER = 1e9
"""Display values stay below; stored values have 16 bits, and float32 must hold their products."""

SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")
SPACING_RANGE = (0.005, 5.0)
"""Distance of pixel centres in mm: detectors and film scanners have 0.04 to 0.2, small copies ten times that."""

MAGNIFICATION_RANGE = (0.5, 10.0)
"""Estimated Radiographic Magnification Factor: 1 to 2 in mammography (PS3.3 C.8.11.4)."""


def decode_guarded(decode: Callable[[Dataset], Result], dataset: Dataset) -> Result:
    """Decode a data set that :func:`check_pixels` has passed; compressed pixels in a child process.

    Args:
        decode: from a data set to its pixels.
        dataset: see :func:`~pipeline.imaging.parsing.open_dataset`.

    Raises:
        Refusal: of ``decode``, or of :func:`~pipeline.imaging.isolation.run_apart`.
    """
    if not _is_compressed(uid.UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))):
        return decode(dataset)
    return run_apart(decode, dataset, room=DECODED_BYTES * int(dataset.Rows) * int(dataset.Columns))


def _is_compressed(syntax: uid.UID) -> bool:
    return syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian


def check_pixels(dataset: Dataset, *, limits: Limits | None = None) -> None:
    """Check that a data set is an image and that its pixel data can be what its tags say, before it is decoded.

    Required tags and their ranges (PS3.3 C.7.6.3.1), the SOP class, the number of pixels, the length of native pixel
    data (PS3.5 8.1.1), and for compressed data the fragments (PS3.5 A.4), a plausible length, and the size that the
    codestream itself declares.

    Args:
        dataset: with Pixel Data; see :func:`open_dataset`.
        limits: what the file may cost; None for the defaults.

    Raises:
        Refusal: ``not_mammogram``, ``bad_header``, ``too_large``, ``unsupported_pixels``, ``bad_display``,
            ``no_pixels`` or ``pixel_size``.
    """
    limits = limits or Limits()
    if str(dataset.get("SOPClassUID", "")) not in IMAGE_CLASSES:
        raise Refusal(
            RefusalCode.NOT_MAMMOGRAM,
            "SOP Class UID (0008,0016) is none in which mammograms occur: Digital Mammography, Digital X-Ray, Computed "
            "Radiography or Secondary Capture",
        )
    rows, columns = (_whole(dataset, name, SMALLEST_SIDE, 65535) for name in ("Rows", "Columns"))
    allocated = _whole(dataset, "BitsAllocated", 1, 64)
    if allocated not in (8, 16):
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"Bits Allocated (0028,0100) is {allocated}: 8 or 16")
    _whole(dataset, "BitsStored", 1, allocated)
    _whole(dataset, "HighBit", 0, allocated - 1)
    signed = _whole(dataset, "PixelRepresentation", 0, 1, default=0) == 1
    samples = _whole(dataset, "SamplesPerPixel", 1, 4, default=1)
    frames = _whole(dataset, "NumberOfFrames", 1, 65535, default=1)
    if rows * columns * frames > limits.pixels:
        raise Refusal(
            RefusalCode.TOO_LARGE,
            f"{rows:,} x {columns:,} pixels, {frames} frame(s); at most {limits.pixels:,} pixels are read",
        )
    for name in DISPLAY_NUMBERS:
        _check_numbers(dataset, name, (-LARGEST_NUMBER, LARGEST_NUMBER), RefusalCode.BAD_DISPLAY)
    for name in SPACINGS:
        _check_numbers(dataset, name, SPACING_RANGE, RefusalCode.BAD_HEADER, unstated=0.0)
    magnification = "EstimatedRadiographicMagnificationFactor"
    _check_numbers(dataset, magnification, MAGNIFICATION_RANGE, RefusalCode.BAD_HEADER, unstated=0.0)
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or not data:
        raise Refusal(RefusalCode.NO_PIXELS, "Pixel Data (7FE0,0010) is missing or empty")
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    native = rows * columns * frames * samples * allocated // 8
    if not syntax.is_valid or not syntax.is_transfer_syntax:
        raise Refusal(RefusalCode.UNSUPPORTED_SYNTAX, "Transfer Syntax UID (0002,0010) is none of PS3.6: no decoder")
    if _is_compressed(syntax):
        _check_compressed(data, syntax, rows, columns, samples, allocated, native, frames, signed)
    elif not native <= len(data) < native + max(native // rows, 2):
        raise Refusal(
            RefusalCode.PIXEL_SIZE,
            f"Pixel Data has {len(data):,} bytes where {rows} x {columns} pixels of {allocated} bits take {native:,}; "
            "fetch the file again",
        )


def _check_compressed(
    data: bytes,
    syntax: uid.UID,
    rows: int,
    columns: int,
    samples: int,
    allocated: int,
    native: int,
    frames: int,
    signed: bool,
) -> None:
    try:
        buffer = io.BytesIO(data)
        parse_basic_offsets(buffer)
        count, _ = parse_fragments(buffer)
        start = b"".join(islice(generate_fragments(buffer), 64))
    except (ValueError, EOFError, struct.error) as error:
        raise Refusal(RefusalCode.PIXEL_SIZE, "the fragments of Pixel Data do not add up; fetch it again") from error
    if not frames <= count <= FRAGMENTS * frames:
        raise Refusal(RefusalCode.PIXEL_SIZE, f"Pixel Data has {count} fragments; 1 to {FRAGMENTS:,} hold a frame")
    if len(data) > COMPRESSED_LOSS * native + MEBI:
        raise Refusal(RefusalCode.PIXEL_SIZE, f"{len(data):,} compressed bytes for {native:,} bytes of pixels")
    gain = {uid.RLELossless: RLE_GAIN, uid.JPEGLossless: LOSSLESS_JPEG_GAIN, uid.JPEGLosslessSV1: LOSSLESS_JPEG_GAIN}
    if syntax in gain and len(data) * gain[syntax] < native:
        raise Refusal(
            RefusalCode.PIXEL_SIZE,
            f"{len(data):,} compressed bytes cannot hold {rows} x {columns} pixels in {syntax.name}",
        )
    if syntax == uid.RLELossless:
        segments = rle_segments(start)
        if segments != samples * allocated // 8:
            raise Refusal(RefusalCode.PIXEL_SIZE, f"{segments or 'no valid'} RLE segments for {allocated} bits")
        return
    if syntax in uid.JPEGTransferSyntaxes + uid.JPEGLSTransferSyntaxes:
        size = jpeg_size(start[:HEADER_SHARE])
    elif syntax in uid.JPEG2000TransferSyntaxes:
        size = jpeg2000_size(start[:HEADER_SHARE])
    else:
        return  # no decoder: refused as such
    if size is None:
        raise Refusal(RefusalCode.PIXEL_SIZE, f"no frame header of {syntax.name} at the start of Pixel Data")
    if (size.rows, size.columns, size.components) != (rows, columns, samples) or size.bits > allocated:
        raise Refusal(
            RefusalCode.PIXEL_SIZE,
            f"the codestream declares {size.rows} x {size.columns} pixels, {size.components} component(s) of "
            f"{size.bits} bits, the tags {rows} x {columns}, {samples} of {allocated}",
        )
    if size.signed and not signed:
        raise Refusal(
            RefusalCode.PIXEL_SIZE,
            "the codestream declares signed samples, Pixel Representation (0028,0103) unsigned ones: it must be 1; "
            "mend the tag at its source",
        )


def _whole(dataset: Dataset, name: str, low: int, high: int, *, default: int | None = None) -> int:
    value = dataset.get(name)
    if value is None or value == "":
        value = default
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if low <= number <= high and number == int(number):
            return int(number)
    tag = pydicom.datadict.tag_for_keyword(name) or 0
    state = "missing" if value is None else "not allowed"
    raise Refusal(
        RefusalCode.BAD_HEADER,
        f"{name} ({tag >> 16:04X},{tag & 0xFFFF:04X}) is {state}: a whole number, {low} to {high}",
    )


def _check_numbers(
    dataset: Dataset, name: str, bounds: tuple[float, float], code: RefusalCode, *, unstated: float | None = None
) -> None:
    """Refuse a tag of other text than numbers within bounds; some writers give ``unstated`` for what they lack."""
    value = dataset.get(name)
    if value is None or value == "":
        return
    try:
        numbers = [float(part) for part in (value if hasattr(value, "append") else [value])]
    except (TypeError, ValueError):
        numbers = [math.nan]
    low, high = bounds
    if not all(low <= number <= high or number == unstated for number in numbers):
        raise Refusal(code, f"{name} is not allowed: numbers from {low:g} to {high:g}")


def check_png(path: str | PathLike[str], *, limits: Limits | None = None) -> None:
    """Check the size of a PNG file and of its picture from its first chunk, IHDR (ISO/IEC 15948, 11.2.2).

    Args:
        path: a file that begins with PNG's signature.
        limits: what the file may cost; None for the defaults.

    Raises:
        Refusal: ``too_large``, ``unsupported_pixels`` for a tiny one, ``unreadable`` without the chunk, ``pixel_size``
            where the file is too short for its picture.
    """
    limits = limits or Limits()
    with open(path, "rb") as stream:
        start = stream.read(33)
        size = stream.seek(0, io.SEEK_END)
        whole = size <= limits.file_bytes and _chunks_fit(stream, size, limits)
    if size > limits.file_bytes:
        raise Refusal(
            RefusalCode.TOO_LARGE, f"the PNG has {size / MEBI:,.0f} MiB; at most {limits.file_bytes / MEBI:,.0f}"
        )
    if (
        len(start) < 33
        or start[8:16] != b"\x00\x00\x00\x0dIHDR"
        or zlib.crc32(start[12:29]) != int.from_bytes(start[29:])
    ):
        raise Refusal(RefusalCode.UNREADABLE, "the PNG does not begin with a whole IHDR chunk; fetch the file again")
    if not whole:
        raise Refusal(RefusalCode.UNREADABLE, "a chunk of the PNG is longer than the file; fetch the file again")
    columns, rows, depth = struct.unpack_from(">IIB", start, 16)
    if min(rows, columns) < SMALLEST_SIDE:
        raise Refusal(RefusalCode.UNSUPPORTED_PIXELS, f"{rows} x {columns} pixels show no breast")
    if rows * columns > limits.pixels:
        raise Refusal(RefusalCode.TOO_LARGE, f"{rows:,} x {columns:,} pixels; at most {limits.pixels:,} are read")
    if size * DEFLATE_GAIN < rows * columns * depth // 8:
        raise Refusal(
            RefusalCode.PIXEL_SIZE, f"{size:,} bytes cannot hold {rows} x {columns} pixels; fetch the file again"
        )


def _chunks_fit(stream: BinaryIO, size: int, limits: Limits) -> bool:
    """Whether every chunk up to IEND ends inside the file: a decoder claims a chunk's memory before it reads it."""
    place = 8
    for _ in range(limits.elements):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or place + 12 + int.from_bytes(head[:4]) > size:
            return False
        if head[4:] == b"IEND":
            return True
        place += 12 + int.from_bytes(head[:4])
    return False
