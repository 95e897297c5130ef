"""A preparation replays to the same tensor, lets gradients through, and maps points back to source pixels."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

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
    StretchContrastd,
    Table,
    VOIFunction,
    prepare_item,
)
from pipeline.imaging.mammogram import stored_tensor

from .encoding import encoded_dataset
from .scenes import breast_scene, write_png


def _preparation(shape: tuple[int, int], box: tuple[int, int, int, int], flip: bool, size: int) -> Preparation:
    row, column, height, width = box
    scale = min(size / height, size / width)
    target = (max(round(height * scale), 1), max(round(width * scale), 1))
    steps = (
        Display(VOIFunction.RANGE, low=0.0, high=float(max(shape))),
        Crop(row, column, height, width),
        Flip(width=width, applied=flip),
        Resize(source=(height, width), target=target),
        Pad(right=size - target[1], bottom=size - target[0]),
    )
    return Preparation(source_shape=shape, steps=steps)


@st.composite
def preparations(draw: st.DrawFn) -> Preparation:
    height, width = draw(st.integers(40, 130)), draw(st.integers(40, 130))
    box_height, box_width = draw(st.integers(20, height)), draw(st.integers(20, width))
    box = (draw(st.integers(0, height - box_height)), draw(st.integers(0, width - box_width)), box_height, box_width)
    return _preparation((height, width), box, draw(st.booleans()), draw(st.integers(12, 150)))


@settings(max_examples=60, deadline=None)
@given(preparations())
def test_points_map_back_to_the_source_pixel_whose_value_they_show(preparation: Preparation) -> None:
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in preparation.source_shape)
    resize = preparation.steps[3]
    inner = [(r, c) for r in range(2, resize.target[0] - 2, 3) for c in range(2, resize.target[1] - 2, 3)]
    if not inner:
        return
    where = preparation.to_source(inner)
    for axis, ramp in enumerate((rows[:, None], columns[None])):
        shown = preparation.apply(ramp.expand(preparation.source_shape))[0] * max(preparation.source_shape)
        seen = torch.stack([shown[r, c] for r, c in inner])
        assert (seen - where[:, axis]).abs().max() < 1.0


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(150, 320),
    width=st.integers(120, 260),
    chest_wall=st.sampled_from(["left", "right"]),
    along=st.floats(0.25, 0.75),
    across=st.floats(0.1, 0.4),
    margin=st.sampled_from([0.0, 0.02, 0.2]),
    image_size=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    syntax=st.sampled_from([ExplicitVRLittleEndian, JPEGLosslessSV1, JPEG2000Lossless, RLELossless]),
)
def test_a_mark_seen_in_the_prepared_image_of_a_file_lies_where_it_was_painted_within_one_pixel(
    height, width, chest_wall, along, across, margin, image_size, syntax
) -> None:
    scene = breast_scene(height, width, chest_wall=chest_wall)
    row = round(along * (height - 1))
    column = round((across if chest_wall == "left" else 1 - across) * (width - 1))
    rows, columns = np.mgrid[:height, :width]
    mark = 0.2 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 3.0**2))
    plain, marked = (np.rint(4000 * np.clip(picture, 0, 1)).astype(np.uint16) for picture in (scene, scene + mark))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        encoded_dataset(marked, syntax, bits=12).save_as(path, enforce_file_format=True)
        item = prepare_item(_whole_chain(margin, image_size), {"image": str(path)})
    difference = item["image"] - item["preparation"].apply(torch.from_numpy(plain))
    weights = difference[0].double().clamp(min=0)
    places = [(weights.sum(dim=1 - axis) * torch.arange(weights.shape[axis])).sum() / weights.sum() for axis in (0, 1)]
    found = item["preparation"].to_source([[float(place) for place in places]])[0]
    assert abs(float(found[0]) - row) < 1 and abs(float(found[1]) - column) < 1


def _whole_chain(margin: float, image_size: tuple[int, int]) -> Compose:
    return Compose(
        [
            ReadMammogramd(keys="image"),
            ApplyWindowd(keys="image"),
            SegmentBreastd(keys="image"),
            CropToBreastd(keys="image", margin=margin),
            OrientChestWalld(keys="image"),
            ResizeImaged(keys="image", image_size=image_size),
        ]
    )


@settings(max_examples=60, deadline=None)
@given(preparations(), st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=5))
def test_to_prepared_is_the_inverse_of_to_source(preparation: Preparation, points: list[tuple[float, float]]) -> None:
    back = preparation.to_prepared(preparation.to_source(points))
    torch.testing.assert_close(back, torch.tensor(points, dtype=torch.float64), atol=1e-9, rtol=0)


@settings(max_examples=30, deadline=None)
@given(preparations())
def test_json_round_trip_gives_an_equal_preparation(preparation: Preparation) -> None:
    assert Preparation.from_dict(json.loads(json.dumps(preparation.to_dict()))) == preparation


def test_tables_and_masks_survive_json() -> None:
    mask = np.zeros((6, 5), dtype=bool)
    mask[1:4, :3] = True
    table = Table(first=-5, entries=(0, 7, 4095), bits=12)
    background = Background.from_grid(mask, (60, 50))
    steps = (Display(VOIFunction.TABLE, voi_table=table, padding=(0.0, 3.0)), background, Stretch(low=0.1, high=0.7))
    preparation = Preparation((60, 50), steps)
    again = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    assert again == preparation
    np.testing.assert_array_equal(again.steps[1].grid_mask(), mask)


@pytest.mark.parametrize("first", [True, False])
def test_background_keeps_exactly_the_encoded_pixels(first: bool) -> None:
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    mask[0, 0] = first
    background = Background.from_grid(mask, (7, 9))
    np.testing.assert_array_equal(background.apply(torch.ones(1, 7, 9))[0].numpy().astype(bool), mask)


def test_gradient_through_the_whole_preparation_equals_finite_differences() -> None:
    mask = np.ones((4, 4), dtype=bool)
    mask[:, 3] = False
    table = Table(first=0, entries=(0, 10, 90, 200, 255), bits=8)
    for display in (
        Display(VOIFunction.SIGMOID, centre=2.0, width=3.0, invert=True),
        Display(VOIFunction.TABLE, voi_table=table, slope=1.1, intercept=-0.2),
        Display(VOIFunction.LINEAR, centre=2.0, width=9.0),
    ):
        steps = (
            display,
            Background.from_grid(mask, (8, 8)),
            Crop(1, 0, 6, 7),
            Flip(width=7),
            Resize((6, 7), (4, 5)),
            Pad(1, 2),
        )
        preparation = Preparation((8, 8), steps)
        generator = torch.Generator().manual_seed(0)
        stored = (0.3 + 3.1 * torch.rand(8, 8, generator=generator, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(preparation.apply, (stored,))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(8, 9\).*recorded on \(8, 8\)"):
        Preparation((8, 8)).apply(torch.zeros(8, 9))


@pytest.mark.parametrize("remove_background", [True, False])
@pytest.mark.parametrize("stretch", [True, False])
def test_replay_gives_the_tensor_of_the_chain(tmp_path, remove_background: bool, stretch: bool) -> None:
    scene = breast_scene(200, 150, chest_wall="right")
    path = write_png(tmp_path / "breast.png", scene)
    transforms = [
        ReadMammogramd(keys="image"),
        ApplyWindowd(keys="image"),
        SegmentBreastd(keys="image", remove_background=remove_background),
        *([StretchContrastd(keys="image")] if stretch else []),
        CropToBreastd(keys="image"),
        OrientChestWalld(keys="image"),
        ResizeImaged(keys="image", image_size=(64, 48)),
    ]
    item = prepare_item(Compose(transforms), {"image": path, "laterality": "R", "view": "CC"})
    stored = torch.from_numpy(np.rint(scene * 255).astype(np.uint8))
    preparation = Preparation.from_dict(json.loads(json.dumps(item["preparation"].to_dict())))
    assert torch.equal(preparation.apply(stored), item["image"])
    replayed = preparation.apply(stored_tensor(stored.numpy()))  # step by step, as an attack sees it
    assert (replayed - item["image"]).abs().max() < 0.5 / 65535
