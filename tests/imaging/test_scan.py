"""Facts about the passes over stored pixels: they give what PyTorch's own operations give, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose
from scipy import ndimage
from torch.nn import functional

from pipeline.imaging import (
    ApplyWindowd,
    Background,
    Crop,
    CropToBreastd,
    Display,
    Flip,
    OrientChestWalld,
    Pad,
    Preparation,
    ReadMammogramd,
    Resize,
    ResizeImaged,
    SegmentBreastd,
    Stretch,
    VOIFunction,
    prepare_item,
    read_mammogram,
    scan,
)

LEVEL = 1 / 65535
DTYPES = (np.uint8, np.uint16, np.int16)


def blobs(generator: np.random.Generator, shape: tuple[int, int], sigma: float = 4.0) -> np.ndarray:
    return ndimage.gaussian_filter(generator.normal(size=shape), sigma) > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(2, 60)] * 2), st.tuples(*[st.floats(1, 20)] * 2))
def test_an_enlarged_mask_is_that_of_bilinear_interpolation_up_to_ties(seed, grid, factors) -> None:
    mask = blobs(np.random.default_rng(seed), grid, 1.5)
    shape = (int(grid[0] * factors[0]), int(grid[1] * factors[1]))
    small = torch.from_numpy(mask).float()[None, None]
    smooth = functional.interpolate(small, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    large = scan.enlarged(mask, shape)
    assert (np.abs(smooth[large != (smooth > 0.5)] - 0.5) < 1e-5).all()
    rows, columns = scan.mask_profiles(mask, shape)
    np.testing.assert_array_equal(rows, large.sum(axis=1))
    np.testing.assert_array_equal(columns, large.sum(axis=0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.tuples(*[st.integers(20, 300)] * 2))
def test_area_means_are_those_of_adaptive_pooling(seed, dtype, shape) -> None:
    generator = np.random.default_rng(seed)
    stored = generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size=shape, endpoint=True).astype(dtype)
    table = generator.random(2 ** (8 * stored.itemsize), dtype=np.float32)
    table = np.linspace(0, 1, table.size, dtype=np.float32) if seed % 2 else table
    grid = (int(generator.integers(2, shape[0] + 1)), int(generator.integers(2, shape[1] + 1)))
    looked_up = torch.from_numpy(table[stored.astype(np.int64) % table.size])
    expected = functional.interpolate(looked_up[None, None], size=grid, mode="area")[0, 0].numpy()
    np.testing.assert_allclose(scan.area_means(stored, table, grid), expected, atol=0.2 * LEVEL)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(DTYPES), st.booleans(), st.booleans(), st.booleans())
def test_one_pass_is_within_half_a_grey_level_of_the_steps_one_by_one(seed, dtype, mirror, stretch, masked) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(40, 300, 2))
    stored = generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size=(height, width)).astype(dtype)
    middle, spread = float(np.median(stored)), float(np.iinfo(dtype).max)
    box = Crop(height // 9, width // 7, height // 2, width // 2)
    target = tuple(int(side) for side in generator.integers(8, 200, 2))
    steps = [
        Display(VOIFunction.SIGMOID, centre=middle, width=spread / 2, invert=bool(seed % 2), padding=(middle, middle))
        if seed % 3
        else Display(VOIFunction.RANGE, low=np.iinfo(dtype).min, high=np.iinfo(dtype).max, invert=bool(seed % 2)),
        *([Background.from_grid(blobs(generator, (30, 20)), (height, width))] if masked else []),
        *([Stretch(low=-0.2, high=0.9)] if stretch else []),
        box,
        Flip(width=box.width, applied=mirror),
        Resize((box.height, box.width), target),
        Pad(3, 1),
    ]
    preparation = Preparation((height, width), tuple(steps))
    pixels = torch.from_numpy(stored)
    fast, slow = preparation.apply(pixels), preparation.apply(pixels.to(torch.float32))
    assert fast.shape == slow.shape == (1, *preparation.shape)
    assert (fast - slow).abs().max() < 0.5 * LEVEL


def test_two_masks_and_an_unusual_order_are_applied_as_recorded() -> None:
    generator = np.random.default_rng(0)
    stored = torch.from_numpy(generator.integers(0, 4096, size=(90, 70)).astype(np.uint16))
    masks = [Background.from_grid(blobs(generator, (30, 20)), (90, 70)) for _ in range(2)]
    show, last = Display(VOIFunction.RANGE, low=0, high=4095), Resize((90, 70), (40, 30))
    orders = [
        (show, *masks, last),
        (show, masks[0], Stretch(low=-0.5, high=0.9), masks[1], last),
        (show, masks[0], masks[1], Stretch(low=-0.5, high=0.9), last),
        (show, Flip(width=70), Crop(0, 5, 90, 40), Resize((90, 40), (40, 30))),
        (show, masks[0]),
    ]
    for steps in orders:
        preparation = Preparation((90, 70), steps)
        difference = preparation.apply(stored) - preparation.apply(stored.to(torch.float32))
        assert difference.abs().max() < 0.5 * LEVEL


@pytest.mark.parametrize("name", ["ge_mlo_jpeg_lossless.dcm", "wg04_mlo_jpeg2000_lossy.dcm"])
def test_a_real_mammogram_is_prepared_as_by_its_steps_one_by_one(real_data: Path, name: str) -> None:
    key = "image"
    steps = [ReadMammogramd(key), ApplyWindowd(key), SegmentBreastd(key), CropToBreastd(key), OrientChestWalld(key)]
    path = real_data / "dicom" / name
    item = prepare_item(Compose([*steps, ResizeImaged(key, image_size=224)]), {key: str(path)})
    stored = read_mammogram(path).stored.astype(np.float32)
    assert (item["preparation"].apply(torch.from_numpy(stored)) - item[key]).abs().max() < 0.5 * LEVEL
    crop, mask = item["preparation"].steps[2], item["preparation"].steps[1].mask().numpy()
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = round(0.02 * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    assert (crop.row, crop.column) == (max(rows[0] - margin, 0), max(columns[0] - margin, 0))
    assert crop.row + crop.height == min(rows[-1] + 1 + margin, mask.shape[0])
