"""Hostile files are refused before they are decoded, each with its code; nothing else ever leaves the reading code."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import re
import resource
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import encapsulate, generate_fragments

from benchmarks.base_files import base_files
from benchmarks.mutants import MUTATIONS, PNG, deflate_bomb, huge_picture, many_elements, mutant
from pipeline.imaging import Refusal, RefusalCode, guard, isolation, parsing, read_mammogram
from pipeline.imaging.codestream import jpeg2000_size, jpeg_size, rle_segments

from .scenes import breast_scene, mammogram_dataset, write_dicom

STORED = np.rint(breast_scene(60, 50) * 4000).astype(np.uint16)
GIVEN = {"laterality": "L", "view": "MLO"}
SHARE = 12 * len(MUTATIONS)


@pytest.fixture(scope="module")
def bases() -> dict[str, bytes]:
    return base_files()


def code_of(path: Path, **given_: str) -> str:
    with pytest.raises(Refusal) as caught:
        read_mammogram(path, **given_)
    return str(caught.value.code)


def test_the_small_files_of_every_syntax_are_read_or_lack_a_decoder(tmp_path: Path, bases: dict[str, bytes]) -> None:
    for name, content in bases.items():
        (tmp_path / name).write_bytes(content)
        try:
            shape = read_mammogram(tmp_path / name, **GIVEN).stored.shape
        except Refusal as refusal:
            assert refusal.code == RefusalCode.UNSUPPORTED_SYNTAX, f"{name}: {refusal}"
        else:
            assert shape == (96, 80)


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path: Path, bases: dict[str, bytes]) -> None:
    seen = set()
    for number in range(SHARE):
        mutation, base, content = mutant(number, bases, seed=20_261_127)
        (tmp_path / "mutant").write_bytes(content)
        try:
            read_mammogram(tmp_path / "mutant", **GIVEN)
        except Refusal as refusal:
            seen.add(str(refusal.code))
        except Exception as error:  # pragma: no cover
            raise AssertionError(f"mutant {number}, {mutation} of {base}") from error
    assert len(seen) >= 8


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=400), syntax=st.sampled_from([uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
)
def test_any_bytes_after_a_header_are_refused(tmp_path: Path, content: bytes, syntax: str) -> None:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + meta + content)
    with pytest.raises(Refusal):
        read_mammogram(tmp_path / "a.dcm", **GIVEN)


@pytest.mark.parametrize("bomb", [deflate_bomb, many_elements, huge_picture])
def test_bombs_are_refused_without_taking_memory(tmp_path: Path, bases: dict[str, bytes], bomb) -> None:
    status = Path("/proc/self/status")
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell the peak of the resident size: no /proc/self/clear_refs")

    def mebibytes(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+)", status.read_text()).group(1)) // 1024

    for number in range(6):
        (tmp_path / "bomb").write_bytes(bomb(bases["explicit"], random.Random(number)))
        Path("/proc/self/clear_refs").write_text("5")
        before = mebibytes("VmRSS")
        try:
            read_mammogram(tmp_path / "bomb", **GIVEN)
        except Refusal as refusal:
            assert refusal.code in (RefusalCode.TOO_LARGE, RefusalCode.PIXEL_SIZE)
        assert mebibytes("VmHWM") - before < 256


def test_a_deflated_file_is_read_like_its_plain_twin(tmp_path: Path) -> None:
    plain = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED, ImageComments="long text " * 500))
    dataset = mammogram_dataset(STORED)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    deflated = read_mammogram(tmp_path / "b.dcm")
    np.testing.assert_array_equal(deflated.pixels, plain.pixels)
    assert deflated.provenance["transfer_syntax"] == "Deflated Explicit VR Little Endian"
    content = (tmp_path / "b.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(content[:-200])
    assert code_of(tmp_path / "b.dcm") == "unreadable"


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"Rows": None}, "bad_header"),
        ({"Columns": 0}, "bad_header"),
        ({"Columns": 15}, "bad_header"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"Rows": 59}, "pixel_size"),
        ({"Rows": 61}, "pixel_size"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "pixel_size"),
        ({"BitsAllocated": 32}, "unsupported_pixels"),
        ({"BitsStored": 17}, "bad_header"),
        ({"BitsStored": 0}, "bad_header"),
        ({"HighBit": 16}, "bad_header"),
        ({"PixelRepresentation": 2}, "bad_header"),
        ({"SOPClassUID": None}, "not_mammogram"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "not_mammogram"),
        ({"Modality": None}, "not_mammogram"),
        ({"PixelData": b""}, "no_pixels"),
        ({"RescaleSlope": "1e300"}, "bad_display"),
        ({"ImagerPixelSpacing": ["1e-300", "1e-300"]}, "bad_header"),
        ({"EstimatedRadiographicMagnificationFactor": "-3"}, "bad_header"),
        ({"WindowCenter": "1e12", "WindowWidth": "5"}, "bad_display"),
    ],
)
def test_what_tags_say_of_the_pixels_must_be_possible(tmp_path: Path, tags: dict, code: str) -> None:
    assert code_of(write_dicom(tmp_path / "a.dcm", STORED, **tags)) == code


def test_a_trailing_pad_byte_is_no_defect(tmp_path: Path) -> None:
    padded = write_dicom(tmp_path / "a.dcm", STORED, PixelData=STORED.tobytes() + b"\0\0")
    np.testing.assert_array_equal(read_mammogram(padded).stored, STORED)


def test_limits_are_arguments(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    for limits in (parsing.Limits(file_bytes=1000), parsing.Limits(elements=5)):
        with pytest.raises(Refusal, match="too_large"):
            parsing.open_dataset(path, limits=limits)
    dataset = parsing.open_dataset(path)
    guard.check_pixels(dataset, limits=parsing.Limits(pixels=3000))
    with pytest.raises(Refusal, match="too_large"):
        guard.check_pixels(dataset, limits=parsing.Limits(pixels=2999))
    header = parsing.open_dataset(path, limits=parsing.Limits(file_bytes=1000), header_only=True, tags=["Modality"])
    assert header.Modality == "MG" and "Rows" not in header and "PixelData" not in header


def test_a_long_sequence_of_known_length_is_counted_before_it_is_asked_for(tmp_path: Path) -> None:
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 50_000
    content = write_dicom(tmp_path / "a.dcm", STORED).read_bytes()
    sequence = b"\x54\x00\x20\x02SQ\0\0" + struct.pack("<I", len(items)) + items
    (tmp_path / "a.dcm").write_bytes(content + sequence)
    assert code_of(tmp_path / "a.dcm") == "too_large"


def test_a_thousand_sequences_in_each_other_are_too_deep(tmp_path: Path) -> None:
    undefined, value = b"\xff\xff\xff\xff", b""
    for _ in range(1000):
        start = b"\x54\x00\x20\x02SQ\0\0" + undefined + b"\xfe\xff\x00\xe0" + undefined
        value = start + value + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    content = write_dicom(tmp_path / "a.dcm", STORED).read_bytes()
    (tmp_path / "a.dcm").write_bytes(content + value)
    assert code_of(tmp_path / "a.dcm") == "too_deep"


@pytest.mark.parametrize("name", ["jpeg_baseline", "jpeg_extended", "jpeg_lossless", "jpeg_ls", "style_cedar"])
def test_a_codestream_that_declares_another_size_is_refused(tmp_path: Path, bases: dict[str, bytes], name: str) -> None:
    content = bases[name]
    (tmp_path / "a.dcm").write_bytes(content)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    frame = next(generate_fragments(dataset.PixelData[8 + int.from_bytes(dataset.PixelData[4:8], "little") :]))
    size = jpeg2000_size(frame) if name == "style_cedar" else jpeg_size(frame)
    assert (size.rows, size.columns, size.components) == (96, 80, 1)
    start = frame.find(b"\xff\x51") + 6 if name == "style_cedar" else None
    place = next(i for i in range(len(frame)) if frame[i : i + 4] == b"\x00\x60\x00\x50") if start is None else start
    bigger = b"\xff\xff\xff\xff" if start is None else struct.pack(">II", 65535, 65535)
    dataset.PixelData = encapsulate([frame[:place] + bigger + frame[place + len(bigger) :]])
    dataset.save_as(tmp_path / "b.dcm")
    assert code_of(tmp_path / "b.dcm") == "pixel_size"
    dataset.PixelData = encapsulate([frame[: place - 2]])
    dataset.save_as(tmp_path / "c.dcm")
    assert code_of(tmp_path / "c.dcm") in ("pixel_size", "unreadable")


@given(content=st.binary(max_size=200))
def test_sizes_of_any_codestream_are_a_size_or_none(content: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc3\x00\x0b", b"\xff\x4f\xff\x51\x00\x29\x00\x00"):
        for size in (jpeg_size(start + content), jpeg2000_size(start + content)):
            assert size is None or (size.rows >= 0 and size.columns >= 0)
        assert rle_segments(start + content) is None or len(start + content) >= 64


def test_rle_segments_must_be_those_of_the_bits(tmp_path: Path, bases: dict[str, bytes]) -> None:
    (tmp_path / "a.dcm").write_bytes(bases["style_dogwood"])
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    frame = next(generate_fragments(dataset.PixelData[8 + int.from_bytes(dataset.PixelData[4:8], "little") :]))
    assert rle_segments(frame) == 2
    dataset.PixelData = encapsulate([b"\x0f" + frame[1:]])
    dataset.save_as(tmp_path / "a.dcm")
    assert code_of(tmp_path / "a.dcm") == "pixel_size"


def png(columns: int, rows: int, *, data: bytes = b"", depth: int = 8, before: bytes = b"") -> bytes:
    def chunk(kind: bytes, value: bytes) -> bytes:
        return struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))

    head = struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (png(65535, 65535), "too_large"),
        (png(2**31 - 1, 2**31 - 1), "too_large"),
        (png(0, 10), "unsupported_pixels"),
        (png(8000, 8000), "pixel_size"),
        (png(20, 20), "unreadable"),
        (png(20, 20, data=bytes(21 * 20))[:50], "unreadable"),
        (PNG + b"\x00\x00\x00\x04IHDR" + bytes(40), "unreadable"),
    ],
    ids=["huge", "hugest", "empty", "too short", "no data", "cut", "bad first chunk"],
)
def test_png_bombs_and_broken_png_are_refused(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert code_of(tmp_path / "a.png", **GIVEN) == code
    with pytest.raises(Refusal) as caught:
        read_mammogram(tmp_path / "a.png", **GIVEN)
    assert "a.png" not in caught.value.reason


def spin(_: object) -> None:
    """Hold the interpreter's lock inside C code for ever, as a decoder that hangs does."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def test_a_decoder_that_hangs_in_c_code_is_ended_and_refused() -> None:
    started = time.monotonic()
    with pytest.raises(Refusal, match="hung"):
        isolation.run_apart(spin, None, room=10, seconds=0.3)
    assert time.monotonic() - started < 10


def test_a_decoder_that_crashes_is_refused() -> None:
    with pytest.raises(Refusal, match="crashed.*signal 11"):
        isolation.run_apart(ctypes.string_at, 0, room=10)
    with pytest.raises(Refusal, match="crashed.*status 3"):
        isolation.run_apart(os._exit, 3, room=10)


def test_a_decoder_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(Refusal, match="out_of_memory"):
        isolation.run_apart(np.ones, 2**27, room=2**30, memory=256 * 2**20)
    with pytest.raises(Refusal, match="pixel_size"):
        isolation.run_apart(np.ones, 2**10, room=2**10)


def test_what_a_decoder_returns_or_refuses_comes_back_as_it_is() -> None:
    array = np.arange(60, dtype=np.uint16).reshape(6, 10)
    back = isolation.run_apart(lambda: (array, "note"), room=200)
    np.testing.assert_array_equal(back[0], array)
    assert back[1] == "note" and back[0].dtype == np.uint16 and back[0].flags.writeable
    back[0][0, 0] = 9

    def refuse() -> None:
        raise Refusal("no_pixels", "why", "where")

    with pytest.raises(Refusal, match=r"no_pixels: why \[where\]"):
        isolation.run_apart(refuse, room=10)
    with pytest.raises(Refusal, match=r"unreadable: pixel data cannot be decoded \(ZeroDivisionError\)"):
        isolation.run_apart(lambda: 1 // 0, room=10)


class PanicException(BaseException):
    """As pyo3 names the panics of decoders in Rust."""


def test_a_panic_of_a_decoder_in_rust_is_refused_and_an_interrupt_is_not() -> None:
    def panic() -> None:
        raise PanicException

    with pytest.raises(Refusal, match="unreadable"), parsing.refusing("file"):
        panic()
    with pytest.raises(Refusal, match="unreadable"):
        isolation.run_apart(panic, room=10)
    with pytest.raises(KeyboardInterrupt), parsing.refusing("file"):
        raise KeyboardInterrupt


def test_this_process_keeps_its_limits_when_a_child_gets_some() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    isolation.run_apart(lambda: 1, room=10, memory=2**28)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_reading_is_silent_about_text_and_other_code_may_speak(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A handler that an earlier test left with a closed stream would print a traceback, with lines of this file.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_dicom(tmp_path / "a.dcm", STORED, StudyDate="DOE-JANE-1970", StationName="DOE JANE " * 9)
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_mammogram(path)
        logging.getLogger("pydicom").warning("someone else's")
    assert not caught and caplog.messages == ["someone else's"]
    assert "DOE" not in "".join(capfd.readouterr())
