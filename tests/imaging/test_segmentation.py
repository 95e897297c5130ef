"""The breast is found on made-up scenes with known masks, and letters, frames and labels are not."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon2mask

from pipeline.imaging import Refusal, segment_breast

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
