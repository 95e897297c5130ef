"""Facts about padding: it enters no statistic of the segmentation, and where it took the place of air it is air."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose
from scipy import ndimage

from pipeline.imaging import (
    ApplyWindowd,
    Background,
    CropToBreastd,
    Display,
    OrientChestWalld,
    Preparation,
    ReadMammogramd,
    Refusal,
    ResizeImaged,
    SegmentBreastd,
    VOIFunction,
    prepare_item,
    read_mammogram,
    segment_breast,
)

from .scenes import breast_mask, breast_scene, write_dicom

SHAPE = (300, 240)
MOST = 4095
KEY = "image"
STEPS = [ReadMammogramd(KEY), ApplyWindowd(KEY), SegmentBreastd(KEY), CropToBreastd(KEY), OrientChestWalld(KEY)]
CHAIN = Compose([*STEPS, ResizeImaged(KEY, image_size=64)])


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def found_in(path: Path) -> np.ndarray:
    """Mask of the breast by the whole chain, bool (H, W)."""
    steps = prepare_item(CHAIN, {KEY: str(path)})["preparation"].steps
    return next(step for step in steps if isinstance(step, Background)).mask().numpy()


def lain(share: float, side: str) -> np.ndarray:
    """Padding over a share of the picture, at one side or by a film turned so far, bool (H, W)."""
    padded = np.zeros(SHAPE, dtype=bool)
    rows, columns = round(share * SHAPE[0]), round(share * SHAPE[1])
    if side == "right":
        padded[:, SHAPE[1] - columns :] = True
    elif side == "left":
        padded[:, :columns] = True
    elif side == "below":
        padded[SHAPE[0] - rows :] = True
    else:
        padded = ndimage.rotate(np.ones(SHAPE), 100 * share, reshape=False, order=0) < 0.5
    return padded


def padded_file(path: Path, scene: np.ndarray, padded: np.ndarray, photometric: str) -> Path:
    """A file whose padding is darker than any air: 0, or the highest value of MONOCHROME1."""
    stored, value = np.rint(scene * 4000).astype(int) + 50, 0
    if photometric == "MONOCHROME1":
        stored, value = MOST - stored, MOST
    stored[padded] = value
    return write_dicom(path, stored, PhotometricInterpretation=photometric, PixelPaddingValue=value)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("side", ["right", "left", "below", "turned"])
@pytest.mark.parametrize("air", [0.05, 0.12])
def test_padding_darker_than_the_air_makes_no_breast_of_the_air(
    tmp_path: Path, photometric: str, side: str, air: float
) -> None:
    scene, truth = breast_scene(*SHAPE, background=air, noise=0.005), breast_mask(*SHAPE)
    for share in (0.0, 0.03, 0.1, 0.2, 0.25, 0.35, 0.5) if side != "turned" else (0.03, 0.06, 0.1):
        padded = lain(share, side)
        if side == "left":  # the whole breast beside it
            scene, truth = breast_scene(*SHAPE, background=air, noise=0.005), breast_mask(*SHAPE)
            scene, truth = (np.roll(each, int(padded[0].sum()), axis=1) for each in (scene, truth))
        found = found_in(padded_file(tmp_path / "padded.dcm", scene, padded, photometric))
        assert dice(found & ~padded, truth & ~padded) > 0.97, share
        cells = ndimage.binary_erosion(padded, iterations=3)  # a cell of the grid reaches over the bound
        assert not (found & cells).any(), share


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [SHAPE, (128, 102), (700, 560)])
@pytest.mark.parametrize("size", [0.4, 0.62, 0.9])
def test_padding_in_place_of_the_air_bounds_the_breast(
    tmp_path: Path, photometric: str, shape: tuple[int, int], size: float
) -> None:
    truth = breast_mask(*shape, size=size)
    scene = np.where(truth, breast_scene(*shape)[shape[0] // 2, shape[1] // 3], 0.05)
    scene += 0.02 * np.random.default_rng(0).standard_normal(shape)
    label = np.zeros(shape, dtype=bool)
    label[4:12, -24:-4:3] = True  # burned-in letters are not padded
    scene[label] = 0.9
    found = found_in(padded_file(tmp_path / "blanked.dcm", scene.clip(0, 1), ~truth & ~label, photometric))
    assert dice(found, truth) > 0.97


def test_a_picture_of_padding_is_refused(tmp_path: Path) -> None:
    padded = np.ones(SHAPE, dtype=bool)
    for strip in (0, 3):
        padded[:, :strip] = False
        path = padded_file(tmp_path / "padded.dcm", breast_scene(*SHAPE), padded, "MONOCHROME2")
        with pytest.raises(Refusal, match="no_breast"):
            prepare_item(CHAIN, {KEY: str(path)})


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.uint16, np.int16]), st.tuples(*[st.integers(20, 90)] * 2)
)
def test_means_are_those_over_unpadded_pixels(seed: int, dtype: type, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    stored = generator.integers(limits.min, limits.max, size=shape, endpoint=True).astype(dtype)
    low = int(generator.integers(limits.min, limits.max))
    padding = (float(low), float(low + (limits.max - limits.min) // 3))
    display = Display(VOIFunction.RANGE, low=float(limits.min), high=float(limits.max), padding=padding)
    preparation = Preparation(source_shape=shape).then(display)
    grid = (shape[0] // 4, shape[1] // 5)
    means, share = preparation.area_means(torch.from_numpy(stored), grid)
    floating, floating_share = preparation.area_means(torch.from_numpy(stored.astype(np.float32)), grid)
    padded = (stored >= padding[0]) & (stored <= padding[1])
    shown = (stored.astype(np.float64) - limits.min) / (limits.max - limits.min)
    for row, column in ((0, 0), (grid[0] // 2, grid[1] // 3), (grid[0] - 1, grid[1] - 1)):
        rows, columns = (
            slice(place * side // cells, -(-(place + 1) * side // cells))
            for place, side, cells in zip((row, column), shape, grid, strict=True)
        )
        kept = ~padded[rows, columns]
        expected = shown[rows, columns][kept].mean() if kept.any() else 0
        got = 0 if share is None else float(share[row, column])
        assert got == pytest.approx(1 - kept.mean(), abs=1e-6)
        assert float(means[row, column]) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(means, floating, atol=1e-5, rtol=0)
    if share is not None and floating_share is not None:
        torch.testing.assert_close(share, floating_share, atol=1e-5, rtol=0)


def test_a_padded_value_that_no_pixel_has_changes_nothing(tmp_path: Path) -> None:
    stored = np.rint(breast_scene(*SHAPE) * 4000).astype(int) + 50
    plain = prepare_item(CHAIN, {KEY: str(write_dicom(tmp_path / "plain.dcm", stored))})
    padded = prepare_item(CHAIN, {KEY: str(write_dicom(tmp_path / "padded.dcm", stored, PixelPaddingValue=0))})
    assert torch.equal(plain[KEY], padded[KEY])


def test_real_padding_is_air_and_more_of_it_below_is_not(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "dicom/ge_mlo_jpeg_lossless.dcm"
    mammogram = read_mammogram(source)
    assert mammogram.padded.mean() > 0.3
    truth = segment_breast(mammogram.pixels, padded=mammogram.padded)
    assert dice(truth, segment_breast(mammogram.pixels)) > 0.995 and dice(truth, ~mammogram.padded) > 0.95
    dataset = pydicom.dcmread(source)
    dataset.decompress()
    raised = np.clip(dataset.pixel_array.astype(int), 0, MOST) * 19 // 20 + MOST // 20  # air at 5 %
    padded = np.zeros(raised.shape, dtype=bool)
    padded[-round(0.3 * len(padded)) :] = True
    raised[padded] = 0
    for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit", "VOILUTSequence"):
        if tag in dataset:
            del dataset[tag]
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 2048, 4096, "LINEAR"
    dataset.PixelData = raised.astype("<u2").tobytes()
    dataset.save_as(tmp_path / "raised.dcm")
    assert dice(found_in(tmp_path / "raised.dcm") & ~padded, truth & ~padded) > 0.97
