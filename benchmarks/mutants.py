"""The ways in which a small DICOM or PNG file is damaged, drawn from a seed."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from benchmarks.base_files import unwatched

PNG = b"\x89PNG\r\n\x1a\n"
LONG_FORM = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
"""Value representations whose length has 4 bytes after 2 reserved ones (PS3.5 7.1.2)."""

UNDEFINED = b"\xff\xff\xff\xff"
NESTED = 1000
BOMB_BYTES = 1_000_000_000
MOST_FLIPS = 24
TRICKY_VALUES = (b"", b"\x00", b"\xff" * 8, b"-1", b"1e308\\nan", b"inf", b"\\" * 40, b"9" * 64, b"\xff\xfeA\x00", b"0")
TRICKY_NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 17, 31, 32, 64, 255, 256, 4096, 32767, 32768, 65534, 65535)
VALUE_REPRESENTATIONS = (
    "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV",
    "OW", "PN", "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "ZZ",
)  # fmt: skip
CHARACTER_SETS = (b"ISO_IR 999", b"ISO 2022 IR 87\\ISO 2022 IR 6", b"\\\\", b"utf-7", b"rot13", b"\xff\xfe", b"UTF-16")
Mutation = Callable[[bytes, random.Random], bytes]


def _places(content: bytes) -> list[tuple[int, str, int]]:
    """Place of the value, VR and length of every element of the top level, in an explicit little endian file."""
    places = []
    with unwatched():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        for element in [*dataset.file_meta.values(), *dataset.values()]:
            if isinstance(element, RawDataElement):
                places.append((element.value_tell, element.VR or "", element.length))
            elif isinstance(element.file_tell, int):
                places.append((element.file_tell, element.VR, 0xFFFFFFFF))
    return places


def _patched(content: bytes, place: int, patch: bytes) -> bytes:
    return content[:place] + patch + content[place + len(patch) :]


def _pixel_data(content: bytes) -> int:
    return max(content.rfind(b"\xe0\x7f\x10\x00"), content.find(b"IDAT"), 0)


def _flipped(content: bytes, draw: random.Random, low: int, high: int) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, MOST_FLIPS)):
        changed[draw.randrange(low, max(min(high, len(content)), low + 1))] = draw.randrange(256)
    return bytes(changed)


def flip_bytes(content: bytes, draw: random.Random) -> bytes:
    """Other bytes anywhere."""
    return _flipped(content, draw, 0, len(content))


def flip_header(content: bytes, draw: random.Random) -> bytes:
    """Other bytes between the preamble and the pixels."""
    return _flipped(content, draw, 128, _pixel_data(content) or len(content))


def flip_codestream(content: bytes, draw: random.Random) -> bytes:
    """Other bytes in the first 300 of the pixels, where compressed data has its own headers."""
    start = _pixel_data(content)
    return _flipped(content, draw, start, start + 300)


def truncate(content: bytes, draw: random.Random) -> bytes:
    """The first part of the file."""
    return content[: draw.randrange(len(content))]


def splice(content: bytes, draw: random.Random) -> bytes:
    """A piece of the file stands a second time, or is missing."""
    start = draw.randrange(len(content))
    end = min(start + draw.randint(1, 400), len(content))
    return content[:end] + content[start:] if draw.random() < 0.5 else content[:start] + content[end:]


def edit_number(content: bytes, draw: random.Random) -> bytes:
    """Another number in a tag of the image: rows, columns, bits, samples, frames."""
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
    return _with_tags(content, {draw.choice(names): draw.choice(TRICKY_NUMBERS) for _ in range(draw.randint(1, 2))})


def edit_text(content: bytes, draw: random.Random) -> bytes:
    """Odd text in a random tag, written over what stands there."""
    with unwatched():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        texts = [element for element in dataset.values() if getattr(element, "VR", "") not in ("SQ", "OW", "OB", "US")]
        if not texts:
            return truncate(content, draw)
        chosen = draw.choice(texts)
        value = draw.choice(TRICKY_VALUES)
        value += b" " * (len(value) % 2)
        if not isinstance(chosen, RawDataElement):
            return flip_header(content, draw)
        dataset[chosen.tag] = chosen._replace(value=value, length=len(value))
        return _saved(dataset, content)


def remove_tags(content: bytes, draw: random.Random) -> bytes:
    """One to three tags are missing."""
    with unwatched():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        for tag in draw.sample(list(dataset.keys()), min(draw.randint(1, 3), len(dataset))):
            del dataset[tag]
        return _saved(dataset, content)


def wrong_vr(content: bytes, draw: random.Random) -> bytes:
    """Elements with another value representation."""
    for place, vr, _ in draw.sample(found := _places(content), min(draw.randint(1, 4), len(found))):
        content = _patched(content, place - (8 if vr in LONG_FORM else 4), draw.choice(VALUE_REPRESENTATIONS).encode())
    return content


def undefined_length(content: bytes, draw: random.Random) -> bytes:
    """Elements of undefined length; short ones become UN, SQ or OB, which may have it."""
    for place, vr, _ in draw.sample(found := _places(content), min(draw.randint(1, 2), len(found))):
        if vr in LONG_FORM or not vr:
            content = _patched(content, place - 4, UNDEFINED)
        else:
            head = draw.choice((b"UN", b"SQ", b"OB")) + b"\0\0" + UNDEFINED
            content = content[: place - 4] + head + content[place:]
    return content


def wrong_length(content: bytes, draw: random.Random) -> bytes:
    """Elements whose length is not that of their value."""
    for place, vr, _ in draw.sample(found := _places(content), min(draw.randint(1, 2), len(found))):
        length = draw.choice((0, 1, 7, 255, 0xFFFE, 0x7FFFFFFF, 0xFFFFFFFE, draw.randrange(2**32)))
        wide = vr in LONG_FORM or not vr
        content = _patched(
            content,
            place - (4 if wide else 2),
            struct.pack("<I" if wide else "<H", length & (0xFFFFFFFF if wide else 0xFFFF)),
        )
    return content


def character_set(content: bytes, draw: random.Random) -> bytes:
    """A character set that does not exist, or does not fit."""
    with unwatched():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        value = draw.choice(CHARACTER_SETS)
        value += b" " * (len(value) % 2)
        dataset[0x00080005] = RawDataElement(BaseTag(0x00080005), "CS", len(value), value, 0, False, True)
        return _saved(dataset, content)


def huge_picture(content: bytes, draw: random.Random) -> bytes:
    """65535 x 65535 in the tags, in the codestream, or in both."""
    if content.startswith(PNG):
        head = struct.pack(">II", *draw.choice(((65535, 65535), (2**31 - 1, 2**31 - 1), (65535, 1), (20000, 20000))))
        chunk = b"IHDR" + head + content[24:29]
        return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    where = draw.randrange(3)
    if where != 1:
        content = _with_tags(content, {"Rows": 65535, "Columns": 65535})
    for marker in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3", b"\xff\xf7"):
        place = content.find(marker, _pixel_data(content))
        if where and place >= 0:
            content = _patched(content, place + 5, b"\xff\xff\xff\xff")
    place = content.find(b"\xff\x4f\xff\x51")
    if where and place >= 0:
        content = _patched(content, place + 8, struct.pack(">II", 65535, 65535))
    return content


def nested_sequences(content: bytes, draw: random.Random) -> bytes:
    """A thousand sequences in each other, of known or of undefined length, in a tag that is read."""
    known_length = draw.random() < 0.5
    value = b""
    for _ in range(NESTED):
        if known_length:
            item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value
            value = b"\x54\x00\x20\x02SQ\0\0" + struct.pack("<I", len(item)) + item
        else:
            value = (
                b"\x54\x00\x20\x02SQ\0\0" + UNDEFINED + b"\xfe\xff\x00\xe0" + UNDEFINED + value
                + b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
            )  # fmt: skip
    return _inserted(content, value, draw)


def many_elements(content: bytes, draw: random.Random) -> bytes:
    """Two hundred thousand empty elements, or items of a sequence of known or undefined length."""
    kind = draw.randrange(3)
    if kind == 0:
        elements = (struct.pack("<HH2sH", 0x0055 + 2 * (n >> 16), n & 0xFFFF, b"LO", 0) for n in range(200_000))
        return _inserted(content, b"".join(elements), draw)
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 200_000
    length = struct.pack("<I", len(items)) if kind == 1 else UNDEFINED
    return _inserted(content, b"\x54\x00\x20\x02SQ\0\0" + length + items + b"\xfe\xff\xdd\xe0\0\0\0\0", draw)


def deflate_bomb(content: bytes, draw: random.Random) -> bytes:
    """A deflated data set that grows a thousand times: zeros after a header, or as many elements as fit."""
    header = _header(uid.DeflatedExplicitVRLittleEndian)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = deflate.compress(b"\x08\x00\x60\x00CS\x02\x00MG") + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = bytes(2**20) if draw.random() < 0.5 else b"\x09\x00\x10\x00LO\x00\x00" * 2**17
    block = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    return header + start + block * draw.randint(300, BOMB_BYTES // 2**20) + deflate.flush()


def png_chunks(content: bytes, draw: random.Random) -> bytes:
    """A PNG chunk of another type, length or order, or a compressed text that grows a thousand times."""
    if not content.startswith(PNG):
        return flip_codestream(content, draw)
    kind = draw.randrange(4)
    if kind == 0:
        text = zlib.compress(bytes(200 * 2**20), 9) if draw.random() < 0.05 else zlib.compress(bytes(2**22), 9)
        chunk = b"zTXt" + b"note\0\0" + text
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return content[:33] + whole + content[33:]
    if kind == 1:
        return _patched(content, 33, struct.pack(">I", draw.choice((0, 1, 2**31 - 1, 2**32 - 1))))
    if kind == 2:
        return _patched(content, 37, draw.choice((b"PLTE", b"IEND", b"IHDR", b"zzzz", b"tRNS", b"acTL", b"fdAT")))
    chunk = b"IHDR" + content[16:24] + bytes((draw.choice((0, 1, 2, 4, 8, 16, 32)), draw.randrange(8), 0, 0, 1))
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bytes, flip_header, flip_codestream, truncate, splice, edit_number, edit_text, remove_tags, wrong_vr,
    undefined_length, wrong_length, character_set, huge_picture, nested_sequences, many_elements, deflate_bomb,
    png_chunks,
)  # fmt: skip
BOMBS = frozenset({"huge_picture", "nested_sequences", "many_elements", "deflate_bomb"})


def mutant(number: int, bases: dict[str, bytes], *, seed: int = 0) -> tuple[str, str, bytes]:
    """Mutation, base and bytes of a mutant; a pure function of its number, the bases and the seed."""
    draw = random.Random(f"{seed}:{number}")
    mutation = MUTATIONS[number % len(MUTATIONS)]
    fitting = [name for name in bases if mutation is not png_chunks or name.startswith("png")]
    if mutation in STRUCTURED:
        fitting = [name for name in bases if not name.startswith("png")]
    name = draw.choice(fitting)
    return mutation.__name__, name, mutation(bases[name], draw)


STRUCTURED = frozenset(
    {
        edit_number, edit_text, remove_tags, wrong_vr, undefined_length, wrong_length, character_set, nested_sequences,
        many_elements, deflate_bomb,
    }
)  # fmt: skip


def _with_tags(content: bytes, tags: dict[str, int]) -> bytes:
    with unwatched():
        dataset = pydicom.dcmread(BytesIO(content), force=True)
        for name, value in tags.items():
            dataset[name] = pydicom.DataElement(name, "US", value)
        return _saved(dataset, content)


def _saved(dataset: Dataset, content: bytes) -> bytes:
    stream = BytesIO()
    try:
        pydicom.dcmwrite(stream, dataset)
    except Exception:  # what pydicom does not write is damaged in another way
        return content[: len(content) // 2]
    return stream.getvalue()


def _header(syntax: str) -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    return bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(element)) + element


def _inserted(content: bytes, value: bytes, draw: random.Random) -> bytes:
    """Add explicit little endian elements, in front or at the end, where they overrule; other syntaxes lose theirs."""
    with unwatched():
        meta = pydicom.dcmread(BytesIO(content), stop_before_pixels=True).file_meta
    start = 144 + meta.FileMetaInformationGroupLength
    if meta.TransferSyntaxUID in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ):
        return _header(uid.ExplicitVRLittleEndian) + value
    return content[:start] + value + content[start:] if draw.random() < 0.5 else content + value
