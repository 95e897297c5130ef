"""Reading: order of DICOM's display pipeline, facts with provenance, and every refusal."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGLossless, RLELossless

from pipeline.imaging import Refusal, RefusalCode, read_mammogram, refusal_of
from pipeline.imaging.facts import VIEW_CODES

from .scenes import breast_scene, mammogram_dataset, write_dicom, write_png

STORED = np.rint(breast_scene(60, 50) * 4000).astype(np.uint16)


def test_monochrome1_and_its_monochrome2_twin_give_the_same_pixels(tmp_path) -> None:
    plain = read_mammogram(write_dicom(tmp_path / "two.dcm", STORED, WindowCenter=2000, WindowWidth=3000))
    mirrored = write_dicom(
        tmp_path / "one.dcm",
        4095 - STORED,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        WindowCenter=4096 - 2000,  # LINEAR is symmetric about c - 0.5
        WindowWidth=3000,
    )
    np.testing.assert_allclose(read_mammogram(mirrored).pixels, plain.pixels, atol=1e-6)
    assert plain.pixels.dtype == np.float32


def test_presentation_lut_inverse_alone_inverts_too(tmp_path) -> None:
    plain = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED)).pixels
    inverse = read_mammogram(write_dicom(tmp_path / "b.dcm", STORED, PresentationLUTShape="INVERSE")).pixels
    np.testing.assert_allclose(inverse, 1 - plain, atol=1e-6)


@pytest.mark.parametrize(("value", "limit"), [(0, 30), (30, 0), (7, None)])
def test_padding_range_is_black_whichever_end_comes_first(tmp_path, value: int, limit: int | None) -> None:
    stored = np.full((20, 20), 2000, dtype=np.uint16)
    stored[0, :4] = [0, 7, 30, 31]
    dataset = mammogram_dataset(stored, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new("PixelPaddingValue", "US", value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    black = (read_mammogram(tmp_path / "a.dcm").pixels[0, :4] == 0).tolist()
    assert black == ([False, True, False, False] if limit is None else [True, True, True, False])


def test_signed_pixels_with_signed_padding_are_read(tmp_path) -> None:
    stored = np.full((20, 20), 100, dtype=np.int16)
    stored[0, :2] = [-2000, -1999]
    dataset = mammogram_dataset(stored, PixelRepresentation=1, BitsStored=16, HighBit=15)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    pixels = read_mammogram(tmp_path / "a.dcm").pixels
    assert pixels[0, 0] == 0
    assert pixels[0, 1] == pytest.approx((32768 - 1999) / 65535)
    assert pixels[1, 1] == pytest.approx((32768 + 100) / 65535)


def test_overlay_bits_above_high_bit_are_cleared(tmp_path) -> None:
    pixels = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED | 0x8000)).stored
    np.testing.assert_array_equal(pixels, STORED)


def test_rle_gives_the_uncompressed_pixels(tmp_path) -> None:
    dataset = mammogram_dataset(STORED)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_mammogram(tmp_path / "rle.dcm").stored, STORED)


def test_no_personal_data_is_kept(tmp_path) -> None:
    mammogram = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED))
    assert mammogram.patient_id is None
    assert "SECRET" not in repr(mammogram) and "Doe" not in repr(mammogram)
    assert read_mammogram(tmp_path / "a.dcm", patient_id="p1").patient_id == "p1"


def test_view_codes_are_those_of_the_standard() -> None:
    names = {
        "CranioCaudal": "CC",
        "MedioLateralObliqueProjection": "MLO",
        "MedioLateralProjection": "ML",
        "LateroMedial": "LM",
        "LateroMedialOblique": "LMO",
        "CaudoCranial": "FB",
        "SuperolateralToInferomedialOblique": "SIO",
        "InferomedialToSuperolateralOblique": "ISO",
        "CranioCaudalExaggeratedLaterally": "XCCL",
        "CranioCaudalExaggeratedMedially": "XCCM",
    }
    known = {name: getattr(codes.cid4014, name).value for name in codes.cid4014.dir() if name in names}
    assert len(known) >= 9
    assert {name: VIEW_CODES[value] for name, value in known.items()} == {name: names[name] for name in known}


def _view_code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "view"
    return [item]


@pytest.mark.parametrize(
    ("tags", "given", "expected"),
    [
        ({}, {}, ("L", "CC", "ImageLaterality", "ViewPosition")),
        ({"ViewPosition": None, "ViewCodeSequence": _view_code("R-10226")}, {}, ("L", "MLO", None, "ViewCodeSequence")),
        ({"ImageLaterality": None, "Laterality": "R"}, {}, ("R", "CC", "Laterality", None)),
        (
            {"ImageLaterality": None, "Laterality": "R", "ViewPosition": None, "PatientOrientation": "MLO"},
            {},
            ("R", "MLO", "Laterality", "PatientOrientation (holds the view, as in CBIS-DDSM)"),
        ),
        (
            {"ImageLaterality": None, "ViewPosition": "MLO", "PatientOrientation": ["P", "FL"]},
            {},
            ("R", "MLO", "PatientOrientation", None),
        ),
        (
            {"ImageLaterality": None, "ViewPosition": "MLO", "PatientOrientation": ["A", "FR"]},
            {},
            ("L", "MLO", "PatientOrientation", None),
        ),
        (
            {"ImageLaterality": None, "ViewPosition": None},
            {"laterality": "r", "view": "mlo"},
            ("R", "MLO", "manifest", "manifest"),
        ),
    ],
)
def test_side_and_view_come_with_their_source(tmp_path, tags, given, expected) -> None:
    mammogram = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED, **tags), **given)
    assert (mammogram.laterality, mammogram.view) == expected[:2]
    for fact, source in zip(("laterality", "view"), expected[2:], strict=True):
        assert source is None or mammogram.provenance[fact] == source


@pytest.mark.parametrize(
    ("tags", "spacing", "source"),
    [
        ({}, None, "not stated"),
        ({"ImagerPixelSpacing": [0.1, 0.09]}, (0.1, 0.09), "ImagerPixelSpacing"),
        (
            {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": "1.25"},
            (0.08, 0.08),
            "ImagerPixelSpacing / EstimatedRadiographicMagnificationFactor 1.25",
        ),
        (
            {"ImagerPixelSpacing": [0.1, 0.1], "PixelSpacing": [0.07, 0.07], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.07, 0.07),
            "PixelSpacing (calibrated)",
        ),
        ({"PixelSpacing": [0.05, 0.06]}, (0.05, 0.06), "PixelSpacing"),
    ],
)
def test_spacing_is_at_the_breast_with_its_source(tmp_path, tags, spacing, source) -> None:
    mammogram = read_mammogram(write_dicom(tmp_path / "a.dcm", STORED, **tags))
    assert mammogram.spacing_mm == (None if spacing is None else pytest.approx(spacing))
    assert mammogram.provenance["spacing_mm"] == source


@pytest.mark.parametrize(
    ("tags", "given", "code"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, {}, "not_for_presentation"),
        ({"PresentationIntentType": "FOR PROCESSING"}, {}, "not_for_presentation"),
        ({"Modality": "CT"}, {}, "not_mammogram"),
        ({"Modality": "US", "BodyPartExamined": "BREAST"}, {}, "not_mammogram"),
        ({"QualityControlImage": "YES"}, {}, "not_mammogram"),
        ({"NumberOfFrames": 3}, {}, "unsupported_pixels"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, {}, "unsupported_pixels"),
        ({"PixelData": None}, {}, "no_pixels"),
        ({"PixelData": b"\x00" * 100}, {}, "pixel_size"),
        ({"ImageLaterality": None}, {}, "unknown_side"),
        ({"ImageLaterality": "B"}, {}, "side_conflict"),
        ({"Laterality": "R"}, {}, "side_conflict"),
        ({}, {"laterality": "R"}, "side_conflict"),
        ({}, {"laterality": "left"}, "unknown_side"),
        ({"ViewPosition": None}, {}, "unknown_view"),
        ({}, {"view": "MLO"}, "view_conflict"),
        ({}, {"view": "sideways"}, "unknown_view"),
        ({"VOILUTFunction": "CUBIC"}, {}, "bad_display"),
        ({"WindowCenter": [1, 2], "WindowWidth": 5}, {}, "bad_display"),
    ],
)
def test_each_defect_is_refused_with_its_code_and_place(tmp_path, tags, given, code) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, **tags)
    with pytest.raises(Refusal) as caught:
        read_mammogram(path, **given)
    assert (caught.value.code, caught.value.where) == (code, str(path))
    assert "SECRET" not in str(caught.value)


def test_files_that_are_no_images_are_refused(tmp_path) -> None:
    cases = {"empty.dcm": b"", "text.dcm": b"hello" * 100, "cut.png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 20}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refusal, match="unreadable"):
            read_mammogram(tmp_path / name, laterality="L", view="CC")
    for missing in (tmp_path / "absent.dcm", tmp_path):
        with pytest.raises(Refusal, match="missing_file"):
            read_mammogram(missing)


def test_damaged_compressed_pixels_are_refused(tmp_path) -> None:
    from pydicom.encaps import encapsulate

    dataset = mammogram_dataset(STORED)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc3 not a picture "])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Refusal) as caught:
        read_mammogram(tmp_path / "a.dcm")
    assert caught.value.code == RefusalCode.PIXEL_SIZE  # no frame header of a JPEG


@pytest.mark.parametrize("bits", [8, 16])
def test_png_spans_its_full_range_and_needs_side_and_view(tmp_path, bits: int) -> None:
    scene = breast_scene(60, 50)
    path = write_png(tmp_path / "a.png", scene, bits=bits)
    mammogram = read_mammogram(path, laterality="L", view="CC")
    np.testing.assert_allclose(mammogram.pixels, scene, atol=0.51 / (2**bits - 1))
    assert (mammogram.provenance["laterality"], mammogram.spacing_mm) == ("manifest", None)
    for given, code in (({"view": "CC"}, "unknown_side"), ({"laterality": "L"}, "unknown_view")):
        with pytest.raises(Refusal) as caught:
            read_mammogram(path, **given)
        assert caught.value.code == code


def test_colour_png_is_refused(tmp_path) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(Refusal, match="unsupported_pixels"):
        read_mammogram(tmp_path / "a.png", laterality="L", view="CC")


def test_refusal_travels_between_processes_and_out_of_wrapping_errors() -> None:
    refusal = Refusal("no_breast", "empty", "p1/a.png")
    again = pickle.loads(pickle.dumps(refusal))
    assert str(again) == str(refusal) == "no_breast: empty [p1/a.png]"
    assert again.code is RefusalCode.NO_BREAST
    wrapped = RuntimeError("applying transform")
    wrapped.__cause__ = refusal
    assert refusal_of(wrapped) is refusal
    assert refusal_of(ValueError("other")) is None


def test_cmmd_headers_are_left_as_presented(tmp_path) -> None:
    stored = np.arange(400, dtype=np.uint8).reshape(20, 20)
    dataset = mammogram_dataset(
        stored,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=stored.tobytes(),
        WindowCenter="128",
        WindowWidth="256",
        WindowCenterWidthExplanation="Full width of 8 bit data",
        VOILUTFunction="SIGMOID",
        RescaleSlope="1",
        RescaleIntercept="0",
        ViewPosition=None,
        ViewCodeSequence=_view_code("399162004"),
        PatientOrientation=["A", "R"],
    )
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    mammogram = read_mammogram(tmp_path / "a.dcm")
    np.testing.assert_allclose(mammogram.pixels, stored / np.float32(255), atol=1e-7)
    assert mammogram.chest_wall == "left"
