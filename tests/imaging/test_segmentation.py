"""The breast is found on made-up scenes with known masks, and letters, frames and labels are not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon2mask

from pipeline.imaging import Refusal, segment_breast
from pipeline.imaging.plausibility import check_mask

from .scenes import breast_mask, breast_scene


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * (found & true).sum() / (found.sum() + true.sum())


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize(("background", "noise"), [(0.0, 0.0), (0.05, 0.02), (0.25, 0.03)])
@pytest.mark.parametrize("contrast", [1.0, 0.1])
def test_breast_is_found_whatever_background_noise_and_contrast(chest_wall, background, noise, contrast) -> None:
    scene = contrast * breast_scene(400, 300, chest_wall=chest_wall, background=background, noise=noise)
    assert _dice(segment_breast(scene), breast_mask(400, 300, chest_wall=chest_wall)) > 0.96


def test_letters_labels_and_film_edges_are_left_out() -> None:
    scene = breast_scene(400, 300, background=0.15)
    clutter = np.zeros(scene.shape, dtype=bool)
    for row in (20, 45):  # slanted strokes of letters at the far side
        clutter |= polygon2mask(scene.shape, [(row, 230), (row + 4, 230), (row + 24, 280), (row + 20, 280)])
    scene[clutter] = 1.0
    blanked = np.s_[340:380, 200:280]
    scene[blanked] = 0.0
    edges = np.zeros(scene.shape, dtype=bool)
    edges[:8], edges[:, :6] = True, True
    scene[edges] = 1.0
    found = segment_breast(scene)
    assert not found[clutter].any() and not found[blanked].any()
    assert found[edges].mean() < 0.05
    assert _dice(found, breast_mask(400, 300) & ~edges) > 0.94


@pytest.mark.parametrize("column", [0, 3, 9, 15])
@pytest.mark.parametrize("radius", [2, 5, 9])
def test_bright_calcification_near_the_chest_wall_stays_in_the_breast(column: int, radius: int) -> None:
    scene = breast_scene(400, 300)
    spot = np.hypot(*np.ogrid[-180:220, -column : 300 - column]) < radius
    scene[spot] = 1.0
    assert segment_breast(scene)[spot].all()


def test_mask_does_not_depend_on_the_scale_of_grey() -> None:
    scene = breast_scene(400, 300)
    np.testing.assert_array_equal(segment_breast(scene), segment_breast(0.25 * scene))


def test_full_resolution_and_reduced_picture_agree() -> None:
    scene = breast_scene(800, 600)
    small = segment_breast(scene.reshape(400, 2, 300, 2).mean(axis=(1, 3)))
    assert _dice(segment_breast(scene), np.kron(small, np.ones((2, 2), dtype=bool))) > 0.98


def _lettering() -> np.ndarray:
    scene = np.zeros((400, 300))
    for row in range(20, 380, 30):
        for column in range(10, 250, 12):
            scene[row : row + 8, column : column + 3] = 1.0
    return scene


@pytest.mark.parametrize(
    "scene",
    [
        np.zeros((200, 150)),
        np.full((200, 150), 0.4),
        np.random.default_rng(0).random((200, 150)) * 0.1,
        _lettering(),
        np.hypot(*np.ogrid[-100:100, -75:75]) < 30,
    ],
    ids=["black", "grey", "noise", "lettering", "disc in the middle"],
)
def test_pictures_without_a_breast_are_refused(scene: np.ndarray) -> None:
    with pytest.raises(Refusal) as caught:
        segment_breast(scene.astype(np.float32))
    assert caught.value.code == "no_breast"


def _noise_floor(scene: np.ndarray) -> np.ndarray:
    return np.clip(scene + 0.04 * np.random.default_rng(1).standard_normal(scene.shape), 0, 1)


def _film_frame(scene: np.ndarray) -> np.ndarray:
    scene[:9] = scene[-7:] = 1.0
    scene[:, -12:] = 1.0
    return scene


def _blanked_labels(scene: np.ndarray) -> np.ndarray:
    scene[scene < 0.2] += 0.2  # film that is not black, apart from what was blanked
    scene[20:60, 200:290] = scene[330:390, 150:280] = 0.0
    return scene


def _slanted_letters(scene: np.ndarray) -> np.ndarray:
    for row in (15, 40, 330):
        for column in (215, 240, 265):
            corners = [(row, column), (row + 4, column), (row + 18, column + 16), (row + 14, column + 16)]
            scene[polygon2mask(scene.shape, corners)] = 1.0
    return scene


def _label_at_the_skin(scene: np.ndarray) -> np.ndarray:
    scene[50:80, 120:290] = 0.8
    return scene


def _clip_in_the_air(scene: np.ndarray) -> np.ndarray:
    scene[180:220, 250:254] = scene[198:202, 230:290] = 1.0
    return scene


def _step_wedge(scene: np.ndarray) -> np.ndarray:
    for step in range(8):
        scene[40 * step + 40 : 40 * step + 80, 272:] = 0.12 * step
    return scene


def _faint_beside_a_bright_muscle(scene: np.ndarray) -> np.ndarray:
    scene = np.rint(4 * np.where(scene > 0.2, scene, 0)) / 255  # a few grey levels above black
    triangle = breast_mask(400, 300) & (np.add.outer(np.arange(400) / 280, np.arange(300) / 240) < 1)
    return np.where(triangle, 0.9, scene)


def _dense(scene: np.ndarray) -> np.ndarray:
    return np.where(breast_mask(400, 300), 0.92 + 0.08 * scene, scene)


def _fat(scene: np.ndarray) -> np.ndarray:
    return np.where(breast_mask(400, 300), 0.25 * scene, 0.2 * scene)


def _light_from_one_side(scene: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[0:1:400j, 0:1:300j]
    return np.clip(0.5 * scene + 0.2 * columns**2 + 0.1 * rows, 0, 1)


TRAPS = (
    _noise_floor, _film_frame, _blanked_labels, _slanted_letters, _label_at_the_skin, _clip_in_the_air, _step_wedge,
    _faint_beside_a_bright_muscle, _dense, _fat, _light_from_one_side,
)  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__.strip("_").replace("_", " "))
@pytest.mark.parametrize("chest_wall", ["left", "right"])
def test_breast_is_found_in_spite_of(trap, chest_wall) -> None:
    scene, true = trap(breast_scene(400, 300)), breast_mask(400, 300)
    true = true & ~((scene == 1).all(axis=1)[:, None] | (scene == 1).all(axis=0))  # the frame hides a part
    if chest_wall == "right":
        scene, true = scene[:, ::-1], true[:, ::-1]
    found = segment_breast(scene)
    assert _dice(found, true) > 0.95
    assert not found[:, 290:].any() if chest_wall == "left" else not found[:, :10].any()


@pytest.mark.parametrize("chest_wall", ["left", "right"])
def test_breast_that_touches_three_edges_is_found_whole(chest_wall) -> None:
    rows, columns = np.mgrid[:400, :300]
    true = columns < 170 + 60 * np.sin(np.pi * rows / 400)
    texture = breast_scene(400, 300, seed=2)
    scene = np.where(true, 0.4 + 0.2 * texture, 0.05 + 0.01 * texture)
    if chest_wall == "right":
        scene, true = scene[:, ::-1], true[:, ::-1]
    assert _dice(segment_breast(scene), true) > 0.98


@pytest.mark.parametrize("row", [120, 200, 270])
@pytest.mark.parametrize("column", [2, 60, 120])
def test_clip_in_the_breast_stays(row: int, column: int) -> None:
    scene = breast_scene(400, 300)
    clip = np.s_[row : row + 3, column : column + 14]
    scene[clip] = 1.0
    assert segment_breast(scene)[clip].all()


def test_dark_fat_at_the_chest_wall_is_filled() -> None:
    scene = breast_scene(400, 300)
    scene[150:240, :60] = 0.05
    assert segment_breast(scene)[150:240, :60].mean() > 0.95


def _true_mask_check(scene: np.ndarray, mask: np.ndarray) -> tuple[str, ...]:
    return check_mask(scene, mask, chest_wall="left").faults


def test_check_names_what_is_wrong_with_a_mask() -> None:
    scene, mask = breast_scene(300, 300), breast_mask(300, 300)
    assert _true_mask_check(scene, mask) == ()
    assert check_mask(scene[:, ::-1], mask[:, ::-1], chest_wall="right").faults == ()
    assert check_mask(scene, mask, chest_wall="right").faults == ("chest wall",)
    split = mask.copy()
    split[140:150] = False
    assert "components" in _true_mask_check(scene, split)
    assert "area" in _true_mask_check(scene, mask & (np.indices(mask.shape)[0] > 240))
    assert "area" in _true_mask_check(scene, np.ones_like(mask))
    scene[30:50, 240:244] = scene[30:34, 220:260] = 1.0
    wide = mask.copy()
    wide[10:100, :290] = True
    assert _true_mask_check(scene, mask) == () and "letters" in _true_mask_check(scene, wide)


def test_doubt_grows_as_an_outline_leaves_the_skin() -> None:
    scene, mask = breast_scene(300, 300), breast_mask(300, 300)
    doubts = [check_mask(scene, ndimage.binary_erosion(mask, iterations=n), chest_wall="left").doubt for n in (1, 15)]
    assert check_mask(scene, mask, chest_wall="left").doubt < 0.1 and doubts[0] < 0.1 < doubts[1]


def test_films_of_a_real_archive_give_plausible_masks(real_data: Path) -> None:
    root = real_data / "ddsm-small"
    with (root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::23]
    wrong = []
    for row in rows:
        pixels = np.asarray(Image.open(root / row["image"]), dtype=np.float32) / 255
        wall = "left" if (row["laterality"] == "L") != (row["scanner_group"] == "A") else "right"
        check = check_mask(pixels, segment_breast(pixels), chest_wall=wall)
        wrong += [(row["image"], check.faults)] if check.faults else []
    assert len(wrong) <= 0.03 * len(rows), wrong
