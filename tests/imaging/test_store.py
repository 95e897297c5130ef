"""Facts about stored pictures in other programs: ITK (3D Slicer, ITK-SNAP) and nibabel see pixels, sides, mm alike."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from pipeline.imaging import (
    ApplyWindowd,
    Background,
    Crop,
    CropToBreastd,
    Display,
    Flip,
    ImageStore,
    OrientChestWalld,
    Pad,
    Preparation,
    ReadMammogramd,
    Resize,
    ResizeImaged,
    SegmentBreastd,
    VOIFunction,
    prepare_item,
)

SPACING = (0.07, 0.05)  # mm, (row, column)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, Preparation]:
    """A picture of 40 x 30 pixels, cropped, mirrored, unevenly resized and padded from one of 200 x 100 pixels."""
    image = torch.rand(1, 40, 30, generator=torch.Generator().manual_seed(0))
    steps = (
        Display(VOIFunction.RANGE, low=0, high=4095),
        Background.from_grid(np.ones((2, 2), dtype=bool), (200, 100)),
        Crop(20, 0, 160, 84),
        Flip(width=84),
        Resize((160, 84), (40, 28)),
        Pad(2, 0),
    )
    preparation = Preparation((200, 100), steps)
    store = ImageStore(tmp_path_factory.mktemp("store"))
    return store.put("ab" * 32, image, {"preparation": preparation, "spacing_mm": SPACING}), image, preparation


def distance_mm(preparation: Preparation, points: list[list[float]]) -> float:
    """Distance in the breast of two prepared pixels, by way of the DICOM pixels that they come from."""
    ends = preparation.to_source(points)
    return float(((ends[1] - ends[0]) * torch.tensor(SPACING, dtype=torch.float64)).norm())


@pytest.mark.parametrize("dimension", [2, 3])
def test_itk_shows_row_0_on_top_and_the_chest_wall_left_with_true_distances(kept, dimension: int) -> None:
    path, image, preparation = kept
    read = itk.ImageFileReader[itk.Image[itk.F, dimension]].New(FileName=str(path))
    read.Update()
    picture = read.GetOutput()
    np.testing.assert_allclose(itk.array_from_image(picture).squeeze(), image[0].numpy(), atol=0.51 / 65535)
    # With this direction in LPS, viewers show columns from left to right and rows downwards (DICOM PS3.3 C.7.6.2.1.1).
    np.testing.assert_array_equal(itk.array_from_matrix(picture.GetDirection()), np.eye(dimension))
    ends = [[3.0, 4.0], [37.0, 25.0]]  # (row, column); ITK's index is (column, row)
    where = [
        np.array(picture.TransformIndexToPhysicalPoint([int(column), int(row), *[0] * (dimension - 2)]))
        for row, column in ends
    ]
    assert np.linalg.norm(where[1] - where[0]) == pytest.approx(distance_mm(preparation, ends), rel=1e-5)
    assert where[1][0] > where[0][0] and where[1][1] > where[0][1]


def test_nibabel_sees_the_same_axes_spacing_unit_and_grey_levels(kept) -> None:
    path, image, preparation = kept
    picture = nibabel.load(path)
    assert nibabel.aff2axcodes(picture.affine) == ("L", "P", "S")
    assert picture.header.get_xyzt_units()[0] == "mm"
    assert picture.header.get_zooms()[:2] == pytest.approx(preparation.spacing(SPACING)[::-1])
    assert picture.get_data_dtype() == np.uint16
    np.testing.assert_allclose(picture.get_fdata().T, image[0].numpy(), atol=0.51 / 65535)
    assert int(picture.header["sform_code"]) > 0


def test_a_picture_without_spacing_has_no_unit(tmp_path: Path) -> None:
    path = ImageStore(tmp_path).put("cd" * 32, torch.zeros(1, 4, 5), {"spacing_mm": None})
    header = nibabel.load(path).header
    assert header.get_xyzt_units()[0] == "unknown" and header.get_zooms()[:2] == (1, 1)


def test_a_real_mammogram_keeps_its_size_in_mm(real_data: Path, tmp_path: Path) -> None:
    key = "image"
    steps = [ReadMammogramd(key), ApplyWindowd(key), SegmentBreastd(key), CropToBreastd(key), OrientChestWalld(key)]
    chain = Compose([*steps, ResizeImaged(key, image_size=256)])
    item = prepare_item(chain, {key: str(real_data / "dicom" / "ge_mlo_jpeg_lossless.dcm")})
    path = ImageStore(tmp_path).put("ef" * 32, item[key], item)
    spacing = itk.imread(str(path), itk.F).GetSpacing()
    crop, resize = item["preparation"].steps[2], item["preparation"].steps[4]
    for axis, (source, target) in enumerate(zip((crop.height, crop.width), resize.target, strict=True)):
        millimetres = source * item["spacing_mm"][axis]
        assert spacing[1 - axis] * target == pytest.approx(millimetres, rel=1e-5)
