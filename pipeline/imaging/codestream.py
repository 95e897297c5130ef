"""What a compressed picture says about its own size, read from its first bytes without decoding anything."""

from __future__ import annotations

import struct
from dataclasses import dataclass

STANDALONE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
"""JPEG markers without a length: TEM and RST0 to RST7 (ISO/IEC 10918-1, table B.1)."""

FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF markers of JPEG (ISO/IEC 10918-1, table B.1) and of JPEG-LS (ISO/IEC 14495-1, C.1)."""

JPEG2000_START = b"\xff\x4f\xff\x51"
"""SOC and SIZ, the first two markers of a JPEG 2000 codestream (ISO/IEC 15444-1, A.4.1 and A.5.1)."""

MOST_TILES = 65535
"""A tile's index has 16 bits (ISO/IEC 15444-1, A.4.2)."""


@dataclass(frozen=True)
class DeclaredSize:
    """Size that a codestream declares.

    Args:
        rows: height in pixels.
        columns: width in pixels.
        components: samples per pixel.
        bits: bits per sample of the first component.
        signed: its samples are signed; only JPEG 2000 says so.
    """

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool = False


def jpeg_size(stream: bytes) -> DeclaredSize | None:
    """Size in the frame header of a JPEG or JPEG-LS stream (ISO/IEC 10918-1, B.2.2); None where there is none."""
    if stream[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 4 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in STANDALONE_MARKERS:
            place += 2
        elif marker in FRAME_MARKERS:
            if place + 10 > len(stream):
                return None
            bits, rows, columns, components = struct.unpack_from(">BHHB", stream, place + 4)
            return DeclaredSize(rows=rows, columns=columns, components=components, bits=bits)
        elif marker in (0xD9, 0xDA):  # end of image, start of scan: the frame header must come before
            return None
        else:
            place += 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return None


def jpeg2000_size(stream: bytes) -> DeclaredSize | None:
    """Size in the SIZ marker of a JPEG 2000 or HTJ2K codestream, bare or inside the boxes of JP2; None without one.

    A stream whose tiles are more than an index can count, or empty, has no size either (ISO/IEC 15444-1, A.5.1).
    """
    start = stream.find(JPEG2000_START)
    if start < 0 or start + 43 > len(stream):
        return None
    right, bottom, left, top, wide, high, tile_left, tile_top, components = struct.unpack_from(
        ">IIIIIIIIH", stream, start + 8
    )
    if not wide or not high or right <= left or bottom <= top or tile_left > left or tile_top > top:
        return None
    if -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high) > MOST_TILES:
        return None
    depth = stream[start + 42]  # Ssiz, its first bit is the sign
    return DeclaredSize(
        rows=bottom - top,
        columns=right - left,
        components=components,
        bits=(depth & 0x7F) + 1,
        signed=depth > 0x7F,
    )


def rle_segments(stream: bytes) -> int | None:
    """Number of segments of an RLE frame (PS3.5 G.5); None where the header is cut or its offsets lead outside."""
    if len(stream) < 64:
        return None
    count, *offsets = struct.unpack_from("<16I", stream)
    used = offsets[:count]
    if not 1 <= count <= 15 or used != sorted(set(used)) or used[0] < 64 or used[-1] > len(stream):
        return None
    return count
